#include "audit/simplex.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "lapack.h"

namespace tuiqiao::auditing {

namespace {

constexpr double kLeastWeight = 1e-8;  // what a proof in float64 needs is n eps cond, some 1e-11 for n = 1000
constexpr int kMostExchanges = 12;

/// Where a point's exchange for a vertex would lead.
struct Exchange {
  double least = 0;  ///< weight of the new simplex
  std::size_t leaves = 0;
};

/// The vertices' weights fall by `slopes` for each unit of the new point's; the first to reach 0 leaves.
Exchange exchange_of(const std::vector<double>& weights, const double* slopes) {
  Exchange found;
  double part = std::numeric_limits<double>::infinity();
  for (std::size_t v = 0; v < weights.size(); ++v) {
    if (slopes[v] > 0 && weights[v] < part * slopes[v]) {
      part = weights[v] / slopes[v];
      found.leaves = v;
    }
  }
  if (!std::isfinite(part)) return found;
  found.least = part;
  for (std::size_t v = 0; v < weights.size(); ++v) {
    if (v != found.leaves) found.least = std::min(found.least, weights[v] - part * slopes[v]);
  }
  return found;
}

class Simplex {
 public:
  Simplex(const std::vector<double>& points, std::size_t columns, std::size_t skipped, std::vector<int> vertices)
      : points_(points),
        columns_(columns),
        skipped_(skipped),
        n_(columns + (skipped < columns ? 0 : 1)),
        count_(points.size() / columns),
        vertices_(std::move(vertices)) {}

  std::size_t size() const { return n_; }
  const std::vector<int>& vertices() const { return vertices_; }
  const std::vector<double>& weights() const { return weights_; }
  double least() const { return *std::min_element(weights_.begin(), weights_.end()); }

  /// The origin's weights. False where the vertices span no simplex.
  bool solve() {
    basis_.resize(n_ * n_);
    for (std::size_t v = 0; v < n_; ++v) put(vertices_[v], basis_.data() + v * n_);
    pivots_.resize(n_);
    const int n = static_cast<int>(n_);
    int info = 0;
    dgetrf_(&n, &n, basis_.data(), &n, pivots_.data(), &info);
    if (info != 0) return false;
    weights_.assign(n_, 0);
    weights_.back() = 1;  // the origin
    return back_substitute(weights_);
  }

  /// The exchange after which the least weight is largest, if it is larger than now.
  bool exchange() {
    if (others_.empty()) {
      others_.resize(count_ * n_);
      for (std::size_t p = 0; p < count_; ++p) put(static_cast<int>(p), others_.data() + p * n_);
      if (!back_substitute(others_)) return false;
    }
    double most = least();
    std::size_t enters = count_, leaves = 0;
    std::vector<char> is_vertex(count_, 0);
    for (const int v : vertices_) is_vertex[static_cast<std::size_t>(v)] = 1;
    for (std::size_t p = 0; p < count_; ++p) {
      if (is_vertex[p]) continue;
      const Exchange tried = exchange_of(weights_, others_.data() + p * n_);
      if (!(tried.least > most)) continue;
      most = tried.least;
      enters = p;
      leaves = tried.leaves;
    }
    if (enters == count_) return false;
    vertices_[leaves] = static_cast<int>(enters);
    pivot(enters, leaves);
    return true;
  }

 private:
  /// Replaces columns of n_ entries by what they are in terms of the vertices.
  bool back_substitute(std::vector<double>& columns) const {
    const int n = static_cast<int>(n_), sides = static_cast<int>(columns.size() / n_);
    int info = 0;
    dgetrs_("N", &n, &sides, basis_.data(), &n, pivots_.data(), columns.data(), &n, &info);
    return info == 0;
  }

  /// All in terms of the new vertices, by a step of Gauss and Jordan: a few of them lose little, and what comes out is
  /// proven elsewhere.
  void pivot(std::size_t enters, std::size_t leaves) {
    const std::vector<double> slopes(others_.begin() + static_cast<std::ptrdiff_t>(enters * n_),
                                     others_.begin() + static_cast<std::ptrdiff_t>((enters + 1) * n_));
    const auto turn = [&](double* column) {
      const double part = column[leaves] / slopes[leaves];
      for (std::size_t v = 0; v < n_; ++v) column[v] -= part * slopes[v];
      column[leaves] = part;
    };
    for (std::size_t p = 0; p < count_; ++p) turn(others_.data() + p * n_);
    turn(weights_.data());
  }

  /// The columns that count, then 1.
  void put(int point, double* to) const {
    const double* from = points_.data() + static_cast<std::size_t>(point) * columns_;
    for (std::size_t j = 0; j < columns_; ++j) {
      if (j != skipped_) *to++ = from[j];
    }
    *to = 1;
  }

  const std::vector<double>& points_;
  std::size_t columns_, skipped_, n_, count_;
  std::vector<int> vertices_;
  std::vector<double> basis_;  // its factors
  std::vector<int> pivots_;
  std::vector<double> weights_, others_;  // others_: every point in terms of the vertices, once asked for
};

}  // namespace

bool widen_simplex(const std::vector<double>& points, std::size_t columns, std::size_t skipped, MinNorm& found) {
  Simplex simplex(points, columns, skipped, found.support);
  if (found.support.size() != simplex.size() || !simplex.solve()) return false;
  for (int step = 0; step < kMostExchanges; ++step) {
    const double least = simplex.least();
    if (least > 0) {
      found.support = simplex.vertices();
      std::fill(found.weights.begin(), found.weights.end(), 0.0);
      for (std::size_t v = 0; v < found.support.size(); ++v)
        found.weights[static_cast<std::size_t>(found.support[v])] = simplex.weights()[v];
    }
    if (least > kLeastWeight) return true;
    if (!simplex.exchange()) return false;
  }
  return false;
}

}  // namespace tuiqiao::auditing
