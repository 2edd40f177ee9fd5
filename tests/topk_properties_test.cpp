#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <numeric>
#include <random>
#include <string>
#include <vector>

#include "rounds.h"
#include "topk_rows.h"
#include "tuiqiao/topk.h"

// What each method claims, on random rows made to hurt.

namespace tuiqiao::test {
namespace {

constexpr int kRows = rounds(20000, 4000);  // for each of the six methods

using Random = std::mt19937_64;

struct Case {
  TopkMethod method{};
  Values x;
  double k = 0, tau = 1;

  SmoothTopkOptions options() const { return options_of(method, tau); }
  Found found() const { return solve(x, k, options()); }
  /// The error of p that the header states, for two results that should be one.
  static constexpr double kBetweenTwo = 2 * kTopkError;
};

/// In [0, 1).
double uniform(Random& random) { return static_cast<double>(random() >> 11) * 0x1p-53; }

/// 10 to a whole power in [least, most].
double power_of_ten(Random& random, int least, int most) {
  return std::pow(10, least + static_cast<int>(random() % static_cast<unsigned>(most - least + 1)));
}

std::size_t random_length(Random& random) {
  const auto draw = random() % 1000;
  if (draw == 0) return 10000;
  return draw < 30 ? 50 + random() % 400 : 1 + random() % 30;
}

Values random_row(Random& random) {
  std::normal_distribution<double> normal;
  std::cauchy_distribution<double> cauchy;
  Values x(random_length(random));
  const double spread = power_of_ten(random, -3, 4);
  const double near = power_of_ten(random, -15, -4);
  const auto kind = random() % 8, extras = random() % 8;
  for (double& value : x) {
    value = kind == 0   ? spread * normal(random)
            : kind == 1 ? spread * cauchy(random)
            : kind == 2 ? spread * static_cast<double>(random() % 3)                        // ties
            : kind == 3 ? 5.0                                                               // all equal
            : kind == 4 ? spread * normal(random) + 1e4                                     // far from 0
            : kind == 5 ? (random() % 2 ? spread : 0) + 1e-3 * normal(random)               // a gap
            : kind == 6 ? spread * static_cast<double>(random() % 4) + 10 * normal(random)  // clusters
                        : (random() % 2 ? 1 + spread : 1) + near * normal(random);          // nearly ties
    if (extras == 0 && random() % 3 == 0) value = -kInfinity;
    if (extras == 1 && random() % 5 == 0) value = random() % 2 ? kInfinity : -kInfinity;
  }
  return x;
}

double entries_present(const Values& x) {
  return static_cast<double>(x.size()) - static_cast<double>(std::count(x.begin(), x.end(), -kInfinity));
}

/// Near 0, near the most that the row allows, anywhere between, or whole.
double random_k(Random& random, TopkMethod method, const Values& x) {
  const double most = entries_present(x), few = power_of_ten(random, -9, -1);
  const auto kind = random() % 6;
  const double k = kind == 0   ? std::min(few, most)
                   : kind == 1 ? std::max(most - few, 0.0)
                   : kind == 2 ? most * uniform(random)
                               : static_cast<double>(random() % (static_cast<std::uint64_t>(most) + 1));
  if (!takes_whole_k(method)) return k;
  const bool is_slow = method == TopkMethod::softmax_iterated && x.size() > 500;
  return is_slow ? std::min(std::round(k), 20.0) : std::round(k);
}

Case random_case(Random& random, TopkMethod method) {
  Case c{method, random_row(random), 0, power_of_ten(random, -3, 3)};
  c.k = random_k(random, method, c.x);
  return c;
}

std::string text_of(const Case& c) {
  std::string text = fmt::format("{}, k = {}, tau = {}, {} entries:", name(c.method), c.k, c.tau, c.x.size());
  for (std::size_t i = 0; i < std::min<std::size_t>(c.x.size(), 40); ++i) text += fmt::format(" {}", c.x[i]);
  return text;
}

double largest_difference(const Values& a, const Values& b) {
  double largest = a.size() == b.size() ? 0 : kInfinity;
  for (std::size_t i = 0; i < std::min(a.size(), b.size()); ++i) largest = std::max(largest, std::abs(a[i] - b[i]));
  return largest;
}

/// The indices of x, from its largest entry to its least.
std::vector<std::size_t> falling(const Values& x) {
  std::vector<std::size_t> order(x.size());
  std::iota(order.begin(), order.end(), 0);
  std::sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) { return x[a] > x[b]; });
  return order;
}

/// How far an entry lies above a larger or equal one.
double largest_disorder(const Values& x, const Values& p) {
  double largest = 0, least_so_far = kInfinity;
  const auto order = falling(x);
  for (std::size_t from = 0; from < order.size();) {
    std::size_t to = from;
    double least = kInfinity;
    for (; to < order.size() && x[order[to]] == x[order[from]]; ++to) least = std::min(least, p[order[to]]);
    least_so_far = std::min(least_so_far, least);
    for (; from < to; ++from) largest = std::max(largest, p[order[from]] - least_so_far);
  }
  return largest;
}

/// f as the header has it.
double shape(TopkMethod method, double z) {
  switch (method) {
    case TopkMethod::exponential:
      return std::min(1.0, std::exp(z));
    case TopkMethod::sigmoid:
      return 1 / (1 + std::exp(-z));
    case TopkMethod::clip:
      return std::clamp(z, 0.0, 1.0);
    default:
      return z >= 0 ? 1 - std::exp(-z) / 2 : std::exp(z) / 2;
  }
}

// ---- Checks of one case ----

void has_sum_range_and_order(const Case& c, const Found& found) {
  const auto n = static_cast<double>(c.x.size());
  ASSERT_NEAR(sum(found.p), c.k, kTopkError * n);
  ASSERT_GE(*std::min_element(found.p.begin(), found.p.end()), 0);
  if (c.method == TopkMethod::softmax_iterated) return;
  ASSERT_LE(*std::max_element(found.p.begin(), found.p.end()), 1);
  ASSERT_LE(largest_disorder(c.x, found.p), kTopkError);
}

void treats_infinities(const Case& c, const Found& found) {
  const auto above = static_cast<double>(std::count(c.x.begin(), c.x.end(), kInfinity));
  for (std::size_t i = 0; i < c.x.size(); ++i) {
    if (std::isfinite(c.x[i])) continue;
    ASSERT_EQ(found.p[i], c.x[i] > 0 ? std::min(1.0, c.k / above) : 0) << i;
  }
}

void follows_from_its_threshold(const Case& c, const Found& found) {
  if (takes_whole_k(c.method)) {
    ASSERT_TRUE(std::isnan(found.row.threshold));
    return;
  }
  for (std::size_t i = 0; i < c.x.size(); ++i) {
    if (!std::isfinite(c.x[i]) || !std::isfinite(found.row.threshold)) continue;
    const double z = (c.x[i] - found.row.threshold - found.row.threshold_rest) / c.tau;
    ASSERT_NEAR(found.p[i], shape(c.method, z), kTopkError) << i;
  }
}

/// By a power of two times the grid on which the row is put first, so that nothing is rounded.
void does_not_change_with_a_shift(const Case& c, Random& random) {
  double most = 0;
  for (const double value : c.x) most = std::max(most, std::isfinite(value) ? std::abs(value) : 0);
  const double grid = most > 0 ? std::exp2(std::ilogb(most) - 40) : 1;
  Case plain = c, moved = c;
  const double shift = grid * std::exp2(30 + static_cast<int>(random() % 20)) * (random() % 2 ? 1 : -1);
  for (std::size_t i = 0; i < c.x.size(); ++i) {
    plain.x[i] = std::isfinite(c.x[i]) ? std::round(c.x[i] / grid) * grid : c.x[i];
    moved.x[i] = plain.x[i] + shift;
  }
  const double allowed = c.method == TopkMethod::softmax_iterated ? 0 : Case::kBetweenTwo;
  ASSERT_LE(largest_difference(plain.found().p, moved.found().p), allowed) << "shift " << shift;
}

void does_not_see_the_unit(const Case& c, const Found& found, Random& random) {
  const double by = std::exp2(static_cast<int>(random() % 200) - 100);
  Case scaled = c;
  scaled.tau *= by;
  for (double& value : scaled.x) value *= by;
  ASSERT_LE(largest_difference(scaled.found().p, found.p), Case::kBetweenTwo) << "factor " << by;
}

void moves_with_its_entries(const Case& c, const Found& found, Random& random) {
  if (c.method == TopkMethod::softmax_iterated && c.k > 1) return;  // rounding grows from stage to stage
  std::vector<std::size_t> order(c.x.size());
  std::iota(order.begin(), order.end(), 0);
  std::shuffle(order.begin(), order.end(), random);
  Case mixed = c;
  Values expected;
  for (std::size_t i = 0; i < order.size(); ++i) {
    mixed.x[i] = c.x[order[i]];
    expected.push_back(found.p[order[i]]);
  }
  ASSERT_LE(largest_difference(mixed.found().p, expected), Case::kBetweenTwo);
}

void rises_with_k(const Case& c, const Found& found, Random& random) {
  Case more = c;
  more.k += (entries_present(c.x) - c.k) * uniform(random);
  if (takes_whole_k(c.method)) more.k = std::ceil(more.k);
  if (c.x.size() > 500) more.k = std::min(more.k, c.k + 1);
  const Found with_more = more.found();
  for (std::size_t i = 0; i < c.x.size(); ++i) ASSERT_GE(with_more.p[i], found.p[i] - Case::kBetweenTwo) << more.k;
}

/// To take k of x is to leave n - k of -x, where f(-z) = 1 - f(z) or the law of subsets is the same.
void leaves_what_its_mirror_takes(const Case& c, const Found& found) {
  if (c.method == TopkMethod::softmax_iterated || c.method == TopkMethod::exponential) return;
  Case mirror = c;
  for (std::size_t i = 0; i < c.x.size(); ++i) {
    if (!std::isfinite(c.x[i])) return;
    mirror.x[i] = -c.x[i];
  }
  mirror.k = static_cast<double>(c.x.size()) - c.k;
  Values expected = mirror.found().p;
  for (double& value : expected) value = 1 - value;
  ASSERT_LE(largest_difference(found.p, expected), Case::kBetweenTwo);
}

void is_hard_without_tau(const Case& c) {
  Case hard = c;
  hard.tau = 0;
  const Values p = hard.found().p;
  ASSERT_NEAR(sum(p), c.k, 1e-15 * (1 + c.k) * static_cast<double>(c.x.size()));
  if (c.method == TopkMethod::softmax_iterated && c.k == entries_present(c.x)) return;
  const auto order = falling(c.x);
  for (std::size_t from = 0; from < order.size();) {
    std::size_t to = from;
    while (to < order.size() && c.x[order[to]] == c.x[order[from]]) ++to;
    const double left = c.k - static_cast<double>(from), equals = static_cast<double>(to - from);
    const double share = c.x[order[from]] == -kInfinity ? 0 : std::clamp(left / equals, 0.0, 1.0);
    for (; from < to; ++from) ASSERT_NEAR(p[order[from]], share, 1e-15);
  }
}

template <class T>
std::vector<T> narrowed(const Values& x) {
  std::vector<T> narrow;
  for (const double value : x) narrow.emplace_back(static_cast<float>(value));
  return narrow;
}
template <class T>
Values widened(const std::vector<T>& x) {
  Values wide;
  for (const T& value : x) wide.push_back(static_cast<double>(static_cast<float>(value)));
  return wide;
}

template <class T>
std::vector<T> solve_as(const Case& c, const std::vector<T>& x) {
  std::vector<T> p(x.size());
  smooth_topk<T>(one_row(x), std::array{c.k}, c.options(), one_row<T>(p));
  return p;
}

void holds_in_float(const Case& c) {
  const std::vector<float> x = narrowed<float>(c.x), p = solve_as(c, x);
  Case wide = c;
  wide.x = widened(x);
  ASSERT_LE(largest_difference(widened(p), wide.found().p), kTopkFloatError);
  ASSERT_NEAR(sum(p), c.k, kTopkFloatError * static_cast<double>(x.size()));
  if (c.method == TopkMethod::softmax_iterated) return;
  ASSERT_LE(*std::max_element(p.begin(), p.end()), 1);
  ASSERT_LE(largest_disorder(wide.x, widened(p)), kTopkFloatError);
}

/// What the float32 of the same entries gives, rounded.
void holds_in_half_of_a_float(const Case& c) {
  const auto x = narrowed<Bfloat16>(c.x), p = solve_as(c, x);
  const std::vector<float> exact = solve_as(c, narrowed<float>(widened(x)));
  for (std::size_t i = 0; i < p.size(); ++i) ASSERT_EQ(p[i].bits, Bfloat16(exact[i]).bits) << i;
}

class TopkProperties : public testing::TestWithParam<TopkMethod> {};

TEST_P(TopkProperties, HoldOnRandomRows) {
  Random random(9);
  for (int i = 0; i < kRows; ++i) {
    const Case c = random_case(random, GetParam());
    const Found found = c.found();
    has_sum_range_and_order(c, found);
    treats_infinities(c, found);
    follows_from_its_threshold(c, found);
    switch (i % 9) {  // one of the others, by turns
      case 0:
        does_not_change_with_a_shift(c, random);
        break;
      case 1:
        does_not_see_the_unit(c, found, random);
        break;
      case 2:
        moves_with_its_entries(c, found, random);
        break;
      case 3:
        rises_with_k(c, found, random);
        break;
      case 4:
        leaves_what_its_mirror_takes(c, found);
        break;
      case 5:
        is_hard_without_tau(c);
        break;
      case 6:
        holds_in_half_of_a_float(c);
        break;
      default:
        holds_in_float(c);
    }
    if (HasFatalFailure()) FAIL() << "case " << i << ": " << text_of(c);
  }
}

INSTANTIATE_TEST_SUITE_P(Methods, TopkProperties, testing::ValuesIn(kMethods),
                         [](const auto& of) { return std::string(name(of.param)); });

}  // namespace
}  // namespace tuiqiao::test
