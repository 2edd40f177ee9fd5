#include "tuiqiao/topk.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <cstdlib>
#include <fstream>
#include <limits>
#include <map>
#include <nlohmann/json.hpp>
#include <numeric>
#include <random>

#include "topk/subsets.h"
#include "topk/threshold.h"

namespace tuiqiao {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();
constexpr std::array kMethods{TopkMethod::softmax_iterated, TopkMethod::gradient, TopkMethod::exponential,
                              TopkMethod::sigmoid,          TopkMethod::laplace,  TopkMethod::clip};
constexpr std::array kThresholdMethods{TopkMethod::exponential, TopkMethod::sigmoid, TopkMethod::laplace,
                                       TopkMethod::clip};

using Values = std::vector<double>;

SmoothTopkOptions options_of(TopkMethod method, double tau = 1) {
  SmoothTopkOptions options;
  options.method = method;
  options.tau = {tau};
  return options;
}

template <class T>
Batch<T> one_row(std::vector<std::remove_const_t<T>>& row) {
  return {row.data(), 1, static_cast<std::int64_t>(row.size())};
}
Batch<const double> one_row(const Values& row) { return {row.data(), 1, static_cast<std::int64_t>(row.size())}; }

struct Found {
  Values p;
  SmoothTopkRow row;
};

Found solve(const Values& x, double k, const SmoothTopkOptions& options) {
  Found found{Values(x.size()), {}};
  found.row = smooth_topk<double>(one_row(x), std::array{k}, options, one_row<double>(found.p)).at(0);
  return found;
}

Values solve(TopkMethod method, const Values& x, double k, double tau = 1) {
  return solve(x, k, options_of(method, tau)).p;
}

struct Pulled {
  Values x;
  SmoothTopkGradient row;
};

Pulled pull_back(const Values& x, double k, const SmoothTopkOptions& options, const Values& v) {
  const Found found = solve(x, k, options);
  Pulled pulled{Values(x.size()), {}};
  pulled.row =
      smooth_topk_vjp<double>(one_row(x), std::array{found.row}, one_row(v), options, one_row<double>(pulled.x)).at(0);
  return pulled;
}

double sum(const Values& p) { return std::accumulate(p.begin(), p.end(), 0.0); }

void expect_near(const Values& a, const Values& b, double error) {
  ASSERT_EQ(a.size(), b.size());
  for (std::size_t i = 0; i < a.size(); ++i) EXPECT_NEAR(a[i], b[i], error) << i;
}

Values softmax(const Values& x) {
  Values p = x;
  const double most = *std::max_element(x.begin(), x.end());
  double total = 0;
  for (double& value : p) total += value = std::exp(value - most);
  for (double& value : p) value /= total;
  return p;
}

// ---- Closed forms ----

TEST(SmoothTopk, IsSoftmaxForOneWhereItShouldBe) {
  const Values x{2, 0, 0, -1.5, 0.3};
  for (const TopkMethod method : {TopkMethod::softmax_iterated, TopkMethod::gradient, TopkMethod::exponential})
    expect_near(solve(method, x, 1), softmax(x), 1e-14);
  // Laplace is softmax only where no probability exceeds 1/2.
  expect_near(solve(TopkMethod::laplace, {0.1, 0, 0.2, -0.3}, 1), softmax({0.1, 0, 0.2, -0.3}), 1e-14);
  EXPECT_NEAR(solve(TopkMethod::laplace, {2, 0, 0}, 1)[0], 0.740, 5e-4);
  EXPECT_NEAR(softmax({2, 0, 0})[0], 0.787, 5e-4);
}

TEST(SmoothTopk, IteratesTheRightSoftmax) {
  // The look-alike that weights exp(x) tends to (1.5, 0.5, 0, ...) for k = 2; this one to (1, 1, 0, ...).
  const Values p = solve(TopkMethod::softmax_iterated, {300, 200, 100, 0}, 2);
  EXPECT_NEAR(p[0], 1, 1e-6);
  EXPECT_NEAR(p[1], 1, 1e-6);
  const Values uneven = solve(TopkMethod::softmax_iterated, {12, 8, 4, 0}, 2);
  EXPECT_NEAR(uneven[0], 0.982, 5e-4);
  EXPECT_NEAR(uneven[1], 0.996, 5e-4);
}

TEST(SmoothTopk, LaplaceSurvivesWhereItsFirstClosedFormDoesNot) {
  const Values p = solve(TopkMethod::laplace, {30, 30.1, 30.2, -30}, 2);
  EXPECT_NEAR(sum(p), 2, kTopkError);
  EXPECT_NEAR(p[1], 2.0 / 3, 0.02);
  EXPECT_LT(p[3], 1e-20);
}

TEST(SmoothTopk, KeepsEvenRowsEven) {
  for (const TopkMethod method : kMethods) {
    for (const double k : {1.0, 2.0, 6.0}) {
      if (method == TopkMethod::softmax_iterated && k > 1) continue;
      expect_near(solve(method, Values(7, 3.25), k), Values(7, k / 7), 1e-15 * 8);
    }
  }
}

/// All k-subsets of n entries one by one.
Values marginals_by_force(const Values& x, int k, double* log_z = nullptr) {
  Values p(x.size(), 0);
  double total = 0;
  const double most = *std::max_element(x.begin(), x.end());
  for (unsigned set = 0; set < 1U << x.size(); ++set) {
    if (std::popcount(set) != k) continue;
    double weight = 0;
    for (std::size_t i = 0; i < x.size(); ++i) weight += set >> i & 1U ? x[i] - most : 0;
    weight = std::exp(weight);
    total += weight;
    for (std::size_t i = 0; i < x.size(); ++i) p[i] += set >> i & 1U ? weight : 0;
  }
  for (double& value : p) value /= total;
  if (log_z) *log_z = std::log(total) + k * most;
  return p;
}

TEST(SmoothTopk, GradientIsTheLawOfSubsets) {
  std::mt19937 random(7);
  std::normal_distribution<double> normal;
  for (int n = 1; n <= 12; ++n) {
    for (int k = 0; k <= n; ++k) {
      Values x(static_cast<std::size_t>(n));
      const double spread = std::pow(10, static_cast<int>(random() % 3) - 1);
      for (double& value : x) value = spread * normal(random) + 5;
      const Found found = solve(x, k, options_of(TopkMethod::gradient));
      double log_z = 0;
      expect_near(found.p, marginals_by_force(x, k, &log_z), kTopkError);
      EXPECT_NEAR(found.row.log_z, log_z, 1e-12 * (1 + std::abs(log_z)));
    }
  }
  // A node at pi would drop a term where p = 1/2.
  expect_near(solve(TopkMethod::gradient, {0, 0}, 1), {0.5, 0.5}, 1e-15);
}

TEST(SmoothTopk, GradientEqualsTheRecursion) {
  std::mt19937 random(8);
  std::normal_distribution<double> normal;
  for (int i = 0; i < 60; ++i) {
    const std::size_t n = 2 + random() % 300;
    const int k = 1 + static_cast<int>(random() % (n - 1));
    Values x(n), by_nodes(n), by_recursion(n);
    const double spread = std::pow(10, static_cast<int>(random() % 5) - 1);
    for (double& value : x) value = spread * normal(random);
    const double a = topk::subset_marginals(x, k, 1, by_nodes),
                 b = topk::subset_marginals_by_recursion(x, k, 1, by_recursion);
    expect_near(by_nodes, by_recursion, kTopkError);
    EXPECT_NEAR(a, b, 1e-11 * (1 + std::abs(a)));
  }
}

TEST(SmoothTopk, GradientHasDigitsBelowAWideGapToo) {
  // p_2 = e^-80 / (1 + e^-80): from the nodes alone it would be wrong in the first digit.
  const Values p = solve(TopkMethod::gradient, {80, 0}, 1);
  EXPECT_NEAR(p[1] / std::exp(-80), 1, 1e-10);
}

// ---- Against numbers of 150 digits: tests/data/make_topk_cases.py ----

double number_of(const nlohmann::json& value) {
  return value.is_string() ? std::strtod(value.get<std::string>().c_str(), nullptr) : value.get<double>();
}

Values row_of(const nlohmann::json& test, const char* stored, const char* formula) {
  Values row;
  if (test.contains(stored)) {
    for (const auto& value : test[stored]) row.push_back(number_of(value));
    return row;
  }
  const auto& f = test[formula];
  std::int64_t checksum = 0;
  for (std::int64_t i = 0; i < f["n"].get<std::int64_t>(); ++i) {
    if (!f.contains("spread")) {
      row.push_back(static_cast<double>((37 * i) % 101 - 50) / 32);
      continue;
    }
    const auto at = static_cast<double>(i);
    const volatile double square = at * at, tenth = square * 0.1, angle = tenth + at;  // each rounded
    const double m = std::nearbyint(f["spread"].get<double>() * std::sin(angle) * 0x1p20);
    checksum += i * static_cast<std::int64_t>(m);
    row.push_back(m * 0x1p-20);
  }
  if (f.contains("checksum")) {
    EXPECT_EQ(checksum, f["checksum"].get<std::int64_t>()) << test["name"];
  }
  return row;
}

TEST(SmoothTopk, AgreesWithNumbersOf150Digits) {
  std::ifstream file(TUIQIAO_TEST_DATA "/topk_cases.json");
  const nlohmann::json cases = nlohmann::json::parse(file);
  ASSERT_GT(cases.size(), 800U);
  int in_float = 0;
  for (const auto& test : cases) {
    const std::string label = test["name"];
    const Values x = row_of(test, "x", "x_formula"), v = row_of(test, "v", "v_formula");
    const SmoothTopkOptions options =
        options_of(topk_method_from_name(test["method"].get<std::string>()), test["tau"].get<double>());
    const auto k = test["k"].get<double>();
    const Found found = solve(x, k, options);
    const double n = static_cast<double>(x.size());
    for (const auto& entry : test["p"]) {
      const double expected = number_of(entry[1]), p = found.p[entry[0].get<std::size_t>()];
      EXPECT_NEAR(p, expected, kTopkError) << label << " p[" << entry[0] << "]";
      // Relative digits wherever the method has them: not at clip's corner, and for subsets where n k is small.
      const bool has_digits = options.method != TopkMethod::clip && options.method != TopkMethod::softmax_iterated &&
                              (options.method != TopkMethod::gradient || n * k <= topk::kMostRecursion);
      if (has_digits && expected > 1e-290) {
        EXPECT_NEAR(p / expected, 1, 1e-10) << label << " p[" << entry[0] << "]";
      }
    }
    // In float32 where the entries are float32.
    const std::vector<float> narrow(x.begin(), x.end());
    if (std::equal(x.begin(), x.end(), narrow.begin())) {
      std::vector<float> p(x.size());
      smooth_topk<float>({narrow.data(), 1, static_cast<std::int64_t>(x.size())}, std::array{k}, options,
                         {p.data(), 1, static_cast<std::int64_t>(x.size())});
      for (const auto& entry : test["p"]) {
        EXPECT_NEAR(p[entry[0].get<std::size_t>()], number_of(entry[1]), kTopkFloatError) << label << " float";
      }
      ++in_float;
    }
    const double size = 1 + *std::max_element(x.begin(), x.end(), [](double a, double b) {
                          return (std::isfinite(a) ? std::abs(a) : 0) < (std::isfinite(b) ? std::abs(b) : 0);
                        });
    if (test["threshold"].is_string()) {
      EXPECT_NEAR(found.row.threshold, number_of(test["threshold"]), 1e-13 * std::abs(size) + 1e-12 * options.tau[0])
          << label;
    }
    if (test["log_z"].is_string()) {
      const double expected = number_of(test["log_z"]);
      EXPECT_NEAR(found.row.log_z, expected, 1e-12 * (1 + std::abs(expected))) << label;
    }
    const Pulled pulled = pull_back(x, k, options, v);
    double largest = 0;
    for (const double value : v) largest = std::max(largest, std::abs(value));
    // The iterated softmax multiplies gradients from stage to stage: by 1e7 where rows are wide.
    double steepest = 1;
    for (const auto& entry : test["vjp"]) steepest = std::max(steepest, std::abs(number_of(entry[1])));
    const double growth = options.method == TopkMethod::softmax_iterated ? steepest : 1;
    for (const auto& entry : test["vjp"]) {
      EXPECT_NEAR(pulled.x[entry[0].get<std::size_t>()] * options.tau[0], number_of(entry[1]) * options.tau[0],
                  1e-11 * (1 + largest) * k * growth)
          << label << " vjp[" << entry[0] << "]";
    }
    const bool underflows = std::all_of(
        x.begin(), x.end(), [&](double entry) { return std::abs(entry - found.row.threshold) / options.tau[0] > 700; });
    if (test["grad_k"].is_string() && !underflows) {
      EXPECT_NEAR(pulled.row.k, number_of(test["grad_k"]), 1e-9 * (1 + largest)) << label;
    }
    if (test["grad_tau"].is_string()) {
      const double expected = number_of(test["grad_tau"]);
      EXPECT_NEAR(pulled.row.tau, expected, 1e-9 * growth * (1 + std::abs(expected))) << label;
    }
  }
  EXPECT_GT(in_float, 150);
}

// ---- What each method claims, on random rows ----

struct Case {
  Values x;
  double k = 0, tau = 1;
};

Case random_case(std::mt19937_64& random) {
  std::normal_distribution<double> normal;
  std::cauchy_distribution<double> cauchy;
  Case c;
  c.x.resize(1 + random() % 30);
  const double spread = std::pow(10, static_cast<int>(random() % 8) - 3);
  const auto kind = random() % 6;
  for (double& value : c.x) {
    value = kind == 0   ? spread * normal(random)
            : kind == 1 ? spread * cauchy(random)
            : kind == 2 ? spread * static_cast<double>(random() % 3)
            : kind == 3 ? 5.0
            : kind == 4 ? spread * normal(random) + 1e4
                        : (random() % 2 ? spread : 0) + 1e-3 * normal(random);
  }
  const auto n = static_cast<double>(c.x.size());
  c.k =
      random() % 2 ? static_cast<double>(random() % (c.x.size() + 1)) : n * static_cast<double>(random() % 1000) / 1000;
  c.tau = std::pow(10, static_cast<int>(random() % 4) - 2);
  return c;
}

TEST(SmoothTopk, KeepsSumOrderAndRange) {
  std::mt19937_64 random(9);
  for (int i = 0; i < 20000; ++i) {
    const Case c = random_case(random);
    const auto n = static_cast<double>(c.x.size());
    for (const TopkMethod method : kMethods) {
      if (method == TopkMethod::softmax_iterated) continue;
      const double k = method == TopkMethod::gradient ? std::floor(c.k) : c.k;
      const Found found = solve(c.x, k, options_of(method, c.tau));
      ASSERT_NEAR(sum(found.p), k, kTopkError * n) << name(method) << " case " << i;
      for (std::size_t a = 0; a < c.x.size(); ++a) {
        ASSERT_GE(found.p[a], 0) << name(method) << " case " << i;
        ASSERT_LE(found.p[a], 1) << name(method) << " case " << i;
        for (std::size_t b = 0; b < a; ++b) {
          if (c.x[a] >= c.x[b]) {
            ASSERT_GE(found.p[a], found.p[b] - kTopkError) << name(method) << " case " << i;
          }
        }
      }
    }
  }
}

TEST(SmoothTopk, DoesNotChangeWithAShiftAndKeepsTheSumInFloat) {
  std::mt19937_64 random(10);
  for (int i = 0; i < 500; ++i) {
    Case c = random_case(random);
    for (double& value : c.x) value = std::round(value * 64) / 64;  // so that the shift is exact
    std::vector<float> x(c.x.begin(), c.x.end()), p(x.size());
    Values moved = c.x;
    for (double& value : moved) value += 4096;
    for (const TopkMethod method : kMethods) {
      const double k = std::floor(c.k);
      const SmoothTopkOptions options = options_of(method, c.tau);
      expect_near(solve(moved, k, options).p, solve(c.x, k, options).p, 1e-9);
      if (method == TopkMethod::softmax_iterated) continue;
      smooth_topk<float>({x.data(), 1, static_cast<std::int64_t>(x.size())}, std::array{k}, options,
                         {p.data(), 1, static_cast<std::int64_t>(p.size())});
      const Values in_double = solve(Values(x.begin(), x.end()), k, options).p;
      for (std::size_t j = 0; j < p.size(); ++j)
        ASSERT_NEAR(p[j], in_double[j], kTopkFloatError) << name(method) << " case " << i;
    }
  }
}

TEST(SmoothTopk, TendsToTheHardChoice) {
  const Values x{3, 1, 4, 1, 5, 9, 2, 6};
  for (const TopkMethod method : kMethods) {
    const Values zero = solve(method, x, 3, 0), small = solve(method, x, 3, 1e-3);
    expect_near(zero, {0, 0, 0, 0, 1, 1, 0, 1}, 0);
    expect_near(small, zero, 1e-12);
  }
  // Ties at the edge share what is left.
  expect_near(solve(TopkMethod::laplace, {2, 1, 1, 0}, 2, 0), {1, 0.5, 0.5, 0}, 0);
  expect_near(solve(TopkMethod::sigmoid, {2, 1, 1, 0}, 1.5, 0), {1, 0.25, 0.25, 0}, 0);
}

TEST(SmoothTopk, MasksInfinitiesAndEnds) {
  for (const TopkMethod method : kMethods) {
    const Values masked = solve(method, {1, -kInfinity, 2, 0.5, -kInfinity}, 2), plain = solve(method, {1, 2, 0.5}, 2);
    expect_near({masked[0], masked[2], masked[3]}, plain, 1e-14);
    EXPECT_EQ(masked[1], 0);
    const Values above = solve(method, {1, kInfinity, 2, 0.5}, 2), rest = solve(method, {1, 2, 0.5}, 1);
    EXPECT_EQ(above[1], 1);
    expect_near({above[0], above[2], above[3]}, rest, 1e-14);
    expect_near(solve(method, {kInfinity, kInfinity, 3}, 1), {0.5, 0.5, 0}, 0);
    expect_near(solve(method, {1, 2, 3}, 0), {0, 0, 0}, 0);
    const Values all = solve(method, {1, 2, -kInfinity}, 2);
    if (method == TopkMethod::softmax_iterated) {
      EXPECT_NEAR(sum(all), 2, 1e-15);  // uneven also where all are to be taken
    } else {
      expect_near(all, {1, 1, 0}, 0);
    }
    expect_near(solve(method, {7}, 1), {1}, 0);
    EXPECT_THROW(solve(method, {1, std::nan(""), 2}, 1), std::invalid_argument);
    EXPECT_THROW(solve(method, {1, 2}, 3), std::invalid_argument);
    EXPECT_THROW(solve(method, {1, -kInfinity}, 2), std::invalid_argument);
    EXPECT_THROW(solve(method, {1, 2}, -1), std::invalid_argument);
    EXPECT_THROW(solve(method, {1, 2}, std::nan("")), std::invalid_argument);
    EXPECT_THROW(solve(method, {1, 2}, 1, -1), std::invalid_argument);
    EXPECT_THROW(solve(method, {1, 2}, 1, kInfinity), std::invalid_argument);
  }
  EXPECT_THROW(solve(TopkMethod::gradient, {1, 2}, 0.5), std::invalid_argument);
  EXPECT_THROW(solve(TopkMethod::softmax_iterated, {1, 2}, 1.5), std::invalid_argument);
}

TEST(SmoothTopk, StandsFarEntries) {
  for (const TopkMethod method : {TopkMethod::gradient, TopkMethod::laplace, TopkMethod::sigmoid}) {
    const Values plain = solve(method, {1, 2, 3, 4, 5}, 2);
    for (const double far : {-1e9, -1e20, -3.4028234663852886e38}) {
      const Values p = solve(method, {far, 1, 2, 3, 4, 5}, 2);
      expect_near({p.begin() + 1, p.end()}, plain, 1e-12);
      SmoothTopkOptions options = options_of(method);
      options.temperature = TopkTemperature::entropy;
      options.entropy_bits = 0.2;
      const Values sharp = solve({far, 1, 2, 3, 4, 5}, 2, options).p;
      EXPECT_GT(sharp[5], 0.9);
      EXPECT_LT(sharp[1], 0.1);
      // The gradient in tau does not see the order of the entries either.
      const Values v{1, -1, 0.5, 2, 0.25, 1};
      const Pulled first = pull_back({far, 1, 2, 3, 4, 5}, 2, options_of(method), v);
      const Pulled last = pull_back({1, 2, 3, 4, 5, far}, 2, options_of(method), {-1, 0.5, 2, 0.25, 1, 1});
      EXPECT_NEAR(first.row.tau, last.row.tau, 1e-12);
    }
  }
  SmoothTopkOptions scale_free;
  scale_free.temperature = TopkTemperature::scale_free;
  EXPECT_NEAR(sum(solve({1e200, -1e200, 0}, 1, scale_free).p), 1, 1e-12);
  EXPECT_NEAR(sum(solve({1e-200, -1e-200, 0}, 1, scale_free).p), 1, 1e-12);
  // Of the same row, smaller by 1e200: a gradient larger by as much.
  const Pulled tiny = pull_back({1e-200, -2e-200, 0}, 1, scale_free, {1, 0, 3}),
               plain_scale = pull_back({1, -2, 0}, 1, scale_free, {1, 0, 3});
  for (std::size_t i = 0; i < 3; ++i) EXPECT_NEAR(tiny.x[i] * 1e-200, plain_scale.x[i], 1e-12) << i;
  EXPECT_THROW(solve(TopkMethod::clip, {1e308, -1e308, 0}, 1), std::invalid_argument);
  EXPECT_THROW(solve(TopkMethod::softmax_iterated, {1e20, 0, 1}, 1, 1e-289), std::invalid_argument);
  SmoothTopkOptions tied;
  tied.temperature = TopkTemperature::entropy;
  tied.entropy_bits = 0.1;
  EXPECT_THROW(solve({1, 1, 0}, 1, tied), std::invalid_argument);
}

TEST(SmoothTopk, KeepsTheSumOfLongRowsOfFloats) {
  std::mt19937_64 random(18);
  std::normal_distribution<float> normal;
  constexpr std::int64_t kEntries = 300000;
  std::vector<float> x(kEntries), p(kEntries);
  for (float& value : x) value = normal(random);
  const Values wide(x.begin(), x.end());
  Values wide_p(wide.size());
  for (const TopkMethod method :
       {TopkMethod::gradient, TopkMethod::exponential, TopkMethod::laplace, TopkMethod::clip}) {
    for (const double k : {1.0, 1000.0, 150000.0}) {
      const auto rows =
          smooth_topk<float>({x.data(), 1, kEntries}, std::array{k}, options_of(method), {p.data(), 1, kEntries});
      smooth_topk<double>({wide.data(), 1, kEntries}, std::array{k}, options_of(method), {wide_p.data(), 1, kEntries});
      EXPECT_NEAR(sum(wide_p), k, kTopkError * kEntries) << name(method);
      EXPECT_NEAR(std::accumulate(p.begin(), p.end(), 0.0), k, kTopkFloatError * kEntries) << name(method);
      double worst = 0;
      for (std::size_t i = 0; i < p.size(); ++i)
        worst = std::max(worst, std::abs(wide_p[i] - static_cast<double>(p[i])));
      EXPECT_LE(worst, kTopkFloatError) << name(method) << " " << k;
      if (method == TopkMethod::gradient) continue;
      // The gradient of sum p in k is 1, and in x 0.
      std::vector<float> ones(kEntries, 1), slope(kEntries);
      const auto pulled = smooth_topk_vjp<float>({x.data(), 1, kEntries}, rows, {ones.data(), 1, kEntries},
                                                 options_of(method), {slope.data(), 1, kEntries});
      EXPECT_NEAR(pulled[0].k, 1, 1e-6);
      EXPECT_LE(std::abs(*std::max_element(slope.begin(), slope.end())), 1e-6);
    }
  }
}

// ---- Gradients ----

TEST(SmoothTopkVjp, EqualsDifferences) {
  std::mt19937_64 random(11);
  std::normal_distribution<double> normal;
  for (int i = 0; i < 200; ++i) {
    const std::size_t n = 2 + random() % 12;
    Values x(n), v(n);
    for (double& value : x) value = 2 * normal(random);
    for (double& value : v) value = normal(random);
    const double tau = std::exp(0.5 * normal(random));
    for (const TopkMethod method : kMethods) {
      const bool whole = method == TopkMethod::gradient || method == TopkMethod::softmax_iterated;
      const double k = 1 + static_cast<double>(random() % (n - 1)) - (whole ? 0 : 0.3);
      for (const TopkTemperature temperature : {TopkTemperature::given, TopkTemperature::scale_free}) {
        SmoothTopkOptions options = options_of(method, tau);
        options.temperature = temperature;
        const Found found = solve(x, k, options);
        // Differences across a corner say nothing.
        const auto is_corner = [&](double p) { return p > 1 - 1e-4 || (method == TopkMethod::clip && p < 1e-4); };
        if ((method == TopkMethod::clip || method == TopkMethod::exponential) &&
            std::any_of(found.p.begin(), found.p.end(), is_corner))
          continue;
        const auto value_of = [&](const Values& at, double at_k, double at_tau) {
          SmoothTopkOptions moved = options;
          moved.tau = {at_tau};
          const Values p = solve(at, at_k, moved).p;
          return std::inner_product(p.begin(), p.end(), v.begin(), 0.0);
        };
        const Pulled pulled = pull_back(x, k, options, v);
        constexpr double kStep = 1e-5;
        for (std::size_t j = 0; j < n; ++j) {
          Values up = x, down = x;
          up[j] += kStep, down[j] -= kStep;
          EXPECT_NEAR(pulled.x[j], (value_of(up, k, tau) - value_of(down, k, tau)) / (2 * kStep), 1e-7)
              << name(method) << " case " << i;
        }
        EXPECT_NEAR(pulled.row.tau, (value_of(x, k, tau + kStep) - value_of(x, k, tau - kStep)) / (2 * kStep), 1e-7)
            << name(method) << " case " << i;
        if (!whole) {
          EXPECT_NEAR(pulled.row.k, (value_of(x, k + kStep, tau) - value_of(x, k - kStep, tau)) / (2 * kStep), 1e-7)
              << name(method) << " case " << i;
        }
      }
    }
  }
}

TEST(SmoothTopkVjp, IsZeroWhereNothingMoves) {
  for (const TopkMethod method : kMethods) {
    for (const auto& [k, tau] : {std::pair{0.0, 1.0}, {3.0, 1.0}, {1.0, 0.0}}) {
      if (k == 3 && method == TopkMethod::softmax_iterated) continue;
      const Pulled pulled = pull_back({1, 2, 3}, k, options_of(method, tau), {1, -2, 0.5});
      expect_near(pulled.x, {0, 0, 0}, 0);
    }
    const Pulled masked = pull_back({1, -kInfinity, 3, kInfinity, 2}, 2, options_of(method), {1, 5, 0.5, 9, 2});
    EXPECT_EQ(masked.x[1], 0);
    EXPECT_EQ(masked.x[3], 0);
    EXPECT_NEAR(sum(masked.x), 0, 1e-14);
  }
}

// ---- Batches, temperatures, types ----

TEST(SmoothTopk, TakesBatchesWithTheirOwnKAndTau) {
  std::mt19937_64 random(12);
  std::normal_distribution<double> normal;
  Values x(std::size_t{5} * 40), p(x.size());
  for (double& value : x) value = normal(random);
  const Values k{1, 2.5, 7, 0, 40};
  for (const TopkMethod method : kThresholdMethods) {
    SmoothTopkOptions options = options_of(method);
    options.tau = {1, 0.1, 3, 1, 0};
    const auto rows = smooth_topk<double>({x.data(), 5, 40}, k, options, {p.data(), 5, 40});
    for (std::size_t i = 0; i < 5; ++i) {
      const Values row(x.begin() + static_cast<std::ptrdiff_t>(40 * i),
                       x.begin() + static_cast<std::ptrdiff_t>(40 * i + 40));
      const Found alone = solve(row, k[i], options_of(method, options.tau[i]));
      expect_near(
          Values(p.begin() + static_cast<std::ptrdiff_t>(40 * i), p.begin() + static_cast<std::ptrdiff_t>(40 * i + 40)),
          alone.p, 0);
      EXPECT_EQ(rows[i].threshold, alone.row.threshold);
    }
    EXPECT_TRUE(smooth_topk<double>({nullptr, 0, 40}, std::array{1.0}, options_of(method), {nullptr, 0, 40}).empty());
    EXPECT_THROW(smooth_topk<double>({x.data(), 5, 40}, std::array{1.0, 2.0}, options, {p.data(), 5, 40}),
                 std::invalid_argument);
    EXPECT_THROW(smooth_topk<double>({x.data(), 5, 40}, k, options, {p.data(), 4, 40}), std::invalid_argument);
  }
}

TEST(SmoothTopk, MayOverwriteItsInput) {
  std::mt19937_64 random(13);
  std::normal_distribution<double> normal;
  Values x(100);
  for (double& value : x) value = normal(random);
  for (const TopkMethod method : kMethods) {
    Values in_place = x;
    smooth_topk<double>(one_row(in_place), std::array{9.0}, options_of(method), one_row<double>(in_place));
    expect_near(in_place, solve(method, x, 9), 0);
  }
}

TEST(SmoothTopk, HitsTheEntropyAskedFor) {
  std::mt19937_64 random(14);
  std::normal_distribution<double> normal;
  Values x(200);
  for (double& value : x) value = 30 * normal(random);
  for (const TopkMethod method : kThresholdMethods) {
    for (const double bits : {0.02, 0.1, 0.3}) {
      SmoothTopkOptions options = options_of(method);
      options.temperature = TopkTemperature::entropy;
      options.entropy_bits = bits;
      const Found found = solve(x, 20, options);
      double entropy = 0;
      for (const double q : found.p) {
        if (q > 0 && q < 1) entropy -= (q * std::log2(q) + (1 - q) * std::log2(1 - q)) / 200;
      }
      EXPECT_NEAR(entropy, bits, 1e-9) << name(method);
    }
  }
  SmoothTopkOptions options;
  options.temperature = TopkTemperature::entropy;
  options.entropy_bits = 0.9;  // above that of k / n = 1 / 10, which is 0.469
  EXPECT_THROW(solve(x, 20, options), std::invalid_argument);
}

TEST(SmoothTopk, ScaleFreeDoesNotSeeTheScale) {
  const Values x{3, 1, 4, 1.5, 5, 9, 2, 6};
  Values scaled = x;
  for (double& value : scaled) value = 1000 * value - 77;
  for (const TopkMethod method : kMethods) {
    SmoothTopkOptions options = options_of(method, 0.5);
    options.temperature = TopkTemperature::scale_free;
    expect_near(solve(scaled, 3, options).p, solve(x, 3, options).p, 1e-12);
  }
}

TEST(SmoothTopk, WorksOnHalvesOfFloats) {
  std::mt19937_64 random(15);
  std::normal_distribution<float> normal;
  std::vector<Bfloat16> x, p(64);
  std::vector<float> wide, wide_p(64);
  for (int i = 0; i < 64; ++i) {
    x.emplace_back(normal(random));
    wide.push_back(static_cast<float>(x.back()));
  }
  const SmoothTopkOptions options;
  smooth_topk<Bfloat16>({x.data(), 1, 64}, std::array{5.0}, options, {p.data(), 1, 64});
  smooth_topk<float>({wide.data(), 1, 64}, std::array{5.0}, options, {wide_p.data(), 1, 64});
  for (std::size_t i = 0; i < 64; ++i) EXPECT_EQ(p[i].bits, Bfloat16(wide_p[i]).bits);
  EXPECT_TRUE(std::isnan(static_cast<float>(Bfloat16(std::nanf("")))));
  EXPECT_EQ(static_cast<float>(Bfloat16(1.00390625F)), 1);  // half way: to even
}

// ---- Subsets ----

TEST(SampleSubsets, DrawsEachSubsetAsOftenAsItShould) {
  const Values x{0.5, -1, 2, 0, 1, -0.5};
  constexpr int kDraws = 60000;
  std::map<unsigned, int> counts;
  for (const auto& subset : sample_subsets(x, 3, 0.8, 5, kDraws)) {
    ASSERT_EQ(subset.size(), 3U);
    ASSERT_TRUE(std::is_sorted(subset.begin(), subset.end()));
    unsigned set = 0;
    for (const std::int64_t i : subset) set |= 1U << i;
    ++counts[set];
  }
  double total = 0, chi = 0;
  std::map<unsigned, double> weights;
  for (unsigned set = 0; set < 64; ++set) {
    if (std::popcount(set) != 3) continue;
    double sum_x = 0;
    for (std::size_t i = 0; i < x.size(); ++i) sum_x += set >> i & 1U ? x[i] / 0.8 : 0;
    total += weights[set] = std::exp(sum_x);
  }
  for (const auto& [set, weight] : weights) {
    const double expected = kDraws * weight / total;
    chi += (counts[set] - expected) * (counts[set] - expected) / expected;
  }
  EXPECT_LT(chi, 50.8);  // 19 degrees of freedom: 1 of 10,000 exceeds it
}

TEST(SampleSubsets, HalvesLongRowsRightly) {
  std::mt19937_64 random(17);
  std::normal_distribution<double> normal;
  Values x(700), p(x.size()), counts(x.size(), 0);
  for (double& value : x) value = 2 * normal(random);
  topk::subset_marginals(x, 200, 1, p);
  constexpr int kDraws = 1000;
  double pairs = 0;  // how often 3 and 600 are in together
  for (const auto& subset : sample_subsets(x, 200, 1, 6, kDraws)) {
    ASSERT_EQ(subset.size(), 200U);
    for (const std::int64_t i : subset) counts[static_cast<std::size_t>(i)] += 1.0 / kDraws;
    const auto holds = [&](std::int64_t i) { return std::binary_search(subset.begin(), subset.end(), i); };
    pairs += holds(3) && holds(600) ? 1.0 / kDraws : 0;
  }
  for (std::size_t i = 0; i < x.size(); ++i)
    EXPECT_NEAR(counts[i], p[i], 4.7 * std::sqrt(p[i] * (1 - p[i]) / kDraws) + 1e-3) << i;
  EXPECT_NEAR(pairs, p[3] * p[600], 0.05);
}

TEST(SampleSubsets, KeepsMasksInfinitiesAndSeeds) {
  const Values x{1, -kInfinity, kInfinity, 0, 2};
  for (const auto& subset : sample_subsets(x, 2, 1, 7, 50)) {
    EXPECT_TRUE(std::count(subset.begin(), subset.end(), 2) == 1 && std::count(subset.begin(), subset.end(), 1) == 0);
  }
  EXPECT_EQ(sample_subsets(x, 4, 1, 7, 1)[0], (std::vector<std::int64_t>{0, 2, 3, 4}));
  EXPECT_EQ(sample_subsets(x, 2, 1, 7, 9), sample_subsets(x, 2, 1, 7, 9));
  EXPECT_THROW(sample_subsets(x, 0, 1, 7), std::invalid_argument);
  EXPECT_THROW(sample_subsets(x, 5, 1, 7), std::invalid_argument);
  EXPECT_THROW(sample_subsets(x, 2, 0, 7), std::invalid_argument);
  EXPECT_THROW(sample_subsets({{1.0, std::nan("")}}, 1, 1, 7), std::invalid_argument);
}

TEST(TopIndices, AreTheLargestInOrder) {
  const Values x{3, 1, 4, 1, 5, 9, 2, 6, 5};
  EXPECT_EQ(top_indices<double>(x, 4), (std::vector<std::int64_t>{5, 7, 4, 8}));
  EXPECT_EQ(top_indices<double>(x, 0), std::vector<std::int64_t>{});
  EXPECT_EQ(top_indices<double>(x, 9).back(), 3);
  EXPECT_THROW(top_indices<double>(x, 10), std::invalid_argument);
}

// ---- Thresholds ----

TEST(SmoothTopkBy, ServesAnyRisingFunction) {
  std::mt19937_64 random(16);
  std::normal_distribution<double> normal;
  const auto f = [](double z) { return 0.5 * std::erfc(-z); };
  const auto slope = [](double z) { return std::exp(-z * z) / std::sqrt(std::acos(-1.0)); };
  for (int i = 0; i < 200; ++i) {
    Values x(2 + random() % 50);
    const double spread = std::pow(10, static_cast<int>(random() % 5) - 1);
    for (double& value : x) value = spread * normal(random);
    const double k = 0.5 + static_cast<double>(random() % (x.size() - 1));
    Values p(x.size());
    smooth_topk_by(f, slope, x, k, 1, p);
    const double total = sum(p);
    EXPECT_NEAR(total, k, 1e-11) << i;
  }
}

TEST(SmoothTopk, NamesGoBothWays) {
  for (const TopkMethod method : kMethods) EXPECT_EQ(topk_method_from_name(name(method)), method);
  EXPECT_THROW(topk_method_from_name("softmax"), std::invalid_argument);
}

}  // namespace
}  // namespace tuiqiao
