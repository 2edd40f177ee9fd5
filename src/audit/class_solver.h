#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "audit/problem.h"
#include "audit/row_sample.h"

namespace tuiqiao::auditing {

/// What the rows looked at so far say of a class.
struct Attempt {
  bool has_witness = false;
  std::vector<double> z;           ///< leads all of them, in the domain; of float32 numbers unless `precise`
  std::vector<std::int64_t> rows;  ///< without a witness: rows (and kBiasGenerator) whose hull holds x_k, or whose
  std::vector<double> weights;     ///< weights keep it below in the ball
};

/// The vector that leads the rows taken in by the most for its length: the shortest vector of the hull of the
/// differences x_k - x_i, where biases count with the condition z_n > 0 or, in a ball, tangents of its cone as far as
/// needed. What was found before more rows came is where it starts from.
/// Cost: O(r n) for each of r rows taken in, O(r s) for each of the steps to a support of s.
class ClassSolver {
 public:
  /// `reach` scales the bias column. Keeps a reference to `problem`.
  ClassSolver(const Problem& problem, std::int64_t k, AuditSolver solver, double reach);
  ~ClassSolver();
  ClassSolver(const ClassSolver&) = delete;
  ClassSolver& operator=(const ClassSolver&) = delete;

  void add(std::span<const std::int64_t> rows);
  /// All rows of a sample but x_k; none of them may have been taken in.
  void add(const RowSample& sample);
  Attempt solve(bool precise);

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace tuiqiao::auditing
