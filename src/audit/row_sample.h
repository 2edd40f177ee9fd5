#pragma once

#include <cstdint>
#include <vector>

#include "audit/problem.h"

namespace tuiqiao::auditing {

/// Rows, evenly spread, whose hull probably holds what lies deep inside, with their inner products: those of their
/// differences from any x_k follow, so that they are multiplied once for all classes.
class RowSample {
 public:
  /// Of heads without biases. `groups`: representatives of the rows that differ. Cost: O(m^2 n) for
  /// m = 9/4 n + 64 rows.
  RowSample(const Problem& problem, const std::vector<std::int64_t>& groups, const std::vector<float>& centre);

  /// Whether there are enough rows for a sample.
  static bool is_possible(const Problem& problem, const std::vector<std::int64_t>& groups);

  /// In ascending order.
  const std::vector<std::int64_t>& rows() const { return rows_; }
  std::vector<std::int64_t> rows_but(std::int64_t k) const;
  bool has(std::int64_t i) const;

  /// to[a step + b] = (x_k - x_i) . (x_k - x_j) times `factor`, of the a-th and b-th of rows_but(k).
  void write_products(std::int64_t k, double factor, double* to, std::size_t step) const;

 private:
  /// Row i less the centre.
  void write(std::int64_t i, double* to) const;

  const Problem& problem_;
  const std::vector<float>& centre_;
  std::vector<std::int64_t> rows_;
  std::vector<double> values_, products_;  ///< of rows less the centre
};

}  // namespace tuiqiao::auditing
