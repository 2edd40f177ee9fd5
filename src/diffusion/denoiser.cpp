#include "tuiqiao/diffusion/denoiser.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <stdexcept>
#include <utility>

#include "tuiqiao/diffusion/noise.h"
#include "tuiqiao/error.h"

namespace tuiqiao {

void Denoiser::denoise_with_variance(std::span<const double>, double, std::span<double>, std::span<double>) const {
  throw std::invalid_argument("[Denoiser] the model predicts no variance");
}

void check_answer(std::span<const double> denoised, double sigma) {
  if (!std::all_of(denoised.begin(), denoised.end(), [](double value) { return std::isfinite(value); }))
    throw Error(fmt::format("the model's answer at sigma = {:.6g} is not finite", sigma));
}

std::string_view name(Prediction prediction) {
  if (prediction == Prediction::epsilon) return "epsilon";
  return prediction == Prediction::sample ? "sample" : "v_prediction";
}

Prediction prediction_from_name(std::string_view text) {
  for (const Prediction prediction : {Prediction::epsilon, Prediction::sample, Prediction::v}) {
    if (text == name(prediction)) return prediction;
  }
  throw std::invalid_argument(
      fmt::format("[prediction_from_name] '{}' is none of epsilon, sample, v_prediction", text));
}

ModelDenoiser::ModelDenoiser(Model model, std::int64_t size, Schedule schedule, Prediction prediction, bool variance)
    : model_(std::move(model)),
      size_(size),
      schedule_(std::move(schedule)),
      prediction_(prediction),
      variance_(variance) {
  if (size_ < 1) throw std::invalid_argument(fmt::format("[ModelDenoiser] data of {} numbers", size_));
}

void ModelDenoiser::evaluate(std::span<const double> x, double sigma, std::span<double> denoised,
                             std::span<double> fraction) const {
  const double A = 1 / std::hypot(1, sigma), B = sigma * A;
  const auto width = static_cast<std::size_t>(size_), outputs = width * (variance_ ? 2 : 1);
  std::vector<double> scaled(x.size()), output(x.size() / width * outputs);
  for (std::size_t i = 0; i < x.size(); ++i) scaled[i] = A * x[i];
  model_(scaled, schedule_.step_of(sigma), output);
  for (std::size_t i = 0; i < x.size(); ++i) {
    const std::size_t at = i / width * outputs + i % width;
    denoised[i] = clean_of(prediction_, output[at], scaled[i], A, B);
    if (!fraction.empty()) fraction[i] = (output[at + width] + 1) / 2;
  }
}

void ModelDenoiser::denoise(std::span<const double> x, double sigma, std::span<double> denoised) const {
  evaluate(x, sigma, denoised, {});
}

void ModelDenoiser::denoise_with_variance(std::span<const double> x, double sigma, std::span<double> denoised,
                                          std::span<double> fraction) const {
  if (!variance_) Denoiser::denoise_with_variance(x, sigma, denoised, fraction);
  evaluate(x, sigma, denoised, fraction);
}

void CountingDenoiser::denoise(std::span<const double> x, double sigma, std::span<double> denoised) const {
  const double start = now();
  inner_.denoise(x, sigma, denoised);
  seconds_ += now() - start;
  ++evaluations_;
}

void CountingDenoiser::denoise_with_variance(std::span<const double> x, double sigma, std::span<double> denoised,
                                             std::span<double> fraction) const {
  const double start = now();
  inner_.denoise_with_variance(x, sigma, denoised, fraction);
  seconds_ += now() - start;
  ++evaluations_;
}

double CountingDenoiser::now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

HeldDenoiser::HeldDenoiser(const Denoiser& inner, std::vector<double> known, std::vector<bool> held)
    : inner_(inner), known_(std::move(known)), held_(std::move(held)) {
  const auto size = static_cast<std::size_t>(inner_.size());
  if (size < 1 || held_.size() != size || known_.empty() || known_.size() % size != 0)
    throw std::invalid_argument(
        fmt::format("[HeldDenoiser] {} known numbers and {} flags for data of {}", known_.size(), held_.size(), size));
}

void HeldDenoiser::check(std::span<const double> x) const {
  if (x.size() != known_.size())
    throw std::invalid_argument(fmt::format("[HeldDenoiser] {} numbers where {} are known", x.size(), known_.size()));
}

void HeldDenoiser::denoise(std::span<const double> x, double sigma, std::span<double> denoised) const {
  check(x);
  inner_.denoise(x, sigma, denoised);
  hold(denoised);
}

void HeldDenoiser::denoise_with_variance(std::span<const double> x, double sigma, std::span<double> denoised,
                                         std::span<double> fraction) const {
  check(x);
  inner_.denoise_with_variance(x, sigma, denoised, fraction);
  hold(denoised);
}

void HeldDenoiser::hold(std::span<double> values) const {
  for (std::size_t i = 0; i < values.size(); ++i) {
    if (held_[i % held_.size()]) values[i] = known_[i];
  }
}

MixtureDenoiser::MixtureDenoiser(Mixture mixture) : mixture_(std::move(mixture)) {
  const auto refuse = [](const std::string& what) { throw std::invalid_argument("[MixtureDenoiser] " + what); };
  const std::size_t parts = mixture_.weights.size();
  if (parts == 0) refuse("no component");
  if (mixture_.means.size() != parts || mixture_.stds.size() != parts)
    refuse(fmt::format("{} weights, {} means and {} stds", parts, mixture_.means.size(), mixture_.stds.size()));
  if (mixture_.means.front().empty()) refuse("means without numbers");
  double total = 0;
  for (std::size_t k = 0; k < parts; ++k) {
    if (mixture_.means[k].size() != mixture_.means.front().size())
      refuse(fmt::format("means[{}] has {} numbers, means[0] {}", k, mixture_.means[k].size(),
                         mixture_.means.front().size()));
    const auto finite = [](double value) { return std::isfinite(value); };
    if (!std::all_of(mixture_.means[k].begin(), mixture_.means[k].end(), finite))
      refuse(fmt::format("means[{}] is not finite", k));
    if (!(mixture_.weights[k] > 0) || !finite(mixture_.weights[k]))
      refuse(fmt::format("weights[{}] = {} is not positive", k, mixture_.weights[k]));
    if (!(mixture_.stds[k] >= 0) || !finite(mixture_.stds[k]))
      refuse(fmt::format("stds[{}] = {} is negative", k, mixture_.stds[k]));
    total += mixture_.weights[k];
  }
  for (double& weight : mixture_.weights) weight /= total;
}

void MixtureDenoiser::shares(std::span<const double> x, double sigma, std::span<double> chances) const {
  for (std::size_t k = 0; k < chances.size(); ++k) {  // log of the weight times the density, but for a common term
    const double variance = mixture_.stds[k] * mixture_.stds[k] + sigma * sigma;
    double square = 0;
    for (std::size_t i = 0; i < x.size(); ++i) square += std::pow(x[i] - mixture_.means[k][i], 2);
    chances[k] = std::log(mixture_.weights[k]) - square / (2 * variance) -
                 static_cast<double>(x.size()) / 2 * std::log(variance);
  }
  const double most = *std::max_element(chances.begin(), chances.end());
  double total = 0;
  for (double& chance : chances) total += chance = std::exp(chance - most);
  for (double& chance : chances) chance /= total;
}

void MixtureDenoiser::denoise(std::span<const double> x, double sigma, std::span<double> denoised) const {
  const auto width = static_cast<std::size_t>(size());
  std::vector<double> chances(mixture_.weights.size());
  for (std::size_t row = 0; row < x.size(); row += width) {
    shares(x.subspan(row, width), sigma, chances);
    std::fill_n(denoised.begin() + static_cast<std::ptrdiff_t>(row), width, 0.0);
    for (std::size_t k = 0; k < chances.size(); ++k) {
      const double inner = mixture_.stds[k] * mixture_.stds[k], shrink = inner / (inner + sigma * sigma);
      for (std::size_t i = 0; i < width; ++i)
        denoised[row + i] += chances[k] * (mixture_.means[k][i] + shrink * (x[row + i] - mixture_.means[k][i]));
    }
  }
}

void sample_mixture(const Mixture& mixture, std::uint64_t seed, std::uint64_t first, std::span<double> x) {
  const std::size_t width = mixture.means.front().size();
  double total = 0;
  for (const double weight : mixture.weights) total += weight;
  for (std::size_t row = 0; row * width < x.size(); ++row) {
    const std::span<double> datum = x.subspan(row * width, width);
    fill_normal(seed, first + row, 0, datum);
    constexpr std::uint64_t kParts = std::uint64_t{1} << 53;
    double left = total * static_cast<double>(random_below(seed, first + row, 0, kParts)) / static_cast<double>(kParts);
    std::size_t k = 0;
    while (k + 1 < mixture.weights.size() && left >= mixture.weights[k]) left -= mixture.weights[k++];
    for (std::size_t i = 0; i < width; ++i) datum[i] = mixture.means[k][i] + mixture.stds[k] * datum[i];
  }
}

}  // namespace tuiqiao
