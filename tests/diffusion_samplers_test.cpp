#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <fstream>
#include <map>
#include <nlohmann/json.hpp>
#include <set>
#include <stdexcept>

#include "tuiqiao/diffusion/ancestral.h"
#include "tuiqiao/diffusion/grids.h"
#include "tuiqiao/diffusion/samplers.h"

// The ODE's samplers: orders on data whose score is known, identities, and grids. What is random is in
// diffusion_sde_test.cpp.

namespace tuiqiao {
namespace {

const NoiseSource kNoNoise = [](std::uint64_t, std::span<double>) { FAIL() << "an ODE needs no noise"; };

const MixtureDenoiser& mixture() {
  static const MixtureDenoiser denoiser({{1, 2, 1}, {{-1, 0.5}, {0.7, 0}, {0.2, -1}}, {0.3, 0.5, 0.4}});
  return denoiser;
}
constexpr double kMax = 5, kMin = 0.1;
const std::vector<double> kStart{3, -2, 1, 4, -5, 0.5};

/// The flow of one Gaussian N(m, v) is known: x - m grows as sqrt(v + sigma^2).
const MixtureDenoiser& gaussian() {
  static const MixtureDenoiser denoiser({{1}, {{0.4, -0.3}}, {0.5}});
  return denoiser;
}
std::vector<double> gaussian_flow(double to) {
  std::vector<double> x = kStart;
  const double growth = std::sqrt((0.25 + to * to) / (0.25 + kMax * kMax));
  for (std::size_t i = 0; i < x.size(); ++i) {
    const double mean = gaussian().mixture().means[0][i % 2];
    x[i] = mean + growth * (x[i] - mean);
  }
  return x;
}

std::vector<double> mixture_flow(double to) {
  static std::map<double, std::vector<double>> known{{kMax, kStart}};
  if (const auto found = known.find(to); found != known.end()) return found->second;
  SamplerOptions options;
  options.tolerance = 1e-13;
  std::vector<double> x = kStart;
  sample("adaptive", mixture(), std::vector<double>{kMax, to}, kNoNoise, options, x);
  return known[to] = x;
}

/// A grid whose Karras exponent is 1 is uniform in sigma; equal steps of sigma are too long for what is fast near 0.
struct Steps {
  const char* name;
  Grid grid;
  double rho, end;

  std::vector<double> operator()(int steps) const {
    return sigma_grid(grid, steps, {.sigma_max = kMax, .sigma_min = end, .to_zero = false, .rho = rho});
  }
};
constexpr Steps kLogarithmic{"log sigma", Grid::log_sigma, 7, kMin}, kUniform{"sigma", Grid::karras, 1, 0.5};
constexpr Steps kAny[] = {kLogarithmic, {"karras", Grid::karras, 7, kMin}, {"cosine", Grid::cosine, 7, kMin}};

double distance(std::span<const double> a, std::span<const double> b) {
  double most = 0;
  for (std::size_t i = 0; i < a.size(); ++i) most = std::max(most, std::abs(a[i] - b[i]));
  return most;
}

std::vector<double> sampled(std::string_view name, const Denoiser& denoiser, std::span<const double> sigmas,
                            const SamplerOptions& options, const NoiseSource& noise = kNoNoise) {
  std::vector<double> x = kStart;
  sample(name, denoiser, sigmas, noise, options, x);
  return x;
}

/// Slopes of log error against log step over halvings, down to rounding.
template <class Flow>
std::vector<double> slopes(std::string_view name, const Denoiser& denoiser, Flow flow, SamplerOptions options,
                           const Steps& grid, bool exactly) {
  if (exactly)
    options.exact_start = [&](double sigma, std::span<double> x) { std::ranges::copy(flow(sigma), x.begin()); };
  std::vector<double> errors;
  for (int steps = 40; steps <= 1280; steps *= 2)
    errors.push_back(distance(sampled(name, denoiser, grid(steps), options), flow(grid.end)));
  std::vector<double> found;
  for (std::size_t i = 1; i < errors.size(); ++i) {
    if (errors[i] > 2e-11) found.push_back(std::log2(errors[i - 1] / errors[i]));
  }
  return found;
}

struct Claim {
  std::string_view name;
  int option, order, own;  ///< `own`: with the method's own start
};
constexpr Claim kClaims[] = {
    {"euler", 0, 1, 1},        {"ddim", 0, 1, 1},        {"heun", 0, 2, 2},  {"dpm-2", 0, 2, 2}, {"dpm-3", 0, 3, 3},
    {"dpmpp-2m", 0, 2, 2},     {"dpmpp-3m", 0, 3, 2},    {"unipc", 1, 2, 2}, {"unipc", 2, 3, 3}, {"unipc", 3, 4, 0},
    {"deis", 1, 1, 1},         {"deis", 2, 2, 2},        {"deis", 3, 3, 2},  {"deis", 4, 4, 2},  {"ipndm", 1, 1, 1},
    {"ipndm", 2, 2, 2},        {"ipndm", 3, 3, 0},       {"ipndm", 4, 4, 0}, {"sde", 0, 1, 1},   {"sde-heun", 0, 2, 2},
    {"sde-dpmpp-2m", 0, 2, 2}, {"sde-dpmpp-3m", 0, 3, 2}};

TEST(Samplers, AreAllClaimed) {
  for (const SamplerInfo& info : samplers()) {
    if (info.name == "ancestral" || info.name == "adaptive" || info.name == "euler-maruyama") continue;  // own tests
    const auto claim = std::find_if(std::begin(kClaims), std::end(kClaims), [&](const Claim& c) {
      return c.name == info.name && (c.option == 0 || c.option == 3);
    });
    ASSERT_NE(claim, std::end(kClaims)) << info.name;
    if (!info.stochastic) {
      EXPECT_EQ(claim->order, info.order) << info.name;
    }
  }
}

TEST(Samplers, HaveTheirOrders) {
  for (const Claim& claim : kClaims) {
    SamplerOptions options;
    options.order = claim.option;
    options.s_fraction = 0;
    const auto grids = claim.name == "ipndm" ? std::span(&kUniform, 1) : std::span(kAny);
    for (const Steps& grid : grids) {
      for (const bool of_mixture : {false, true}) {
        const std::string what =
            fmt::format("{} {} in {}{}", claim.name, claim.option, grid.name, of_mixture ? ", mixture" : "");
        const auto found = of_mixture ? slopes(claim.name, mixture(), mixture_flow, options, grid, true)
                                      : slopes(claim.name, gaussian(), gaussian_flow, options, grid, true);
        ASSERT_GE(found.size(), 2U) << what;
        for (std::size_t i = found.size() - 2; i < found.size(); ++i) {
          // Along other grids the first term of a Gaussian's error may all but vanish (deis).
          EXPECT_GE(found[i], claim.order - 0.15) << what;
          if (of_mixture || grid.grid == Grid::log_sigma || claim.name == "ipndm") {
            EXPECT_LE(found[i], claim.order + 0.15) << what;
          }
        }
        if (!of_mixture || claim.own == 0) continue;
        const auto own = slopes(claim.name, mixture(), mixture_flow, options, grid, false);
        EXPECT_NEAR(own.back(), claim.own, 0.15) << what;
      }
    }
  }
}

// Published code halves the second difference of 3M; so weighed, it is a method of order 2.
TEST(Samplers, WouldNotHaveItWithThePublishedWeights) {
  const auto published = [](int steps) {
    const std::vector<double> sigmas = kLogarithmic(steps);
    const double h = std::log(kMax / kMin) / steps, first = -std::expm1(-h), second = 1 - first / h;
    std::vector<double> x = kStart;
    std::vector<std::vector<double>> d;
    for (std::size_t n = 0; n + 1 < sigmas.size(); ++n) {
      d.insert(d.begin(), std::vector<double>(x.size()));
      mixture().denoise(x, sigmas[n], d[0]);
      if (n < 2) {
        x = mixture_flow(sigmas[n + 1]);
        continue;
      }
      const double third = -((-first + h) / (h * h) - 0.5);
      for (std::size_t i = 0; i < x.size(); ++i) {
        const double one = d[0][i] - d[1][i], other = d[1][i] - d[2][i], bend = (one - other) / 2;
        x[i] = std::exp(-h) * x[i] + first * d[0][i] + second * (one + bend) + third * bend;
      }
    }
    return distance(x, mixture_flow(kMin));
  };
  EXPECT_NEAR(std::log2(published(320) / published(640)), 2, 0.15);
}

TEST(Samplers, AgreeWhereTheyAreTheSame) {
  SamplerOptions options;
  options.s_fraction = 0;
  options.order = 1;
  options.corrector = false;
  for (const Grid grid : {Grid::log_sigma, Grid::karras, Grid::cosine}) {
    for (const bool to_zero : {false, true}) {
      const auto sigmas = sigma_grid(grid, 9, {.sigma_max = 20, .sigma_min = 0.05, .to_zero = to_zero});
      const std::vector<double> euler = sampled("euler", mixture(), sigmas, options);
      for (const std::string_view name : {"ddim", "unipc", "deis", "ipndm", "euler-maruyama", "sde"})
        EXPECT_LE(distance(sampled(name, mixture(), sigmas, options), euler), 1e-10) << name;
      // UniPC-2's predictor is DPM-Solver++(2M), and s = 0 is the ODE.
      SamplerOptions second = options;
      second.order = 2;
      const std::vector<double> multistep = sampled("dpmpp-2m", mixture(), sigmas, second);
      for (const std::string_view name : {"unipc", "sde-dpmpp-2m"})
        EXPECT_LE(distance(sampled(name, mixture(), sigmas, second), multistep), 1e-10) << name;
      EXPECT_LE(
          distance(sampled("sde-dpmpp-3m", mixture(), sigmas, second), sampled("dpmpp-3m", mixture(), sigmas, second)),
          1e-10);
    }
  }
}

// Deterministic ancestral steps of a discrete process are Euler's at its sigmas: DDIM.
TEST(Samplers, EulerIsTheAncestralMeanWithoutPosterior) {
  const Schedule schedule = Schedule::from_betas(betas_of(BetaSchedule::linear, 1000));
  const std::vector<int> steps = strided_steps(1000, 7, Spacing::trailing);
  const std::vector<double> sigmas = sigmas_of(schedule, steps);
  std::vector<double> x = kStart, clean(x.size());
  for (std::size_t n = 0; n < steps.size(); ++n) {  // DDIM in the process's own variables
    const int t = steps[n], s = n + 1 < steps.size() ? steps[n + 1] : 0;
    std::vector<double> unit = x;
    for (double& value : unit) value /= schedule.A(t);
    mixture().denoise(unit, schedule.sigma(t), clean);
    for (std::size_t i = 0; i < x.size(); ++i) {
      const double epsilon = (x[i] - schedule.A(t) * clean[i]) / schedule.B(t);
      x[i] = schedule.A(s) * clean[i] + schedule.B(s) * epsilon;
    }
  }
  std::vector<double> other = kStart;
  for (double& value : other) value /= schedule.A(steps[0]);
  EXPECT_EQ(sample("euler", mixture(), sigmas, kNoNoise, {}, other), 7);
  EXPECT_LE(distance(x, other), 1e-10);
}

// tests/data/make_sampler_cases.py: the same model, grid and start.
TEST(Samplers, EndWhereDiffusersDoes) {
  std::ifstream in(TUIQIAO_TEST_DATA "/sampler_cases.json");
  const auto stored = nlohmann::json::parse(in);
  const auto& truth = stored["mixture"];
  const MixtureDenoiser denoiser({truth["weights"], truth["means"], truth["stds"]});
  const auto flat = [](const nlohmann::json& rows) {
    std::vector<double> numbers;
    for (const auto& row : rows) numbers.insert(numbers.end(), row.begin(), row.end());
    return numbers;
  };
  std::set<std::string> seen;
  for (const auto& one : stored["cases"]) {
    SamplerOptions options;
    options.order = one.value("order", 0);
    options.corrector = one.value("corrector", true);
    options.lower_order_final = one.value("lower_order_final", false);
    const auto sigmas = one["sigmas"].get<std::vector<double>>();
    std::vector<double> x = flat(one["start"]);
    sample(one["sampler"].get<std::string>(), denoiser, sigmas, kNoNoise, options, x);
    EXPECT_LE(distance(x, flat(one["end"])), 1e-4)
        << one["scheduler"] << " of order " << options.order << ", " << sigmas.size() - 1 << " steps";
    seen.insert(one["sampler"].get<std::string>());
  }
  EXPECT_EQ(seen.size(), 5U);
}

TEST(Samplers, AdaptiveKeepsItsTolerance) {
  double before = 0;
  for (const double tolerance : {1e-3, 1e-5, 1e-7, 1e-9}) {
    SamplerOptions options;
    options.tolerance = tolerance;
    std::vector<double> x = kStart;
    const auto evaluations =
        static_cast<double>(sample("adaptive", mixture(), std::vector<double>{kMax, 1, kMin}, kNoNoise, options, x));
    EXPECT_LE(distance(x, mixture_flow(kMin)), 20 * tolerance) << tolerance;
    EXPECT_GT(evaluations, before);
    before = evaluations;
  }
  EXPECT_LT(before, 1500);
}

// By the error that more evaluations leave: at least 5, the order that it goes on with.
TEST(Samplers, AdaptiveHasItsOrder) {
  const auto run = [&](double tolerance) {
    SamplerOptions options;
    options.tolerance = tolerance;
    std::vector<double> x = kStart;
    const auto evaluations = sample("adaptive", gaussian(), std::vector<double>{kMax, kMin}, kNoNoise, options, x);
    return std::pair{std::log2(distance(x, gaussian_flow(kMin))), std::log2(static_cast<double>(evaluations))};
  };
  const auto [coarse, few] = run(1e-6);
  const auto [middle, more] = run(1e-8);
  const auto [fine, most] = run(1e-10);
  EXPECT_GE((coarse - middle) / (more - few), 4.5);
  EXPECT_GE((middle - fine) / (most - more), 4.5);
}

TEST(Samplers, GoBackWhereTheyCameFrom) {
  const auto there_and_back = [](std::string_view name, int steps) {
    const std::vector<double> falling = kLogarithmic(steps), rising(falling.rbegin(), falling.rend());
    std::vector<double> x = kStart;
    SamplerOptions options;
    options.tolerance = 1e-13;
    sample(name, mixture(), falling, kNoNoise, options, x);
    sample(name, mixture(), rising, kNoNoise, options, x);
    return distance(x, kStart);
  };
  EXPECT_LE(there_and_back("adaptive", 1), 1e-10);
  // The way back takes off part of the error of the way there, so that the order may be more.
  for (const auto& [name, order] : {std::pair{"euler", 1},
                                    {"heun", 2},
                                    {"dpm-2", 2},
                                    {"dpm-3", 3},
                                    {"dpmpp-2m", 2},
                                    {"dpmpp-3m", 2},
                                    {"unipc", 3},
                                    {"deis", 2}}) {
    const double coarse = there_and_back(name, 100), middle = there_and_back(name, 200),
                 fine = there_and_back(name, 400);
    EXPECT_GE(std::log2(coarse / middle), order - 0.15) << name;
    EXPECT_GE(std::log2(middle / fine), order - 0.15) << name;
    if (order > 1) {
      EXPECT_LE(middle, 2e-3) << name;
    }
  }
}

TEST(Samplers, TakeAnyGrid) {
  for (const SamplerInfo& info : samplers()) {
    const NoiseSource noise = image_noise(3, 0, 2);
    SamplerOptions options;
    // One step to zero is the model's word.
    std::vector<double> x = kStart, clean(x.size());
    EXPECT_EQ(sample(info.name, mixture(), std::vector<double>{2, 0}, noise, options, x), 1) << info.name;
    mixture().denoise(kStart, 2, clean);
    EXPECT_LE(distance(x, clean), 1e-12) << info.name;
    // One short step to a sigma above 0 is near the flow.
    if (!info.stochastic) {
      std::vector<double> short_of = gaussian_flow(2);
      sample(info.name, gaussian(), std::vector<double>{2, 1.8}, noise, options, short_of);
      EXPECT_LE(distance(short_of, gaussian_flow(1.8)), 0.02) << info.name;
      EXPECT_GE(distance(short_of, gaussian_flow(2)), 0.05) << info.name;
    }
    // Sigmas that come again count for nothing.
    std::vector<double> once = kStart, twice = kStart;
    sample(info.name, mixture(), std::vector<double>{2, 1, 0.5, 0}, noise, options, once);
    sample(info.name, mixture(), std::vector<double>{2, 2, 1, 0.5, 0.5, 0, 0}, noise, options, twice);
    EXPECT_EQ(once, twice) << info.name;
    // Nor do such as have one logarithm.
    std::vector<double> near = kStart, apart = kStart;
    sample(info.name, mixture(), std::vector<double>{80, std::nextafter(80, 0), 40}, noise, options, near);
    sample(info.name, mixture(), std::vector<double>{80, 40}, noise, options, apart);
    EXPECT_EQ(near, apart) << info.name;
    // Steps that differ by a factor of a million, and no step.
    std::vector<double> wild = kStart;
    sample(info.name, mixture(), std::vector<double>{1000, 999.999, 1, 1 - 1e-9, 1e-3, 0}, noise, options, wild);
    for (const double value : wild) EXPECT_TRUE(std::isfinite(value)) << info.name;
    std::vector<double> same = kStart;
    EXPECT_EQ(sample(info.name, mixture(), std::vector<double>{2}, noise, options, same), 0);
    EXPECT_EQ(same, kStart);
    EXPECT_EQ(sample(info.name, mixture(), std::vector<double>{2, 1}, noise, options, std::span<double>{}), 0);
  }
}

TEST(Samplers, RefuseWhatTheyCannotDo) {
  std::vector<double> x = kStart;
  const auto refused = [&](std::string_view name, std::vector<double> sigmas, const SamplerOptions& options) {
    EXPECT_THROW(sample(name, mixture(), sigmas, kNoNoise, options, x), std::invalid_argument) << name;
    EXPECT_EQ(x, kStart);
  };
  refused("eular", {2, 1}, {});
  refused("euler", {}, {});
  refused("euler", {0, 1}, {});
  refused("euler", {2, -1}, {});
  refused("euler", {2, NAN}, {});
  refused("euler", {INFINITY, 1}, {});
  refused("euler", {2, 1, 1.5}, {});
  refused("ddim", {1, 2}, {.eta = 0.5});
  refused("ddim", {2, 1}, {.eta = 2});
  refused("sde", {2, 1}, {.s_fraction = 1.5});
  refused("deis", {2, 1}, {.order = 5});
  refused("unipc", {2, 1}, {.order = 4});
  refused("adaptive", {2, 1}, {.tolerance = 0});
  refused("euler", {2, 1}, {.clip = NAN});
  refused("heun", {2, 1}, {.churn = 1, .churn_noise = -1});
  refused("heun", {2, 1}, {.churn = 1, .churn_noise = NAN});
  x.pop_back();
  EXPECT_THROW(sample("euler", mixture(), std::vector<double>{2, 1}, kNoNoise, {}, x), std::invalid_argument);
}

// Two points, (0, 0) and (4, 4), softened: what is held tells the other number, where noise lets the sampler change its
// mind. The flow decides early, by the noise that it began with.
TEST(HeldDenoiser, FitsTheRestToWhatIsKnown) {
  const MixtureDenoiser inner({{1, 1}, {{0, 0}, {4, 4}}, {0.05, 0.05}});
  const HeldDenoiser held(inner, {4, 0, 0, 0}, {true, false});
  std::vector<double> x(4);
  const NoiseSource noise = image_noise(3, 0, 2);
  for (const char* sampler : {"euler", "dpmpp-2m", "sde", "sde-dpmpp-2m"}) {
    noise(0, x);
    for (double& value : x) value *= 80;
    x[0] += 4;
    const auto sigmas = sigma_grid(Grid::karras, 60, {.sigma_max = 80, .sigma_min = 0.01});
    sample(sampler, held, sigmas, noise, {}, x);
    EXPECT_EQ(x[0], 4) << sampler;
    EXPECT_EQ(x[2], 0) << sampler;
    if (!sampler_named(sampler).stochastic) continue;
    EXPECT_NEAR(x[1], 4, 0.5) << sampler;
    EXPECT_NEAR(x[3], 0, 0.5) << sampler;
  }
  EXPECT_THROW(HeldDenoiser(inner, {4, 0, 0}, {true, false}), std::invalid_argument);
  EXPECT_THROW(HeldDenoiser(inner, {4, 0}, {true}), std::invalid_argument);
}

TEST(HeldDenoiser, PredictsVariancesWhereTheOtherDoes) {
  const auto answer = [](std::span<const double> x, double, std::span<double> output) {
    std::copy(x.begin(), x.end(), output.begin());
    std::fill(output.begin() + static_cast<std::ptrdiff_t>(x.size()), output.end(), 0.5);
  };
  const Schedule schedule = Schedule::from_betas(std::vector{0.1, 0.2});
  const ModelDenoiser inner(answer, 2, schedule, Prediction::sample, true);
  const HeldDenoiser held(inner, {4, 0}, {true, false});
  ASSERT_TRUE(held.predicts_variance());
  const std::vector<double> x{1, 2};
  std::vector<double> clean(2), fraction(2);
  held.denoise_with_variance(x, 1, clean, fraction);
  EXPECT_EQ(clean[0], 4);
  EXPECT_NEAR(clean[1], std::sqrt(2), 1e-12);
  EXPECT_EQ(fraction, (std::vector{0.75, 0.75}));
  EXPECT_THROW(ModelDenoiser(answer, 0, schedule, Prediction::sample), std::invalid_argument);
}

TEST(Grids, FallFromEndToEnd) {
  const Schedule schedule = Schedule::from_betas(betas_of(BetaSchedule::linear, 1000));
  for (const Grid grid : {Grid::log_sigma, Grid::karras, Grid::cosine, Grid::time}) {
    EXPECT_EQ(grid_from_name(name(grid)), grid);
    GridOptions options{.sigma_max = schedule.sigma(1000), .sigma_min = schedule.sigma(3), .schedule = &schedule};
    for (const int steps : {1, 2, 3, 10, 100}) {
      for (const bool to_zero : {false, true}) {
        options.to_zero = to_zero;
        const std::vector<double> sigmas = sigma_grid(grid, steps, options);
        ASSERT_EQ(sigmas.size(), static_cast<std::size_t>(steps) + 1);
        EXPECT_EQ(sigmas.front(), options.sigma_max);
        EXPECT_EQ(sigmas.back(), to_zero ? 0 : options.sigma_min);
        EXPECT_TRUE(std::is_sorted(sigmas.rbegin(), sigmas.rend()));
        EXPECT_EQ(std::ranges::adjacent_find(sigmas), sigmas.end());
      }
    }
    EXPECT_THROW(sigma_grid(grid, 0, options), std::invalid_argument);
    EXPECT_THROW(sigma_grid(grid, 5, {.sigma_max = 1, .sigma_min = 2, .schedule = &schedule}), std::invalid_argument);
    EXPECT_THROW(sigma_grid(grid, 5, {.sigma_max = 1, .sigma_min = 0, .schedule = &schedule}), std::invalid_argument);
    EXPECT_THROW(sigma_grid(grid, 5, {.sigma_max = NAN, .sigma_min = 0.1, .schedule = &schedule}),
                 std::invalid_argument);
  }
  EXPECT_THROW(sigma_grid(Grid::time, 5, {.sigma_max = 1, .sigma_min = 0.1}), std::invalid_argument);
  // A process knows no time of sigmas that it does not reach.
  const double low = schedule.sigma(1), high = schedule.sigma(1000);
  for (const auto& [max, min] : {std::pair{2 * high, 1.5 * high}, {2 * high, 1.0}, {1.0, low / 2}, {low / 2, low / 3}})
    EXPECT_THROW(sigma_grid(Grid::time, 5, {.sigma_max = max, .sigma_min = min, .schedule = &schedule}),
                 std::invalid_argument);
  EXPECT_THROW(grid_from_name("linear"), std::invalid_argument);
}

TEST(Grids, AreUniformInTheirVariable) {
  const GridOptions options{.sigma_max = 80, .sigma_min = 0.002, .to_zero = true};
  // EDM's own figures: (80^(1/7) + i / 17 (0.002^(1/7) - 80^(1/7)))^7.
  const std::vector<double> karras = sigma_grid(Grid::karras, 18, options);
  const double a = std::pow(80, 1.0 / 7), b = std::pow(0.002, 1.0 / 7);
  for (int i = 0; i < 18; ++i)
    EXPECT_NEAR(karras[static_cast<std::size_t>(i)] / std::pow(a + i / 17.0 * (b - a), 7), 1, 1e-13);
  const std::vector<double> log_sigma = sigma_grid(Grid::log_sigma, 18, options);
  for (std::size_t i = 1; i < 17; ++i)
    EXPECT_NEAR(log_sigma[i] * log_sigma[i] / (log_sigma[i - 1] * log_sigma[i + 1]), 1, 1e-12);
  const std::vector<double> cosine = sigma_grid(Grid::cosine, 18, options);
  for (std::size_t i = 0; i < 18; ++i)
    EXPECT_NEAR(std::atan(cosine[i]), std::atan(80) + static_cast<double>(i) / 17 * (std::atan(0.002) - std::atan(80)),
                1e-12);
  // At the steps of a process themselves, t is what strided_steps says.
  const Schedule schedule = Schedule::from_betas(betas_of(BetaSchedule::squaredcos_cap_v2, 100));
  const std::vector<double> time = sigma_grid(
      Grid::time, 100, {.sigma_max = schedule.sigma(100), .sigma_min = schedule.sigma(1), .schedule = &schedule});
  const std::vector<double> own = sigmas_of(schedule, strided_steps(100, 100, Spacing::leading));
  ASSERT_EQ(time.size(), own.size());
  for (std::size_t i = 0; i + 1 < own.size(); ++i) EXPECT_NEAR(time[i] / own[i], 1, 1e-9) << i;
  EXPECT_THROW(sigmas_of(schedule, std::vector<int>{101}), std::invalid_argument);
}

}  // namespace
}  // namespace tuiqiao
