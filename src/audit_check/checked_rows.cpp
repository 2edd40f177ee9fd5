#include "audit_check/checked_rows.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "parallel.h"
#include "tuiqiao/error.h"

namespace tuiqiao::checking {

namespace {

constexpr double kUnit = 0x1p-53;

[[noreturn]] void refuse(const std::string& problem) { throw Error("the certificates are " + problem); }

template <class T>
void expect(const std::vector<T>& values, const std::string& checksum, const char* what) {
  const std::string found = values.empty() ? "" : checksum_of(values.data(), values.size() * sizeof(T));
  if (found != checksum) refuse(fmt::format("of another head: its {} differ", what));
}

template <class T>
bool all_finite(const std::vector<T>& values) {
  return std::all_of(values.begin(), values.end(), [](T x) { return std::isfinite(x); });
}

}  // namespace

mpq_class dot(const std::vector<mpq_class>& a, const std::vector<mpq_class>& b) {
  mpq_class sum = 0;
  for (std::size_t j = 0; j < a.size(); ++j) {
    if (a[j] != 0 && b[j] != 0) sum += a[j] * b[j];
  }
  return sum;
}

CheckedRows::CheckedRows(const OutputHead& head, const CertificateHeader& header)
    : head_(head),
      has_bias_(header.frame.has_bias),
      has_ball_(header.frame.has_ball),
      centred_(head.norm == HeadNorm::layer),
      scaled_(head.norm != HeadNorm::none && (has_bias_ || centred_)) {
  check_shapes(header);
  check_checksums(header);
  if (!has_bias_) check_biases();
  if (has_ball_ && !has_bias_) refuse("damaged: a ball without biases");
  if (has_bias_ && head.norm != HeadNorm::none && !has_ball_) refuse("damaged: biases and a norm, but no ball");
  if (has_ball_) {
    const mpq_class radius(header.frame.radius);
    radius_squared_ =
        head.norm == HeadNorm::none ? mpq_class(radius * radius) : mpq_class(static_cast<double>(head.columns));
    if (head.norm != HeadNorm::none && header.frame.radius != std::sqrt(static_cast<double>(head.columns)))
      refuse("damaged: the radius is not the norm's");
  }
  keep_columns();
  if (static_cast<std::int64_t>(columns_) != header.frame.columns)
    refuse(fmt::format("damaged: {} columns matter, not {}", columns_, header.frame.columns));
  round_rows();
}

void CheckedRows::check_shapes(const CertificateHeader& header) const {
  if (head_.classes != header.frame.classes || head_.columns != header.head_columns)
    refuse(fmt::format("of another head: {} x {}, not {} x {}", header.frame.classes, header.head_columns,
                       head_.classes, head_.columns));
  const auto classes = static_cast<std::size_t>(head_.classes), columns = static_cast<std::size_t>(head_.columns);
  const auto fits = [](std::size_t has, std::size_t wants) { return has == 0 || has == wants; };
  if (head_.rows.size() != classes * columns || !fits(head_.bias.size(), classes) ||
      !fits(head_.gain.size(), columns) || !fits(head_.shift.size(), columns))
    throw Error("the head's bias, gain or shift does not fit its rows");
  if (!all_finite(head_.rows) || !all_finite(head_.bias) || !all_finite(head_.gain) || !all_finite(head_.shift))
    throw Error("the head has numbers that are not finite");
  if (head_.norm != header.norm) refuse(fmt::format("for norm {}, not {}", name(header.norm), name(head_.norm)));
}

void CheckedRows::check_checksums(const CertificateHeader& header) const {
  expect(head_.rows, header.rows_crc, "rows");
  expect(head_.bias, header.bias_crc, "biases");
  expect(head_.norm == HeadNorm::none ? std::vector<float>{} : head_.gain, header.gain_crc, "norm's gains");
  expect(head_.norm == HeadNorm::layer ? head_.shift : std::vector<float>{}, header.shift_crc, "norm's shifts");
}

/// Without a column of biases they must not matter.
void CheckedRows::check_biases() const {
  const bool unequal = std::any_of(head_.bias.begin(), head_.bias.end(), [&](double b) { return b != head_.bias[0]; });
  const bool shifted = centred_ && std::any_of(head_.shift.begin(), head_.shift.end(), [](float b) { return b != 0; });
  if (unequal || shifted) refuse("damaged: they leave out the biases");
}

double CheckedRows::factor(std::size_t column) const {
  return scaled_ && !head_.gain.empty() ? static_cast<double>(head_.gain[column]) : 1;
}

void CheckedRows::keep_columns() {
  const auto columns = static_cast<std::size_t>(head_.columns);
  for (std::size_t j = 0; j < columns; ++j) {
    const bool passes = centred_ || head_.norm == HeadNorm::none || head_.gain.empty() || head_.gain[j] != 0;
    bool varies = centred_;
    for (std::int64_t i = 1; passes && !varies && i < head_.classes; ++i)
      varies = head_.rows[static_cast<std::size_t>(i) * columns + j] != head_.rows[j];
    if (passes && varies) kept_.push_back(j);
  }
  columns_ = kept_.size() + (has_bias_ ? 1 : 0);
}

mpq_class CheckedRows::exact_bias(std::int64_t i) const {
  mpq_class bias = head_.bias.empty() ? 0 : mpq_class(head_.bias[static_cast<std::size_t>(i)]);
  if (!centred_) return bias;
  const float* from = head_.rows.data() + i * head_.columns;
  for (std::size_t j = 0; j < head_.shift.size(); ++j)
    bias += mpq_class(static_cast<double>(from[j])) * mpq_class(static_cast<double>(head_.shift[j]));
  return bias;
}

double CheckedRows::row(std::int64_t i, double* to) const {
  const float* from = head_.rows.data() + i * head_.columns;
  const auto count = static_cast<double>(kept_.size());
  double error = 0;  // products of two float32 numbers are exact in float64
  for (std::size_t j = 0; j < kept_.size(); ++j) to[j] = static_cast<double>(from[kept_[j]]) * factor(kept_[j]);
  if (centred_) {
    double sum = 0, size = 0, squares = 0;
    for (std::size_t j = 0; j < kept_.size(); ++j) {
      sum += to[j];
      size += std::abs(to[j]);
      squares += to[j] * to[j];
    }
    const double mean = sum / count;
    for (std::size_t j = 0; j < kept_.size(); ++j) to[j] -= mean;
    // The mean's error in every column, and one rounding of each difference.
    error = ((count + 2) * kUnit * size / count * std::sqrt(count) + 2 * kUnit * std::sqrt(squares)) * 1.01;
  }
  if (!has_bias_) return error;
  double bias = head_.bias.empty() ? 0 : head_.bias[static_cast<std::size_t>(i)], size = std::abs(bias);
  for (std::size_t j = 0; centred_ && j < head_.shift.size(); ++j) {
    const double term = static_cast<double>(from[j]) * static_cast<double>(head_.shift[j]);
    bias += term;
    size += std::abs(term);
  }
  if (centred_) error += static_cast<double>(head_.shift.size() + 2) * kUnit * size * 1.01;
  to[kept_.size()] = bias;
  return error;
}

std::vector<mpq_class> CheckedRows::exact(std::int64_t i) const {
  const float* from = head_.rows.data() + i * head_.columns;
  std::vector<mpq_class> made(columns_);
  mpq_class sum = 0;
  for (std::size_t j = 0; j < kept_.size(); ++j) {
    made[j] = mpq_class(static_cast<double>(from[kept_[j]])) * mpq_class(factor(kept_[j]));
    sum += made[j];
  }
  if (centred_) {
    sum /= static_cast<unsigned long>(kept_.size());
    for (std::size_t j = 0; j < kept_.size(); ++j) made[j] -= sum;
  }
  if (has_bias_) made.back() = exact_bias(i);
  return made;
}

bool CheckedRows::same(std::int64_t a, std::int64_t b) const {
  if (a == b) return true;
  if (centred_) return exact(a) == exact(b);
  const float* x = head_.rows.data() + a * head_.columns;
  const float* y = head_.rows.data() + b * head_.columns;
  const bool rows = std::all_of(kept_.begin(), kept_.end(), [&](std::size_t j) { return x[j] == y[j]; });
  return rows && (!has_bias_ || exact_bias(a) == exact_bias(b));
}

void CheckedRows::round_rows() {
  if (columns_ == static_cast<std::size_t>(head_.columns) && !has_bias_ && !scaled_) {
    rounded_ = head_.rows.data();
    return;
  }
  own_.resize(static_cast<std::size_t>(head_.classes) * columns_);
  roundings_.resize(static_cast<std::size_t>(head_.classes));
  rounded_ = own_.data();
  constexpr std::int64_t kPart = 256;
  parallel_for((head_.classes + kPart - 1) / kPart, [&](std::int64_t part) {
    std::vector<double> from(columns_);
    for (std::int64_t i = part * kPart; i < std::min(head_.classes, (part + 1) * kPart); ++i) {
      const double error = row(i, from.data());
      double squares = 0;
      for (std::size_t j = 0; j < columns_; ++j) {
        float& to = own_[static_cast<std::size_t>(i) * columns_ + j];
        to = static_cast<float>(from[j]);
        const double lost = from[j] - static_cast<double>(to);
        squares += lost * lost;
      }
      roundings_[static_cast<std::size_t>(i)] = (error + std::sqrt(squares)) * (1 + 1e-9);
    }
  });
  if (!all_finite(own_)) throw Error("the rows times the norm's gain, or the biases, are beyond float32");
}

bool CheckedRows::is_in_domain(const std::vector<mpq_class>& z) const {
  if (!has_bias_) return true;
  if (z.back() <= 0) return false;
  if (!has_ball_) return true;
  std::vector<mpq_class> rest(z.begin(), z.end() - 1);
  if (centred_) {
    mpq_class mean = 0;
    for (const mpq_class& x : rest) mean += x;
    mean /= static_cast<unsigned long>(rest.size());
    for (mpq_class& x : rest) x -= mean;
  }
  return dot(rest, rest) < radius_squared_ * z.back() * z.back();
}

bool CheckedRows::is_in_domain(const std::vector<double>& z) const {
  if (!has_bias_) return true;
  if (!(z.back() > 0)) return false;
  if (!has_ball_) return true;
  double squares = 0;
  for (std::size_t j = 0; j + 1 < z.size(); ++j) squares += z[j] * z[j];
  const double edge = radius_squared_.get_d() * z.back() * z.back();
  // Projecting on sum = 0 only makes it shorter.
  if (squares * (1 + static_cast<double>(z.size() + 8) * 8 * kUnit) < edge && edge > 1e-290 && std::isfinite(edge))
    return true;
  return is_in_domain(std::vector<mpq_class>(z.begin(), z.end()));
}

}  // namespace tuiqiao::checking
