#pragma once

#include <functional>
#include <span>
#include <string_view>
#include <vector>

#include "tuiqiao/diffusion/denoiser.h"
#include "tuiqiao/diffusion/noise.h"
#include "tuiqiao/progress.h"

namespace tuiqiao {

/// The variance of an ancestral step. With b^2 = 1 - (A_t/A_s)^2 of a step from t to s < t:
enum class Variance {
  posterior,      ///< B_s^2 b^2 / B_t^2: exact where the data are one point (diffusers' fixed_small)
  beta,           ///< b^2: exact where the data are N(0, I) (diffusers' fixed_large)
  learned_range,  ///< between the two in the logarithm, where the model says
  optimal         ///< posterior + (A_s b^2 / B_t^2)^2 v_t, v_t the mean square error of the model's x_0 a number
};
std::string_view name(Variance variance);
/// Throws: std::invalid_argument that lists the names.
Variance variance_from_name(std::string_view text);

/// What a callback may look at after each evaluation of the model.
struct SampleStep {
  int index = 0;                      ///< of the step, 0 first
  int step = 0;                       ///< t
  std::span<const double> x;          ///< x_t, which the model saw
  std::span<const double> predicted;  ///< its x_0, clipped where that was asked for
};

struct AncestralOptions {
  Variance variance = Variance::posterior;
  /// Noise also in the step to t = 0. diffusers adds none; data N(0, I) need it, and a posterior variance is 0 there.
  bool noise_in_last_step = false;
  /// Predicted x_0 is held within [-clip, clip]; 0 lets it be.
  double clip = 0;
  /// v_t for each step of the run, for Variance::optimal alone.
  std::vector<double> mean_square_errors = {};
  std::function<void(const SampleStep&)> watch = {};
  Progress progress = {};
};

/// Samples by Bayes and denoising: at each t the model estimates x_0, and x_s is drawn from p(x_s | x_t, x_0), of mean
/// (a B_s^2 / B_t^2) x_t + (A_s b^2 / B_t^2) x_0.
/// Shapes: x holds rows of N(0, 1) numbers on entry and the samples on exit. Domain: steps fall strictly, in [1, T].
/// Throws: std::invalid_argument "[sample_ancestral] ..."; tuiqiao::Error where the model's answer is not finite;
/// Interrupted; x is half-way then. Cost: one evaluation a step. `noise` is asked for draw 1, 2, ... (draw 0 is left
/// for the initial noise). Source: arXiv 2006.11239, equations 6, 7 and 11; 2201.06503, equation 7, with the model's
/// error in place of the
///         covariance (the two agree where the model is exact).
void sample_ancestral(const Denoiser& denoiser, const Schedule& schedule, std::span<const int> steps,
                      const NoiseSource& noise, const AncestralOptions& options, std::span<double> x);

/// v_t of each step: the mean square of x_0 - D a number, over data rows that are noised `draws` times.
/// Shapes: data: rows of size(). `clip` as the sampler's, whose estimates these are the errors of.
/// Throws: std::invalid_argument "[mean_square_errors] ..."; tuiqiao::Error where an answer is not finite; Interrupted.
/// Cost: steps * draws evaluations of all rows, in batches of `batch` rows.
std::vector<double> mean_square_errors(const Denoiser& denoiser, const Schedule& schedule, std::span<const int> steps,
                                       std::span<const double> data, int draws, std::uint64_t seed,
                                       std::int64_t batch = 64, const Progress& progress = {}, double clip = 0);

}  // namespace tuiqiao
