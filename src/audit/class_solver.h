#pragma once

#include <cstdint>
#include <vector>

#include "audit/problem.h"

namespace tuiqiao::auditing {

/// What the rows looked at so far say of a class.
struct Attempt {
  bool has_witness = false;
  std::vector<double> z;           ///< leads all of them, in the domain; of float32 numbers unless `precise`
  std::vector<std::int64_t> rows;  ///< without a witness: rows (and kBiasGenerator) whose hull holds x_k, or whose
  std::vector<double> weights;     ///< weights keep it below in the ball
};

/// The vector that leads `rows` by the most for its length: the shortest vector of the hull of the differences
/// x_k - x_i, where biases count with the condition z_n > 0 or, in a ball, tangents of its cone as far as needed.
/// `reach` scales the bias column. Cost: O(r^2 n) for r rows.
Attempt solve_class(const Problem& problem, std::int64_t k, const std::vector<std::int64_t>& rows, AuditSolver solver,
                    double reach, bool precise);

}  // namespace tuiqiao::auditing
