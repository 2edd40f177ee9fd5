#include "tuiqiao/diffusion/ancestral.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <stdexcept>
#include <utility>

namespace tuiqiao {

namespace {

constexpr std::pair<Variance, std::string_view> kVarianceNames[] = {{Variance::posterior, "posterior"},
                                                                    {Variance::beta, "beta"},
                                                                    {Variance::learned_range, "learned_range"},
                                                                    {Variance::optimal, "optimal"}};

/// diffusers takes the logarithm of a posterior variance of 0 as that of this.
constexpr double kLeastVariance = 1e-20;

void check(const Denoiser& denoiser, const Schedule& schedule, std::span<const int> steps,
           const AncestralOptions& options, std::span<const double> x) {
  const auto refuse = [](const std::string& what) { throw std::invalid_argument("[sample_ancestral] " + what); };
  if (steps.empty()) refuse("no step");
  for (std::size_t i = 0; i < steps.size(); ++i) {
    if (steps[i] < 1 || steps[i] > schedule.steps())
      refuse(fmt::format("step {} outside [1, {}]", steps[i], schedule.steps()));
    if (i > 0 && steps[i] >= steps[i - 1]) refuse(fmt::format("step {} after {}", steps[i], steps[i - 1]));
  }
  if (denoiser.size() < 1 || x.size() % static_cast<std::size_t>(denoiser.size()) != 0)
    refuse(fmt::format("{} numbers are no rows of {}", x.size(), denoiser.size()));
  if (!(options.clip >= 0)) refuse(fmt::format("clip = {} is negative", options.clip));
  if (options.variance == Variance::learned_range && !denoiser.predicts_variance())
    refuse("learned_range needs a model that predicts variances");
  if (options.variance == Variance::optimal && options.mean_square_errors.size() != steps.size())
    refuse(fmt::format("{} mean square errors for {} steps", options.mean_square_errors.size(), steps.size()));
}

}  // namespace

std::string_view name(Variance variance) { return kVarianceNames[static_cast<std::size_t>(variance)].second; }

Variance variance_from_name(std::string_view text) {
  for (const auto& [variance, known] : kVarianceNames) {
    if (text == known) return variance;
  }
  throw std::invalid_argument(
      fmt::format("[variance_from_name] '{}' is none of posterior, beta, learned_range, optimal", text));
}

void sample_ancestral(const Denoiser& denoiser, const Schedule& schedule, std::span<const int> steps,
                      const NoiseSource& noise, const AncestralOptions& options, std::span<double> x) {
  check(denoiser, schedule, steps, options, x);
  const bool learned = options.variance == Variance::learned_range;
  std::vector<double> unit(x.size()), clean(x.size()), random(x.size()), fraction(learned ? x.size() : 0);
  for (std::size_t n = 0; n < steps.size(); ++n) {
    const int t = steps[n], s = n + 1 < steps.size() ? steps[n + 1] : 0;
    options.progress.step("sampling", static_cast<std::int64_t>(n), static_cast<std::int64_t>(steps.size()));
    for (std::size_t i = 0; i < x.size(); ++i) unit[i] = x[i] / schedule.A(t);
    if (learned) {
      denoiser.denoise_with_variance(unit, schedule.sigma(t), clean, fraction);
    } else {
      denoiser.denoise(unit, schedule.sigma(t), clean);
    }
    check_answer(clean, schedule.sigma(t));
    if (options.clip > 0) {
      for (double& value : clean) value = std::clamp(value, -options.clip, options.clip);
    }
    if (options.watch) options.watch({static_cast<int>(n), t, x, clean});

    const double noise_s = schedule.B(s) * schedule.B(s), noise_t = schedule.B(t) * schedule.B(t);
    const double b_squared = schedule.b_squared(s, t);
    const double of_x = schedule.a(s, t) * noise_s / noise_t, of_clean = schedule.A(s) * b_squared / noise_t;
    const double posterior = noise_s * b_squared / noise_t;
    double variance = options.variance == Variance::beta ? b_squared : posterior;
    if (options.variance == Variance::optimal) variance += of_clean * of_clean * options.mean_square_errors[n];
    const bool noisy = s > 0 || options.noise_in_last_step;
    if (noisy) noise(n + 1, random);
    const double low = std::log(std::max(posterior, kLeastVariance)), high = std::log(b_squared);
    const double deviation = std::sqrt(variance);
    for (std::size_t i = 0; i < x.size(); ++i) {
      x[i] = of_x * x[i] + of_clean * clean[i];
      if (!noisy) continue;
      x[i] += random[i] * (learned ? std::exp((low + fraction[i] * (high - low)) / 2) : deviation);
    }
  }
  options.progress.step("sampling", static_cast<std::int64_t>(steps.size()), static_cast<std::int64_t>(steps.size()));
}

std::vector<double> mean_square_errors(const Denoiser& denoiser, const Schedule& schedule, std::span<const int> steps,
                                       std::span<const double> data, int draws, std::uint64_t seed, std::int64_t batch,
                                       const Progress& progress, double clip) {
  const auto width = static_cast<std::size_t>(denoiser.size());
  if (width < 1 || data.empty() || data.size() % width != 0 || draws < 1 || batch < 1)
    throw std::invalid_argument(fmt::format("[mean_square_errors] {} numbers as rows of {}, {} draws, batches of {}",
                                            data.size(), width, draws, batch));
  for (const int step : steps) {
    if (step < 1 || step > schedule.steps())
      throw std::invalid_argument(fmt::format("[mean_square_errors] step {} outside [1, {}]", step, schedule.steps()));
  }
  const std::size_t part = std::min(static_cast<std::size_t>(batch), data.size() / width) * width;
  std::vector<double> errors, noisy(part), clean(part);
  for (std::size_t n = 0; n < steps.size(); ++n) {
    progress.step("estimating variances", static_cast<std::int64_t>(n), static_cast<std::int64_t>(steps.size()));
    const double sigma = schedule.sigma(steps[n]);
    double sum = 0;
    for (int draw = 0; draw < draws; ++draw) {
      for (std::size_t from = 0; from < data.size(); from += part) {
        const std::size_t count = std::min(part, data.size() - from);
        const std::span<double> some(noisy.data(), count);
        image_noise(seed, from / width, denoiser.size())(
            n * static_cast<std::size_t>(draws) + static_cast<std::size_t>(draw), some);
        for (std::size_t i = 0; i < count; ++i) some[i] = data[from + i] + sigma * some[i];
        denoiser.denoise(some, sigma, {clean.data(), count});
        check_answer({clean.data(), count}, sigma);
        for (std::size_t i = 0; i < count && clip > 0; ++i) clean[i] = std::clamp(clean[i], -clip, clip);
        for (std::size_t i = 0; i < count; ++i) sum += std::pow(data[from + i] - clean[i], 2);
      }
    }
    errors.push_back(sum / (static_cast<double>(data.size()) * draws));
  }
  return errors;
}

}  // namespace tuiqiao
