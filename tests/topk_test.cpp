#include "tuiqiao/topk.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <numeric>
#include <random>
#include <stdexcept>
#include <vector>

#include "topk_rows.h"

namespace tuiqiao::test {
namespace {

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

// ---- Limits, ends and far entries ----

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

TEST(SmoothTopk, FindsTheThresholdNextToCorners) {
  // Gaps wider than e^z reaches, and a threshold that its first part alone would put on the entry above.
  std::mt19937_64 random(1);
  Values x(300);
  for (double& value : x) value = static_cast<double>(random() % 1000000) / 10;
  for (int k = 1; k < 300; ++k) EXPECT_NEAR(sum(solve(TopkMethod::exponential, x, k, 0.1)), k, 1e-9) << k;
  // The corner of an entry lies between the threshold and one that is nearly right.
  const std::vector<float> near{9999.998F, -9.378e-5F, 10000.002F, -1.6676e-3F};
  std::vector<float> p(4);
  smooth_topk<float>(one_row(near), std::array{3.9999999}, options_of(TopkMethod::exponential), one_row<float>(p));
  for (const float value : p) EXPECT_NEAR(value, 1, kTopkFloatError);
  // t = -10.999999999... so that the first takes what is left of 1 by the second.
  const Values q = solve(TopkMethod::clip, {-10.999999999975373, -1.000000000036604, -11.000000000093285}, 1, 10);
  expect_near(q, {3.06155e-12, 1 - 3.06155e-12, 0}, kTopkError);
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
  const Found equal = solve({7, 7, -INFINITY, 7, 7}, 1, options);  // no tau makes a difference
  EXPECT_EQ(equal.row.tau, 1);
  expect_near(equal.p, {0.25, 0.25, 0, 0.25, 0.25}, 1e-15);
}

TEST(SmoothTopk, HitsTheEntropyInEveryUnit) {
  const Values x{1, 5, 2, 5.5, 2.5, 4, -INFINITY, 2};
  SmoothTopkOptions options;
  options.temperature = TopkTemperature::entropy;
  options.entropy_bits = 0.3;
  const Values p = solve(x, 3, options).p;
  for (const double unit : {1e-250, 1e-100, 1e100, 1e300}) {
    Values scaled = x;
    for (double& value : scaled) value *= unit;
    expect_near(solve(scaled, 3, options).p, p, 1e-9);
  }
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

/// clip with a whole k and a gap wider than tau: every p is 0 or 1 for a range of t, and nothing moves.
TEST(SmoothTopk, ClipStandsInTheMiddleOfAGap) {
  const auto check = [](const auto& x, double k, double tau, double middle) {
    using T = std::decay_t<decltype(x[0])>;
    const auto n = static_cast<std::int64_t>(x.size());
    std::vector<T> p(x.size()), v(x.size()), gradient(x.size(), T{7});
    for (std::size_t i = 0; i < v.size(); ++i) v[i] = static_cast<T>(i % 5) - 2;
    const SmoothTopkOptions options = options_of(TopkMethod::clip, tau);
    const auto rows = smooth_topk<T>({x.data(), 1, n}, std::array{k}, options, {p.data(), 1, n});
    EXPECT_NEAR(rows[0].threshold, middle, 1e-5 * tau) << n << " " << k << " " << tau;
    const auto moves = smooth_topk_vjp<T>({x.data(), 1, n}, rows, {v.data(), 1, n}, options, {gradient.data(), 1, n});
    EXPECT_EQ(gradient, std::vector<T>(x.size(), 0)) << n << " " << k << " " << tau;
    EXPECT_EQ(moves[0].k, 0);
  };
  check(Values{-2, -3, -4}, 1, 0.52652399665078375, -2.5 - 0.52652399665078375 / 2);
  std::mt19937_64 random(8);
  std::uniform_real_distribution<double> uniform;
  for (int round = 0; round < 300; ++round) {
    Values x(5 + random() % 400);
    const std::size_t top = 1 + random() % 4;
    for (std::size_t i = 0; i < x.size(); ++i)
      x[i] = i < top ? 5 : i < 2 * top ? 4 : 3 - std::floor(3 * uniform(random));
    std::shuffle(x.begin(), x.end(), random);
    const double tau = 0.999 * uniform(random) + 1e-4;
    check(x, static_cast<double>(top), tau, 4.5 - tau / 2);
    check(std::vector<float>(x.begin(), x.end()), static_cast<double>(top), tau, 4.5 - tau / 2);
  }
}

/// Straight-through: a hard p, and the gradient of the smooth one. Ties go to the lower index.
TEST(SmoothTopk, GivesTheHardChoiceWithTheSmoothGradient) {
  const Values x{1, 5, 2, 5, 2, 4, -INFINITY, 2}, v{3, 1, -4, 1, 5, -9, 2, 6};
  for (const TopkMethod method : kMethods) {
    const double k = method == TopkMethod::gradient || method == TopkMethod::softmax_iterated ? 4 : 3.75;
    SmoothTopkOptions options = options_of(method, 0.7);
    const auto smooth = solve(x, k, options);
    options.hard = true;
    const auto hard = solve(x, k, options);
    EXPECT_EQ(hard.p, (Values{0, 1, k - 3, 1, 0, 1, 0, 0})) << name(method);
    EXPECT_EQ(hard.row.tau, smooth.row.tau);
    Values in_place = x, hard_gradient(x.size()), smooth_gradient(x.size());
    smooth_topk<double>({in_place.data(), 1, 8}, std::array{k}, options, {in_place.data(), 1, 8});
    EXPECT_EQ(in_place, hard.p);
    const auto pull = [&](const SmoothTopkRow& row, Values& out) {
      smooth_topk_vjp<double>({x.data(), 1, 8}, std::array{row}, {v.data(), 1, 8}, options, {out.data(), 1, 8});
    };
    pull(hard.row, hard_gradient);
    pull(smooth.row, smooth_gradient);
    EXPECT_EQ(hard_gradient, smooth_gradient) << name(method);
    EXPECT_EQ(solve(x, 0, options).p, Values(8, 0));
  }
}

TEST(SmoothTopk, ReportsStagesAndHonoursAStop) {
  const Values x{1, 5, 2, 4, 0, 2}, v(6, 1);
  Values p(6), gradient(6);
  SmoothTopkOptions options = options_of(TopkMethod::softmax_iterated, 1);
  std::vector<std::int64_t> done;
  std::stop_source stop;
  options.progress = {[&](std::string_view, std::int64_t at, std::int64_t total) {
                        EXPECT_LT(at, total);
                        done.push_back(at);
                      },
                      stop.get_token()};
  const auto rows = smooth_topk<double>({x.data(), 1, 6}, std::array{5.0}, options, {p.data(), 1, 6});
  EXPECT_EQ(done, (std::vector<std::int64_t>{0, 1, 2, 3, 4}));
  done.clear();
  smooth_topk_vjp<double>({x.data(), 1, 6}, rows, {v.data(), 1, 6}, options, {gradient.data(), 1, 6});
  EXPECT_EQ(done, (std::vector<std::int64_t>{0, 1, 2, 3, 4, 5, 6, 7, 8, 9}));
  stop.request_stop();
  EXPECT_THROW(smooth_topk<double>({x.data(), 1, 6}, std::array{5.0}, options, {p.data(), 1, 6}), Interrupted);
  EXPECT_THROW(smooth_topk_vjp<double>({x.data(), 1, 6}, rows, {v.data(), 1, 6}, options, {gradient.data(), 1, 6}),
               Interrupted);
  options.method = TopkMethod::laplace;  // rows on threads
  EXPECT_THROW(smooth_topk<double>({x.data(), 6, 1}, std::array{0.5}, options, {p.data(), 6, 1}), Interrupted);
}

TEST(SmoothTopk, OfAllEntriesHasItsLogZInPlaceToo) {
  Values x{10, 20, 30};
  const auto rows =
      smooth_topk<double>({x.data(), 1, 3}, std::array{3.0}, options_of(TopkMethod::gradient, 1), {x.data(), 1, 3});
  EXPECT_EQ(rows[0].log_z, 60);
}

TEST(SmoothTopk, NamesGoBothWays) {
  for (const TopkMethod method : kMethods) EXPECT_EQ(topk_method_from_name(name(method)), method);
  EXPECT_THROW(topk_method_from_name("softmax"), std::invalid_argument);
}

}  // namespace
}  // namespace tuiqiao::test
