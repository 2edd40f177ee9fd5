#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "audit_check/checked_rows.h"
#include "tuiqiao/progress.h"

namespace tuiqiao::checking {

/// That z . (x_k - x_i) is positive for every other class i, and at least `margin` times the length of z (or just
/// `margin`, where biases count).
struct WitnessClaim {
  std::int64_t k = 0;
  double margin = 0;
  bool may_tie = false;   ///< tie_only: rows equal to k's are left out, and 0 is allowed where no margin is claimed
  std::vector<double> z;  ///< where its rule is WitnessRule::vector
};

struct MarginOptions {
  bool brute = false;  ///< multiply every witness by every row
  Progress progress;
};

/// What is wrong with each claim, "" where it holds. All of them follow `rule`.
///
/// Bounds stand in for most products: with rows y = x - shift, any matrix Q of nearly orthonormal rows and
/// p = Q y, e = y - Q'p, the product z . y is at most (Qz) . p + |z - Q'Qz| |e| and a slack for what rounding does to
/// p, e and Q. What is not settled so is multiplied in float64 with its error bound, then exactly.
std::vector<std::string> check_witnesses(const CheckedRows& rows, const AuditFrame& frame, WitnessRule rule,
                                         const std::vector<WitnessClaim>& claims, const MarginOptions& options);

}  // namespace tuiqiao::checking
