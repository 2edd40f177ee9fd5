#pragma once

#include <cstdint>
#include <deque>
#include <span>
#include <vector>

#include "tuiqiao/diffusion/samplers.h"

namespace tuiqiao::sampling {

using Numbers = std::vector<double>;

/// One batch on its way: what every sampler needs.
class Run {
 public:
  Run(const Denoiser& denoiser, const NoiseSource& noise, const SamplerOptions& how, std::vector<double> levels,
      std::span<double> state)
      : x(state), options(how), sigmas(std::move(levels)), denoiser_(denoiser), noise_(noise) {}

  std::span<double> x;
  const SamplerOptions& options;
  const std::vector<double> sigmas;

  int steps() const { return static_cast<int>(sigmas.size()) - 1; }
  double sigma(int n) const { return sigmas[static_cast<std::size_t>(n)]; }
  /// lambda' - lambda of step n; infinite to sigma = 0.
  double h(int n) const;
  /// c = s/g of step n.
  double s_fraction(int n) const;
  /// What the drift of step n counts at c = s/g: 1 + c^2 down, 1 - c^2 up.
  double rate(int n, double c) const;
  /// Of the noise of a step whose linear part is exact: sigma'^2 (1 - exp(-2 c^2 |h|)); 0 to sigma = 0.
  double deviation(int n, double c) const;
  std::int64_t evaluations() const { return evaluations_; }

  /// D(at, level) in step n.
  void denoise(int n, std::span<const double> at, double level, Numbers& denoised);
  /// (at - D) / level in its place.
  void epsilon(int n, std::span<const double> at, double level, Numbers& result);
  /// N(0, 1) numbers of step n. `from`, `to`: its sigmas.
  void normal(int n, double from, double to, Numbers& values) const;
  /// Adds deviation times such numbers to x.
  void add_noise(int n, double from, double to, double deviation);
  /// Puts the exact value into x where step n, of the first `count`, starts a multistep sampler; false otherwise.
  bool starts_exactly(int n, int count);

 private:
  const Denoiser& denoiser_;
  const NoiseSource& noise_;
  Numbers random_;
  std::int64_t evaluations_ = 0;
};

/// What a multistep sampler remembers: the newest first, with the lambda that each belongs to.
class History {
 public:
  explicit History(int most) : most_(static_cast<std::size_t>(most)) {}

  /// A place for a new one, which was the oldest's.
  Numbers& push(double lambda);
  std::size_t size() const { return values_.size(); }
  const Numbers& operator[](std::size_t back) const { return values_[back]; }
  /// lambda of each less the newest's: 0, then below 0 as lambda rises.
  std::vector<double> nodes(std::size_t count) const;

 private:
  std::size_t most_;
  std::deque<double> lambdas_;
  std::deque<Numbers> values_;
};

/// F_k = integral from 0 to h of exp(-rate (h - u)) u^k du for k = 0 to count - 1.
/// Error: 1e-14 relative for |rate h| < 1, from there on that of the recursion.
std::vector<double> exponential_moments(double rate, double h, std::size_t count);

/// Integrals of exp(-rate (h - u)) times the Lagrange polynomials over the nodes: what each value at a node counts.
std::vector<double> exponential_weights(double rate, double h, std::span<const double> nodes);

// Each sampler goes through all steps of a run.
void euler(Run& run);
void ddim(Run& run);
void heun(Run& run);
void dpm_2(Run& run);
void dpm_3(Run& run);
void euler_maruyama(Run& run);
void sde(Run& run);
void sde_heun(Run& run);
void dpmpp_2m(Run& run);
void dpmpp_3m(Run& run);
void sde_dpmpp_2m(Run& run);
void sde_dpmpp_3m(Run& run);
void unipc(Run& run);
void deis(Run& run);
void ipndm(Run& run);
void adaptive(Run& run);

}  // namespace tuiqiao::sampling
