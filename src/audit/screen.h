#pragma once

#include <cstdint>
#include <vector>

#include "audit/problem.h"
#include "audit/witness_check.h"

namespace tuiqiao::auditing {

/// Checks witnesses against all rows while multiplying little. Rows y_i = x_i - shift are split into their part p_i in
/// a few principal directions and a rest; so is a witness z, into q and its rest. Then z . y_i is at most
///   p_i . q + |rest_i| |rest_z| + a slack for what float32 and the directions' own errors do,
/// and rows that this leaves below z . y_k are settled. Lengths alone settle the rows that come last in their order.
/// What a few directions leave is looked at in more of them, then by a product in float32, then exactly.
class Screen {
 public:
  /// `shift`: as many numbers as columns, or none for 0. `groups`: the rows that count.
  Screen(const Problem& problem, const std::vector<std::int64_t>& groups, const std::vector<float>& shift);

  /// As check_all_rows, but a losing class names only the first rows found that beat it, and a winning one a lower
  /// bound of its margin.
  std::vector<WitnessOutcome> check(const std::vector<std::int64_t>& ks, const std::vector<double>& z,
                                    AuditEffort& effort) const;

  std::size_t few() const { return few_; }
  std::size_t more() const { return more_; }

 private:
  struct Witness;
  struct Task;
  void find_directions();
  void split_rows();
  void pack_rows();
  void choose_few();
  Witness witness_of(std::int64_t k, const double* z) const;
  /// False where the row is the class's own.
  bool look_closer(Task& task, std::size_t c, std::uint32_t sorted) const;
  static std::vector<float>& task_row();

  const Problem& problem_;
  std::vector<std::int64_t> rows_;  ///< by length, the longest first
  std::vector<float> shift_;
  std::size_t few_ = 0, more_ = 0;
  std::vector<float> directions_;            ///< more x columns, nearly orthonormal
  double tilt_ = 0;                          ///< bound of |directions directions' - 1|
  double spill_ = 0;                         ///< times a length: bound of |directions rest|
  std::vector<float> parts_;                 ///< a row: `more` numbers in the directions
  std::vector<double> lengths_;              ///< upper bounds of |y_i|
  std::vector<float> rest_few_, rest_more_;  ///< upper bounds of the rests' lengths
  std::vector<float> packed_;                ///< in blocks, for scan()
};

}  // namespace tuiqiao::auditing
