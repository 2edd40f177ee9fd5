#include "topk/threshold.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <optional>
#include <type_traits>
#include <utility>
#include <vector>

namespace tuiqiao::topk {

namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();
/// f or 1 - f is 0 in double beyond so many tau, for the f of this library.
constexpr double kReach = 750;

double log_add(double a, double b) {
  const double most = std::max(a, b);
  return std::isinf(most) ? most : most + std::log1p(std::exp(std::min(a, b) - most));
}

/// The move of the threshold, in units of tau, that brings the sum to k if each side's tail changes as an exponential
/// (which it does for laplace and exponential until an entry is passed, and nearly so for sigmoid):
///   tail_below e^{-b d} = (k - above) + tail_above e^{a d},  a and b the tails' logarithmic slopes.
/// By Newton's method in logarithms, where both sides are nearly straight. Nothing where no move solves it.
std::optional<double> exponential_move(const Sides& s, double k) {
  const double c = k - static_cast<double>(s.above);
  const double log_above = std::log(s.tail_above), log_below = std::log(s.tail_below), log_c = std::log(std::abs(c));
  if ((c >= 0 && !(s.slope_below > 0)) || (c <= 0 && !(s.slope_above > 0))) return std::nullopt;
  const double a = s.tail_above > 0 ? s.slope_above / s.tail_above : 0;
  const double b = s.tail_below > 0 ? s.slope_below / s.tail_below : 0;
  double d = 0;
  for (int i = 0; i < 60; ++i) {
    const double above = log_above + a * d, below = log_below - b * d;
    double value = 0, slope = 0;
    if (c >= 0) {
      const double right = log_add(log_c, above);
      value = below - right;
      slope = -b - (std::isinf(above) ? 0 : a * std::exp(above - right));
    } else {
      const double left = log_add(log_c, below);
      value = left - above;
      slope = -a - (std::isinf(below) ? 0 : b * std::exp(below - left));
    }
    const double step = value / slope;
    if (!std::isfinite(step)) return std::nullopt;
    d -= step;
    if (std::abs(step) <= 1e-16 * std::max(1.0, std::abs(d))) break;
  }
  return d;
}

/// What is specific to a function f.
struct ShapeFunction {
  TopkMethod shape;

  template <class T>
  Sides sides(std::span<const T> x, Threshold at) const {
    return sides_of(shape, x, at);
  }
  /// z with f(z) = q, for 0 < q < 1.
  double quantile(double q) const {
    switch (shape) {
      case TopkMethod::exponential:
        return std::log(q);
      case TopkMethod::sigmoid:
        return std::log(q) - std::log1p(-q);
      case TopkMethod::clip:
        return q;
      default:
        return q <= 0.5 ? std::log(2 * q) : -std::log(2 - 2 * q);
    }
  }
  std::optional<double> move(const Sides& s, double k) const {
    if (shape != TopkMethod::clip) return exponential_move(s, k);
    return s.slope() > 0 ? std::optional((s.sum() - k) / s.slope()) : std::nullopt;
  }
  /// Then a move is exact until an entry passes a corner, and of first order beyond.
  bool has_corners() const { return shape == TopkMethod::exponential || shape == TopkMethod::clip; }
  /// Whether no entry lies between a corner of one and of the other.
  bool is_exact_between(const Sides& a, const Sides& b) const {
    return a.above == b.above && (shape != TopkMethod::clip || a.slope() == b.slope());
  }
  double reach() const { return shape == TopkMethod::clip ? 1 : kReach; }
  bool is_flat_outside() const { return shape == TopkMethod::clip; }
  bool has_known_reach() const { return true; }
  bool vanishes(const Sides& s) const { return s.tail_above + s.tail_below + s.slope() == 0; }
  /// Of the threshold from an entry, in units of tau, so that the entry's f lies about the middle of what f changes in.
  double offset_of_half() const { return shape == TopkMethod::clip ? -0.5 : 0; }
};

/// Any f, as given.
struct GivenFunction {
  const std::function<double(double)>& f;
  const std::function<double(double)>& slope;

  Sides sides(std::span<const double> x, Threshold at) const {
    Sides s;
    for (const double entry : x) {
      const double z = (entry - at.base - at.offset) * at.inverse_tau, value = f(z),
                   rise = std::isinf(z) ? 0 : slope(z);
      if (z > 0) {
        ++s.above;
        s.tail_above += 1 - value, s.slope_above += rise;
      } else {
        s.tail_below += value, s.slope_below += rise;
      }
    }
    return s;
  }
  double quantile(double q) const {
    double low = -1, high = 1;
    while (f(low) > q && low > -1e300) low *= 2;
    while (f(high) < q && high < 1e300) high *= 2;
    for (int i = 0; i < 200; ++i) {
      const double middle = low + (high - low) / 2;
      (f(middle) < q ? low : high) = middle;
    }
    return low + (high - low) / 2;
  }
  std::optional<double> move(const Sides& s, double k) const {
    if (const auto d = exponential_move(s, k)) return d;
    return s.slope() > 0 ? std::optional((s.sum() - k) / s.slope()) : std::nullopt;
  }
  bool has_corners() const { return true; }  // nothing is known
  bool is_exact_between(const Sides&, const Sides&) const { return false; }
  double reach() const { return kInfinity; }
  bool is_flat_outside() const { return true; }
  bool has_known_reach() const { return false; }
  bool vanishes(const Sides& s) const { return s.tail_above + s.tail_below == 0 && !(s.slope() > 0); }
  double offset_of_half() const { return 0; }
};

template <class T, class Function>
class Solver {
 public:
  Solver(const Function& f, std::span<const T> x, const Contents& contents, double k, double tau)
      : f_(f), whole_(x), active_(x), contents_(contents), k_(k), tau_(tau) {}

  Threshold solve() {
    const Threshold t = search();
    return f_.is_flat_outside() && f_.has_known_reach() && k_ == std::floor(k_) ? off_the_edge(t) : t;
  }

 private:
  Threshold search() {
    const double q = (k_ - static_cast<double>(contents_.infinite)) / static_cast<double>(contents_.finite);
    const double z = f_.quantile(q);
    // All entries equal to the least would give this, or all equal to the most.
    low_ = at(contents_.least, -tau_ * z), high_ = at(contents_.most, -tau_ * z);
    if (!(contents_.least < contents_.most)) return low_;
    Threshold t = first_guess();
    if (!is_inside(t)) t = middle();
    Sides before{-1};
    double move_before = kInfinity;  // that led to t, if one did
    for (int round = 0; round < kMostRounds; ++round) {
      const Sides s = sides(t);
      const double c = k_ - static_cast<double>(s.above);
      (s.tail_below - s.tail_above > c ? low_ : high_) = t;
      const auto move = f_.move(s, k_);
      if (move && is_last(*move, move_before, before, s)) return moved(t, *move);
      if (f_.vanishes(s) && c == 0) return f_.has_known_reach() ? in_gap(t, c) : t;
      before = s;
      const Threshold there = next(t, s, move, round % 16 == 15);
      move_before = move && distance(there, moved(t, *move)) == 0 ? *move : kInfinity;
      t = there;
      if (!is_inside(t)) return t;  // nothing lies between
    }
    return t;
  }

  /// With a whole k every f may be 0 or 1 for a range of t, at whose edge the search may end, on the slope of the
  /// entries there. Then its middle.
  Threshold off_the_edge(Threshold t) const {
    constexpr double kEdge = kIsFloat ? 1e-5 : 1e-9;
    const Sides s = sides(t);
    const double inside = s.slope(), away = s.tail_above;  // how many entries are on the slope, and their sum of 1 - f
    if (away > kEdge * inside && away < (1 - kEdge) * inside) return t;
    const Threshold middle = in_gap(moved(t, 0.5), 0);
    const Sides there = f_.sides(whole_, middle);
    return there.sum() == k_ && there.slope() == 0 ? middle : t;
  }

  /// Where to look after `t`, whose move may be none: the more is known, the farther down.
  Threshold next(Threshold t, const Sides& s, std::optional<double> move, bool stalls) {
    const double c = k_ - static_cast<double>(s.above);
    if (!selected_ && std::abs(c) > 2 * (s.tail_above + s.tail_below) + 1) {
      // Far from the k-th entry with few entries about: the tails say little, the order says where to look.
      selected_ = true;
      const Threshold there = at(select(k_), f_.offset_of_half() * tau_);
      if (is_inside(there)) return there;
    }
    if (stalls) return halved();
    const Threshold there = move ? moved(t, *move) : f_.vanishes(s) ? in_gap(t, c) : at(kInfinity);
    return is_inside(there) ? there : halved();
  }

  /// a - b without the rounding of either.
  static double distance(Threshold a, Threshold b) { return (a.base - b.base) + (a.offset - b.offset); }
  bool is_inside(Threshold t) const { return distance(low_, t) < 0 && distance(t, high_) < 0; }
  Threshold middle() const { return moved(low_, distance(high_, low_) / 2 / tau_); }

  static constexpr bool kIsFloat = std::is_same_v<T, float>;
  static constexpr int kMostRounds = 400;
  static constexpr double kRounding = kIsFloat ? 3e-7 : 1e-14;  // in units of tau

  Threshold at(double base, double offset = 0) const { return {base, offset, 1 / tau_}; }
  /// The base follows the sum, so that its distance to entries near it is exact; nothing is rounded away.
  Threshold moved(Threshold t, double by) const {
    const double offset = t.offset + by * tau_, base = t.base + offset, part = base - t.base;
    return at(base, (t.base - (base - part)) + (offset - part));
  }

  /// Whether a move leads so near to the root that nothing would be gained by another: one of d leaves an error of
  /// about d^2 where f is smooth, and where it has corners none as long as no entry passes one.
  bool is_last(double move, double move_before, const Sides& before, const Sides& now) const {
    if (!f_.has_corners()) return std::abs(move) <= (kIsFloat ? 1e-4 : 1e-8);
    if (std::isfinite(move_before) && f_.is_exact_between(before, now)) return std::abs(move) <= 1e3 * kRounding;
    // A small one may pass corners behind which the sum changes more slowly, so that much is left; two on end do not.
    return std::abs(move) <= 1e-3 * kRounding || std::max(std::abs(move), std::abs(move_before)) <= kRounding;
  }

  Sides sides(Threshold t) const {
    Sides s = f_.sides(active_, t);
    s.above += above_;
    return s;
  }

  std::vector<T> sample() const {
    constexpr std::size_t kPiece = 16;
    const std::size_t pieces = std::clamp<std::size_t>(active_.size() / 256, 8, 256), stride = active_.size() / pieces;
    std::vector<T> some;
    for (std::size_t i = 0; i < pieces; ++i) {
      for (const T v : active_.subspan(i * stride, std::min(kPiece, stride))) some.push_back(v);
    }
    return some;
  }

  /// The threshold of a sample, or the k-th entry of a short row.
  Threshold first_guess() const {
    if (active_.size() <= 256) return at(select(k_));
    const std::vector<T> some = sample();
    const Contents contents = contents_of(std::span<const T>(some));
    if (contents.finite == 0) return at(kInfinity);
    const double share = (k_ - static_cast<double>(contents_.infinite)) / static_cast<double>(contents_.finite);
    const double k = static_cast<double>(contents.infinite) + share * static_cast<double>(contents.finite);
    return Solver(f_, some, contents, k, tau_).solve();
  }

  /// The ceil(k)-th entry from above, of all. Two entries of a sample are taken between which it should lie, so that
  /// little is left to select from. Source: Floyd and Rivest, Algorithm 489.
  double select(double k) const {
    auto rank = static_cast<std::size_t>(std::max(std::ceil(k), 1.0)) - 1;  // of it, from 0
    std::vector<T> some;
    T most = std::numeric_limits<T>::infinity(), least = -most;
    if (whole_.size() > 4096) {
      some = sample();
      std::sort(some.begin(), some.end(), std::greater<>());
      const double n = static_cast<double>(some.size());
      const double place = static_cast<double>(rank) / static_cast<double>(whole_.size()) * n;
      const double spread = 4 * std::sqrt(n) * 0.5 + 16;
      if (place - spread >= 0) most = some[static_cast<std::size_t>(place - spread)];
      if (place + spread < n) least = some[static_cast<std::size_t>(place + spread)];
    }
    std::vector<T> between(whole_.size() + 1);
    std::size_t above = 0, count = 0;
    for (const T v : whole_) {
      between[count] = v;
      count += static_cast<std::size_t>(v <= most && v >= least);
      above += static_cast<std::size_t>(v > most);
    }
    between.resize(count);
    if (rank < above || rank - above >= count) {
      between.assign(whole_.begin(), whole_.end());
      above = 0;
    }
    const auto there = between.begin() + static_cast<std::ptrdiff_t>(rank - above);
    std::nth_element(between.begin(), there, between.end(), std::greater<>());
    return std::clamp(static_cast<double>(*there), contents_.least, contents_.most);
  }

  /// Leaves out entries whose f stays 0 or 1 within the bracket.
  void narrow() {
    const double most = high_.t() + f_.reach() * tau_, least = low_.t() - f_.reach() * tau_;
    std::vector<T> kept;
    for (const T v : active_) {
      const auto value = static_cast<double>(v);
      if (value > most) {
        ++above_;
      } else if (value >= least) {
        kept.push_back(v);
      }
    }
    kept_ = std::move(kept);
    active_ = kept_;
  }

  /// The median of the entries in the bracket, or its middle.
  Threshold halved() {
    narrow();
    std::vector<T> inside;
    for (const T v : active_) {
      if (is_inside(at(static_cast<double>(v)))) inside.push_back(v);
    }
    if (inside.empty()) return middle();
    const auto middle = inside.begin() + static_cast<std::ptrdiff_t>(inside.size() / 2);
    std::nth_element(inside.begin(), middle, inside.end());
    return at(static_cast<double>(*middle));
  }

  /// Both tails vanish at t, so that it lies in a wide gap, with c = k less the entries above. For c = 0 the answer:
  /// where the tails balance. Else the edge of the gap where the tail amounts to |c|.
  Threshold in_gap(Threshold t, double c) const {
    double above = kInfinity, below = -kInfinity;
    // As sides() has it: t rounded to t.t() may pass an entry.
    const auto is_above = [&](double value) { return (value - t.base) - t.offset > 0; };
    for (const T v : whole_) {
      const auto value = static_cast<double>(v);
      if (is_above(value)) {
        above = std::min(above, value);
      } else {
        below = std::max(below, value);
      }
    }
    if (c < 0 && std::isfinite(above)) return at(above, tau_ * f_.offset_of_half());
    if (c > 0 && std::isfinite(below)) return at(below, tau_ * f_.offset_of_half());
    if (!std::isfinite(above) || !std::isfinite(below)) return t;
    if (f_.is_flat_outside()) return at(above, -tau_ - (above - below - tau_) / 2);
    // Both tails are exponentials there, of these weights at their edges.
    double sum_above = 0, sum_below = 0;
    for (const T v : whole_) {
      const auto value = static_cast<double>(v);
      const double past = (is_above(value) ? above - value : value - below) / tau_;
      if (past > -kReach) (is_above(value) ? sum_above : sum_below) += std::exp(past);
    }
    return at(below, (above - below) / 2 + tau_ / 2 * (std::log(sum_below) - std::log(sum_above)));
  }

  Function f_;
  std::span<const T> whole_, active_;
  std::vector<T> kept_;
  std::int64_t above_ = 0;  ///< entries left out above all of active_
  Contents contents_;
  double k_, tau_;
  Threshold low_, high_;  ///< the threshold lies between
  bool selected_ = false;
};

}  // namespace

Threshold find_threshold(TopkMethod shape, std::span<const float> x, const Contents& contents, double k, double tau) {
  return Solver<float, ShapeFunction>({shape}, x, contents, k, tau).solve();
}

Threshold find_threshold(TopkMethod shape, std::span<const double> x, const Contents& contents, double k, double tau) {
  return Solver<double, ShapeFunction>({shape}, x, contents, k, tau).solve();
}

Threshold find_threshold(const std::function<double(double)>& f, const std::function<double(double)>& slope,
                         std::span<const double> x, const Contents& contents, double k, double tau) {
  return Solver<double, GivenFunction>({f, slope}, x, contents, k, tau).solve();
}

}  // namespace tuiqiao::topk
