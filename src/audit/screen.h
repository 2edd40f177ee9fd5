#pragma once

#include <cstdint>
#include <stop_token>
#include <vector>

#include "audit/problem.h"
#include "audit/shifted_rows.h"
#include "audit/witness_check.h"

namespace tuiqiao::auditing {

/// Checks for many classes whether their own rows are witnesses, multiplying little. Rows y_i = x_i - shift are split
/// into their part p_i in a few principal directions and a rest, of whose length a bound is kept. Then y_k . y_i is at
/// most
///   p_k . p_i + |rest_k| |rest_i| + a slack for what roundings and the directions' own errors do,
/// and rows that this leaves below y_k . y_k are settled. Lengths alone settle the rows that come last in their order.
/// What a few directions leave is looked at in more of them, then by a product in float32, then exactly.
/// Where biases count the witness is (y_k, |y_k| / reach) and the order that of |y_i| + bias_i / reach.
class Screen {
 public:
  /// `shift`: as many numbers as columns, or none for 0. `groups`: the rows that count. `reach`: of the frame.
  Screen(const Problem& problem, const std::vector<std::int64_t>& groups, const std::vector<float>& shift, double reach,
         std::size_t most_directions = 256);

  /// False where the rows' numbers are beyond what float32 multiplies.
  bool is_usable() const { return rows_.is_usable(); }

  /// As check_all_rows for the witnesses of the rule `row` or `centred` by `frame`, but a losing class names only the
  /// first rows found that beat it, and a winning one a lower bound of its margin. An outcome depends on its class
  /// alone. A stop leaves outcomes unfinished.
  std::vector<WitnessOutcome> check(const AuditFrame& frame, WitnessRule rule, const std::vector<std::int64_t>& ks,
                                    const std::stop_token& stop, AuditEffort& effort) const;

 private:
  struct Witness;
  struct Task;
  void order_rows();
  void find_directions();
  void find_parts();
  void choose_few();
  void find_bounds();
  void pack_rows();
  Witness witness_of(std::size_t at) const;
  void look_closer(Task& task, std::size_t c, std::size_t at) const;
  void walk(Task& task) const;
  /// Lower bound of the product of a row's direction with it.
  double own(std::size_t at) const;
  /// How many rows come before those that are too short to reach it.
  std::size_t limit_of(double own) const;
  /// Upper bound of the length of what the first directions leave of a row.
  double rest(std::size_t at, std::size_t directions) const;
  const float* part(std::size_t at) const { return parts_.data() + at * more_; }

  const Problem& problem_;
  ShiftedRows rows_;
  double reach_;
  std::size_t few_ = 0, more_ = 0;
  std::vector<float> directions_;  ///< more x columns, nearly orthonormal
  double tilt_ = 0;                ///< bound of |directions directions' - 1|
  double spill_ = 0;               ///< times a length: bound of what parts differ from products with the directions
  std::vector<double> norms_;      ///< of the rounded rows
  std::vector<float> parts_;       ///< a row: `more` numbers in the directions
  std::vector<float> rest_few_, rest_more_;  ///< upper bounds of the rests' lengths
  std::vector<double> bias_;                 ///< bias_i / reach, less that of some row; 0 where none counts
  double bias_blur_ = 0;                     ///< bound on their errors
  std::vector<double> heights_;              ///< upper bounds of |y_i| + bias_i, falling
  std::vector<std::size_t> place_;           ///< of a class among the rows
  double unit_few_ = 0, unit_z_ = 0;         ///< of the packed numbers of rows and of witnesses
  double slack_few_ = 0, slack_more_ = 0;    ///< beside products of a witness of length 1
  std::vector<std::int16_t> packed_;
  std::size_t pairs_ = 0;
};

}  // namespace tuiqiao::auditing
