#include "audit/min_norm.h"

#include <cblas.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <optional>

namespace tuiqiao::auditing {

namespace {

// Of the largest squared length:
constexpr double kZero = 1e-26;       // what rounding leaves of 0
constexpr double kZeroGram = 1e-15;   // the same where only the Gram matrix tells
constexpr double kShort = 1e-7;       // from here on the points tell more than the Gram matrix
constexpr double kClear = 1e-11;      // from here on the Gram matrix still tells which points are far below
constexpr double kConverged = 1e-10;  // relative gap between the length and the bound on it
constexpr double kNoWeight = 1e-13;

/// The lower triangle L with L L' = 1 1' + G over the support, kept through additions and removals.
class Factor {
 public:
  explicit Factor(std::size_t most) : most_(most), l_(most * most) {}

  /// False where the new point depends on the others to rounding.
  bool add(const std::vector<double>& products, double diagonal) {
    if (size_ == most_) return false;
    double* row = l_.data() + size_ * most_;
    std::copy(products.begin(), products.end(), row);
    solve(CblasNoTrans, row);
    const double rest = diagonal - cblas_ddot(static_cast<int>(size_), row, 1, row, 1);
    if (rest <= 1e-14 * diagonal) return false;
    row[size_++] = std::sqrt(rest);
    return true;
  }

  void remove(std::size_t at) {
    for (std::size_t k = at + 1; k < size_; ++k) std::copy_n(l_.data() + k * most_, k + 1, l_.data() + (k - 1) * most_);
    --size_;
    const int step = static_cast<int>(most_);
    for (std::size_t k = at; k < size_; ++k) {
      double& a = l_[k * most_ + k];
      double& b = l_[k * most_ + k + 1];
      const double length = std::hypot(a, b), c = a / length, s = b / length;
      a = length;
      b = 0;
      double* below = l_.data() + (k + 1) * most_ + k;
      if (k + 1 < size_) cblas_drot(static_cast<int>(size_ - k - 1), below, step, below + 1, step, c, s);
    }
  }

  /// Weights of the shortest vector of the support's affine hull: L L' v = 1, scaled to sum 1.
  std::vector<double> weights() const {
    std::vector<double> v(size_, 1);
    solve(CblasNoTrans, v.data());
    solve(CblasTrans, v.data());
    const double sum = std::accumulate(v.begin(), v.end(), 0.0);
    for (double& w : v) w /= sum;
    return v;
  }

 private:
  void solve(CBLAS_TRANSPOSE how, double* x) const {
    if (size_ > 0)
      cblas_dtrsv(CblasRowMajor, CblasLower, how, CblasNonUnit, static_cast<int>(size_), l_.data(),
                  static_cast<int>(most_), x, 1);
  }

  std::size_t most_, size_ = 0;
  std::vector<double> l_;
};

/// Products of the hull's vector with every point, by the points.
std::vector<double> near_products_of(const double* points, std::size_t columns, std::size_t n,
                                     const std::vector<int>& support, const std::vector<double>& weights,
                                     double& squared) {
  std::vector<double> x(columns, 0), h(n, 0);
  for (std::size_t s = 0; s < support.size(); ++s) {
    const double* point = points + static_cast<std::size_t>(support[s]) * columns;
    cblas_daxpy(static_cast<int>(columns), weights[s], point, 1, x.data(), 1);
  }
  const int size = static_cast<int>(columns);
  squared = cblas_ddot(size, x.data(), 1, x.data(), 1);
  cblas_dgemv(CblasRowMajor, CblasNoTrans, static_cast<int>(n), size, 1, points, size, x.data(), 1, 0, h.data(), 1);
  return h;
}

/// The same by the Gram matrix.
std::vector<double> products_of(const std::vector<double>& gram, std::size_t n, const std::vector<int>& support,
                                const std::vector<double>& weights) {
  std::vector<double> h(n, 0);
  for (std::size_t s = 0; s < support.size(); ++s) {
    const double* row = gram.data() + static_cast<std::size_t>(support[s]) * n;
    cblas_daxpy(static_cast<int>(n), weights[s], row, 1, h.data(), 1);
  }
  return h;
}

double squared_of(const std::vector<int>& support, const std::vector<double>& weights, const std::vector<double>& h) {
  double sum = 0;
  for (std::size_t s = 0; s < support.size(); ++s) sum += weights[s] * h[static_cast<std::size_t>(support[s])];
  return sum;
}

/// Points that were far below at the last look at all of them, for the steps until the next one. Of few points all are
/// looked at every time.
class Shortlist {
 public:
  Shortlist(const std::vector<double>& gram, std::size_t n) : gram_(gram), n_(n) {}

  void fill(const std::vector<double>& h, double squared) {
    constexpr std::size_t kFewPoints = 512, kListed = 64;
    listed_.clear();
    if (n_ <= kFewPoints) return;
    std::vector<int> order(n_);
    std::iota(order.begin(), order.end(), 0);
    std::partial_sort(order.begin(), order.begin() + kListed, order.end(), [&](int a, int b) {
      const double x = h[static_cast<std::size_t>(a)], y = h[static_cast<std::size_t>(b)];
      return x != y ? x < y : a < b;
    });
    listed_.assign(order.begin(), order.begin() + kListed);
    depth_ = squared - h[static_cast<std::size_t>(order[0])];
  }

  /// The lowest of the list, taken off it, if it is still well below; the vector's squared length comes with it.
  std::optional<int> take(const std::vector<int>& support, const std::vector<double>& weights, double least) {
    if (listed_.empty()) return std::nullopt;
    const double squared = product(support[0], support, weights);  // the same for the whole support
    if (!(squared > least)) return std::nullopt;
    std::size_t best = 0;
    double lowest = std::numeric_limits<double>::infinity();
    for (std::size_t i = 0; i < listed_.size(); ++i) {
      const double h = product(listed_[i], support, weights);
      if (h < lowest) {
        lowest = h;
        best = i;
      }
    }
    if (!(squared - lowest > 0.3 * depth_)) return std::nullopt;
    const int found = listed_[best];
    listed_.erase(listed_.begin() + static_cast<std::ptrdiff_t>(best));
    return found;
  }

 private:
  double product(int point, const std::vector<int>& support, const std::vector<double>& weights) const {
    const double* row = gram_.data() + static_cast<std::size_t>(point) * n_;
    double sum = 0;
    for (std::size_t s = 0; s < support.size(); ++s) sum += weights[s] * row[support[s]];
    return sum;
  }

  const std::vector<double>& gram_;
  std::size_t n_;
  std::vector<int> listed_;
  double depth_ = 0;
};

}  // namespace

MinNorm min_norm_point(const std::vector<double>& gram, int count, const double* points, std::size_t columns,
                       std::size_t rank, const MinNorm& start) {
  const auto n = static_cast<std::size_t>(count);
  const auto at = [&](int i, int j) { return gram[static_cast<std::size_t>(i) * n + static_cast<std::size_t>(j)]; };
  double scale = 0;
  int first = 0;
  for (int i = 0; i < count; ++i) {
    scale = std::max(scale, at(i, i));
    if (at(i, i) < at(first, first)) first = i;
  }
  MinNorm result;
  result.weights.assign(n, 0);
  if (at(first, first) <= kZeroGram * kZeroGram * scale) {  // a point is the origin, or all of them are
    result.weights[static_cast<std::size_t>(first)] = 1;
    result.support = {first};
    result.is_zero = true;
    return result;
  }
  Factor factor(std::min(n, columns + 1));  // no more points are affinely independent
  std::vector<int> support;
  std::vector<double> weights;
  const auto join = [&](int next) {
    std::vector<double> products(support.size());
    for (std::size_t s = 0; s < support.size(); ++s) products[s] = 1 + at(next, support[s]) / scale;
    if (!factor.add(products, 1 + at(next, next) / scale)) return false;
    support.push_back(next);
    weights.push_back(0);
    return true;
  };
  double total = 0;
  for (const int s : start.support) {
    if (join(s)) total += weights.back() = start.weights[static_cast<std::size_t>(s)];
  }
  if (support.empty()) {
    join(first);
    total = weights.back() = 1;
  }
  for (double& w : weights) w /= total;
  Shortlist shortlist(gram, n);
  const int steps = 20 * count + 100;
  for (int step = 0; step < steps; ++step) {
    std::optional<int> listed = shortlist.take(support, weights, kClear * scale);
    const bool whole = !listed;
    if (whole) {
      std::vector<double> h = products_of(gram, n, support, weights);
      result.squared = squared_of(support, weights, h);
      if (result.squared <= kShort * scale) h = near_products_of(points, columns, n, support, weights, result.squared);
      result.is_zero = result.squared <= kZero * scale || support.size() > rank;
      listed = static_cast<int>(std::min_element(h.begin(), h.end()) - h.begin());
      if (result.is_zero || h[static_cast<std::size_t>(*listed)] >= result.squared * (1 - kConverged)) break;
      shortlist.fill(h, result.squared);
    }
    const int next = *listed;
    if (std::find(support.begin(), support.end(), next) != support.end()) {
      if (whole) break;  // rounding has the last word
      continue;
    }
    if (!join(next)) {
      if (whole) break;
      continue;
    }
    // Towards the shortest vector of the affine hull, dropping points whose weight would turn negative on the way.
    for (;;) {
      const std::vector<double> wanted = factor.weights();
      double part = 1;
      for (std::size_t s = 0; s < support.size(); ++s) {
        if (wanted[s] <= kNoWeight) part = std::min(part, weights[s] / (weights[s] - wanted[s] + 1e-300));
      }
      for (std::size_t s = 0; s < support.size(); ++s) weights[s] += part * (wanted[s] - weights[s]);
      if (*std::min_element(wanted.begin(), wanted.end()) > kNoWeight) break;
      const std::size_t before = support.size();
      for (std::size_t s = support.size(); s-- > 0 && support.size() > 1;) {
        if (weights[s] > kNoWeight) continue;
        factor.remove(s);
        support.erase(support.begin() + static_cast<std::ptrdiff_t>(s));
        weights.erase(weights.begin() + static_cast<std::ptrdiff_t>(s));
      }
      if (support.size() == before) break;
    }
  }
  for (std::size_t s = 0; s < support.size(); ++s) result.weights[static_cast<std::size_t>(support[s])] = weights[s];
  result.support = support;
  return result;
}

MinNorm frank_wolfe(const std::vector<double>& gram, int count, int steps) {
  const auto n = static_cast<std::size_t>(count);
  MinNorm result;
  result.weights.assign(n, 1 / static_cast<double>(n));
  std::vector<double> h(n, 0);
  double scale = 0;
  for (std::size_t i = 0; i < n; ++i) {
    scale = std::max(scale, gram[i * n + i]);
    for (std::size_t j = 0; j < n; ++j) h[i] += gram[i * n + j] / static_cast<double>(n);
  }
  result.squared = std::accumulate(h.begin(), h.end(), 0.0) / static_cast<double>(n);
  for (int step = 0; step < steps; ++step) {
    const auto next = static_cast<std::size_t>(std::min_element(h.begin(), h.end()) - h.begin());
    result.is_zero = result.squared <= kZeroGram * scale;
    if (result.is_zero || h[next] > 0.5 * result.squared) break;
    const double towards = result.squared - h[next];
    const double length = result.squared - 2 * h[next] + gram[next * n + next];
    const double part = std::clamp(towards / length, 0.0, 1.0);
    for (std::size_t j = 0; j < n; ++j) {
      result.weights[j] *= 1 - part;
      h[j] += part * (gram[next * n + j] - h[j]);
    }
    result.weights[next] += part;
    result.squared = 0;
    for (std::size_t j = 0; j < n; ++j) result.squared += result.weights[j] * h[j];
  }
  for (int j = 0; j < count; ++j) {
    if (result.weights[static_cast<std::size_t>(j)] > 0) result.support.push_back(j);
  }
  return result;
}

}  // namespace tuiqiao::auditing
