#include "audit/witness_check.h"

#include <cblas.h>
#include <omp.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "audit/difference_product.h"
#include "audit/shifted_rows.h"
#include "audit/spread.h"
#include "serial_blas.h"

namespace tuiqiao::auditing {

namespace {

constexpr double kUnit = 0x1p-53;

double length_of(const double* z, std::size_t n) {
  double squares = 0;
  for (std::size_t j = 0; j < n; ++j) squares += z[j] * z[j];
  return std::sqrt(squares) * (1 + static_cast<double>(n + 4) * kUnit);
}

Rational exact_margin(const Problem& problem, std::int64_t k, std::int64_t i, const double* z) {
  const RationalVector own = problem.exact_row(k), other = problem.exact_row(i);
  Rational sum = 0;
  for (std::size_t j = 0; j < own.size(); ++j) sum += Rational(z[j]) * (own[j] - other[j]);
  return sum;
}

/// A row that may reach class k, with a bound on its product.
struct Rival {
  double most;
  std::int64_t row;
};

/// The rows nearest to one class, kept few.
class Rivals {
 public:
  /// Rows of smaller products are of no interest: no row that was left out has a larger one.
  double floor() const { return floor_; }
  void add(std::int64_t row, double least, double most) {
    list_.push_back({most, row});
    next_ = std::max(next_, least);
    if (list_.size() >= 2 * kKept) shrink();
  }
  /// Those that may come before the class, whose own product is `own` at least, or next to it.
  std::vector<std::int64_t> decisive(double own) const { return above(std::min(next_, own)); }
  std::vector<std::int64_t> all() const { return above(-std::numeric_limits<double>::infinity()); }

 private:
  static constexpr std::size_t kKept = 2 * kMostClose;

  std::vector<std::int64_t> above(double least) const {
    std::vector<std::int64_t> rows;
    for (const Rival& rival : list_) {
      if (rival.most >= least) rows.push_back(rival.row);
    }
    std::sort(rows.begin(), rows.end());
    return rows;
  }
  void shrink() {
    const auto nearer = [](const Rival& a, const Rival& b) {
      return a.most != b.most ? a.most > b.most : a.row < b.row;
    };
    std::nth_element(list_.begin(), list_.begin() + kKept, list_.end(), nearer);
    for (auto it = list_.begin() + kKept; it != list_.end(); ++it) floor_ = std::max(floor_, it->most);
    list_.resize(kKept);
  }
  std::vector<Rival> list_;
  double next_ = -std::numeric_limits<double>::infinity(), floor_ = next_;
};

constexpr std::size_t kRowTile = 1024, kClassTile = 192;

/// Witnesses of some classes, in float32.
struct Tile {
  std::vector<std::int64_t> ks;
  std::vector<float> z;
  std::vector<double> own;    ///< lower bound of z . x_k
  std::vector<double> slack;  ///< times a row's length: bound on the error of its float32 product
  std::vector<double> extra;  ///< times a row's rounding error
};

Tile tile_of(const Problem& problem, const std::vector<std::int64_t>& ks, const std::vector<double>& z,
             std::size_t from, std::size_t to) {
  const std::size_t n = problem.columns();
  Tile tile;
  tile.ks.assign(ks.begin() + static_cast<std::ptrdiff_t>(from), ks.begin() + static_cast<std::ptrdiff_t>(to));
  std::vector<double> own(n);
  for (std::size_t c = from; c < to; ++c) {
    const double* from_z = z.data() + c * n;
    const double length = length_of(from_z, n), scale = length > 0 ? 1 / length : 1;
    double lost = 0, product = 0, size = 0;
    const double error = problem.row(ks[c], own.data());
    for (std::size_t j = 0; j < n; ++j) {
      const double scaled = from_z[j] * scale;
      const auto rounded = static_cast<float>(scaled);
      tile.z.push_back(rounded);
      lost += (scaled - static_cast<double>(rounded)) * (scaled - static_cast<double>(rounded));
      product += scaled * own[j];
      size += std::abs(scaled * own[j]);
    }
    tile.own.push_back(product - size * static_cast<double>(n + 8) * 2 * kUnit - 2 * error - 1e-290);
    tile.slack.push_back((float_gamma(n + 4) + std::sqrt(lost) + 1e-14) * (1 + 1e-9));
    tile.extra.push_back(1 + 1e-6);
  }
  return tile;
}

}  // namespace

std::vector<double> lengths_of(const Problem& problem) {
  const std::size_t n = problem.columns();
  std::vector<double> lengths(static_cast<std::size_t>(problem.classes()));
  spread(problem.classes(), static_cast<double>(problem.classes()) * static_cast<double>(n), [&](std::int64_t i) {
    const float* row = problem.approximate(i);
    double squares = 0;
    for (std::size_t j = 0; j < n; ++j) squares += static_cast<double>(row[j]) * static_cast<double>(row[j]);
    lengths[static_cast<std::size_t>(i)] =
        std::sqrt(squares) * (1 + static_cast<double>(n + 8) * kUnit) + problem.approximate_error(i);
  });
  return lengths;
}

WitnessOutcome compare_exactly(const Problem& problem, std::int64_t k, const double* z,
                               const std::vector<std::int64_t>& rivals) {
  const std::size_t n = problem.columns();
  const double length = length_of(z, n);
  std::vector<double> own(n), other(n);
  const double own_error = problem.row(k, own.data());
  const std::int64_t group = problem.group()[static_cast<std::size_t>(k)];
  WitnessOutcome outcome;
  outcome.wins = true;
  outcome.margin = std::numeric_limits<double>::infinity();
  std::vector<std::pair<double, std::int64_t>> violators, all;
  for (const std::int64_t i : rivals) {
    if (problem.group()[static_cast<std::size_t>(i)] == group) continue;
    const double error = own_error + problem.row(i, other.data());
    const ProductBound margin = difference_product(z, own.data(), other.data(), n);
    const double bound = margin.size * static_cast<double>(n + 8) * 2 * kUnit + error * length * (1 + 1e-9) + 1e-290;
    double value = margin.value;
    bool positive = value > bound;
    if (!positive && value >= -bound) {
      const Rational exact = exact_margin(problem, k, i, z);
      positive = sgn(exact) > 0;
      value = positive ? std::min(exact.get_d(), bound) : std::min(exact.get_d(), 0.0);
    } else if (!std::isfinite(value) || !std::isfinite(bound)) {
      positive = false;
    }
    if (!positive) violators.emplace_back(value, i);
    all.emplace_back(value, i);
    outcome.margin = std::min(outcome.margin, value);
  }
  std::sort(violators.begin(), violators.end());
  outcome.wins = violators.empty();
  for (const auto& [value, i] : violators) {
    if (outcome.violators.size() < kMostViolators) outcome.violators.push_back(i);
  }
  if (!outcome.wins) {
    std::sort(all.begin(), all.end());
    for (const auto& [value, i] : all) {
      if (outcome.close.size() < kMostClose) outcome.close.push_back(i);
    }
  }
  return outcome;
}

std::vector<WitnessOutcome> check_all_rows(const Problem& problem, const std::vector<double>& lengths,
                                           const std::vector<std::int64_t>& ks, const std::vector<double>& z) {
  const std::size_t n = problem.columns(), count = ks.size();
  const auto classes = static_cast<std::size_t>(problem.classes());
  const auto threads = static_cast<std::size_t>(omp_get_max_threads());
  const std::size_t tile_size = std::clamp<std::size_t>((count + threads - 1) / threads, 1, kClassTile);
  std::vector<WitnessOutcome> outcomes(count);
  const SerialBlas single;
  spread(static_cast<std::int64_t>((count + tile_size - 1) / tile_size), static_cast<double>(count * classes * n),
         [&](std::int64_t part) {
           const std::size_t from = static_cast<std::size_t>(part) * tile_size, to = std::min(count, from + tile_size);
           const Tile tile = tile_of(problem, ks, z, from, to);
           std::vector<Rivals> rivals(to - from);
           std::vector<float> products((to - from) * kRowTile);
           for (std::size_t first = 0; first < classes; first += kRowTile) {
             const std::size_t rows = std::min(kRowTile, classes - first);
             cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, static_cast<int>(to - from), static_cast<int>(rows),
                         static_cast<int>(n), 1, tile.z.data(), static_cast<int>(n),
                         problem.approximate(static_cast<std::int64_t>(first)), static_cast<int>(n), 0, products.data(),
                         static_cast<int>(kRowTile));
             for (std::size_t c = 0; c < to - from; ++c) {
               const float* product = products.data() + c * kRowTile;
               const std::int64_t group = problem.group()[static_cast<std::size_t>(tile.ks[c])];
               double floor = rivals[c].floor();
               for (std::size_t i = 0; i < rows; ++i) {
                 const std::size_t row = first + i;
                 const double error = tile.slack[c] * lengths[row] +
                                      tile.extra[c] * problem.approximate_error(static_cast<std::int64_t>(row)) + 1e-40;
                 const double value = static_cast<double>(product[i]);
                 const bool known = std::isfinite(value) && std::isfinite(error);  // a product may have overflowed
                 if (known && value + error < floor) continue;
                 if (problem.group()[row] == group || problem.group()[row] != static_cast<std::int64_t>(row)) continue;
                 rivals[c].add(static_cast<std::int64_t>(row), known ? value - error : -HUGE_VAL,
                               known ? value + error : HUGE_VAL);
                 floor = rivals[c].floor();
               }
             }
           }
           for (std::size_t c = 0; c < to - from; ++c) {
             WitnessOutcome& outcome = outcomes[from + c];
             const double* own_z = z.data() + (from + c) * n;
             outcome = compare_exactly(problem, tile.ks[c], own_z, rivals[c].decisive(tile.own[c]));
             if (!outcome.wins) outcome = compare_exactly(problem, tile.ks[c], own_z, rivals[c].all());
             // Not finite: nothing was left out, or rows whose products are unknown.
             const double left_out = rivals[c].floor();
             outcome.wins = outcome.wins && tile.own[c] > left_out;
             if (std::isfinite(left_out))
               outcome.margin = std::min(outcome.margin, (tile.own[c] - left_out) * length_of(own_z, n) * (1 - 1e-9));
           }
         });
  return outcomes;
}

}  // namespace tuiqiao::auditing
