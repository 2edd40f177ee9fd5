#include "audit/exact.h"

#include <algorithm>
#include <cmath>
#include <optional>

namespace tuiqiao::auditing {

namespace {

constexpr int kMostRounds = 400;
constexpr std::size_t kTaken = 8;  // violated rows a round

/// Weights w >= 0 with sum 1 and sum w_j g_j = 0 that maximise the sum over `wanted`, or a vector that forbids them.
class HullProgram {
 public:
  HullProgram(const std::vector<RationalVector>& points, const std::vector<bool>& wanted, const std::stop_token& stop)
      : stop_(stop), points_(points.size()), equations_((points.empty() ? 0 : points[0].size()) + 1) {
    table_.assign(equations_, RationalVector(points_ + equations_ + 1));
    for (std::size_t r = 0; r < equations_; ++r) {
      const bool sum = r + 1 == equations_;
      for (std::size_t j = 0; j < points_; ++j) table_[r][j] = sum ? Rational(1) : points[j][r];
      table_[r][points_ + r] = 1;
      if (sum) table_[r].back() = 1;
      basis_.push_back(points_ + r);
    }
    find_feasible();
    if (feasible) maximise(wanted);
  }

  bool feasible = false;
  Rational value;          ///< the maximum
  RationalVector weights;  ///< where feasible
  RationalVector z;        ///< z . g_j > 0 for all j where infeasible; >= 1 on the wanted, >= 0 else where value is 0

 private:
  void find_feasible() {
    RationalVector costs(points_ + equations_);
    for (std::size_t r = 0; r < equations_; ++r) costs[points_ + r] = 1;
    price(costs);
    iterate();
    feasible = sgn(costs_.back()) == 0;
    if (!feasible) read_z(1);
  }

  void maximise(const std::vector<bool>& wanted) {
    for (std::size_t r = 0; r < equations_; ++r) {
      if (basis_[r] < points_) continue;
      for (std::size_t j = 0; j < points_; ++j) {
        if (sgn(table_[r][j]) == 0) continue;
        pivot(r, j);
        break;
      }
    }
    RationalVector costs(points_ + equations_);
    for (std::size_t j = 0; j < points_; ++j) costs[j] = wanted[j] ? -1 : 0;
    price(costs);
    iterate();
    value = costs_.back();
    weights.assign(points_, 0);
    for (std::size_t r = 0; r < equations_; ++r) {
      if (basis_[r] < points_) weights[basis_[r]] = table_[r].back();
    }
    read_z(0);
  }

  /// Reduced costs of all columns; the last entry is minus the cost of the basis.
  void price(const RationalVector& costs) {
    costs_ = costs;
    costs_.emplace_back(0);
    for (std::size_t r = 0; r < equations_; ++r) {
      const Rational& cost = costs[basis_[r]];
      if (sgn(cost) == 0) continue;
      for (std::size_t j = 0; j < costs_.size(); ++j) {
        if (sgn(table_[r][j]) != 0) costs_[j] -= cost * table_[r][j];
      }
    }
  }

  /// By Bland's rule, which cannot cycle. A stop leaves what there is.
  void iterate() {
    while (!stop_.stop_requested()) {
      std::size_t enters = 0;
      while (enters < points_ && sgn(costs_[enters]) >= 0) ++enters;
      if (enters == points_) return;
      std::optional<std::size_t> leaves;
      Rational least;
      for (std::size_t r = 0; r < equations_; ++r) {
        if (sgn(table_[r][enters]) <= 0) continue;
        const Rational ratio = table_[r].back() / table_[r][enters];
        if (!leaves || ratio < least || (ratio == least && basis_[r] < basis_[*leaves])) {
          leaves = r;
          least = ratio;
        }
      }
      if (!leaves) return;  // cannot be: the weights are bounded
      pivot(*leaves, enters);
    }
  }

  void pivot(std::size_t row, std::size_t column) {
    const Rational inverse = 1 / table_[row][column];
    for (Rational& entry : table_[row]) {
      if (sgn(entry) != 0) entry *= inverse;
    }
    const auto clear = [&](RationalVector& other) {
      if (sgn(other[column]) == 0) return;
      const Rational factor = other[column];
      for (std::size_t j = 0; j < other.size(); ++j) {
        if (sgn(table_[row][j]) != 0) other[j] -= factor * table_[row][j];
      }
    };
    for (std::size_t r = 0; r < equations_; ++r) {
      if (r != row) clear(table_[r]);
    }
    if (!costs_.empty()) clear(costs_);
    basis_[row] = column;
  }

  /// The dual vector, from the reduced costs of the artificial columns, which cost `each`.
  void read_z(int each) {
    z.resize(equations_ - 1);
    for (std::size_t r = 0; r + 1 < equations_; ++r) z[r] = costs_[points_ + r] - each;
  }

  const std::stop_token& stop_;
  std::size_t points_, equations_;
  std::vector<RationalVector> table_;
  RationalVector costs_;
  std::vector<std::size_t> basis_;
};

/// A basis in echelon form of what was added.
class Span {
 public:
  /// Whether `vector` was new.
  bool add(RationalVector vector) {
    reduce(vector);
    const auto it = std::find_if(vector.begin(), vector.end(), [](const Rational& x) { return sgn(x) != 0; });
    if (it == vector.end()) return false;
    const Rational inverse = 1 / *it;
    pivots_.push_back(static_cast<std::size_t>(it - vector.begin()));
    for (Rational& entry : vector) entry *= inverse;
    basis_.push_back(std::move(vector));
    return true;
  }
  bool holds(RationalVector vector) const {
    reduce(vector);
    return std::all_of(vector.begin(), vector.end(), [](const Rational& x) { return sgn(x) == 0; });
  }
  std::size_t rank() const { return basis_.size(); }

 private:
  void reduce(RationalVector& vector) const {
    for (std::size_t b = 0; b < basis_.size(); ++b) {
      const Rational factor = vector[pivots_[b]];
      if (sgn(factor) == 0) continue;
      for (std::size_t j = 0; j < vector.size(); ++j) vector[j] -= factor * basis_[b][j];
    }
  }
  std::vector<RationalVector> basis_;
  std::vector<std::size_t> pivots_;
};

/// The rows that take part, as differences to row k.
class Decision {
 public:
  Decision(const Problem& problem, std::int64_t k, const std::stop_token& stop)
      : problem_(problem), k_(k), stop_(stop), row_(problem.exact_row(k)) {
    if (!problem.has_bias()) return;
    RationalVector unit(problem.columns());
    unit.back() = 1;
    rows_.push_back(kBiasGenerator);
    points_.push_back(std::move(unit));
  }

  RationalVector difference(std::int64_t i) const {
    RationalVector other = problem_.exact_row(i);
    for (std::size_t j = 0; j < other.size(); ++j) other[j] = row_[j] - other[j];
    return other;
  }

  bool is_rival(std::int64_t i) const {
    return problem_.group()[static_cast<std::size_t>(i)] == i && problem_.group()[static_cast<std::size_t>(k_)] != i;
  }

  bool take(std::int64_t i) {
    if (!is_rival(i) || std::find(rows_.begin(), rows_.end(), i) != rows_.end()) return false;
    rows_.push_back(i);
    points_.push_back(difference(i));
    return true;
  }

  ExactAnswer decide(const std::vector<std::int64_t>& seeds) {
    for (const std::int64_t i : seeds) take(i);
    for (int round = 0; round < kMostRounds; ++round) {
      if (points_.empty()) {
        RationalVector anything(problem_.columns());
        if (!take_violated(exact_signs(problem_, k_, anything), 0)) return {ExactAnswer::Kind::wins, anything, {}, {}};
        continue;
      }
      const HullProgram program(points_, std::vector<bool>(points_.size(), false), stop_);
      if (stop_.stop_requested()) return {};
      if (program.feasible) {
        weights_ = program.weights;
        return decide_without_win(round);
      }
      if (!take_violated(exact_signs(problem_, k_, program.z), 0)) return {ExactAnswer::Kind::wins, program.z, {}, {}};
    }
    return {};
  }

 private:
  /// Takes rows whose sign is `most` or less, the negative ones first; whether there was one.
  bool take_violated(const std::vector<int>& signs, int most) {
    std::size_t taken = 0;
    bool found = false;
    for (int sign = -1; sign <= most; ++sign) {
      for (std::int64_t i = 0; i < problem_.classes() && taken < kTaken; ++i) {
        if (signs[static_cast<std::size_t>(i)] != sign || !is_rival(i)) continue;
        found = true;
        if (take(i)) ++taken;
      }
    }
    return found;
  }

  /// The origin is in the hull. Grows the support until it is as large as can be, or a vector shows that x_k lies on a
  /// proper face.
  ExactAnswer decide_without_win(int round) {
    for (; round < kMostRounds; ++round) {
      weights_.resize(points_.size());
      std::vector<bool> wanted(points_.size());
      for (std::size_t j = 0; j < points_.size(); ++j) wanted[j] = sgn(weights_[j]) == 0;
      if (problem_.has_bias() && !wanted[0]) return answer(ExactAnswer::Kind::below, {});
      if (std::find(wanted.begin(), wanted.end(), true) == wanted.end()) {
        if (!take_outside()) return answer(ExactAnswer::Kind::inside, {});
        continue;
      }
      const HullProgram program(points_, wanted, stop_);
      if (stop_.stop_requested()) return {};
      if (sgn(program.value) > 0) {
        for (std::size_t j = 0; j < points_.size(); ++j) weights_[j] = (weights_[j] + program.weights[j]) / 2;
        continue;
      }
      const std::vector<int> signs = exact_signs(problem_, k_, program.z);
      if (take_violated(signs, -1)) continue;
      if (std::find(signs.begin(), signs.end(), 1) != signs.end()) return answer(ExactAnswer::Kind::ties, program.z);
      if (!take_outside()) return answer(ExactAnswer::Kind::inside, {});
    }
    return {};
  }

  /// Takes rows outside the span of the support; false where there is none.
  bool take_outside() {
    Span span;
    for (std::size_t j = 0; j < points_.size(); ++j) {
      if (sgn(weights_[j]) > 0) span.add(points_[j]);
    }
    if (span.rank() == problem_.dimension()) return false;
    std::size_t taken = 0;
    for (std::int64_t i = 0; i < problem_.classes() && taken < kTaken; ++i) {
      if (is_rival(i) && !span.holds(difference(i)) && take(i)) ++taken;
    }
    return taken > 0;
  }

  ExactAnswer answer(ExactAnswer::Kind kind, RationalVector z) const {
    ExactAnswer made{kind, std::move(z), {}, {}};
    for (std::size_t j = 0; j < points_.size(); ++j) {
      if (sgn(weights_[j]) == 0) continue;
      made.rows.push_back(rows_[j]);
      made.weights.push_back(weights_[j]);
    }
    return made;
  }

  const Problem& problem_;
  std::int64_t k_;
  const std::stop_token& stop_;
  RationalVector row_;
  std::vector<std::int64_t> rows_;
  std::vector<RationalVector> points_;
  RationalVector weights_;
};

}  // namespace

std::vector<int> exact_signs(const Problem& problem, std::int64_t k, const RationalVector& z) {
  const std::size_t n = problem.columns();
  // Float64 settles most of them.
  std::vector<double> direction(n), own(n), other(n);
  double squares = 0;
  for (std::size_t j = 0; j < n; ++j) {
    direction[j] = z[j].get_d();
    squares += direction[j] * direction[j];
  }
  const double own_error = problem.row(k, own.data());
  const RationalVector exact_own = problem.exact_row(k);
  const double unit = static_cast<double>(n + 8) * 0x1p-52, length = std::sqrt(squares);
  std::vector<int> signs(static_cast<std::size_t>(problem.classes()), 0);
  for (std::int64_t i = 0; i < problem.classes(); ++i) {
    const std::int64_t group = problem.group()[static_cast<std::size_t>(i)];
    if (group == problem.group()[static_cast<std::size_t>(k)]) continue;
    if (group != i) {
      signs[static_cast<std::size_t>(i)] = signs[static_cast<std::size_t>(group)];
      continue;
    }
    const double error = problem.row(i, other.data()) + own_error;
    double margin = 0, size = 0, apart = 0;
    for (std::size_t j = 0; j < n; ++j) {
      margin += direction[j] * (own[j] - other[j]);
      size += std::abs(direction[j]) * (std::abs(own[j]) + std::abs(other[j]));
      apart += std::abs(own[j]) + std::abs(other[j]);
    }
    // 2^-1072: what rounding takes from an entry of z near 0, and more
    const double bound = unit * size + 2 * error * length + apart * 0x1p-1072 + 1e-290;
    int& sign = signs[static_cast<std::size_t>(i)];
    if (std::abs(margin) > bound && std::isfinite(bound) && length > 1e-140) {  // squares below vanish
      sign = margin > 0 ? 1 : -1;
    } else {
      RationalVector difference = problem.exact_row(i);
      for (std::size_t j = 0; j < n; ++j) difference[j] = exact_own[j] - difference[j];
      sign = sgn(dot(z, difference));
    }
  }
  return signs;
}

const char* proof_name(ExactAnswer::Kind kind) {
  using Kind = ExactAnswer::Kind;
  return kind == Kind::ties ? "face" : kind == Kind::inside ? "inside" : kind == Kind::below ? "below" : "ball";
}

ExactAnswer decide_exactly(const Problem& problem, std::int64_t k, const std::vector<std::int64_t>& seeds,
                           const std::stop_token& stop) {
  return Decision(problem, k, stop).decide(seeds);
}

}  // namespace tuiqiao::auditing
