#pragma once

#include <cstdint>
#include <vector>

#include "audit/problem.h"

namespace tuiqiao::auditing {

inline constexpr double kFloatUnit = 0x1p-24;  // the relative error of one operation in float32
inline constexpr double kOutward = 1 + 1e-6;   // for the roundings of the bounds themselves

/// gamma_n of float32: the relative error of a sum of n terms, and of a product of as many.
double float_gamma(std::size_t n);

/// Rows y_i = (x_i - shift) unit in float32, the longest first, with bounds of what rounding took; the unit makes the
/// longest about 1 long. Of heads with biases the bias column may be left out.
class ShiftedRows {
 public:
  ShiftedRows(const Problem& problem, const std::vector<std::int64_t>& groups, std::vector<float> shift,
              std::size_t columns);

  bool is_usable() const { return usable_; }
  std::size_t size() const { return names_.size(); }
  std::size_t columns() const { return columns_; }
  std::int64_t name(std::size_t at) const { return names_[at]; }
  /// Upper bound of the length of the exact y_i and of its rounded form.
  double length(std::size_t at) const { return lengths_[at]; }
  double longest() const { return longest_; }
  /// Bound on the length of what the rounded y_i differs from the exact one by.
  double blur() const { return blur_; }
  double unit() const { return static_cast<double>(unit_); }
  double shift(std::size_t column) const { return static_cast<double>(shift_[column]); }

  void write(std::size_t at, float* to) const;
  /// The row before it is multiplied by the unit, where there is no shift and no product with it leaves float32; else
  /// nothing.
  const float* plain(std::size_t at) const { return plain_ ? problem_.approximate(names_[at]) : nullptr; }
  /// Puts the rows in another order.
  void sort(const std::vector<std::size_t>& order);

 private:
  const Problem& problem_;
  std::size_t columns_;
  std::vector<float> shift_;
  float unit_ = 1;
  std::vector<std::int64_t> names_;
  std::vector<double> lengths_;
  double longest_ = 0, blur_ = 0;
  bool usable_ = false, plain_ = false;
};

}  // namespace tuiqiao::auditing
