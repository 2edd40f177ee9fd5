#include <gtest/gtest.h>

#include <cmath>
#include <numbers>
#include <numeric>
#include <stdexcept>

#include "diffusion/normal_kernel.h"
#include "tuiqiao/diffusion/noise.h"
#include "tuiqiao/diffusion/schedule.h"

namespace tuiqiao {
namespace {

constexpr BetaSchedule kAll[] = {BetaSchedule::linear, BetaSchedule::scaled_linear, BetaSchedule::squaredcos_cap_v2,
                                 BetaSchedule::sigmoid};

TEST(Schedule, GoesFromBetasToSignalAndBack) {
  for (const BetaSchedule kind : kAll) {
    const auto betas = betas_of(kind, 1000);
    const Schedule schedule = Schedule::from_betas(betas);
    ASSERT_EQ(schedule.steps(), 1000);
    EXPECT_EQ(schedule.A(0), 1);
    EXPECT_EQ(schedule.B(0), 0);
    long double product = 1;
    for (int t = 1; t <= 1000; ++t) {
      const double beta = betas[static_cast<std::size_t>(t - 1)];
      product *= 1 - static_cast<long double>(beta);
      EXPECT_NEAR(schedule.A(t) * schedule.A(t) + schedule.B(t) * schedule.B(t), 1, 1e-14);
      EXPECT_NEAR(schedule.A(t) * schedule.A(t) / static_cast<double>(product), 1, 1e-11) << name(kind) << " " << t;
      EXPECT_NEAR(schedule.b_squared(t - 1, t) / beta, 1, 1e-10) << name(kind) << " " << t;
      EXPECT_GT(schedule.sigma(t), schedule.sigma(t - 1));
    }
  }
}

TEST(Schedule, KeepsSmallNoiseExact) {
  // 1 - A^2 of A = 1 - 5e-17 would be 0.
  const Schedule schedule = Schedule::from_betas(std::vector<double>{1e-16, 1e-16});
  EXPECT_NEAR(schedule.B(1) / 1e-8, 1, 1e-14);
  EXPECT_NEAR(schedule.B(2) / std::sqrt(2e-16), 1, 1e-14);
}

TEST(Schedule, TakesAProcessInContinuousTime) {
  const auto signal = [](double t) { return std::exp(-3 * t * t); };
  const Schedule schedule = Schedule::from_signal(signal, 50);
  for (int t = 0; t <= 50; ++t) EXPECT_NEAR(schedule.A(t), signal(t / 50.0), 1e-15);
  std::vector<double> betas;
  for (int t = 1; t <= 50; ++t) betas.push_back(schedule.b_squared(t - 1, t));
  const Schedule again = Schedule::from_betas(betas);
  for (int t = 1; t <= 50; ++t) EXPECT_NEAR(again.sigma(t) / schedule.sigma(t), 1, 1e-12);
}

TEST(Schedule, FindsTheStepOfASigma) {
  const Schedule schedule = Schedule::from_betas(betas_of(BetaSchedule::linear, 1000));
  for (int t = 1; t <= 1000; ++t) EXPECT_EQ(schedule.step_of(schedule.sigma(t)), t);
  const double between = std::sqrt(schedule.sigma(7) * schedule.sigma(8));
  EXPECT_NEAR(schedule.step_of(between), 7.5, 1e-9);
  EXPECT_EQ(schedule.step_of(0), 1);
  EXPECT_EQ(schedule.step_of(1e-9), 1);
  EXPECT_EQ(schedule.step_of(1e9), 1000);
}

TEST(Schedule, RefusesWhatIsNone) {
  EXPECT_THROW(Schedule::from_betas({}), std::invalid_argument);
  for (const double bad : {0.0, 1.0, -0.1, std::nan("")})
    EXPECT_THROW(Schedule::from_betas(std::vector{0.1, bad}), std::invalid_argument);
  EXPECT_THROW(Schedule::from_signal([](double) { return 1.0; }, 5), std::invalid_argument);
  EXPECT_THROW(Schedule::from_signal([](double t) { return 0.5 - t; }, 5), std::invalid_argument);
  EXPECT_THROW(Schedule::from_signal([](double t) { return 1 - t; }, 5), std::invalid_argument);
  EXPECT_THROW(Schedule::from_betas(std::vector<double>(1000, 0.999)), std::invalid_argument);  // no signal is left
  EXPECT_THROW(betas_of(BetaSchedule::linear, 0), std::invalid_argument);
  EXPECT_THROW(betas_of(BetaSchedule::linear, 10, 0.1, 1), std::invalid_argument);
  EXPECT_THROW(beta_schedule_from_name("cosine"), std::invalid_argument);
}

TEST(Schedule, NamesRoundTrip) {
  for (const BetaSchedule kind : kAll) EXPECT_EQ(beta_schedule_from_name(name(kind)), kind);
}

TEST(StridedSteps, GoAsDiffusersGoes) {
  EXPECT_EQ(strided_steps(10, 3, Spacing::leading), (std::vector{7, 4, 1}));
  EXPECT_EQ(strided_steps(10, 3, Spacing::trailing), (std::vector{10, 7, 3}));
  EXPECT_EQ(strided_steps(10, 3, Spacing::linspace), (std::vector{10, 5, 1}));  // 4.5 rounds to 4, counted from 0
  EXPECT_EQ(strided_steps(10, 1, Spacing::trailing), (std::vector{10}));
  EXPECT_EQ(strided_steps(10, 1, Spacing::linspace), (std::vector{1}));
  for (const Spacing spacing : {Spacing::leading, Spacing::trailing, Spacing::linspace}) {
    const auto all = strided_steps(1000, 1000, spacing);
    for (int i = 0; i < 1000; ++i) EXPECT_EQ(all[static_cast<std::size_t>(i)], 1000 - i);
  }
  EXPECT_EQ(strided_steps(1000, 4, Spacing::leading, 1), (std::vector<int>{752, 502, 252, 2}));
  EXPECT_EQ(strided_steps(4, 4, Spacing::leading, 1), (std::vector<int>{4, 3, 2}));  // none after the last
  EXPECT_EQ(strided_steps(1000, 4, Spacing::trailing, 1), strided_steps(1000, 4, Spacing::trailing));
  EXPECT_THROW(strided_steps(10, 0, Spacing::leading), std::invalid_argument);
  EXPECT_THROW(strided_steps(10, 11, Spacing::leading), std::invalid_argument);
  EXPECT_THROW(spacing_from_name("even"), std::invalid_argument);
}

TEST(Noise, GivesTheKnownAnswersOfPhilox) {
  // Random123's kat_vectors, philox4x32 10.
  using Words = std::array<std::uint32_t, 4>;
  EXPECT_EQ(philox({0, 0}, {0, 0, 0, 0}), (Words{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}));
  EXPECT_EQ(philox({~0U, ~0U}, {~0U, ~0U, ~0U, ~0U}), (Words{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}));
  EXPECT_EQ(philox({0xa4093822, 0x299f31d0}, {0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}),
            (Words{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}));
}

TEST(Noise, IsNormal) {
  constexpr std::size_t kCount = 400000;
  std::vector<double> x(kCount);
  fill_normal(3, 1, 2, x);
  double moments[5] = {};
  std::size_t within = 0;
  for (const double value : x) {
    for (int power = 1; power <= 4; ++power) moments[power] += std::pow(value, power) / kCount;
    within += std::abs(value) < 1.959963985;
  }
  // Five standard errors: of powers 1 to 4 they are sqrt(1, 2, 15, 96) / sqrt(count).
  const double error = 5 / std::sqrt(static_cast<double>(kCount));
  EXPECT_NEAR(moments[1], 0, error);
  EXPECT_NEAR(moments[2], 1, error * std::sqrt(2.0));
  EXPECT_NEAR(moments[3], 0, error * std::sqrt(15.0));
  EXPECT_NEAR(moments[4], 3, error * std::sqrt(96.0));
  EXPECT_NEAR(static_cast<double>(within) / kCount, 0.95, error * std::sqrt(0.95 * 0.05));
}

// By the scalar functions: of rows of any length, and of numbers of all four words of a counter.
TEST(Noise, IsBoxAndMullersOfPhilox) {
  const auto low = [](std::uint64_t v) { return static_cast<std::uint32_t>(v); };
  const auto unit = [](std::uint32_t word, std::uint32_t high) {
    return static_cast<double>((((std::uint64_t{high} << 32 | word) >> 11) + 1)) * 0x1p-53;
  };
  const std::uint64_t seed = 0x123456789ABCDEF0, stream = 0xFFFFFFFE, draw = 0x80000001;
  for (const std::size_t count : {1U, 2U, 7U, 15U, 16U, 33U, 784U}) {
    std::vector<double> x(count);
    fill_normal(seed, stream, draw, x);
    for (std::size_t i = 0; i < count; ++i) {
      const auto words = philox({low(seed), low(seed >> 32)}, {low(i / 2), 0, low(draw), low(stream)});
      const double radius = std::sqrt(-2 * std::log(unit(words[0], words[1])));
      const double angle = 2 * std::numbers::pi * unit(words[2], words[3]);
      EXPECT_NEAR(x[i], radius * (i % 2 == 0 ? std::cos(angle) : std::sin(angle)), 8 * 0x1p-52 * radius) << i;
    }
  }
}

// The numbers of paths are float32's, by the scalar functions, whatever the length of a row.
TEST(Noise, BridgesByRougherNumbers) {
  const auto low = [](std::uint64_t v) { return static_cast<std::uint32_t>(v); };
  const std::uint64_t seed = 0x123456789ABCDEF0, stream = 0xFFFFFFFE, draw = 0x80000001;
  for (const std::size_t count : {1U, 3U, 4U, 31U, 32U, 33U, 784U}) {
    std::vector<double> left(count, 1), right(count, 4), middle(count);
    bridge({seed, stream, draw, 0.25}, left.data(), right.data(), middle);
    for (std::size_t i = 0; i < count; ++i) {
      const auto words = philox({low(seed), low(seed >> 32)}, {low(i / 4), 0, low(draw), low(stream)});
      const std::size_t pair = i % 4 / 2;
      const float unit = (static_cast<float>(words[pair] >> 1) + 0.5F) * 0x1p-31F;
      const double radius = std::sqrt(-2 * std::log(static_cast<double>(unit)));
      const double angle = 2 * std::numbers::pi * static_cast<double>(words[2 + pair] >> 1) * 0x1p-31;
      const double number = radius * (i % 2 == 0 ? std::cos(angle) : std::sin(angle));
      EXPECT_NEAR(middle[i], 2.5 + 0.25 * number, 0.25 * 2e-6 * std::max(radius, 1.0)) << count << " " << i;
    }
  }
}

TEST(Noise, StreamsDrawsAndSeedsAreApart) {
  std::vector<std::vector<double>> rows;
  for (const auto& [seed, stream, draw] :
       {std::array<std::uint64_t, 3>{1, 0, 0}, {2, 0, 0}, {1, 1, 0}, {1, 0, 1}, {std::uint64_t{1} << 32 | 1, 0, 0}}) {
    rows.emplace_back(20000);
    fill_normal(seed, stream, draw, rows.back());
  }
  for (std::size_t a = 0; a < rows.size(); ++a) {
    for (std::size_t b = 0; b < a; ++b) {
      const double sum = std::inner_product(rows[a].begin(), rows[a].end(), rows[b].begin(), 0.0);
      EXPECT_LT(std::abs(sum) / std::sqrt(20000.0), 5) << a << " " << b;
    }
  }
}

TEST(Noise, OfAnImageKnowsNoBatch) {
  std::vector<double> all(35), some(14);
  image_noise(9, 100, 7)(4, all);
  image_noise(9, 102, 7)(4, some);
  for (std::size_t i = 0; i < some.size(); ++i) EXPECT_EQ(some[i], all[14 + i]);
  some.pop_back();
  EXPECT_THROW(image_noise(9, 102, 7)(4, some), std::invalid_argument);
  EXPECT_THROW(image_noise(9, 102, 0)(4, some), std::invalid_argument);
}

TEST(Noise, RandomBelowIsUniform) {
  std::vector<double> counts(7);
  for (std::uint64_t i = 0; i < 70000; ++i) counts[random_below(5, 3, i, 7)] += 1;
  double chi = 0;
  for (const double count : counts) chi += std::pow(count - 10000, 2) / 10000;
  EXPECT_LT(chi, 22.5);  // 0.1 % of chi-squared with 6 degrees of freedom
  EXPECT_EQ(random_below(5, 3, 1, 1), 0U);
}

}  // namespace
}  // namespace tuiqiao
