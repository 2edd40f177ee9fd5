#include "audit/class_solver.h"

#include <cblas.h>

#include <algorithm>
#include <cmath>
#include <functional>

#include "audit/exact.h"
#include "audit/min_norm.h"
#include "audit/simplex.h"

namespace tuiqiao::auditing {

namespace {

constexpr int kMostTangents = 200;
constexpr std::int64_t kTangent = -2;

double length_of(const double* from, std::size_t n) { return n == 0 ? 0 : cblas_dnrm2(static_cast<int>(n), from, 1); }

/// The points of the hull and their inner products.
class Points {
 public:
  explicit Points(std::size_t columns) : columns_(columns) {}

  void add(std::int64_t name, const std::vector<double>& point) {
    names_.push_back(name);
    values_.insert(values_.end(), point.begin(), point.end());
  }
  /// Brings the Gram matrix up to the points. `write_corner`: writes the products of those that are new with one
  /// another to rows of `step` numbers, where they need not be multiplied.
  const std::vector<double>& gram(const std::function<void(double* to, std::size_t step)>& write_corner = {}) {
    const std::size_t count = names_.size(), known = known_;
    if (count == known) return gram_;
    std::vector<double> grown(count * count);
    for (std::size_t i = 0; i < known; ++i) std::copy_n(gram_.data() + i * known, known, grown.data() + i * count);
    if (columns_ > 0) {
      const int fresh = static_cast<int>(count - known), old = static_cast<int>(known), n = static_cast<int>(columns_);
      const double* added = values_.data() + known * columns_;
      double* corner = grown.data() + known * count;
      if (old > 0) {
        cblas_dgemm(CblasRowMajor, CblasNoTrans, CblasTrans, fresh, old, n, 1, added, n, values_.data(), n, 0, corner,
                    static_cast<int>(count));
      }
      if (write_corner) {
        write_corner(corner + known, count);
      } else {
        cblas_dsyrk(CblasRowMajor, CblasLower, CblasNoTrans, fresh, n, 1, added, n, 0, corner + known,
                    static_cast<int>(count));
      }
      mirror(grown, count, known, write_corner ? known : count);
    }
    gram_ = std::move(grown);
    known_ = count;
    return gram_;
  }
  /// Makes rows 0 to `most` of a Gram matrix, from column `from` on, of what lies below the diagonal.
  static void mirror(std::vector<double>& gram, std::size_t count, std::size_t from, std::size_t most) {
    constexpr std::size_t kTile = 32;
    for (std::size_t top = 0; top < most; top += kTile) {
      for (std::size_t left = std::max(top, from / kTile * kTile); left < count; left += kTile) {
        for (std::size_t i = top; i < std::min(top + kTile, most); ++i) {
          for (std::size_t j = std::max({i + 1, from, left}); j < std::min(left + kTile, count); ++j)
            gram[i * count + j] = gram[j * count + i];
        }
      }
    }
  }
  std::vector<double> combination(const MinNorm& found) const {
    std::vector<double> sum(columns_, 0);
    for (const int s : found.support) {
      const double weight = found.weights[static_cast<std::size_t>(s)];
      const double* point = values_.data() + static_cast<std::size_t>(s) * columns_;
      for (std::size_t j = 0; j < columns_; ++j) sum[j] += weight * point[j];
    }
    return sum;
  }
  /// Whether the rows' part of a combination has no positive product with any vector of the cone |u| <= t.
  bool are_below(const MinNorm& found) const {
    std::vector<double> sum(columns_, 0);
    for (const int s : found.support) {
      const auto at = static_cast<std::size_t>(s);
      if (names_[at] < 0) continue;
      for (std::size_t j = 0; j < columns_; ++j) sum[j] += found.weights[at] * values_[at * columns_ + j];
    }
    return length_of(sum.data(), columns_ - 1) * (1 + 1e-7) + sum[columns_ - 1] < 0;
  }
  /// Lowers |u| + t of the rows' combination (u, t) below 0 by Frank-Wolfe steps from the weights found, so that what
  /// only touches the cone comes to lie beyond it. Leaves weights of rows.
  void lower(MinNorm& found) const {
    std::vector<double> weights(names_.size(), 0), sum(columns_, 0);
    double total = 0;
    for (std::size_t i = 0; i < names_.size(); ++i) total += names_[i] >= 0 ? found.weights[i] : 0;
    if (!(total > 0)) return;
    for (std::size_t i = 0; i < names_.size(); ++i) {
      if (names_[i] < 0) continue;
      weights[i] = found.weights[i] / total;
      for (std::size_t j = 0; j < columns_; ++j) sum[j] += weights[i] * values_[i * columns_ + j];
    }
    const std::size_t last = columns_ - 1;
    const auto height = [&](const double* point, double part) {
      double squares = 0;
      for (std::size_t j = 0; j < last; ++j) {
        const double x = sum[j] + part * (point[j] - sum[j]);
        squares += x * x;
      }
      return std::sqrt(squares) + sum[last] + part * (point[last] - sum[last]);
    };
    for (int step = 0; step < 50 && height(sum.data(), 0) > -1e-4; ++step) {
      const double length = length_of(sum.data(), last);
      std::size_t best = names_.size();
      double least = HUGE_VAL;
      for (std::size_t i = 0; i < names_.size(); ++i) {
        if (names_[i] < 0) continue;
        const double* point = values_.data() + i * columns_;
        const double value =
            point[last] + (length > 0 ? cblas_ddot(static_cast<int>(last), sum.data(), 1, point, 1) / length : 0);
        if (value < least) {
          least = value;
          best = i;
        }
      }
      const double* point = values_.data() + best * columns_;
      double from = 0, to = 1;
      for (int half = 0; half < 60; ++half) {
        const double a = from + (to - from) / 3, b = to - (to - from) / 3;
        (height(point, a) < height(point, b) ? to : from) = height(point, a) < height(point, b) ? b : a;
      }
      for (std::size_t j = 0; j < columns_; ++j) sum[j] += from * (point[j] - sum[j]);
      for (double& weight : weights) weight *= 1 - from;
      weights[best] += from;
    }
    found.weights = weights;
    found.support.clear();
    for (std::size_t i = 0; i < names_.size(); ++i) {
      if (weights[i] > 0) found.support.push_back(static_cast<int>(i));
    }
  }
  std::int64_t name(std::size_t i) const { return names_[i]; }
  std::size_t size() const { return names_.size(); }
  const std::vector<double>& values() const { return values_; }

 private:
  std::size_t columns_, known_ = 0;
  std::vector<std::int64_t> names_;
  std::vector<double> values_, gram_;
};

/// As float32, with the bias column moved outward so that the ball still holds it. As it is where float32 has no such
/// numbers.
void round_witness(const Problem& problem, std::vector<double>& z) {
  if (std::any_of(z.begin(), z.end(), [](double x) { return !std::isfinite(static_cast<float>(x)); })) return;
  for (double& entry : z) entry = static_cast<double>(static_cast<float>(entry));
  if (problem.has_ball() && !problem.is_in_domain(z))
    z.back() = static_cast<double>(std::nextafter(static_cast<float>(z.back() * (1 + 1e-7)), HUGE_VALF));
}

}  // namespace

struct ClassSolver::State {
  const Problem& problem;
  std::int64_t k;
  AuditSolver solver;
  double bias_scale, scale = 0;
  std::vector<double> own;
  Points points;
  MinNorm found;  ///< of the points when it last solved

  State(const Problem& all, std::int64_t of, AuditSolver how, double reach)
      : problem(all),
        k(of),
        solver(how),
        bias_scale(all.has_ball() ? all.radius() : reach),
        own(all.columns()),
        points(all.columns()) {
    problem.row(k, own.data());
    if (!problem.has_bias()) return;
    std::vector<double> up(own.size(), 0);
    up.back() = 1;
    points.add(kBiasGenerator, up);
  }
};

ClassSolver::ClassSolver(const Problem& problem, std::int64_t k, AuditSolver solver, double reach)
    : state_(std::make_unique<State>(problem, k, solver, reach)) {}
ClassSolver::~ClassSolver() = default;

void ClassSolver::add(const RowSample& sample) {
  State& s = *state_;
  s.points.gram();  // of what was taken in before
  add(sample.rows_but(s.k));
  s.points.gram([&](double* to, std::size_t step) { sample.write_products(s.k, s.scale * s.scale, to, step); });
}

void ClassSolver::add(std::span<const std::int64_t> rows) {
  const std::size_t n = state_->own.size();
  std::vector<double> differences(rows.size() * n);
  double largest = 0;
  for (std::size_t r = 0; r < rows.size(); ++r) {
    double* difference = differences.data() + r * n;
    state_->problem.row(rows[r], difference);
    for (std::size_t j = 0; j < n; ++j) difference[j] = state_->own[j] - difference[j];
    if (state_->problem.has_bias()) difference[n - 1] /= state_->bias_scale;
    largest = std::max(largest, length_of(difference, n));
  }
  if (state_->scale == 0 && largest > 0) state_->scale = 1 / largest;  // of the first rows; it is only to tame numbers
  std::vector<double> point(n);
  for (std::size_t r = 0; r < rows.size(); ++r) {
    for (std::size_t j = 0; j < n; ++j) point[j] = differences[r * n + j] * state_->scale;
    state_->points.add(rows[r], point);
  }
}

Attempt ClassSolver::solve(bool precise) {
  const Problem& problem = state_->problem;
  Points& points = state_->points;
  MinNorm& found = state_->found;
  const std::size_t n = state_->own.size();
  Attempt attempt;
  if (points.size() == 0) {
    attempt.has_witness = true;
    attempt.z = state_->own;
    return attempt;
  }
  std::vector<double> z, tangent(n);
  for (int tangents = 0;; ++tangents) {
    const int count = static_cast<int>(points.size());
    found = state_->solver == AuditSolver::frank_wolfe
                ? frank_wolfe(points.gram(), count)
                : min_norm_point(points.gram(), count, points.values().data(), n, problem.dimension(), found);
    if (found.is_zero) break;
    z = points.combination(found);
    if (!problem.has_ball() || tangents == kMostTangents) break;
    if (points.are_below(found)) {
      found.is_zero = true;
      break;
    }
    const double length = length_of(z.data(), n - 1);
    if (z[n - 1] - length >= 0.25 * found.squared && z[n - 1] > length * (1 + 1e-6)) break;
    for (std::size_t j = 0; j + 1 < n; ++j) tangent[j] = length > 0 ? -z[j] / length : 0;
    tangent[n - 1] = 1;
    points.add(kTangent, tangent);
  }
  if (found.is_zero && problem.has_ball() && !points.are_below(found)) points.lower(found);
  if (found.is_zero && !problem.has_ball()) widen_simplex(points.values(), n, problem.dependent_column(), found);
  if (found.is_zero) {
    for (const int s : found.support) {
      const std::int64_t name = points.name(static_cast<std::size_t>(s));
      if (name == kTangent) continue;
      attempt.rows.push_back(name);
      attempt.weights.push_back(found.weights[static_cast<std::size_t>(s)]);
    }
    return attempt;
  }
  attempt.has_witness = true;
  attempt.z = std::move(z);
  const double longest = length_of(attempt.z.data(), n);
  for (double& entry : attempt.z) entry /= longest;
  if (problem.has_bias()) attempt.z[n - 1] /= state_->bias_scale;
  attempt.has_witness = std::all_of(attempt.z.begin(), attempt.z.end(), [](double x) { return std::isfinite(x); });
  if (!attempt.has_witness) return attempt;
  if (!precise) round_witness(problem, attempt.z);
  return attempt;
}

}  // namespace tuiqiao::auditing
