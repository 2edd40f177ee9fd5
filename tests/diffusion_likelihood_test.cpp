#include <gtest/gtest.h>

#include <cmath>
#include <numbers>
#include <stdexcept>

#include "tuiqiao/diffusion/likelihood.h"
#include "tuiqiao/diffusion/noise.h"

namespace tuiqiao {
namespace {

const LikelihoodOptions kFine{.sigma_min = 0.01, .sigma_max = 1e5, .steps = 600, .probes = 0};

/// -log of the mixture's own density at sigma.
double exact(const Mixture& m, std::span<const double> x, double sigma) {
  double sum = 0, total = 0;
  for (std::size_t k = 0; k < m.weights.size(); ++k) {
    const double variance = m.stds[k] * m.stds[k] + sigma * sigma;
    double square = 0;
    for (std::size_t i = 0; i < x.size(); ++i) square += std::pow(x[i] - m.means[k][i], 2);
    sum += m.weights[k] * std::exp(-square / (2 * variance)) /
           std::pow(2 * std::numbers::pi * variance, static_cast<double>(x.size()) / 2);
    total += m.weights[k];
  }
  return -std::log(sum / total);
}

const Mixture& mixture() {
  static const Mixture m{{1, 2, 1}, {{-1, 0.5, 0}, {0.7, 0, 0.2}, {0.2, -1, 0.1}}, {0.3, 0.5, 0.4}};
  return m;
}
const std::vector<double> kPoints{0, 0, 0, -1, 0.5, 0, 0.7, 0.3, -0.2, 1.5, 1.5, 1, -2, -2, -2};

TEST(Likelihood, IsTheDensityOfGaussiansAndMixtures) {
  for (const Mixture& m : {Mixture{{1}, {{0.4, -0.3, 0.1}}, {0.5}}, mixture()}) {
    const MixtureDenoiser denoiser(m);
    const auto found = log_likelihoods(trace_of(denoiser), 3, kPoints, kFine);
    ASSERT_EQ(found.size(), 5U);
    for (std::size_t row = 0; row < 5; ++row) {
      EXPECT_NEAR(found[row].nats, exact(m, std::span(kPoints).subspan(3 * row, 3), kFine.sigma_min), 1e-4) << row;
      EXPECT_EQ(found[row].error, 0);
    }
  }
}

TEST(Likelihood, ProbesAgreeWithTheTraceWithinTheirErrors) {
  const MixtureDenoiser denoiser(mixture());
  LikelihoodOptions options = kFine;
  options.steps = 100;
  const auto whole = log_likelihoods(trace_of(denoiser), 3, kPoints, options);
  options.probes = 400;
  const auto probed = log_likelihoods(trace_of(denoiser), 3, kPoints, options);
  for (std::size_t row = 0; row < 5; ++row) {
    EXPECT_GT(probed[row].error, 1e-5);
    EXPECT_LT(probed[row].error, 0.1);
    EXPECT_NEAR(probed[row].nats, whole[row].nats, 5 * probed[row].error) << row;
  }
  // A row's probes are its own, whatever is beside it.
  options.first = 2;
  const auto one = log_likelihoods(trace_of(denoiser), 3, std::span(kPoints).subspan(6, 3), options);
  EXPECT_NEAR(one[0].nats, probed[2].nats, 1e-12);
}

TEST(Likelihood, ConvergesInNestedSteps) {
  const MixtureDenoiser denoiser(mixture());
  LikelihoodOptions options = kFine;
  options.sigma_max = 20;
  const auto at = [&](int steps) {
    options.steps = steps;
    return log_likelihoods(trace_of(denoiser), 3, kPoints, options);
  };
  const auto finest = at(5120);
  const auto error = [&](int steps) {
    const auto found = at(steps);
    double most = 0;
    for (std::size_t row = 0; row < 5; ++row) most = std::max(most, std::abs(found[row].nats - finest[row].nats));
    return most;
  };
  const double coarse = error(320), middle = error(640), fine = error(1280);
  EXPECT_NEAR(std::log2(coarse / middle), 4, 0.15);
  EXPECT_NEAR(std::log2(middle / fine), 4, 0.15);
  EXPECT_LT(error(20), 1e-3);
  const auto few = at(80), more = at(160);
  for (std::size_t row = 0; row < 5; ++row)
    EXPECT_LT(std::abs(more[row].nats - finest[row].nats), std::abs(few[row].nats - finest[row].nats)) << row;
}

// Where all is noise, x grows as sigma, which long Runge-Kutta steps of x itself would miss.
TEST(Likelihood, NeedsNoStepsForGrowth) {
  const MixtureDenoiser denoiser(Mixture{{1}, {{0.4, -0.3, 0.1}}, {0.5}});
  LikelihoodOptions options = kFine;
  options.sigma_min = 30;
  options.steps = 2;
  const auto found = log_likelihoods(trace_of(denoiser), 3, kPoints, options);
  for (std::size_t row = 0; row < 5; ++row)
    EXPECT_NEAR(found[row].nats, exact(denoiser.mixture(), std::span(kPoints).subspan(3 * row, 3), 30), 1e-3) << row;
}

TEST(Likelihood, CountsBitsOfEightBitImages) {
  // Uniform over 256 values of each number: 8 bits.
  const double uniform = -16 * std::log(127.5 / 256);
  EXPECT_NEAR(bits_per_dimension(uniform, 16), 8, 1e-12);
}

TEST(Likelihood, RefusesWhatHasNone) {
  const MixtureDenoiser denoiser(mixture());
  const auto refused = [&](std::span<const double> x, const LikelihoodOptions& options) {
    EXPECT_THROW(log_likelihoods(trace_of(denoiser), 3, x, options), std::invalid_argument);
  };
  refused(std::vector<double>(4), {});
  refused(std::vector<double>{0, NAN, 0}, {});
  refused(kPoints, {.sigma_min = 0});
  refused(kPoints, {.sigma_min = 2, .sigma_max = 1});
  refused(kPoints, {.steps = 0});
  refused(kPoints, {.probes = -1});
  EXPECT_TRUE(log_likelihoods(trace_of(denoiser), 3, {}, {}).empty());
  const TraceFunction broken = [](std::span<const double>, double, std::span<const double>, std::span<double> denoised,
                                  std::span<double> traces) {
    std::ranges::fill(denoised, NAN);
    std::ranges::fill(traces, 0);
  };
  EXPECT_THROW(log_likelihoods(broken, 3, kPoints, {}), Error);
}

}  // namespace
}  // namespace tuiqiao
