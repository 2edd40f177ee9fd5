#include "audit/min_norm.h"

#include <cblas.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <span>

namespace tuiqiao::auditing {

namespace {

// Of the largest squared length:
constexpr double kZero = 1e-26;       // what rounding leaves of 0
constexpr double kZeroGram = 1e-15;   // the same where only the Gram matrix tells
constexpr double kShort = 1e-7;       // from here on the points tell more than the Gram matrix
constexpr double kConverged = 1e-10;  // relative gap between the length and the bound on it
constexpr double kNoWeight = 1e-13;

/// The upper triangle R with R' R = 1 1' + G / scale over the support, in its order, kept through additions and
/// removals.
class Factor {
 public:
  Factor(const std::vector<double>& gram, std::size_t n, double scale, std::size_t most)
      : gram_(gram), n_(n), scale_(scale), most_(most), r_(most * most) {}

  const std::vector<int>& support() const { return support_; }

  /// Leaves out points that depend on the others to rounding, and those for which there is no room. Returns how many
  /// joined.
  std::size_t join(std::span<const int> points) {
    const std::size_t old = support_.size(), count = std::min(points.size(), most_ - old);
    if (count == 0) return 0;
    const int size = static_cast<int>(old), step = static_cast<int>(most_), fresh = static_cast<int>(count);
    for (std::size_t s = 0; s < old; ++s) {
      for (std::size_t p = 0; p < count; ++p) row(s)[old + p] = entry(support_[s], points[p]);
    }
    std::vector<double> corner(count * count);
    for (std::size_t p = 0; p < count; ++p) {
      for (std::size_t q = p; q < count; ++q) corner[p * count + q] = entry(points[p], points[q]);
    }
    if (old > 0) {
      double* added = r_.data() + old;
      cblas_dtrsm(CblasRowMajor, CblasLeft, CblasUpper, CblasTrans, CblasNonUnit, size, fresh, 1, r_.data(), step,
                  added, step);
      cblas_dsyrk(CblasRowMajor, CblasUpper, CblasTrans, fresh, size, -1, added, step, 1, corner.data(), fresh);
    }
    for (std::size_t p = 0; p < count; ++p) {
      const double rest = corner[p * count + p];
      if (rest <= 1e-14 * entry(points[p], points[p])) continue;
      const std::size_t at = support_.size();
      for (std::size_t s = 0; s < at; ++s) row(s)[at] = row(s)[old + p];  // up, where points were left out
      const double diagonal = std::sqrt(rest);
      row(at)[at] = diagonal;
      for (std::size_t q = p + 1; q < count; ++q) row(at)[old + q] = corner[p * count + q] / diagonal;
      for (std::size_t i = p + 1; i < count; ++i) {
        for (std::size_t q = i; q < count; ++q) corner[i * count + q] -= row(at)[old + i] * row(at)[old + q];
      }
      support_.push_back(points[p]);
    }
    return support_.size() - old;
  }

  void remove(std::size_t at) {
    const std::size_t left = support_.size() - 1;
    for (std::size_t k = 0; k <= left; ++k) std::copy(row(k) + at + 1, row(k) + left + 1, row(k) + at);
    for (std::size_t k = at; k < left; ++k) {
      double *a = row(k) + k, *b = row(k + 1) + k;
      const double length = std::hypot(*a, *b);
      cblas_drot(static_cast<int>(left - k), a, 1, b, 1, *a / length, *b / length);
    }
    support_.erase(support_.begin() + static_cast<std::ptrdiff_t>(at));
  }

  /// Weights of the shortest vector of the support's affine hull: R' R v = 1, scaled to sum 1.
  std::vector<double> weights() const {
    std::vector<double> v(support_.size(), 1);
    for (const CBLAS_TRANSPOSE how : {CblasTrans, CblasNoTrans})
      cblas_dtrsv(CblasRowMajor, CblasUpper, how, CblasNonUnit, static_cast<int>(v.size()), r_.data(),
                  static_cast<int>(most_), v.data(), 1);
    const double sum = std::accumulate(v.begin(), v.end(), 0.0);
    for (double& w : v) w /= sum;
    return v;
  }

 private:
  double* row(std::size_t k) { return r_.data() + k * most_; }
  double entry(int i, int j) const {
    return 1 + gram_[static_cast<std::size_t>(i) * n_ + static_cast<std::size_t>(j)] / scale_;
  }

  const std::vector<double>& gram_;
  std::size_t n_;
  double scale_;
  std::size_t most_;
  std::vector<int> support_;
  std::vector<double> r_;  ///< below its diagonal what was there before
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

/// Points that are to join: the lowest, and with it others nearly as low, the more the more points there are.
std::vector<int> lowest_of(const std::vector<double>& h, double squared) {
  constexpr std::size_t kMost = 32, kShare = 64;
  constexpr double kNearly = 0.5;
  const double least = *std::min_element(h.begin(), h.end());
  std::vector<int> low;
  for (std::size_t i = 0; i < h.size(); ++i) {
    if (h[i] <= squared - kNearly * (squared - least)) low.push_back(static_cast<int>(i));
  }
  const std::size_t count = std::min({low.size(), kMost, 1 + h.size() / kShare});
  std::partial_sort(low.begin(), low.begin() + static_cast<std::ptrdiff_t>(count), low.end(), [&](int a, int b) {
    const double x = h[static_cast<std::size_t>(a)], y = h[static_cast<std::size_t>(b)];
    return x != y ? x < y : a < b;
  });
  low.resize(count);
  return low;
}

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
  Factor factor(gram, n, scale, std::min(n, columns + 1));  // no more points are affinely independent
  const std::vector<int>& support = factor.support();
  std::vector<double> weights;
  for (const int s : start.support) {
    if (factor.join({&s, 1}) == 1) weights.push_back(start.weights[static_cast<std::size_t>(s)]);
  }
  if (support.empty()) {
    factor.join({&first, 1});
    weights.assign(1, 1);
  }
  const double total = std::accumulate(weights.begin(), weights.end(), 0.0);
  for (double& w : weights) w /= total;
  constexpr int kMostStalls = 10;
  const int steps = 20 * count + 100;
  double before = std::numeric_limits<double>::infinity();
  for (int step = 0, stalls = 0; step < steps && stalls < kMostStalls; ++step) {
    std::vector<double> h = products_of(gram, n, support, weights);
    result.squared = squared_of(support, weights, h);
    if (result.squared <= kShort * scale) h = near_products_of(points, columns, n, support, weights, result.squared);
    result.is_zero = result.squared <= kZero * scale || support.size() > rank;
    if (result.is_zero || *std::min_element(h.begin(), h.end()) >= result.squared * (1 - kConverged)) break;
    std::vector<int> next = lowest_of(h, result.squared);
    if (!(result.squared < before)) {  // one that joins alone always shortens the vector, but for rounding
      next.resize(1);
      ++stalls;
    }
    before = result.squared;
    if (std::find(support.begin(), support.end(), next[0]) != support.end()) break;  // rounding has the last word
    std::erase_if(next, [&](int i) { return std::find(support.begin(), support.end(), i) != support.end(); });
    if (factor.join(next) == 0) break;
    weights.resize(support.size(), 0);
    // Towards the shortest vector of the affine hull, dropping points whose weight would turn negative on the way. Of
    // those that joined, one at least is wanted as long as nothing has moved: the rest of them are no hindrance.
    for (;;) {
      const std::vector<double> wanted = factor.weights();
      double part = 1;
      for (std::size_t s = 0; s < support.size(); ++s) {
        if (wanted[s] <= kNoWeight) part = std::min(part, weights[s] / (weights[s] - wanted[s] + 1e-300));
      }
      for (std::size_t s = 0; s < support.size(); ++s) weights[s] += part * (wanted[s] - weights[s]);
      if (*std::min_element(wanted.begin(), wanted.end()) > kNoWeight) break;
      const std::size_t size = support.size();
      for (std::size_t s = support.size(); s-- > 0 && support.size() > 1;) {
        if (weights[s] > kNoWeight || wanted[s] > kNoWeight) continue;
        factor.remove(s);
        weights.erase(weights.begin() + static_cast<std::ptrdiff_t>(s));
      }
      if (support.size() == size) break;
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
