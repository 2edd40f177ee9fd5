#pragma once

#include <cstdint>
#include <functional>
#include <limits>
#include <span>
#include <string_view>

#include "tuiqiao/diffusion/denoiser.h"
#include "tuiqiao/diffusion/noise.h"
#include "tuiqiao/progress.h"

namespace tuiqiao {

// Samplers of the family dx = (f - (g^2 + s^2)/2 score) dt + s dw, 0 <= s <= g: s = 0 is the probability-flow ODE, s =
// g the reverse SDE, and all have the same marginals. In the variables of Denoiser (x over the signal, sigma = B/A) and
// lambda = -log sigma, with c = s/g,
//   dx = -(1 + c^2) (x - D) dlambda + c sigma sqrt(2) dw   as sigma falls,
//   dx = -(1 - c^2) (x - D) dlambda + c sigma sqrt(2) dw   as it rises: the forward process.

/// What the score counts in the family's drift at g and s: (g^2 + s^2)/2 backwards in time, (g^2 - s^2)/2 forwards.
/// Domain: 0 <= s <= g. Source: arXiv 2011.13456, equations 6 and 13; that all s have one law follows from the
/// Fokker-Planck equation, for any f.
constexpr double score_weight(bool backwards, double g, double s) { return (g * g + (backwards ? s * s : -s * s)) / 2; }

/// What a callback may look at after each evaluation of the model.
struct SamplerStep {
  int index = 0;                      ///< of the step, 0 first
  double sigma = 0;                   ///< where the model was asked
  std::span<const double> x;          ///< what it saw
  std::span<const double> predicted;  ///< its x_0, clipped where that was asked for
};

struct SamplerOptions {
  /// c = s/g of the SDE samplers: 0 the ODE, 1 the reverse SDE. Domain: [0, 1].
  double s_fraction = 1;
  /// The same as a function of sigma, in place of the number; each step takes it at its geometric middle.
  std::function<double(double sigma)> s_fraction_of = {};
  /// Of ddim: 0 is the ODE, 1 has the ancestral sampler's posterior variance. Domain: [0, 1].
  double eta = 0;
  /// Of unipc (1 to 3), deis and ipndm (1 to 4); 0: 3.
  int order = 0;
  /// Of unipc: whether its corrector runs.
  bool corrector = true;
  /// Multistep samplers go down to order 1 in the last steps, as diffusers does for fewer than 15 steps.
  bool lower_order_final = false;
  /// Of heun: noise added before each step, S_churn, S_tmin, S_tmax and S_noise of arXiv 2206.00364, algorithm 2.
  double churn = 0, churn_from = 0, churn_to = std::numeric_limits<double>::infinity(), churn_noise = 1;
  /// Of adaptive: largest error of a step, over 1 + |x|, root mean square over the batch.
  double tolerance = 1e-4;
  /// Predicted x_0 is held within [-clip, clip]; 0 lets it be.
  double clip = 0;
  /// N(0, 1) numbers of a Brownian path's increment from one sigma to another, over its standard deviation, in place of
  /// the NoiseSource: the same path whatever the grid.
  NoisePath path = {};
  /// Puts the flow's exact value at a sigma into x: what multistep samplers then take for their first steps, so that a
  /// measured order is the method's and not that of its start.
  std::function<void(double sigma, std::span<double> x)> exact_start = {};
  std::function<void(const SamplerStep&)> watch = {};
  Progress progress = {};
};

struct SamplerInfo {
  std::string_view name;
  int order = 1;  ///< on grids as `grid` says; of the ODE, or weak where `stochastic`
  /// "any", or what the order holds for.
  std::string_view grid;
  bool stochastic = false;
  /// Evaluations of a step; the step to 0 takes one.
  int evaluations = 1;
  std::string_view source;
};
/// All of them. `order` is that of the default options.
std::span<const SamplerInfo> samplers();
/// Throws: std::invalid_argument that lists the names.
const SamplerInfo& sampler_named(std::string_view name);

/// Samples along a grid of sigmas, whatever model is behind the Denoiser.
/// Shapes: x holds rows of size(): on entry the state at sigmas[0] (sigma times N(0, 1) where sigma is large), on exit
/// that at the last sigma. Domain: sigmas fall, to 0 if wished, or rise from above 0 (encoding; for the SDE samplers
/// the forward process); neighbours with equal logarithms are passed over. Throws: std::invalid_argument "[sample]
/// ..."; tuiqiao::Error where the model's answer is not finite, or no step is short enough for `adaptive`; Interrupted;
/// x is half-way then. Cost: `evaluations` a step and vector operations; memory does not depend on the number of steps.
/// `noise` is asked for draw 1, 2, ..., one a step. Returns the number of evaluations of the whole batch.
std::int64_t sample(std::string_view name, const Denoiser& denoiser, std::span<const double> sigmas,
                    const NoiseSource& noise, const SamplerOptions& options, std::span<double> x);

}  // namespace tuiqiao
