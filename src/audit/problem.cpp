#include "audit/problem.h"

#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <stdexcept>
#include <unordered_map>

#include "audit/spread.h"
#include "tuiqiao/error.h"

namespace tuiqiao::auditing {

namespace {

constexpr double kUnit = 0x1p-53;  // of float64: the relative error of one operation

void check_shapes(const OutputHead& head) {
  const auto wrong = [](const char* what, std::size_t has, std::int64_t wants) {
    throw std::invalid_argument(fmt::format("[audit] {} has {} entries, not {}", what, has, wants));
  };
  if (head.classes < 1 || head.columns < 1)
    throw std::invalid_argument(fmt::format("[audit] {} x {}: no class or no column", head.classes, head.columns));
  if (static_cast<std::int64_t>(head.rows.size()) != head.classes * head.columns)
    wrong("the matrix", head.rows.size(), head.classes * head.columns);
  if (!head.bias.empty() && static_cast<std::int64_t>(head.bias.size()) != head.classes)
    wrong("the bias", head.bias.size(), head.classes);
  if (!head.gain.empty() && static_cast<std::int64_t>(head.gain.size()) != head.columns)
    wrong("the norm's gain", head.gain.size(), head.columns);
  if (!head.shift.empty() && static_cast<std::int64_t>(head.shift.size()) != head.columns)
    wrong("the norm's shift", head.shift.size(), head.columns);
}

template <class T>
void check_finite(const std::vector<T>& values, std::int64_t columns, const char* what) {
  for (std::size_t i = 0; i < values.size(); ++i) {
    if (std::isfinite(values[i])) continue;
    const auto at = static_cast<std::int64_t>(i);
    throw Error(columns > 1 ? fmt::format("{}: row {}, column {} is {}", what, at / columns, at % columns, values[i])
                            : fmt::format("{}: entry {} is {}", what, at, values[i]));
  }
}

}  // namespace

Rational dot(const RationalVector& a, const RationalVector& b) {
  Rational sum = 0;
  for (std::size_t j = 0; j < a.size(); ++j) {
    if (sgn(a[j]) != 0 && sgn(b[j]) != 0) sum += a[j] * b[j];
  }
  return sum;
}

Problem::Problem(const OutputHead& head, std::optional<double> radius) : head_(head) {
  check_shapes(head);
  if (radius && !(*radius > 0 && std::isfinite(*radius)))
    throw std::invalid_argument(fmt::format("[audit] radius = {} is not positive", *radius));
  if (radius && head.norm != HeadNorm::none)
    throw std::invalid_argument("[audit] a radius beside a norm, which has a ball of its own");
  check_finite(head.rows, head.columns, "the matrix");
  check_finite(head.bias, 1, "the bias");
  check_finite(head.gain, 1, "the norm's gain");
  check_finite(head.shift, 1, "the norm's shift");
  centred_ = head.norm == HeadNorm::layer;
  settle_biases(radius);
  choose_columns();
  make_approximate();
  group_equal_rows();
}

double Problem::gain(std::size_t column) const {
  return head_.norm == HeadNorm::none || head_.gain.empty() ? 1 : static_cast<double>(head_.gain[column]);
}

void Problem::settle_biases(std::optional<double> radius) {
  const bool shifted = head_.norm == HeadNorm::layer &&
                       std::any_of(head_.shift.begin(), head_.shift.end(), [](float b) { return b != 0; });
  const bool unequal = std::any_of(head_.bias.begin(), head_.bias.end(), [&](double b) { return b != head_.bias[0]; });
  has_bias_ = shifted || unequal;
  ball_ = has_bias_ && (radius || head_.norm != HeadNorm::none);
  // Without biases z may be scaled column by column, but a projection does not commute with that.
  scaled_ = head_.norm != HeadNorm::none && (has_bias_ || centred_);
  if (!ball_) return;
  const Rational r = radius ? Rational(*radius) : Rational(0);
  radius_squared_ = radius ? Rational(r * r) : Rational(static_cast<double>(head_.columns));
  radius_ = radius ? *radius : std::sqrt(static_cast<double>(head_.columns));
}

void Problem::choose_columns() {
  const auto columns = static_cast<std::size_t>(head_.columns), classes = static_cast<std::size_t>(head_.classes);
  std::vector<bool> varies(columns, centred_);
  for (std::size_t i = 1; !centred_ && i < classes; ++i) {
    for (std::size_t j = 0; j < columns; ++j) varies[j] = varies[j] || head_.rows[i * columns + j] != head_.rows[j];
    if (i % 64 == 0 && std::all_of(varies.begin(), varies.end(), [](bool v) { return v; })) break;
  }
  for (std::size_t j = 0; j < columns; ++j) {
    if (varies[j] && (centred_ || gain(j) != 0)) kept_.push_back(j);
  }
  columns_ = kept_.size() + (has_bias_ ? 1 : 0);
}

double Problem::row(std::int64_t i, double* out) const {
  const float* from = head_.rows.data() + i * head_.columns;
  const std::size_t count = kept_.size();
  for (std::size_t j = 0; j < count; ++j) out[j] = static_cast<double>(from[kept_[j]]) * (scaled_ ? gain(kept_[j]) : 1);
  double error = 0;  // products of two float32 are exact
  if (centred_) {
    double sum = 0, squares = 0;
    for (std::size_t j = 0; j < count; ++j) {
      sum += out[j];
      squares += out[j] * out[j];
    }
    for (std::size_t j = 0; j < count; ++j) out[j] -= sum / static_cast<double>(count);
    error = static_cast<double>(count + 8) * kUnit * std::sqrt(squares);
  }
  if (!has_bias_) return error;
  double bias = head_.bias.empty() ? 0 : head_.bias[static_cast<std::size_t>(i)], size = std::abs(bias);
  if (head_.norm == HeadNorm::layer) {
    for (std::size_t j = 0; j < head_.shift.size(); ++j) {
      const double term = static_cast<double>(from[j]) * static_cast<double>(head_.shift[j]);
      bias += term;
      size += std::abs(term);
    }
    error += static_cast<double>(head_.shift.size() + 8) * kUnit * size;
  }
  out[count] = bias;
  return error;
}

RationalVector Problem::exact_row(std::int64_t i) const {
  const float* from = head_.rows.data() + i * head_.columns;
  RationalVector row(columns_);
  Rational sum = 0;
  for (std::size_t j = 0; j < kept_.size(); ++j) {
    row[j] = Rational(static_cast<double>(from[kept_[j]]));
    if (scaled_) row[j] *= Rational(gain(kept_[j]));
    sum += row[j];
  }
  if (centred_) {
    sum /= static_cast<unsigned long>(kept_.size());
    for (std::size_t j = 0; j < kept_.size(); ++j) row[j] -= sum;
  }
  if (!has_bias_) return row;
  Rational& bias = row.back();
  if (!head_.bias.empty()) bias = Rational(head_.bias[static_cast<std::size_t>(i)]);
  if (head_.norm == HeadNorm::layer) {
    for (std::size_t j = 0; j < head_.shift.size(); ++j)
      bias += Rational(static_cast<double>(from[j])) * Rational(static_cast<double>(head_.shift[j]));
  }
  return row;
}

bool Problem::is_in_domain(std::span<const double> z) const {
  if (!std::all_of(z.begin(), z.end(), [](double x) { return std::isfinite(x); })) return false;
  if (!has_bias_) return true;
  if (!(z.back() > 0)) return false;
  if (!ball_) return true;
  double squares = 0;
  for (std::size_t j = 0; j + 1 < z.size(); ++j) squares += z[j] * z[j];
  const double outward = 1 + static_cast<double>(z.size() + 8) * 4 * kUnit;
  const double edge = radius_ * radius_ * z.back() * z.back();
  return squares * outward + 1e-300 < edge && std::isfinite(edge);
}

bool Problem::is_in_domain(const RationalVector& z) const {
  if (!has_bias_) return true;
  if (sgn(z.back()) <= 0) return false;
  if (!ball_) return true;
  RationalVector rest(z.begin(), z.end() - 1);
  if (centred_) {
    Rational mean = 0;
    for (const Rational& x : rest) mean += x;
    mean /= static_cast<unsigned long>(rest.size());
    for (Rational& x : rest) x -= mean;
  }
  return dot(rest, rest) < radius_squared_ * z.back() * z.back();
}

void Problem::make_approximate() {
  const bool whole = kept_.size() == static_cast<std::size_t>(head_.columns);
  if (whole && !scaled_ && !has_bias_ && !centred_) {
    approximate_ = head_.rows.data();
    return;
  }
  const auto classes = static_cast<std::size_t>(head_.classes);
  own_.resize(classes * columns_);
  errors_.resize(classes);
  constexpr std::int64_t kPart = 256;
  spread((head_.classes + kPart - 1) / kPart, static_cast<double>(head_.rows.size()), [&](std::int64_t part) {
    std::vector<double> exact(columns_);
    for (std::int64_t i = part * kPart; i < std::min(head_.classes, (part + 1) * kPart); ++i) {
      const double error = row(i, exact.data());
      float* to = own_.data() + static_cast<std::size_t>(i) * columns_;
      double squares = 0;
      for (std::size_t j = 0; j < columns_; ++j) {
        to[j] = static_cast<float>(exact[j]);
        const double lost = exact[j] - static_cast<double>(to[j]);
        squares += lost * lost;
      }
      errors_[static_cast<std::size_t>(i)] = error + std::sqrt(squares) * (1 + 1e-10);
    }
  });
  approximate_ = own_.data();
  if (std::all_of(errors_.begin(), errors_.end(), [](double e) { return e == 0; })) errors_.clear();
  for (const float value : own_) {
    if (!std::isfinite(value)) throw Error("the matrix times the norm's gain, or the bias, is beyond float32");
  }
}

std::vector<double> Problem::key_of(std::int64_t i) const {
  const float* row = head_.rows.data() + i * head_.columns;
  std::vector<double> key;
  const auto entry = [&](std::size_t j) { return static_cast<double>(row[kept_[j]]) * (scaled_ ? gain(kept_[j]) : 1); };
  for (std::size_t j = centred_ ? 1 : 0; j < kept_.size(); ++j) {
    if (!centred_) {
      key.push_back(entry(j) + 0.0);  // -0 as 0
      continue;
    }
    // Rows that differ by the same number in all columns are equal: the difference to the first entry, and exactly what
    // its rounding lost.
    const double a = entry(j), b = -entry(0), sum = a + b, part = sum - a;
    key.push_back(sum + 0.0);
    key.push_back((a - (sum - part)) + (b - part) + 0.0);
  }
  return key;
}

bool Problem::same(std::int64_t i, std::int64_t k) const {
  if (key_of(i) != key_of(k)) return false;
  if (!has_bias_) return true;
  if (head_.norm == HeadNorm::layer) return exact_row(i).back() == exact_row(k).back();
  return head_.bias[static_cast<std::size_t>(i)] == head_.bias[static_cast<std::size_t>(k)];
}

void Problem::group_equal_rows() {
  const auto hash_of = [&](std::int64_t i) {
    std::uint64_t hash = 0x9E3779B97F4A7C15U;
    for (const double value : key_of(i)) {
      hash = (hash ^ std::bit_cast<std::uint64_t>(value)) * 0xFF51AFD7ED558CCDU;
      hash ^= hash >> 29;
    }
    return hash;
  };
  std::vector<std::uint64_t> hashes(static_cast<std::size_t>(classes()));
  spread(classes(), static_cast<double>(head_.rows.size()),
         [&](std::int64_t i) { hashes[static_cast<std::size_t>(i)] = hash_of(i); });
  std::unordered_multimap<std::uint64_t, std::int64_t> first;
  group_.resize(hashes.size());
  for (std::int64_t i = 0; i < classes(); ++i) {
    const auto at = static_cast<std::size_t>(i);
    group_[at] = i;
    const auto [begin, end] = first.equal_range(hashes[at]);
    for (auto it = begin; it != end && group_[at] == i; ++it) {
      if (same(i, it->second)) group_[at] = it->second;
    }
    if (group_[at] == i) first.emplace(hashes[at], i);
  }
}

}  // namespace tuiqiao::auditing
