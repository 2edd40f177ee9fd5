#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "audit/problem.h"
#include "tuiqiao/audit.h"

namespace tuiqiao::auditing {

/// Bounds on how far class k can lead: on the largest, over z of the domain of length 1, of the least z . (x_k - x_i).
/// `rows`, `weights`: a convex combination (kBiasGenerator may be among them), whose x_k - x_i add up to a vector that
/// is no shorter than any lead. Without them the nearest of `near` bounds it. The vector is also a witness, whose own
/// lead is the lower bound; of heads with more than 10^7 numbers, which that would read for each class, there is none.
LeadBounds lead_bounds(const Problem& problem, std::int64_t k, std::span<const std::int64_t> rows,
                       std::span<const double> weights, std::span<const std::int64_t> near);

}  // namespace tuiqiao::auditing
