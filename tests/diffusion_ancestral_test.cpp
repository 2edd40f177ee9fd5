#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <stdexcept>

#include "tuiqiao/diffusion/ancestral.h"

namespace tuiqiao {
namespace {

constexpr std::int64_t kSamples = 100000;

std::vector<int> every_step(const Schedule& schedule) {
  return strided_steps(schedule.steps(), schedule.steps(), Spacing::leading);
}

/// As DDPM's schedule of 1000 steps ends, in so few steps that the two variances differ.
Schedule short_schedule(int steps) {
  return Schedule::from_betas(betas_of(BetaSchedule::linear, steps, 0.1 / steps, std::min(20.0 / steps, 0.9)));
}

double variance_of(std::span<const double> x) {
  double mean = 0, square = 0;
  for (const double value : x) mean += value / static_cast<double>(x.size());
  for (const double value : x) square += (value - mean) * (value - mean) / static_cast<double>(x.size());
  return square;
}

/// The variance of N(0, v) samples is known to v sqrt(2 / n): five of those.
double error_of(double variance) { return 5 * variance * std::sqrt(2.0 / kSamples); }

/// x_t's variance at every step that the sampler passes, by t; 0 for its end.
std::map<int, double> variances(const Denoiser& denoiser, const Schedule& schedule, AncestralOptions options) {
  std::map<int, double> found;
  options.watch = [&](const SampleStep& step) { found[step.step] = variance_of(step.x); };
  std::vector<double> x(kSamples);
  const NoiseSource noise = image_noise(11, 0, kSamples);
  noise(0, x);
  sample_ancestral(denoiser, schedule, every_step(schedule), noise, options, x);
  found[0] = variance_of(x);
  return found;
}

TEST(Ancestral, RecoversOnePointExactlyWithPosteriorVariance) {
  const Schedule schedule = short_schedule(50);
  const MixtureDenoiser point({{1}, {{0.7}}, {0}});
  AncestralOptions options;
  for (const bool noise_in_last_step : {false, true}) {
    options.noise_in_last_step = noise_in_last_step;
    std::vector<double> x(1000);
    const NoiseSource noise = image_noise(1, 0, 1000);
    noise(0, x);
    sample_ancestral(point, schedule, every_step(schedule), noise, options, x);
    for (const double value : x) ASSERT_NEAR(value, 0.7, 1e-14);
  }
  for (const auto& [t, variance] : variances(point, schedule, options)) {
    const double exact = schedule.B(t) * schedule.B(t);
    // The initial noise has variance 1 where the process ends at B_T^2.
    EXPECT_NEAR(variance, exact, error_of(exact) + 1 - std::pow(schedule.B(50), 2) + 1e-14) << t;
  }
}

TEST(Ancestral, DoesNotRecoverOnePointWithBetaVariance) {
  const Schedule schedule = short_schedule(50);
  const MixtureDenoiser point({{1}, {{0.7}}, {0}});
  AncestralOptions options;
  options.variance = Variance::beta;
  options.noise_in_last_step = true;
  const auto found = variances(point, schedule, options);
  EXPECT_GT(found.at(0), 0.5 * schedule.b_squared(0, 1));  // where the point has variance 0
  const double exact = schedule.B(5) * schedule.B(5);
  EXPECT_GT(found.at(5), exact + 5 * error_of(exact));
}

TEST(Ancestral, KeepsEveryMarginalOfNormalDataWithBetaVariance) {
  const Schedule schedule = short_schedule(50);
  const MixtureDenoiser normal({{1}, {{0}}, {1}});
  AncestralOptions options;
  options.variance = Variance::beta;
  options.noise_in_last_step = true;  // without it the last step only shrinks
  const auto found = variances(normal, schedule, options);
  ASSERT_EQ(found.size(), 51U);
  for (const auto& [t, variance] : found) EXPECT_NEAR(variance, 1, error_of(1)) << t;

  options.noise_in_last_step = false;
  EXPECT_NEAR(variances(normal, schedule, options).at(0), 1 - schedule.b_squared(0, 1), error_of(1));
}

TEST(Ancestral, LosesVarianceOfNormalDataWithPosteriorVariance) {
  const Schedule schedule = short_schedule(100);
  const MixtureDenoiser normal({{1}, {{0}}, {1}});
  AncestralOptions options;
  options.noise_in_last_step = true;
  // The recursion of its variance in closed form: the mean is a x.
  double expected = 1;
  for (int t = 100; t >= 1; --t) {
    const double b_squared = schedule.b_squared(t - 1, t);
    expected = (1 - b_squared) * expected + b_squared * std::pow(schedule.B(t - 1) / schedule.B(t), 2);
  }
  EXPECT_LT(expected, 0.95);
  EXPECT_NEAR(variances(normal, schedule, options).at(0), expected, error_of(1));
}

TEST(Ancestral, OptimalVarianceIsExactForBoth) {
  const Schedule schedule = short_schedule(50);
  const auto steps = every_step(schedule);
  for (const double deviation : {0.0, 1.0, 0.4}) {
    // One Gaussian's posterior is Gaussian, so that the optimal variance keeps every marginal, whatever its std.
    const MixtureDenoiser denoiser({{1}, {{0}}, {deviation}});
    AncestralOptions options;
    options.variance = Variance::optimal;
    options.noise_in_last_step = true;
    for (const int t : steps) {  // Var[x_0 | x_t] in closed form
      const double sigma_squared = std::pow(schedule.sigma(t), 2), s = deviation * deviation;
      options.mean_square_errors.push_back(s * sigma_squared / (s + sigma_squared));
    }
    for (const auto& [t, variance] : variances(denoiser, schedule, options)) {
      const double exact = std::pow(schedule.A(t) * deviation, 2) + std::pow(schedule.B(t), 2);
      EXPECT_NEAR(variance, exact, error_of(exact) + 1 - std::pow(schedule.B(50), 2) + 1e-14) << t << " " << deviation;
    }
  }
}

TEST(Ancestral, MeanSquareErrorsAreThoseOfThePosterior) {
  const Schedule schedule = short_schedule(20);
  const Mixture mixture{{1}, {{1, -1}}, {0.5}};
  std::vector<double> data(2 * 5000);
  sample_mixture(mixture, 7, 0, data);
  const std::vector<int> steps{20, 10, 3, 1};
  const auto errors = mean_square_errors(MixtureDenoiser(mixture), schedule, steps, data, 4, 8, 333);
  for (std::size_t n = 0; n < steps.size(); ++n) {
    const double sigma_squared = std::pow(schedule.sigma(steps[n]), 2), s = 0.25;
    const double exact = s * sigma_squared / (s + sigma_squared);
    EXPECT_NEAR(errors[n], exact, 5 * exact * std::sqrt(2.0 / 10000)) << steps[n];
  }
}

// E|X - Y| over all pairs of rows of two.
double mean_distance(std::span<const double> x, std::span<const double> y) {
  double sum = 0;
  for (std::size_t i = 0; i < x.size(); i += 2) {
    for (std::size_t j = 0; j < y.size(); j += 2) sum += std::hypot(x[i] - y[j], x[i + 1] - y[j + 1]);
  }
  return sum / (static_cast<double>(x.size() / 2) * static_cast<double>(y.size() / 2));
}
double energy_distance(std::span<const double> x, std::span<const double> y) {
  return 2 * mean_distance(x, y) - mean_distance(x, x) - mean_distance(y, y);
}

TEST(Ancestral, SamplesAMixtureInThousandSteps) {
  constexpr std::size_t kRows = 500;
  constexpr std::uint64_t kRuns = 16;
  const Mixture mixture{{0.5, 0.3, 0.2}, {{-1, 0}, {1, 1}, {0.5, -1}}, {0.2, 0.3, 0.1}};
  const MixtureDenoiser denoiser(mixture);
  const Schedule schedule = Schedule::from_betas(betas_of(BetaSchedule::linear, 1000));
  const auto truth = [&](std::uint64_t seed) {
    std::vector<double> x(2 * kRows);
    sample_mixture(mixture, seed, 0, x);
    return x;
  };
  const auto sampled = [&](std::uint64_t seed, int steps) {
    std::vector<double> x(2 * kRows);
    const NoiseSource noise = image_noise(seed, 0, 2);
    noise(0, x);
    sample_ancestral(denoiser, schedule, strided_steps(1000, steps, Spacing::trailing), noise, {}, x);
    return x;
  };
  double distance = 0, distance_of_few = 0, null = 0, null_square = 0;
  for (std::uint64_t run = 0; run < kRuns; ++run) {
    distance += energy_distance(sampled(run, 1000), truth(1000 + run)) / kRuns;
    distance_of_few += energy_distance(sampled(run, 10), truth(1000 + run)) / kRuns;
    const double between_truths = energy_distance(truth(2000 + run), truth(3000 + run));
    null += between_truths / kRuns;
    null_square += between_truths * between_truths / kRuns;
  }
  // Four standard errors of a difference of two means of kRuns distances.
  const double noise_level = 4 * std::sqrt((null_square - null * null) * 2 / kRuns);
  EXPECT_NEAR(distance, null, noise_level);
  EXPECT_GT(distance_of_few, null + noise_level);  // it does see a bad sampler
}

TEST(Ancestral, ResultsKnowNoBatch) {
  const Schedule schedule = short_schedule(10);
  const MixtureDenoiser denoiser({{0.5, 0.5}, {{-1, 0, 0}, {1, 1, 0}}, {0.2, 0.3}});
  const auto run = [&](std::uint64_t first, std::size_t rows) {
    std::vector<double> x(3 * rows);
    const NoiseSource noise = image_noise(2, first, 3);
    noise(0, x);
    sample_ancestral(denoiser, schedule, std::vector{10, 6, 2}, noise, {}, x);
    return x;
  };
  const auto all = run(0, 8), some = run(5, 2);
  for (std::size_t i = 0; i < some.size(); ++i) EXPECT_EQ(some[i], all[3 * 5 + i]);
}

TEST(Ancestral, OneStepLandsOnThePrediction) {
  const Schedule schedule = short_schedule(10);
  const MixtureDenoiser denoiser({{1}, {{0.25, -3}}, {0}});
  std::vector<double> x{5, -7};
  AncestralOptions options;
  options.clip = 1;
  int seen = 0;
  options.watch = [&](const SampleStep& step) {
    EXPECT_EQ(step.step, 10);
    EXPECT_EQ(step.x[0], 5);
    EXPECT_EQ(step.predicted[1], -1);
    ++seen;
  };
  sample_ancestral(denoiser, schedule, std::vector{10}, image_noise(0, 0, 2), options, x);
  EXPECT_EQ(seen, 1);
  EXPECT_NEAR(x[0], 0.25, 1e-15);
  EXPECT_NEAR(x[1], -1, 1e-15);
}

TEST(Ancestral, RefusesWhatItCannotDo) {
  const Schedule schedule = short_schedule(10);
  const MixtureDenoiser denoiser({{1}, {{0, 0}}, {1}});
  std::vector<double> x(4), odd(3);
  const NoiseSource noise = image_noise(0, 0, 2);
  const auto run = [&](const std::vector<int>& steps, const AncestralOptions& options, std::span<double> at) {
    sample_ancestral(denoiser, schedule, steps, noise, options, at);
  };
  EXPECT_THROW(run({}, {}, x), std::invalid_argument);
  EXPECT_THROW(run({0}, {}, x), std::invalid_argument);
  EXPECT_THROW(run({11}, {}, x), std::invalid_argument);
  EXPECT_THROW(run({5, 5}, {}, x), std::invalid_argument);
  EXPECT_THROW(run({5}, {}, odd), std::invalid_argument);
  AncestralOptions options;
  options.variance = Variance::learned_range;
  EXPECT_THROW(run({5}, options, x), std::invalid_argument);
  options.variance = Variance::optimal;
  EXPECT_THROW(run({5}, options, x), std::invalid_argument);
  options = {};
  options.clip = -1;
  EXPECT_THROW(run({5}, options, x), std::invalid_argument);
  std::stop_source stop;
  stop.request_stop();
  options = {};
  options.progress.stop = stop.get_token();
  EXPECT_THROW(run({5}, options, x), Interrupted);
}

TEST(Denoiser, AdaptorsOfAllPredictionsGiveTheSameModel) {
  const Schedule schedule = Schedule::from_betas(betas_of(BetaSchedule::linear, 1000));
  const MixtureDenoiser exact({{0.5, 0.5}, {{-1, 0}, {1, 1}}, {0.2, 0.3}});
  const std::vector<double> x{0.3, -0.2, 4, 5};
  for (const Prediction prediction : {Prediction::epsilon, Prediction::sample, Prediction::v}) {
    EXPECT_EQ(prediction_from_name(name(prediction)), prediction);
    const auto model = [&](std::span<const double> at, double step, std::span<double> output) {
      const int t = static_cast<int>(step);
      EXPECT_EQ(t, step);
      const double A = schedule.A(t), B = schedule.B(t);
      std::vector<double> unit(at.size()), clean(at.size());
      for (std::size_t i = 0; i < at.size(); ++i) unit[i] = at[i] / A;
      exact.denoise(unit, B / A, clean);
      for (std::size_t i = 0; i < at.size(); ++i)
        output[i] = target_of(prediction, clean[i], (at[i] - A * clean[i]) / B, A, B);
    };
    const ModelDenoiser adapted(model, 2, schedule, prediction);
    for (const int t : {1, 10, 500, 1000}) {
      std::vector<double> want(4), got(4);
      exact.denoise(x, schedule.sigma(t), want);
      adapted.denoise(x, schedule.sigma(t), got);
      // Going through eps costs B / A times its rounding, through x_t the rounding of sigma eps.
      for (std::size_t i = 0; i < 4; ++i)
        EXPECT_NEAR(got[i], want[i], 1e-14 * (1 + schedule.sigma(t)) * 10) << name(prediction) << " " << t;
    }
  }
}

TEST(Denoiser, LearnedVariancesLieBetweenTheTwo) {
  const Schedule schedule = short_schedule(10);
  // Fractions 0 and 1 (as -1 and 1) of the two numbers of a row.
  const auto model = [](std::span<const double> x, double, std::span<double> output) {
    for (std::size_t row = 0; row < x.size() / 2; ++row) {
      output[4 * row] = output[4 * row + 1] = 0;
      output[4 * row + 2] = -1;
      output[4 * row + 3] = 1;
    }
  };
  const ModelDenoiser denoiser(model, 2, schedule, Prediction::sample, true);
  std::vector<double> x(4), random(4);
  AncestralOptions options;
  options.variance = Variance::learned_range;
  const NoiseSource noise = image_noise(3, 0, 2);
  sample_ancestral(denoiser, schedule, std::vector{8}, noise, options, x);
  for (const double value : x) EXPECT_EQ(value, 0);  // the last step of a run has no noise
  std::vector<double> after(4);
  options.watch = [&](const SampleStep& step) { after.assign(step.x.begin(), step.x.end()); };
  sample_ancestral(denoiser, schedule, std::vector{8, 5}, noise, options, x);
  noise(1, random);
  const double b_squared = schedule.b_squared(5, 8);
  const double posterior = b_squared * std::pow(schedule.B(5) / schedule.B(8), 2);
  for (std::size_t i = 0; i < 4; ++i)
    EXPECT_NEAR(after[i], random[i] * std::sqrt(i % 2 == 0 ? posterior : b_squared), 1e-12);
}

TEST(Mixture, RefusesWhatIsNone) {
  const double nan = std::numeric_limits<double>::quiet_NaN();
  const auto make = [](Mixture mixture) { MixtureDenoiser denoiser(std::move(mixture)); };
  EXPECT_THROW(make({}), std::invalid_argument);
  EXPECT_THROW(make({{1}, {{}}, {1}}), std::invalid_argument);
  EXPECT_THROW(make({{1, 1}, {{0}, {0, 1}}, {1, 1}}), std::invalid_argument);
  EXPECT_THROW(make({{1}, {{0}}, {1, 1}}), std::invalid_argument);
  EXPECT_THROW(make({{0}, {{0}}, {1}}), std::invalid_argument);
  EXPECT_THROW(make({{1}, {{0}}, {-1}}), std::invalid_argument);
  EXPECT_THROW(make({{1}, {{nan}}, {1}}), std::invalid_argument);
}

TEST(Mixture, FarPointsDoNotOverflow) {
  const MixtureDenoiser denoiser({{1, 1}, {{-1}, {1}}, {0, 0}});
  std::vector<double> clean(2);
  denoiser.denoise(std::vector{-300.0, 300.0}, 1e-3, clean);
  EXPECT_EQ(clean[0], -1);
  EXPECT_EQ(clean[1], 1);
  denoiser.denoise(std::vector{0.3, -0.3}, 0.7, clean);
  EXPECT_NEAR(clean[0], std::tanh(0.3 / 0.49), 1e-14);  // two points' D in closed form
  EXPECT_NEAR(clean[1], -std::tanh(0.3 / 0.49), 1e-14);
}

TEST(Mixture, SamplesHaveItsMoments) {
  const Mixture mixture{{3, 1}, {{-1, 0}, {3, 2}}, {0.5, 0.1}};
  std::vector<double> x(2 * kSamples);
  sample_mixture(mixture, 5, 0, x);
  double mean = 0, second = 0;
  for (std::size_t i = 0; i < x.size(); i += 2) {
    mean += x[i] / kSamples;
    second += x[i] * x[i] / kSamples;
  }
  const double exact = 0.75 * 1.25 + 0.25 * 9.01;
  EXPECT_NEAR(mean, 0, 5 * std::sqrt(exact / kSamples));
  EXPECT_NEAR(second, exact, 5 * 4 / std::sqrt(static_cast<double>(kSamples)));
}

}  // namespace
}  // namespace tuiqiao
