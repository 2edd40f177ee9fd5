#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <random>
#include <string>
#include <vector>

#include "topk_rows.h"
#include "tuiqiao/topk.h"

namespace tuiqiao::test {
namespace {

using Random = std::mt19937_64;

// ---- Against differences ----

constexpr double kStep = 1e-5;

struct Case {
  Values x, v;
  double k = 0;
  SmoothTopkOptions options;
};

Case random_case(Random& random, TopkMethod method, TopkTemperature temperature) {
  std::normal_distribution<double> normal;
  const std::size_t n = 2 + random() % 12;
  Case c{Values(n), Values(n), 0, options_of(method, std::exp(0.5 * normal(random)))};
  for (double& value : c.x) value = 2 * normal(random);
  for (double& value : c.v) value = normal(random);
  c.k = 1 + static_cast<double>(random() % (n - 1)) - (takes_whole_k(method) ? 0 : 0.3);
  c.options.temperature = temperature;
  return c;
}

/// Whether a step could lead an entry past a corner of f, where differences say nothing: at z = 0, and for clip at 1.
bool is_near_corner(const Case& c, const SmoothTopkRow& row) {
  if (c.options.method != TopkMethod::exponential && c.options.method != TopkMethod::clip) return false;
  return std::any_of(c.x.begin(), c.x.end(), [&](double entry) {
    const double z = (entry - row.threshold) / row.tau;
    return std::abs(z) < 1e-3 || (c.options.method == TopkMethod::clip && std::abs(z - 1) < 1e-3);
  });
}

double weighted_sum(const Case& c) {
  const Values p = solve(c.x, c.k, c.options).p;
  return std::inner_product(p.begin(), p.end(), c.v.begin(), 0.0);
}

/// The slope of sum v p as `move(case, h)` moves the case.
template <class Move>
double difference(const Case& c, const Move& move) {
  Case up = c, down = c;
  move(up, kStep);
  move(down, -kStep);
  return (weighted_sum(up) - weighted_sum(down)) / (2 * kStep);
}

void equals_differences(const Case& c) {
  const Pulled pulled = pull_back(c.x, c.k, c.options, c.v);
  for (std::size_t j = 0; j < c.x.size(); ++j) {
    EXPECT_NEAR(pulled.x[j], difference(c, [&](Case& moved, double by) { moved.x[j] += by; }), 1e-7) << j;
  }
  EXPECT_NEAR(pulled.row.tau, difference(c, [](Case& moved, double by) { moved.options.tau[0] += by; }), 1e-7);
  if (!takes_whole_k(c.options.method)) {
    EXPECT_NEAR(pulled.row.k, difference(c, [](Case& moved, double by) { moved.k += by; }), 1e-7);
  }
}

class TopkVjp : public testing::TestWithParam<TopkMethod> {};

TEST_P(TopkVjp, EqualsDifferences) {
  Random random(11);
  constexpr int kCases = 400;
  int compared = 0, flat = 0;
  for (int i = 0; i < kCases; ++i) {
    const auto temperature = i % 2 ? TopkTemperature::scale_free : TopkTemperature::given;
    const Case c = random_case(random, GetParam(), temperature);
    const Found found = solve(c.x, c.k, c.options);
    if (is_near_corner(c, found.row)) continue;
    ++compared;
    flat += std::any_of(found.p.begin(), found.p.end(), [](double p) { return p == 0 || p == 1; }) ? 1 : 0;
    equals_differences(c);
    if (HasFailure()) FAIL() << "case " << i;
  }
  EXPECT_GE(compared, kCases * 95 / 100);
  // Where an entry has f' = 0, and its part of the mean of v must be left out.
  if (GetParam() == TopkMethod::clip || GetParam() == TopkMethod::exponential) {
    EXPECT_GE(flat, kCases / 4);
  }
}

/// A shift of x moves nothing, nor does a v of one value, whose sum with p is fixed.
TEST_P(TopkVjp, LeavesShiftsOut) {
  Random random(21);
  for (int i = 0; i < 200; ++i) {
    Case c = random_case(random, GetParam(), TopkTemperature::given);
    EXPECT_NEAR(sum(pull_back(c.x, c.k, c.options, c.v).x), 0, 1e-13) << i;
    std::fill(c.v.begin(), c.v.end(), 3);
    const Pulled pulled = pull_back(c.x, c.k, c.options, c.v);
    for (const double slope : pulled.x) EXPECT_NEAR(slope, 0, 1e-12) << i;
    EXPECT_NEAR(pulled.row.tau, 0, 1e-12) << i;
    if (!takes_whole_k(GetParam())) {
      EXPECT_NEAR(pulled.row.k, 3, 1e-12) << i;
    }
  }
}

TEST_P(TopkVjp, IsZeroWhereNothingMoves) {
  const TopkMethod method = GetParam();
  for (const auto& [k, tau] : {std::pair{0.0, 1.0}, {3.0, 1.0}, {1.0, 0.0}}) {
    if (k == 3 && method == TopkMethod::softmax_iterated) continue;
    const Pulled pulled = pull_back({1, 2, 3}, k, options_of(method, tau), {1, -2, 0.5});
    expect_near(pulled.x, {0, 0, 0}, 0);
    EXPECT_EQ(pulled.row.k, 0);
    EXPECT_EQ(pulled.row.tau, 0);
  }
  const Pulled masked = pull_back({1, -kInfinity, 3, kInfinity, 2}, 2, options_of(method), {1, 5, 0.5, 9, 2});
  EXPECT_EQ(masked.x[1], 0);
  EXPECT_EQ(masked.x[3], 0);
  EXPECT_NEAR(sum(masked.x), 0, 1e-14);
}

TEST_P(TopkVjp, HoldsInFloatAndHalfOfAFloat) {
  Random random(22);
  for (int i = 0; i < 200; ++i) {
    const Case c = random_case(random, GetParam(), TopkTemperature::given);
    std::vector<Bfloat16> x, v;
    for (const double value : c.x) x.emplace_back(static_cast<float>(value));
    for (const double value : c.v) v.emplace_back(static_cast<float>(value));
    std::vector<float> wide_x, wide_v;
    for (const Bfloat16 value : x) wide_x.push_back(static_cast<float>(value));
    for (const Bfloat16 value : v) wide_v.push_back(static_cast<float>(value));
    const Pulled exact = pull_back({wide_x.begin(), wide_x.end()}, c.k, c.options, {wide_v.begin(), wide_v.end()});
    std::vector<float> p(x.size()), g(x.size());
    const auto rows = smooth_topk<float>(one_row(wide_x), std::array{c.k}, c.options, one_row<float>(p));
    const auto in_float = smooth_topk_vjp<float>(one_row(wide_x), rows, one_row(wide_v), c.options, one_row<float>(g));
    std::vector<Bfloat16> half(x.size());
    smooth_topk_vjp<Bfloat16>(one_row(x), rows, one_row(v), c.options, one_row<Bfloat16>(half));
    const double allowed = 1e-5 / c.options.tau[0];
    for (std::size_t j = 0; j < x.size(); ++j) {
      EXPECT_NEAR(g[j], exact.x[j], allowed) << i;
      EXPECT_EQ(half[j].bits, Bfloat16(g[j]).bits) << i;
    }
    EXPECT_NEAR(in_float[0].tau, exact.row.tau, allowed) << i;
    EXPECT_NEAR(in_float[0].k, exact.row.k, allowed) << i;
  }
}

INSTANTIATE_TEST_SUITE_P(Methods, TopkVjp, testing::ValuesIn(kMethods),
                         [](const auto& of) { return std::string(name(of.param)); });

// ---- At corners, as the header says: of the sloping side for exponential, of the flat side for clip ----

TEST(TopkVjpAtCorners, TakesTheSideThatTheHeaderNames) {
  // t = 0 with two entries at it, and the third too far below to count.
  const Pulled sloping = pull_back({0, 0, -800}, 2, options_of(TopkMethod::exponential), {1, 2, 4});
  expect_near(sloping.x, {-0.5, 0.5, 0}, 1e-12);
  EXPECT_NEAR(sloping.row.k, 1.5, 1e-12);
  // t = 0: p = (1, 0.5, 0.25, 0) with the first and the last at the corners of clip.
  const Pulled flat = pull_back({1, 0.5, 0.25, 0}, 1.75, options_of(TopkMethod::clip), {8, 1, 2, 16});
  expect_near(flat.x, {0, -0.5, 0.5, 0}, 1e-12);
  EXPECT_NEAR(flat.row.k, 1.5, 1e-12);
}

// ---- Against all k-subsets one by one ----

TEST(TopkVjpOfSubsets, IsTheCovariance) {
  Random random(23);
  std::normal_distribution<double> normal;
  std::cauchy_distribution<double> cauchy;
  for (std::size_t n = 1; n <= 12; ++n) {
    for (int k = 0; k <= static_cast<int>(n); ++k) {
      for (int kind = 0; kind < 6; ++kind) {
        Values x(n), v(n);
        const double spread = std::pow(10, static_cast<int>(random() % 4) - 2);
        const double tau = std::pow(10, static_cast<int>(random() % 3) - 1);
        for (double& value : x) {
          value = kind == 0   ? spread * normal(random)
                  : kind == 1 ? spread * cauchy(random)
                  : kind == 2 ? static_cast<double>(random() % 2)
                  : kind == 3 ? 4.0
                  : kind == 4 ? 1e4 + spread * normal(random)
                              : (random() % 2 ? 30 : 0) + normal(random);
        }
        for (double& value : v) value = normal(random);
        double size = 0;
        for (const double value : v) size += std::abs(value);
        const Values expected = subset_law_by_force(x, k, tau, v).vjp;
        const Pulled pulled = pull_back(x, k, options_of(TopkMethod::gradient, tau), v);
        double in_tau = 0;
        for (std::size_t i = 0; i < n; ++i) {
          EXPECT_NEAR(pulled.x[i], expected[i], kTopkError * size / tau) << n << " " << k << " kind " << kind;
          in_tau -= expected[i] * (x[i] - x[0]) / tau;
        }
        EXPECT_NEAR(pulled.row.tau, in_tau, 1e-10 * size / tau * (1 + std::abs(in_tau) * tau))
            << n << " " << k << " kind " << kind;
      }
    }
  }
}

}  // namespace
}  // namespace tuiqiao::test
