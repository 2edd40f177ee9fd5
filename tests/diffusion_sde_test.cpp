#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <functional>
#include <stdexcept>

#include "tuiqiao/diffusion/ancestral.h"
#include "tuiqiao/diffusion/grids.h"
#include "tuiqiao/diffusion/samplers.h"

// The samplers that add noise: moments and laws at several times for every s in [0, g], their weak orders, their noise.

namespace tuiqiao {
namespace {

constexpr double kMean = 0.4, kStd = 0.5;
const MixtureDenoiser& gaussian() {
  static const MixtureDenoiser denoiser({{1}, {{kMean}}, {kStd}});
  return denoiser;
}

struct Moments {
  double mean = 0, variance = 0;
};

Moments exact_at(double sigma) { return {kMean, kStd * kStd + sigma * sigma}; }

/// For normal data every sampler is linear in its start and in each of its normal numbers. Its moments follow from one
/// run of rows that each have one of these set to 1: no chance in it.
Moments moments_of(std::string_view name, std::span<const double> sigmas, const SamplerOptions& options,
                   double noise_scale = 1) {
  const std::size_t draws = sigmas.size();
  std::vector<double> x(2 + draws, 0);
  x[1] = 1;
  const NoiseSource one_each = [=](std::uint64_t draw, std::span<double> values) {
    std::ranges::fill(values, 0);
    values[1 + draw] = noise_scale;
  };
  sample(name, gaussian(), sigmas, one_each, options, x);
  const Moments start = exact_at(sigmas.front());
  const double base = x[0], slope = x[1] - base;
  Moments found{base + slope * start.mean, slope * slope * start.variance};
  for (std::size_t d = 2; d < x.size(); ++d) found.variance += (x[d] - base) * (x[d] - base);
  return found;
}

std::vector<double> grid(int steps, double from, double to) {
  std::vector<double> sigmas = sigma_grid(
      Grid::log_sigma, steps, {.sigma_max = std::max(from, to), .sigma_min = std::min(from, to), .to_zero = false});
  if (from < to) std::ranges::reverse(sigmas);
  return sigmas;
}

struct Fraction {
  const char* name;
  std::function<double(double)> of;
};
const std::vector<Fraction>& fractions() {
  static const std::vector<Fraction> all{
      {"0", [](double) { return 0; }},     {"1/4", [](double) { return 0.25; }},
      {"1/2", [](double) { return 0.5; }}, {"3/4", [](double) { return 0.75; }},
      {"1", [](double) { return 1; }},     {"varying", [](double s) { return 0.5 + 0.5 * std::sin(3 * std::log(s)); }}};
  return all;
}

/// Where moments go as steps get short: those of 300 and 600 steps, extrapolated by the method's order.
Moments limit_of(const SamplerInfo& info, double from, double to, const SamplerOptions& options) {
  const Moments coarse = moments_of(info.name, grid(300, from, to), options);
  const Moments fine = moments_of(info.name, grid(600, from, to), options);
  const double more = 1 / (std::exp2(info.order) - 1);
  return {fine.mean + more * (fine.mean - coarse.mean), fine.variance + more * (fine.variance - coarse.variance)};
}

TEST(Sde, EveryFractionHasTheMarginalsAtEveryTime) {
  for (const std::string_view name : {"euler-maruyama", "sde", "sde-heun", "sde-dpmpp-2m", "sde-dpmpp-3m"}) {
    for (const Fraction& fraction : fractions()) {
      SamplerOptions options;
      options.s_fraction_of = fraction.of;
      // Down by the reverse family, up by the forward one.
      for (const auto& [from, to] : {std::pair{10.0, 2.0}, {10.0, 0.5}, {10.0, 0.05}, {0.05, 0.5}, {0.05, 10.0}}) {
        const Moments found = limit_of(sampler_named(name), from, to, options), exact = exact_at(to);
        EXPECT_NEAR(found.mean, exact.mean, 1e-3) << name << " " << fraction.name << " to " << to;
        EXPECT_NEAR(found.variance / exact.variance, 1, 1e-3) << name << " " << fraction.name << " to " << to;
      }
    }
  }
}

TEST(Sde, DdimHasTheMarginalsForEveryEta) {
  for (const double eta : {0.0, 0.25, 0.5, 0.75, 1.0}) {
    SamplerOptions options;
    options.eta = eta;
    for (const double to : {2.0, 0.5, 0.05}) {
      const Moments found = limit_of(sampler_named("ddim"), 10, to, options), exact = exact_at(to);
      EXPECT_NEAR(found.mean, exact.mean, 1e-3) << eta << " to " << to;
      EXPECT_NEAR(found.variance / exact.variance, 1, 1e-3) << eta << " to " << to;
    }
  }
}

/// Normal data of two numbers whose covariance is [[1, r], [r, 1]] / 4, without mean: D = C (C + sigma^2)^-1 x.
class CorrelatedDenoiser : public Denoiser {
 public:
  static constexpr double kVariance = 0.25, kCovariance = 0.2;
  std::int64_t size() const override { return 2; }
  void denoise(std::span<const double> x, double sigma, std::span<double> denoised) const override {
    const auto shrink = [&](double variance) { return variance / (variance + sigma * sigma); };
    // Sum and difference are independent.
    const double of_sum = shrink(kVariance + kCovariance), of_difference = shrink(kVariance - kCovariance);
    for (std::size_t i = 0; i < x.size(); i += 2) {
      const double sum = of_sum * (x[i] + x[i + 1]) / 2, difference = of_difference * (x[i] - x[i + 1]) / 2;
      denoised[i] = sum + difference;
      denoised[i + 1] = sum - difference;
    }
  }
};

/// Variance and covariance at the end, by the same linearity: a row for each number of the start and of the noise.
std::array<double, 2> covariance_of(std::string_view name, std::span<const double> sigmas, const Fraction& fraction) {
  const std::size_t draws = sigmas.size(), rows = 2 + 2 * draws;
  std::vector<double> x(2 * rows, 0);
  const double variance = CorrelatedDenoiser::kVariance + sigmas.front() * sigmas.front(),
               covariance = CorrelatedDenoiser::kCovariance;
  x[0] = x[3] = 1;
  const NoiseSource one_each = [](std::uint64_t draw, std::span<double> values) {
    std::ranges::fill(values, 0);
    for (const std::size_t i : {0U, 1U}) values[2 * (2 + 2 * (draw - 1) + i) + i] = 1;
  };
  SamplerOptions options;
  options.s_fraction_of = fraction.of;
  sample(name, CorrelatedDenoiser(), sigmas, one_each, options, x);
  // The start's, C, becomes J C J', J's columns being the first two rows.
  std::array<double, 2> found{variance * (x[0] * x[0] + x[2] * x[2]) + 2 * covariance * x[0] * x[2],
                              variance * (x[0] * x[1] + x[2] * x[3]) + covariance * (x[0] * x[3] + x[1] * x[2])};
  for (std::size_t row = 2; row < rows; ++row) {
    found[0] += x[2 * row] * x[2 * row];
    found[1] += x[2 * row] * x[2 * row + 1];
  }
  return found;
}

TEST(Sde, EveryFractionHasTheCovarianceAtEveryTime) {
  for (const std::string_view name : {"euler-maruyama", "sde", "sde-heun", "sde-dpmpp-2m", "sde-dpmpp-3m"}) {
    const double more = 1 / (std::exp2(sampler_named(name).order) - 1);
    for (const Fraction& fraction : fractions()) {
      for (const auto& [from, to] : {std::pair{10.0, 0.5}, {10.0, 0.05}, {0.05, 0.5}}) {
        const auto coarse = covariance_of(name, grid(300, from, to), fraction),
                   fine = covariance_of(name, grid(600, from, to), fraction);
        const std::array<double, 2> exact{CorrelatedDenoiser::kVariance + to * to, CorrelatedDenoiser::kCovariance};
        for (std::size_t i = 0; i < 2; ++i)
          EXPECT_NEAR((fine[i] + more * (fine[i] - coarse[i])) / exact[0], exact[i] / exact[0], 1e-3)
              << name << " " << fraction.name << " to " << to << (i == 0 ? ", variance" : ", covariance");
      }
    }
  }
}

/// How far one step moves data of a single point, whose D is constant, by a normal number of 1.
double noise_of_a_step(std::string_view name, double from, double to, const SamplerOptions& options) {
  const MixtureDenoiser point({{1}, {{kMean}}, {0}});
  std::vector<double> x{1, 1};
  const NoiseSource second_row = [](std::uint64_t, std::span<double> values) {
    values[0] = 0;
    values[1] = 1;
  };
  sample(name, point, std::array{from, to}, second_row, options, x);
  return x[1] - x[0];
}

// All members of the family have one law at every time, so that laws do not tell c from c^2, nor eta. The noise does.
TEST(Sde, AddsTheNoiseOfItsFraction) {
  for (const auto& [from, to] : {std::pair{2.0, 1.5}, {2.0, 0.1}, {1.5, 2.0}, {0.1, 2.0}}) {
    for (const Fraction& fraction : fractions()) {
      SamplerOptions options;
      options.s_fraction_of = fraction.of;
      const double c = fraction.of(std::sqrt(from * to)), ratio = std::min(from, to) / std::max(from, to);
      // The variance of the integral of c sigma sqrt 2 exp(-(1 +- c^2)(lambda' - lambda)) dw.
      const double exact = to * std::sqrt(1 - std::pow(ratio, 2 * c * c));
      for (const std::string_view name : {"sde", "sde-heun", "sde-dpmpp-2m", "sde-dpmpp-3m"})
        EXPECT_NEAR(noise_of_a_step(name, from, to, options), exact, 1e-12) << name << " " << fraction.name;
      EXPECT_NEAR(noise_of_a_step("euler-maruyama", from, to, options), c * std::sqrt(std::abs(from * from - to * to)),
                  1e-12)
          << fraction.name;
    }
    if (to > from) continue;  // ddim's noise goes down only
    for (const double eta : {0.0, 0.25, 0.5, 0.75, 1.0}) {
      SamplerOptions options;
      options.eta = eta;
      EXPECT_NEAR(noise_of_a_step("ddim", from, to, options), eta * to * std::sqrt(1 - to * to / (from * from)), 1e-12);
    }
  }
}

// Noise of half the variance, or the forward process's drift on the way down, would be seen.
TEST(Sde, WrongNoiseAndWrongDriftHaveOtherMarginals) {
  const std::vector<double> sigmas = grid(400, 10, 0.5);
  const double exact = exact_at(0.5).variance;
  EXPECT_NEAR(moments_of("sde", sigmas, {}).variance / exact, 1, 0.02);
  EXPECT_LT(moments_of("sde", sigmas, {}, std::sqrt(0.5)).variance, 0.8 * exact);
  double variance = exact_at(10).variance;  // Euler and Maruyama with 1 - c^2 for 1 + c^2, c = 1/2
  for (std::size_t n = 0; n + 1 < sigmas.size(); ++n) {
    const double from = sigmas[n], to = sigmas[n + 1], shrink = from * from / (kStd * kStd + from * from);
    const double factor = 1 - 0.75 * shrink * (from - to) / from;
    variance = factor * factor * variance + 0.25 * (from * from - to * to);
  }
  EXPECT_GT(variance, 1.5 * exact);
}

/// Slopes of the last two halvings.
std::array<double, 2> weak_orders(std::string_view name, const Fraction& fraction, double from, double to) {
  SamplerOptions options;
  options.s_fraction_of = fraction.of;
  const auto error = [&](int steps) {
    const Moments found = moments_of(name, grid(steps, from, to), options), exact = exact_at(to);
    return std::max(std::abs(found.mean - exact.mean), std::abs(found.variance - exact.variance));
  };
  const double coarse = error(300), middle = error(600), fine = error(1200);
  return {std::log2(coarse / middle), std::log2(middle / fine)};
}

TEST(Sde, HasItsWeakOrders) {
  for (const Fraction& fraction : fractions()) {
    for (const std::string_view name : {"euler-maruyama", "sde", "sde-heun", "sde-dpmpp-2m", "sde-dpmpp-3m"}) {
      const int order = sampler_named(name).order;
      for (const auto& [from, to] : {std::pair{2.0, 0.5}, {0.5, 2.0}}) {
        // Up at s = g there is no drift, and nothing to be wrong.
        if (from < to && std::string_view(fraction.name) == "1") continue;
        for (const double slope : weak_orders(name, fraction, from, to)) {
          const std::string what = fmt::format("{} {} to {}", name, fraction.name, to);
          EXPECT_GE(slope, order - 0.15) << what;
          // Where that error's coefficient is nearly 0, the next order shows beside it: 2.4 to 2.6.
          const bool vanishes = name == "sde-dpmpp-3m" && std::string_view(fraction.name) == "1" && to < from;
          EXPECT_LE(slope, order + (vanishes ? 0.65 : 0.15)) << what;
        }
      }
    }
  }
}

// DDPM in these variables: the ancestral sampler with its posterior variance is ddim at eta = 1.
TEST(Sde, DdimWithEtaOneIsTheAncestralSampler) {
  const Schedule schedule = Schedule::from_betas(betas_of(BetaSchedule::linear, 1000));
  const std::vector<int> steps = strided_steps(1000, 25, Spacing::leading);
  const NoiseSource noise = image_noise(4, 0, 1);
  std::vector<double> x(50);
  noise(0, x);
  std::vector<double> other = x;
  for (double& value : other) value /= schedule.A(steps[0]);
  sample_ancestral(gaussian(), schedule, steps, noise, {}, x);
  SamplerOptions options;
  options.eta = 1;
  sample("ddim", gaussian(), sigmas_of(schedule, steps), noise, options, other);
  for (std::size_t i = 0; i < x.size(); ++i) EXPECT_NEAR(x[i], other[i], 1e-10);
}

// With the same numbers Euler and Maruyama's steps and DDPM's differ less and less.
TEST(Sde, EulerMaruyamaIsDdpmToFirstOrder) {
  SamplerOptions options;
  options.eta = 1;
  const auto difference = [&](int steps) {
    const std::vector<double> sigmas = grid(steps, 5, 0.2);
    const NoiseSource noise = image_noise(5, 0, 1);
    std::vector<double> x(100, 3), other(100, 3);
    sample("euler-maruyama", gaussian(), sigmas, noise, options, x);
    sample("ddim", gaussian(), sigmas, noise, options, other);
    double most = 0;
    for (std::size_t i = 0; i < x.size(); ++i) most = std::max(most, std::abs(x[i] - other[i]));
    return most;
  };
  EXPECT_GT(std::log2(difference(200) / difference(1600)) / 3, 0.85);
}

// Churn is noise that the model takes off again: the law stays.
TEST(Sde, HeunWithChurnKeepsTheMarginals) {
  SamplerOptions options;
  options.churn = 40;
  options.churn_from = 0.3;
  options.churn_to = 4;
  const std::vector<double> sigmas = grid(400, 10, 0.1);
  const Moments found = moments_of("heun", sigmas, options), exact = exact_at(0.1);
  EXPECT_NEAR(found.mean, exact.mean, 1e-3);
  EXPECT_NEAR(found.variance / exact.variance, 1, 2e-3);
  options.churn_noise = 1.05;
  EXPECT_GT(moments_of("heun", sigmas, options).variance, 1.01 * exact.variance);
}

// ---------------------------------------------------------------------------------------------------- two-sample tests

double square(double x) { return x * x; }

/// Mean distance between rows of two numbers, of all pairs of x and y.
double mean_distance(std::span<const double> x, std::span<const double> y) {
  double sum = 0;
  for (std::size_t i = 0; i < x.size(); i += 2) {
    for (std::size_t j = 0; j < y.size(); j += 2) sum += std::sqrt(square(x[i] - y[j]) + square(x[i + 1] - y[j + 1]));
  }
  return 4 * sum / (static_cast<double>(x.size()) * static_cast<double>(y.size()));
}

double energy_distance(std::span<const double> x, std::span<const double> y) {
  return 2 * mean_distance(x, y) - mean_distance(x, x) - mean_distance(y, y);
}

std::vector<double> noisy_mixture(const Mixture& mixture, double sigma, std::uint64_t seed, std::size_t rows) {
  std::vector<double> x(2 * rows), noise(x.size());
  sample_mixture(mixture, seed, 0, x);
  image_noise(seed + 100, 0, 2)(0, noise);
  for (std::size_t i = 0; i < x.size(); ++i) x[i] += sigma * noise[i];
  return x;
}

/// Both means, both variances, the covariance.
std::array<double, 5> second_moments(std::span<const double> x) {
  std::array<double, 5> m{};
  const double n = static_cast<double>(x.size()) / 2;
  for (std::size_t i = 0; i < x.size(); ++i) m[i % 2] += x[i] / n;
  for (std::size_t i = 0; i < x.size(); i += 2) {
    m[2] += (x[i] - m[0]) * (x[i] - m[0]) / n;
    m[3] += (x[i + 1] - m[1]) * (x[i + 1] - m[1]) / n;
    m[4] += (x[i] - m[0]) * (x[i + 1] - m[1]) / n;
  }
  return m;
}

std::array<double, 5> exact_moments(const Mixture& mixture, double sigma) {
  std::array<double, 5> m{};
  double total = 0;
  for (const double weight : mixture.weights) total += weight;
  for (std::size_t k = 0; k < mixture.weights.size(); ++k) {
    const double weight = mixture.weights[k] / total, variance = mixture.stds[k] * mixture.stds[k] + sigma * sigma;
    const double a = mixture.means[k][0], b = mixture.means[k][1];
    m[0] += weight * a;
    m[1] += weight * b;
    m[2] += weight * (a * a + variance);
    m[3] += weight * (b * b + variance);
    m[4] += weight * a * b;
  }
  return {m[0], m[1], m[2] - m[0] * m[0], m[3] - m[1] * m[1], m[4] - m[0] * m[1]};
}

/// A sampler, with as many steps as bring its error below what so many samples show.
struct Steps {
  const char* sampler;
  int steps;
};
constexpr Steps kSteps[] = {
    {"euler-maruyama", 600}, {"sde", 400}, {"sde-heun", 60}, {"sde-dpmpp-2m", 90}, {"sde-dpmpp-3m", 90}};

TEST(Sde, MixturesKeepTheirLawUpAndDown) {
  const MixtureDenoiser denoiser({{1, 2, 1}, {{-1, 0.5}, {0.7, 0}, {0.2, -1}}, {0.1, 0.3, 0.2}});
  constexpr std::size_t kRows = 1000;
  for (const auto& [from, to] : {std::pair{8.0, 0.6}, {8.0, 0.05}, {0.05, 0.6}}) {
    const std::vector<double> truth = noisy_mixture(denoiser.mixture(), to, 1, kRows);
    double floor = 0;
    for (std::uint64_t seed = 2; seed < 7; ++seed)
      floor = std::max(floor, energy_distance(truth, noisy_mixture(denoiser.mixture(), to, seed, kRows)));
    const std::vector<double> first = noisy_mixture(denoiser.mixture(), from, 20, kRows);
    EXPECT_GT(energy_distance(truth, first), 3 * floor);
    for (const Fraction& fraction : fractions()) {
      for (const auto& [sampler, steps] : kSteps) {
        SamplerOptions options;
        options.s_fraction_of = fraction.of;
        std::vector<double> x = first;
        sample(sampler, denoiser, grid(steps, from, to), image_noise(21, 0, 2), options, x);
        const std::string what = fmt::format("{}, {} to {}", sampler, fraction.name, to);
        EXPECT_LT(energy_distance(truth, x), 1.5 * floor) << what;
        const std::array<double, 5> found = second_moments(x), exact = exact_moments(denoiser.mixture(), to);
        const double scale = 5 / std::sqrt(static_cast<double>(kRows));
        for (std::size_t m = 0; m < 5; ++m) {
          const double deviation = m < 2 ? std::sqrt(exact[2 + m]) : 1.5 * std::max(exact[2], exact[3]);
          EXPECT_NEAR(found[m], exact[m], scale * deviation) << what << ", moment " << m;
        }
      }
    }
  }
}

// What the test above would say of noise that is too weak, and of a model that is asked at another sigma.
TEST(Sde, MixturesShowAWrongLaw) {
  const MixtureDenoiser denoiser({{1, 2, 1}, {{-1, 0.5}, {0.7, 0}, {0.2, -1}}, {0.1, 0.3, 0.2}});
  const std::vector<double> truth = noisy_mixture(denoiser.mixture(), 0.6, 1, 1000);
  double floor = 0;
  for (std::uint64_t seed = 2; seed < 7; ++seed)
    floor = std::max(floor, energy_distance(truth, noisy_mixture(denoiser.mixture(), 0.6, seed, 1000)));
  const NoiseSource noise = image_noise(21, 0, 2);
  const NoiseSource weak = [&](std::uint64_t draw, std::span<double> values) {
    noise(draw, values);
    for (double& value : values) value *= 0.8;
  };
  class Misled : public Denoiser {
   public:
    explicit Misled(const Denoiser& inner) : inner_(inner) {}
    std::int64_t size() const override { return 2; }
    void denoise(std::span<const double> x, double sigma, std::span<double> denoised) const override {
      inner_.denoise(x, 1.3 * sigma, denoised);
    }

   private:
    const Denoiser& inner_;
  };
  std::vector<double> x = noisy_mixture(denoiser.mixture(), 8, 20, 1000), misled = x;
  sample("sde", denoiser, grid(400, 8, 0.6), weak, {}, x);
  EXPECT_GT(energy_distance(truth, x), 1.5 * floor);
  sample("sde", Misled(denoiser), grid(400, 8, 0.6), noise, {}, misled);
  EXPECT_GT(energy_distance(truth, misled), 1.5 * floor);
}

// ------------------------------------------------------------------------------------------------------ Brownian paths

TEST(BrownianPaths, AreTheSameOnEveryGrid) {
  const std::vector<double> fine = grid(64, 8, 0.5);
  const NoisePath coarse_path = brownian_path(9, 0, 3, 0.5, 8), fine_path = brownian_path(9, 0, 3, 0.5, 8);
  std::vector<double> sum(6, 0), step(6), whole(6);
  const double range = std::log(fine.front() / fine.back());
  for (std::size_t n = 0; n + 1 < fine.size(); ++n) {
    fine_path(fine[n], fine[n + 1], step);
    for (std::size_t i = 0; i < sum.size(); ++i) sum[i] += step[i] / 8;  // deviations are sqrt(1/64)
  }
  coarse_path(fine.front(), fine.back(), whole);
  for (std::size_t i = 0; i < sum.size(); ++i) EXPECT_NEAR(sum[i], whole[i], 1e-9);
  EXPECT_GT(range, 0);
  // Rows are paths of their own, and row i of a batch is path first + i.
  EXPECT_NE(whole[0], whole[3]);
  std::vector<double> second(3);
  brownian_path(9, 1, 3, 0.5, 8)(8, 0.5, second);
  EXPECT_EQ(second, std::vector<double>(whole.begin() + 3, whole.end()));
  EXPECT_THROW(brownian_path(1, 0, 1, 2, 1), std::invalid_argument);
  EXPECT_THROW(brownian_path(1, 0, 1, 0, 1), std::invalid_argument);
}

TEST(BrownianPaths, HaveIndependentNormalIncrements) {
  constexpr std::int64_t kPaths = 20000;
  const NoisePath path = brownian_path(10, 0, 1, 0.1, 10);
  std::vector<double> first(kPaths), second(kPaths);
  path(10, 1.7, first);
  path(1.7, 0.3, second);
  double mean = 0, variance = 0, covariance = 0;
  for (std::size_t i = 0; i < first.size(); ++i) {
    mean += second[i] / kPaths;
    variance += second[i] * second[i] / kPaths;
    covariance += first[i] * second[i] / kPaths;
  }
  const double error = 5 / std::sqrt(kPaths);
  EXPECT_NEAR(mean, 0, error);
  EXPECT_NEAR(variance, 1, std::sqrt(2) * error);
  EXPECT_NEAR(covariance, 0, error);
}

// More steps along one path come nearer to one solution, that of every sampler: strong convergence, which new numbers
// for each grid, or another SDE of the same marginals, would not have.
TEST(BrownianPaths, TakeAllSamplersToOneSolution) {
  const MixtureDenoiser denoiser({{1, 1}, {{-1}, {1}}, {0.2, 0.3}});
  const auto run = [&](std::string_view name, double c, int steps) {
    SamplerOptions options;
    options.s_fraction = c;
    options.eta = c;
    options.path = brownian_path(12, 0, 1, 0.2, 5);
    std::vector<double> x(128);
    for (std::size_t i = 0; i < x.size(); ++i) x[i] = static_cast<double>(i) / 12.8 - 5;
    sample(name, denoiser, grid(steps, 5, 0.2), image_noise(0, 0, 1), options, x);
    return x;
  };
  const auto gap = [](const std::vector<double>& a, const std::vector<double>& b) {
    double sum = 0;
    for (std::size_t i = 0; i < a.size(); ++i) sum += std::abs(a[i] - b[i]) / static_cast<double>(a.size());
    return sum;
  };
  for (const double c : {0.5, 1.0}) {
    const std::vector<double> solution = run("sde-heun", c, 2048);
    EXPECT_GT(gap(solution, run("sde-heun", 1.5 - c, 2048)), 0.1);
    for (const std::string_view name : {"euler-maruyama", "sde", "sde-heun", "sde-dpmpp-2m", "sde-dpmpp-3m", "ddim"}) {
      const double few = gap(run(name, c, 32), solution), many = gap(run(name, c, 512), solution);
      EXPECT_LT(many, 0.2 * few) << name << ' ' << c;  // 1/16 for order 1, 1/4 for order 1/2
      EXPECT_LT(many, 0.01) << name << ' ' << c;
    }
  }
}

}  // namespace
}  // namespace tuiqiao
