#pragma once

#include <gmpxx.h>

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "tuiqiao/audit.h"

namespace tuiqiao::auditing {

using Rational = mpq_class;
using RationalVector = std::vector<Rational>;

/// An output head as rows x_i of n columns, such that class k can win if and only if some z of the domain has
/// z . (x_k - x_i) > 0 for every other i. Where biases count, the last column holds them and the domain asks for
/// z_n > 0 (the hidden vector is then the rest of z over z_n) and, in a ball of radius R, for |rest of z| < R z_n.
///
/// What is dropped, since it changes no difference or no verdict: columns that are the same in all rows or that the
/// norm's gain makes 0; equal biases; the gain of RMSNorm and the ball where no bias counts, for z may be scaled.
/// With LayerNorm rows are projected on sum = 0, which is right for any z: its own projection is what u is.
class Problem {
 public:
  /// Keeps a reference to `head`. `radius`: |z| < radius, for heads without a norm.
  /// Throws: std::invalid_argument on shapes that do not fit or a radius that is not positive or has a norm beside it;
  /// tuiqiao::Error on weights that are not finite.
  Problem(const OutputHead& head, std::optional<double> radius);

  std::int64_t classes() const { return head_.classes; }
  std::size_t columns() const { return columns_; }
  /// Without that of the biases.
  std::size_t linear_columns() const { return columns_ - (has_bias_ ? 1 : 0); }
  bool has_bias() const { return has_bias_; }
  bool has_ball() const { return ball_; }
  /// Rows lie in the hyperplane sum = 0 of the columns before the bias.
  bool centred() const { return centred_; }
  /// Of centred rows the last column before the bias follows from the others; otherwise columns(), none does.
  std::size_t dependent_column() const { return centred_ ? linear_columns() - 1 : columns_; }
  /// Largest number of independent differences of rows that is possible.
  std::size_t dimension() const { return columns_ - (centred_ ? 1 : 0); }
  /// The ball's radius, squared and exact.
  const Rational& radius_squared() const { return radius_squared_; }
  double radius() const { return radius_; }
  /// Whether z is in the domain, beyond the rounding of what is computed here.
  bool is_in_domain(std::span<const double> z) const;
  bool is_in_domain(const RationalVector& z) const;

  /// Row i rounded to float32, and a bound on the norm of what rounding took from it.
  const float* approximate(std::int64_t i) const { return approximate_ + static_cast<std::size_t>(i) * columns_; }
  double approximate_error(std::int64_t i) const { return errors_.empty() ? 0 : errors_[static_cast<std::size_t>(i)]; }

  /// Whether those are held beside the head's.
  bool owns_rows() const { return !own_.empty(); }

  /// Row i in float64, and a bound on the norm of its error.
  double row(std::int64_t i, double* out) const;
  /// Row i itself.
  RationalVector exact_row(std::int64_t i) const;

  /// For each class the first class with the same row and bias.
  const std::vector<std::int64_t>& group() const { return group_; }

 private:
  void choose_columns();
  void settle_biases(std::optional<double> radius);
  void make_approximate();
  void group_equal_rows();
  /// Numbers that two rows share if and only if they are equal but for biases.
  std::vector<double> key_of(std::int64_t i) const;
  bool same(std::int64_t i, std::int64_t k) const;
  double gain(std::size_t column) const;

  const OutputHead& head_;
  std::vector<std::size_t> kept_;  ///< columns of the head
  std::size_t columns_ = 0;
  bool has_bias_ = false, ball_ = false, centred_ = false, scaled_ = false;
  Rational radius_squared_;
  double radius_ = 0;
  const float* approximate_ = nullptr;
  std::vector<float> own_;
  std::vector<double> errors_;
  std::vector<std::int64_t> group_;
};

/// Inner products in exact arithmetic.
Rational dot(const RationalVector& a, const RationalVector& b);

}  // namespace tuiqiao::auditing
