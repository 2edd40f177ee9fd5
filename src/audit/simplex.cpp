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

  /// The origin's weights, and every point in terms of the vertices. False where they span no simplex.
  bool solve() {
    std::vector<double> basis(n_ * n_);
    for (std::size_t v = 0; v < n_; ++v) put(vertices_[v], basis.data() + v * n_);
    others_.assign((count_ + 1) * n_, 0);
    for (std::size_t p = 0; p < count_; ++p) put(static_cast<int>(p), others_.data() + p * n_);
    others_.back() = 1;  // the origin
    const int n = static_cast<int>(n_), sides = static_cast<int>(count_ + 1);
    std::vector<int> pivots(n_);
    int info = 0;
    dgetrf_(&n, &n, basis.data(), &n, pivots.data(), &info);
    if (info != 0) return false;
    dgetrs_("N", &n, &sides, basis.data(), &n, pivots.data(), others_.data(), &n, &info);
    weights_.assign(others_.end() - n, others_.end());
    return info == 0;
  }

  /// The exchange after which the least weight is largest, if it is larger than now.
  bool exchange() {
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
    return true;
  }

 private:
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
  std::vector<double> weights_, others_;
};

}  // namespace

bool widen_simplex(const std::vector<double>& points, std::size_t columns, std::size_t skipped, MinNorm& found) {
  Simplex simplex(points, columns, skipped, found.support);
  if (found.support.size() != simplex.size()) return false;
  for (int step = 0; step < kMostExchanges && simplex.solve(); ++step) {
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
