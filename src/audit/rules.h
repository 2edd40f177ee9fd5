#pragma once

#include <cstdint>
#include <vector>

#include "audit/problem.h"

namespace tuiqiao::auditing {

/// The frame's shared vectors: the centre is the mean row, the whitening the inverse of the rows' covariance. Rows are
/// taken once a group.
AuditFrame frame_of(const Problem& problem, const std::vector<std::int64_t>& groups);
/// Fills in the whitening. False where the covariance is no use for it.
bool add_whitening(const Problem& problem, const std::vector<std::int64_t>& groups, AuditFrame& frame);

/// The witness of a rule for class k.
std::vector<double> witness_of(const Problem& problem, const AuditFrame& frame, WitnessRule rule, std::int64_t k);

}  // namespace tuiqiao::auditing
