#pragma once

#include <cstdint>
#include <vector>

#include "audit_check/checked_rows.h"
#include "audit_check/margins.h"

namespace tuiqiao::checking {

/// A witness as RowBounds compares it, scaled by a power of 2.
struct WitnessBound {
  std::vector<float> packed;
  double own = 0;         ///< lower bound of z . y_k less the claimed margin
  double slack = 0;       ///< times a row's length: what rounding may add to its product
  double extra = 0;       ///< the same of all rows
  std::size_t limit = 0;  ///< rows from here on are too short to come near
};

/// All rows y = x - shift by length, the longest first, in a form in which float32 products with a WitnessBound are
/// upper bounds of z . y up to its slack: y itself, or p and |e| of check_witnesses.
class RowBounds {
 public:
  RowBounds(const CheckedRows& rows, std::vector<float> shift);

  /// Takes so many directions as make the work least for `claims` witnesses like those given; none where the whole
  /// product is less.
  void choose_directions(const std::vector<const WitnessClaim*>& of, const std::vector<std::vector<double>>& z,
                         std::size_t claims);

  WitnessBound witness(const WitnessClaim& claim, const std::vector<double>& z) const;
  /// Numbers of a row that are multiplied.
  std::size_t width() const { return directions_.empty() ? rows_.columns() : count_ + 1; }
  /// Rows from to from + count, made in `scratch` if need be.
  const float* packed(std::size_t from, std::size_t count, std::vector<float>& scratch) const;
  /// What products with rows from `from` on must stay below.
  float threshold(const WitnessBound& bound, std::size_t from) const;
  std::int64_t row_at(std::size_t place) const { return order_[place]; }
  std::size_t place_of(std::int64_t row) const { return places_[static_cast<std::size_t>(row)]; }

 private:
  void shifted(std::int64_t row, float* to) const;
  std::vector<float> principal_directions(std::size_t most) const;
  std::size_t least_work(const std::vector<float>& directions, std::size_t most,
                         const std::vector<const WitnessClaim*>& of, const std::vector<std::vector<double>>& z) const;
  void measure_tilt();
  void split_rows();

  const CheckedRows& rows_;
  std::vector<float> shift_;
  std::vector<std::int64_t> order_;
  std::vector<std::size_t> places_;
  std::vector<double> lengths_;    ///< upper bounds of |y|, by place
  double largest_rounding_ = 0;    ///< of a row in float32
  std::size_t count_ = 0;          ///< directions
  std::vector<float> directions_;  ///< count x columns
  double tilt_ = 0;                ///< bound of |Q Q' - 1|
  std::vector<float> parts_;       ///< p and |e|, by place
};

}  // namespace tuiqiao::checking
