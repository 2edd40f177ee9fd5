#pragma once

#include <gmpxx.h>

#include <cstdint>
#include <vector>

#include "audit_check/certificate_file.h"
#include "tuiqiao/audit.h"

namespace tuiqiao::checking {

/// The rows that certificates speak of, made from the head alone. Of the header only the layout is taken, and only
/// where it is right: whether a column of biases is the last one, and the radius for heads without a norm.
///
/// Columns in which all rows agree or that RMSNorm's gain makes 0 are left out. Entries are multiplied by the gain
/// where biases count or with LayerNorm, whose rows are then projected on sum = 0, and whose biases are b + w . shift.
class CheckedRows {
 public:
  /// Keeps a reference to `head`.
  /// Throws: tuiqiao::Error where the header is of another head or claims what does not hold.
  CheckedRows(const OutputHead& head, const CertificateHeader& header);

  std::int64_t classes() const { return head_.classes; }
  std::size_t columns() const { return columns_; }
  std::size_t linear_columns() const { return kept_.size(); }
  bool has_bias() const { return has_bias_; }
  bool has_ball() const { return has_ball_; }
  bool centred() const { return centred_; }
  /// Most independent differences of rows.
  std::size_t dimension() const { return columns_ - (centred_ ? 1 : 0); }
  const mpq_class& radius_squared() const { return radius_squared_; }

  /// Row i in float64; returns a bound on the length of its error.
  double row(std::int64_t i, double* to) const;
  /// Row i in float32, and a bound on the length of its error.
  const float* rounded(std::int64_t i) const { return rounded_ + static_cast<std::size_t>(i) * columns_; }
  double rounding(std::int64_t i) const { return roundings_.empty() ? 0 : roundings_[static_cast<std::size_t>(i)]; }
  std::vector<mpq_class> exact(std::int64_t i) const;
  /// Whether two rows are the same, exactly.
  bool same(std::int64_t a, std::int64_t b) const;
  /// Whether the hidden vector can be z; exact.
  bool is_in_domain(const std::vector<double>& z) const;
  bool is_in_domain(const std::vector<mpq_class>& z) const;

 private:
  void check_shapes(const CertificateHeader& header) const;
  void check_checksums(const CertificateHeader& header) const;
  void check_biases() const;
  mpq_class exact_bias(std::int64_t i) const;
  double factor(std::size_t column) const;
  void keep_columns();
  void round_rows();

  const OutputHead& head_;
  std::vector<std::size_t> kept_;
  std::size_t columns_ = 0;
  bool has_bias_, has_ball_, centred_, scaled_;
  mpq_class radius_squared_;
  const float* rounded_ = nullptr;
  std::vector<float> own_;
  std::vector<double> roundings_;
};

mpq_class dot(const std::vector<mpq_class>& a, const std::vector<mpq_class>& b);

}  // namespace tuiqiao::checking
