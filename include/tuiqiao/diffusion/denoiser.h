#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string_view>
#include <vector>

#include "tuiqiao/diffusion/schedule.h"

namespace tuiqiao {

/// Estimates clean data from noisy: D(x, sigma) = E[x_0 | x_0 + sigma eps = x], whatever kind of model is behind it.
/// In these variables the probability-flow ODE is dx/dsigma = (x - D)/sigma, so every sampler is a function of D alone.
/// A process with signal A and noise B is seen as x_t / A at sigma = B / A.
/// Threads: one call at a time, unless an implementation says otherwise.
class Denoiser {
 public:
  virtual ~Denoiser() = default;

  /// Numbers in one datum.
  virtual std::int64_t size() const = 0;

  /// Shapes: x, denoised: rows of size(). Domain: sigma > 0.
  virtual void denoise(std::span<const double> x, double sigma, std::span<double> denoised) const = 0;

  /// Whether it also predicts where between two variances (0: posterior, 1: beta, linear in the logarithm) each
  /// number's own lies: arXiv 2102.09672, equation 15.
  virtual bool predicts_variance() const { return false; }
  /// Shapes: fraction as x. Throws: std::invalid_argument unless predicts_variance().
  virtual void denoise_with_variance(std::span<const double> x, double sigma, std::span<double> denoised,
                                     std::span<double> fraction) const;
};

/// Refuses an estimate of clean data that holds what is no number.
/// Throws: tuiqiao::Error "the model's answer at sigma = ... is not finite".
void check_answer(std::span<const double> denoised, double sigma);

/// What a network predicts: the noise, the clean data, or v = A eps - B x_0.
enum class Prediction { epsilon, sample, v };
/// diffusers' names: "epsilon", "sample", "v_prediction".
std::string_view name(Prediction prediction);
/// Throws: std::invalid_argument that lists the names.
Prediction prediction_from_name(std::string_view text);

/// The x_0 that a prediction means, at x = A x_0 + B eps.
inline double clean_of(Prediction prediction, double predicted, double x, double A, double B) {
  if (prediction == Prediction::epsilon) return (x - B * predicted) / A;
  return prediction == Prediction::sample ? predicted : A * x - B * predicted;
}
/// What a prediction should be, for training.
inline double target_of(Prediction prediction, double clean, double epsilon, double A, double B) {
  if (prediction == Prediction::epsilon) return epsilon;
  return prediction == Prediction::sample ? clean : A * epsilon - B * clean;
}

/// A model of a discrete process as a Denoiser. `model` is called with x_t, the step t (1 to T, between steps for a
/// sigma that is none of theirs) and the place of its output, as long as x or, with learned variances, twice that: each
/// row's prediction, then its variance fractions scaled to [-1, 1].
class ModelDenoiser : public Denoiser {
 public:
  using Model = std::function<void(std::span<const double> x, double step, std::span<double> output)>;

  /// Throws: std::invalid_argument "[ModelDenoiser] ..." where size < 1.
  ModelDenoiser(Model model, std::int64_t size, Schedule schedule, Prediction prediction, bool variance = false);

  std::int64_t size() const override { return size_; }
  void denoise(std::span<const double> x, double sigma, std::span<double> denoised) const override;
  bool predicts_variance() const override { return variance_; }
  void denoise_with_variance(std::span<const double> x, double sigma, std::span<double> denoised,
                             std::span<double> fraction) const override;

 private:
  void evaluate(std::span<const double> x, double sigma, std::span<double> denoised, std::span<double> fraction) const;

  Model model_;
  std::int64_t size_;
  Schedule schedule_;
  Prediction prediction_;
  bool variance_;
};

/// Counts what another Denoiser is asked, and how long it takes.
class CountingDenoiser : public Denoiser {
 public:
  explicit CountingDenoiser(const Denoiser& inner) : inner_(inner) {}

  std::int64_t size() const override { return inner_.size(); }
  void denoise(std::span<const double> x, double sigma, std::span<double> denoised) const override;
  bool predicts_variance() const override { return inner_.predicts_variance(); }
  void denoise_with_variance(std::span<const double> x, double sigma, std::span<double> denoised,
                             std::span<double> fraction) const override;

  std::int64_t evaluations() const { return evaluations_; }  ///< calls, whatever their number of rows
  double seconds() const { return seconds_; }
  static double now();

 private:
  const Denoiser& inner_;
  mutable std::int64_t evaluations_ = 0;
  mutable double seconds_ = 0;
};

/// Another Denoiser that is told part of the answer: where `held` is, the clean data are `known`, whatever x is. Any
/// sampler then brings those numbers there (unless it clips, or stops above sigma 0), along the noise that they began
/// with. The rest is estimated from the state of both, as in every inpainting by replacement: it fits what is
/// held, but is no sample of the law given that, since while sigma is large the state of what is held says little. SDE
/// samplers, which go on mixing, come nearer than those of the flow. Threads: as the other.
class HeldDenoiser : public Denoiser {
 public:
  /// Shapes: known: rows of size(), as many as x will have; held: size() flags, for every row.
  /// Throws: std::invalid_argument "[HeldDenoiser] ..." on other sizes.
  HeldDenoiser(const Denoiser& inner, std::vector<double> known, std::vector<bool> held);

  std::int64_t size() const override { return inner_.size(); }
  void denoise(std::span<const double> x, double sigma, std::span<double> denoised) const override;
  bool predicts_variance() const override { return inner_.predicts_variance(); }
  void denoise_with_variance(std::span<const double> x, double sigma, std::span<double> denoised,
                             std::span<double> fraction) const override;

  /// Puts what is known where it is held.
  void hold(std::span<double> values) const;

 private:
  void check(std::span<const double> x) const;

  const Denoiser& inner_;
  std::vector<double> known_;
  std::vector<bool> held_;
};

/// A mixture of Gaussians N(means[k], stds[k]^2 I), whose D is known: for tests and demonstrations. One component of
/// std 0 is data of one point, one of mean 0 and std 1 is N(0, I).
struct Mixture {
  std::vector<double> weights;  ///< positive; they are divided by their sum
  std::vector<std::vector<double>> means;
  std::vector<double> stds;  ///< >= 0
};

/// The exact Denoiser of a mixture. Threads: may be called at once.
class MixtureDenoiser : public Denoiser {
 public:
  /// Throws: std::invalid_argument "[MixtureDenoiser] ..." on sizes or values that do not fit.
  explicit MixtureDenoiser(Mixture mixture);

  std::int64_t size() const override { return static_cast<std::int64_t>(mixture_.means.front().size()); }
  void denoise(std::span<const double> x, double sigma, std::span<double> denoised) const override;
  const Mixture& mixture() const { return mixture_; }
  /// The chance that a noisy datum x (size() numbers) came from each component; they sum to 1.
  void shares(std::span<const double> x, double sigma, std::span<double> chances) const;

 private:
  Mixture mixture_;
};

/// True samples, a stream each: row i is datum first + i under the seed. Domain: a mixture as MixtureDenoiser takes it;
/// x is rows of its size.
void sample_mixture(const Mixture& mixture, std::uint64_t seed, std::uint64_t first, std::span<double> x);

}  // namespace tuiqiao
