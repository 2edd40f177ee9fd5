#include "audit_check/row_bounds.h"

#include <cblas.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "parallel.h"

extern "C" {
/// LAPACK: eigenvalues il to iu, from the least, of a symmetric matrix, and their vectors.
void dsyevr_(const char* vectors, const char* range, const char* half, const int* n, double* a, const int* lda,
             const double* least, const double* most, const int* il, const int* iu, const double* tolerance, int* found,
             double* values, double* z, const int* ldz, int* support, double* work, const int* lwork, int* iwork,
             const int* liwork, int* info);
}

namespace tuiqiao::checking {

namespace {

constexpr double kFloatUnit = 0x1p-24, kUnit = 0x1p-53;
constexpr double kOutward = 1 + 1e-6;
constexpr std::size_t kMostDirections = 256, kSampled = 8192, kSampledPairs = 512;
constexpr std::int64_t kFewRows = 2048;  // below which directions are not worth finding
constexpr double kPairCost = 8;    // of a product in float64 with a row from anywhere, in a float32 product of a tile
constexpr double kTooLong = 1e15;  // float32 products might overflow

/// gamma_n of float32.
double gamma(std::size_t n) {
  const double error = static_cast<double>(n) * kFloatUnit;
  return error < 0.5 ? error / (1 - error) * kOutward : std::numeric_limits<double>::infinity();
}

float below(double x) { return std::nextafter(static_cast<float>(x), -std::numeric_limits<float>::infinity()); }
float above(double x) { return std::nextafter(static_cast<float>(x), std::numeric_limits<float>::infinity()); }

double length_of(const float* x, std::size_t n) {
  double squares = 0;
  for (std::size_t j = 0; j < n; ++j) squares += static_cast<double>(x[j]) * static_cast<double>(x[j]);
  return std::sqrt(squares);
}

double length_of(const std::vector<double>& x) {
  double squares = 0;
  for (const double entry : x) squares += entry * entry;
  return std::sqrt(squares);
}

}  // namespace

RowBounds::RowBounds(const CheckedRows& rows, std::vector<float> shift) : rows_(rows), shift_(std::move(shift)) {
  const auto classes = static_cast<std::size_t>(rows.classes());
  const std::size_t n = rows.columns();
  std::vector<double> lengths(classes);
  constexpr std::int64_t kPart = 256;
  parallel_for((rows.classes() + kPart - 1) / kPart, [&](std::int64_t part) {
    std::vector<float> y(n);
    for (std::int64_t i = part * kPart; i < std::min(rows.classes(), (part + 1) * kPart); ++i) {
      shifted(i, y.data());
      // y was rounded once more.
      lengths[static_cast<std::size_t>(i)] = length_of(y.data(), n) * kOutward + rows.rounding(i) + 1e-300;
    }
  });
  order_.resize(classes);
  std::iota(order_.begin(), order_.end(), 0);
  std::sort(order_.begin(), order_.end(), [&](std::int64_t a, std::int64_t b) {
    const double x = lengths[static_cast<std::size_t>(a)], y = lengths[static_cast<std::size_t>(b)];
    return x != y ? x > y : a < b;
  });
  places_.resize(classes);
  lengths_.resize(classes);
  for (std::size_t place = 0; place < classes; ++place) {
    const auto i = static_cast<std::size_t>(order_[place]);
    places_[i] = place;
    lengths_[place] = lengths[i];
    largest_rounding_ = std::max(largest_rounding_, rows.rounding(order_[place]));
  }
}

void RowBounds::shifted(std::int64_t row, float* to) const {
  const float* from = rows_.rounded(row);
  for (std::size_t j = 0; j < shift_.size(); ++j) to[j] = from[j] - shift_[j];
}

WitnessBound RowBounds::witness(const WitnessClaim& claim, const std::vector<double>& z) const {
  const std::size_t n = z.size();
  WitnessBound made;
  made.limit = order_.size();
  // By a power of 2, which rounds nothing.
  const double raw = length_of(z);
  const int exponent = raw > 0 && std::isfinite(raw) ? -std::ilogb(raw) : 0;
  std::vector<double> scaled(n), own(n);
  bool is_exact = raw > 1e-140 && std::isfinite(raw);
  for (std::size_t j = 0; j < n; ++j) {
    scaled[j] = std::ldexp(z[j], exponent);
    is_exact = is_exact && std::ldexp(scaled[j], -exponent) == z[j];
  }
  const double length = length_of(scaled) * kOutward;
  std::vector<float> rounded(n);
  double lost = 0;
  for (std::size_t j = 0; j < n; ++j) {
    rounded[j] = static_cast<float>(scaled[j]);
    lost += (scaled[j] - static_cast<double>(rounded[j])) * (scaled[j] - static_cast<double>(rounded[j]));
  }
  lost = std::sqrt(lost) * kOutward + 1e-30;

  const double error = rows_.row(claim.k, own.data());
  double product = 0, size = 0;
  for (std::size_t j = 0; j < n; ++j) {
    const auto shift = static_cast<double>(shift_[j]);
    product += scaled[j] * (own[j] - shift);
    size += std::abs(scaled[j]) * (std::abs(own[j]) + std::abs(shift));
  }
  const double margin = rows_.has_bias() ? std::ldexp(claim.margin, exponent) : claim.margin * length;
  made.own =
      product - (static_cast<double>(n + 8) * 2 * kUnit * size + error * length + margin * 1e-9) * kOutward - margin;
  if (!is_exact) made.own = -std::numeric_limits<double>::infinity();
  // Products of numbers below float32's range.
  made.extra = 1.2 * length * largest_rounding_ + static_cast<double>(n + 8) * 0x1p-118;

  if (directions_.empty()) {
    made.packed = std::move(rounded);
    made.slack = (gamma(n + 2) * 1.05 * length + lost + 2 * kFloatUnit * length) * kOutward;
  } else {
    const double root = std::sqrt(static_cast<double>(count_));
    std::vector<double> rest(scaled);
    for (std::size_t t = 0; t < count_; ++t) {
      const float* direction = directions_.data() + t * n;
      double part = 0;
      for (std::size_t j = 0; j < n; ++j) part += scaled[j] * static_cast<double>(direction[j]);
      made.packed.push_back(static_cast<float>(part));
      const auto kept = static_cast<double>(made.packed.back());
      for (std::size_t j = 0; j < n; ++j) rest[j] -= kept * static_cast<double>(direction[j]);
    }
    made.packed.push_back(
        above(length_of(rest) * kOutward + static_cast<double>(count_ + 2) * 3 * kUnit * (1 + 1.1 * root) * length));
    const double part_error = (1.01 * kFloatUnit + root * static_cast<double>(n + 8) * 1.2 * kUnit) * (1 + tilt_);
    made.slack = length * kOutward *
                 ((1 + tilt_) * (1.1 * tilt_ + 1.2 * root * gamma(n) + 2 * kFloatUnit) + 1.2 * part_error +
                  2.5 * gamma(count_ + 2));
  }
  const double short_of = (made.own - made.extra) / (length * kOutward) * (1 - 1e-9);
  if (short_of > 0)
    made.limit = static_cast<std::size_t>(
        std::partition_point(lengths_.begin(), lengths_.end(), [&](double l) { return !(l < short_of); }) -
        lengths_.begin());
  return made;
}

const float* RowBounds::packed(std::size_t from, std::size_t count, std::vector<float>& scratch) const {
  if (!directions_.empty()) return parts_.data() + from * width();
  scratch.resize(count * width());
  for (std::size_t i = 0; i < count; ++i) shifted(order_[from + i], scratch.data() + i * width());
  return scratch.data();
}

float RowBounds::threshold(const WitnessBound& bound, std::size_t from) const {
  const double longest = lengths_[from];
  if (!(longest < kTooLong)) return -std::numeric_limits<float>::infinity();
  return below(bound.own - bound.slack * longest - bound.extra);
}

std::vector<float> RowBounds::principal_directions(std::size_t most) const {
  const std::size_t n = rows_.columns(), step = std::max<std::size_t>(1, order_.size() / kSampled);
  std::vector<float> sample;
  std::size_t count = 0;
  for (std::size_t place = 0; place < order_.size(); place += step, ++count) {
    sample.resize((count + 1) * n);
    shifted(order_[place], sample.data() + count * n);
  }
  const int size = static_cast<int>(n), first = size - static_cast<int>(most) + 1;
  std::vector<float> products(n * n);
  cblas_ssyrk(CblasRowMajor, CblasUpper, CblasTrans, size, static_cast<int>(count), 1, sample.data(), size, 0,
              products.data(), size);
  std::vector<double> moments(products.begin(), products.end()), values(n), vectors(n * most);
  std::vector<int> support(2 * most), integers(10 * n);
  std::vector<double> work(40 * n);
  const double zero = 0;
  const int lwork = static_cast<int>(work.size()), liwork = static_cast<int>(integers.size());
  int found = 0, info = 0;
  dsyevr_("V", "I", "L", &size, moments.data(), &size, &zero, &zero, &first, &size, &zero, &found, values.data(),
          vectors.data(), &size, support.data(), work.data(), &lwork, integers.data(), &liwork, &info);
  if (info != 0 || found != static_cast<int>(most)) return {};
  std::vector<float> directions(most * n);
  for (std::size_t t = 0; t < most; ++t) {  // the most telling first
    for (std::size_t j = 0; j < n; ++j) directions[t * n + j] = static_cast<float>(vectors[(most - 1 - t) * n + j]);
  }
  const bool fine = std::all_of(directions.begin(), directions.end(), [](float x) { return std::isfinite(x); });
  return fine ? directions : std::vector<float>{};
}

void RowBounds::choose_directions(const std::vector<const WitnessClaim*>& of, const std::vector<std::vector<double>>& z,
                                  std::size_t claims) {
  const std::size_t n = rows_.columns(), most = std::min(kMostDirections, n / 2);
  if (rows_.classes() < kFewRows || most < 4 || claims < 64) return;
  std::vector<float> directions = principal_directions(most);
  if (directions.empty()) return;
  const std::size_t best = least_work(directions, most, of, z);
  if (best == 0) return;
  count_ = best;
  directions.resize(best * n);
  directions_ = std::move(directions);
  measure_tilt();
  if (!(tilt_ < 0.01)) {  // the bounds below are for directions that are nearly orthonormal
    directions_.clear();
    count_ = 0;
    return;
  }
  split_rows();
}

std::size_t RowBounds::least_work(const std::vector<float>& directions, std::size_t most,
                                  const std::vector<const WitnessClaim*>& of,
                                  const std::vector<std::vector<double>>& z) const {
  const std::size_t n = rows_.columns();
  const auto parts_of = [&](const std::vector<double>& x) {
    std::vector<double> parts(most);
    for (std::size_t t = 0; t < most; ++t) {
      for (std::size_t j = 0; j < n; ++j) parts[t] += x[j] * static_cast<double>(directions[t * n + j]);
    }
    return parts;
  };
  const auto as_doubles = [&](std::int64_t row) {
    std::vector<float> y(n);
    shifted(row, y.data());
    return std::vector<double>(y.begin(), y.end());
  };
  std::vector<std::size_t> tried;
  for (std::size_t r = 8; r < most; r *= 2) tried.push_back(r);
  tried.push_back(most);
  std::vector<double> left(tried.size(), 0);
  std::vector<std::vector<double>> row_parts;
  std::vector<double> row_squares;
  for (std::size_t s = 0; s < kSampledPairs; ++s) {
    const std::vector<double> y = as_doubles(order_[s * order_.size() / kSampledPairs]);
    row_parts.push_back(parts_of(y));
    row_squares.push_back(length_of(y) * length_of(y));
  }
  for (std::size_t w = 0; w < z.size(); ++w) {
    const std::vector<double> q = parts_of(z[w]), own = as_doubles(of[w]->k);
    const double squares = length_of(z[w]) * length_of(z[w]);
    double least = 0;
    for (std::size_t j = 0; j < n; ++j) least += z[w][j] * own[j];
    for (std::size_t s = 0; s < kSampledPairs; ++s) {
      if (order_[s * order_.size() / kSampledPairs] == of[w]->k) continue;
      const std::vector<double>& p = row_parts[s];
      double product = 0, rest_z = squares, rest_y = row_squares[s];
      for (std::size_t t = 0, at = 0; t < most; ++t) {
        product += p[t] * q[t];
        rest_z -= q[t] * q[t];
        rest_y -= p[t] * p[t];
        if (t + 1 != tried[at]) continue;
        if (product + std::sqrt(std::max(rest_z, 0.0) * std::max(rest_y, 0.0)) >= least) ++left[at];
        ++at;
      }
    }
  }
  std::size_t best = 0;
  auto least = static_cast<double>(n);
  for (std::size_t at = 0; at < tried.size(); ++at) {
    const double share = left[at] / static_cast<double>(z.size() * kSampledPairs);
    const double cost = static_cast<double>(tried[at]) + 8 + share * static_cast<double>(n) * kPairCost;
    if (cost < least) {
      least = cost;
      best = tried[at];
    }
  }
  return best;
}

void RowBounds::measure_tilt() {
  const std::size_t n = rows_.columns();
  const std::vector<double> exact(directions_.begin(), directions_.end());
  const int r = static_cast<int>(count_), size = static_cast<int>(n);
  std::vector<double> gram(count_ * count_);
  cblas_dgemm(CblasRowMajor, CblasNoTrans, CblasTrans, r, r, size, 1, exact.data(), size, exact.data(), size, 0,
              gram.data(), r);
  double squares = 0;
  for (std::size_t a = 0; a < count_; ++a) {
    for (std::size_t b = 0; b < count_; ++b) {
      const double off = std::abs(gram[a * count_ + b] - (a == b ? 1 : 0)) + static_cast<double>(n + 8) * 4 * kUnit;
      squares += off * off;
    }
  }
  tilt_ = std::sqrt(squares) * kOutward;
}

void RowBounds::split_rows() {
  const std::size_t n = rows_.columns(), rows = order_.size(), width = count_ + 1;
  const double root = std::sqrt(static_cast<double>(count_));
  const double rounding = gamma(count_ + 2) * (1 + 1.2 * root) + 2 * kFloatUnit;
  parts_.resize(rows * width);
  constexpr std::size_t kPart = 256;
  parallel_for(static_cast<std::int64_t>((rows + kPart - 1) / kPart), [&](std::int64_t part) {
    const std::size_t from = static_cast<std::size_t>(part) * kPart, count = std::min(kPart, rows - from);
    std::vector<float> y(count * n);
    for (std::size_t i = 0; i < count; ++i) shifted(order_[from + i], y.data() + i * n);
    const int m = static_cast<int>(count), r = static_cast<int>(count_), size = static_cast<int>(n);
    float* p = parts_.data() + from * width;
    cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, m, r, size, 1, y.data(), size, directions_.data(), size, 0, p,
                static_cast<int>(width));
    cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, m, size, r, -1, p, static_cast<int>(width),
                directions_.data(), size, 1, y.data(), size);
    for (std::size_t i = 0; i < count; ++i)
      p[i * width + count_] = above(length_of(y.data() + i * n, n) * kOutward + rounding * lengths_[from + i] +
                                    rows_.rounding(order_[from + i]) + static_cast<double>(n + 8) * 0x1p-118);
  });
}

}  // namespace tuiqiao::checking
