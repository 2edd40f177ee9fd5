#include "audit/exact_ball.h"

#include <algorithm>
#include <optional>
#include <utility>

namespace tuiqiao::auditing {

namespace {

constexpr int kMostSteps = 2000;

/// One rival: y . normal >= least, so that it does not beat k.
struct Bar {
  std::int64_t row;
  RationalVector normal;
  Rational least;
};

/// Solves the square system, which is regular.
RationalVector solve(std::vector<RationalVector> table, RationalVector right) {
  const std::size_t n = right.size();
  for (std::size_t c = 0; c < n; ++c) {
    std::size_t pivot = c;
    while (sgn(table[pivot][c]) == 0) ++pivot;
    std::swap(table[c], table[pivot]);
    std::swap(right[c], right[pivot]);
    for (std::size_t r = 0; r < n; ++r) {
      if (r == c || sgn(table[r][c]) == 0) continue;
      const Rational factor = table[r][c] / table[c][c];
      for (std::size_t j = c; j < n; ++j) table[r][j] -= factor * table[c][j];
      right[r] -= factor * right[c];
    }
  }
  for (std::size_t c = 0; c < n; ++c) right[c] /= table[c][c];
  return right;
}

void add_multiple(RationalVector& to, const Rational& factor, const RationalVector& from) {
  for (std::size_t j = 0; j < to.size(); ++j) to[j] += factor * from[j];
}

/// The shortest y at which no rival beats k, reached from 0 over vectors that each are the shortest for some rivals.
class Shortest {
 public:
  Shortest(const Problem& problem, std::int64_t k)
      : problem_(problem), k_(k), row_(problem.exact_row(k)), y_(problem.columns() - 1) {}

  /// Until nothing beats k at y, or y, which only grows, leaves the ball. False where some limit comes first.
  bool find(const std::stop_token& stop) {
    for (int step = 0; step < kMostSteps && !stop.stop_requested(); ++step) {
      if (is_outside()) return true;
      const std::vector<int> signs = exact_signs(problem_, k_, point());
      const auto beaten = std::find(signs.begin(), signs.end(), -1);
      if (beaten == signs.end()) return true;
      if (!raise(bar_of(beaten - signs.begin()))) return false;
    }
    return false;
  }

  bool is_outside() const { return dot(y_, y_) >= problem_.radius_squared(); }

  /// y as a z of the domain.
  RationalVector point() const {
    RationalVector z = y_;
    z.emplace_back(1);
    return z;
  }

  /// y = sum of multipliers times normals, and every bar with one is touched: |y|^2 = sum of multipliers times least.
  ExactAnswer answer() const {
    ExactAnswer made{ExactAnswer::Kind::ball, {}, {}, {}};
    Rational total = 0;
    for (const Rational& multiplier : multipliers_) total += multiplier;
    for (std::size_t a = 0; a < touched_.size(); ++a) {
      if (sgn(multipliers_[a]) == 0) continue;
      made.rows.push_back(touched_[a].row);
      made.weights.push_back(multipliers_[a] / total);
    }
    return made;
  }

 private:
  Bar bar_of(std::int64_t i) const {
    RationalVector normal = problem_.exact_row(i);
    for (std::size_t j = 0; j < normal.size(); ++j) normal[j] = row_[j] - normal[j];
    Rational least = -normal.back();
    normal.pop_back();
    return {i, std::move(normal), std::move(least)};
  }

  /// Moves y to the shortest that keeps `bar` too; bars that then need no keeping are dropped on the way. False where
  /// no y keeps all.
  bool raise(Bar bar) {
    Rational multiplier = 0;
    for (;;) {
      // Along `way` the touched bars stay touched, while their multipliers fall by `falls`.
      const RationalVector falls = solve_touched(bar.normal);
      RationalVector way = bar.normal;
      for (std::size_t a = 0; a < touched_.size(); ++a) add_multiple(way, -falls[a], touched_[a].normal);
      const Rational slope = dot(way, way);
      std::optional<Rational> far;
      std::size_t first = touched_.size();  // whose multiplier ends there
      if (sgn(slope) > 0) far = (bar.least - dot(y_, bar.normal)) / slope;
      for (std::size_t a = 0; a < touched_.size(); ++a) {
        if (sgn(falls[a]) <= 0) continue;
        Rational until = multipliers_[a] / falls[a];
        if (far && until >= *far) continue;
        far = std::move(until);
        first = a;
      }
      if (!far) return false;
      add_multiple(y_, *far, way);
      add_multiple(multipliers_, -*far, falls);
      multiplier += *far;
      if (first == touched_.size()) {
        touched_.push_back(std::move(bar));
        multipliers_.push_back(std::move(multiplier));
        return true;
      }
      touched_.erase(touched_.begin() + static_cast<std::ptrdiff_t>(first));
      multipliers_.erase(multipliers_.begin() + static_cast<std::ptrdiff_t>(first));
    }
  }

  /// Multiples of the touched normals, which are independent, whose sum is nearest to `normal`.
  RationalVector solve_touched(const RationalVector& normal) const {
    std::vector<RationalVector> gram;
    RationalVector right;
    for (const Bar& one : touched_) {
      RationalVector& line = gram.emplace_back();
      for (const Bar& other : touched_) line.push_back(dot(one.normal, other.normal));
      right.push_back(dot(one.normal, normal));
    }
    return solve(std::move(gram), std::move(right));
  }

  const Problem& problem_;
  std::int64_t k_;
  RationalVector row_, y_;
  std::vector<Bar> touched_;
  RationalVector multipliers_;
};

}  // namespace

ExactAnswer decide_in_ball(const Problem& problem, std::int64_t k, ExactAnswer free, const std::stop_token& stop) {
  Shortest shortest(problem, k);
  if (!shortest.find(stop)) return {};
  if (shortest.is_outside()) return shortest.answer();
  const RationalVector near = shortest.point();
  RationalVector far = std::move(free.z);
  const Rational scale = far.back();
  for (Rational& entry : far) entry /= scale;
  for (free.z = far; !problem.is_in_domain(free.z); far = free.z) {
    for (std::size_t j = 0; j < far.size(); ++j) free.z[j] = (far[j] + near[j]) / 2;
  }
  return free;
}

}  // namespace tuiqiao::auditing
