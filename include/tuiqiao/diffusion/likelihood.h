#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "tuiqiao/diffusion/denoiser.h"
#include "tuiqiao/progress.h"

namespace tuiqiao {

/// A Denoiser that also tells about its Jacobian J: v' J v for each of some probes v, or its trace where there is none.
/// Shapes: x, denoised: rows of size; probes: as x, one after another, or empty; traces: rows for each probe, or once.
using TraceFunction = std::function<void(std::span<const double> x, double sigma, std::span<const double> probes,
                                         std::span<double> denoised, std::span<double> traces)>;

/// Of a mixture, exactly. The mixture must outlive it.
TraceFunction trace_of(const MixtureDenoiser& mixture);

struct LikelihoodOptions {
  double sigma_min = 0.002, sigma_max = 80;
  int steps = 20;  ///< of Runge and Kutta's classical method, four evaluations each
  /// Rademacher probes of Hutchinson's estimate, the same all along; 0 for the exact trace.
  int probes = 1;
  std::uint64_t seed = 0;   ///< of the probes
  std::uint64_t first = 0;  ///< number of the first row, for its probes
  Progress progress = {};
};

struct Likelihood {
  double nats = 0;   ///< -log p(x), p the density in the units of x
  double error = 0;  ///< standard error over probes; 0 for one probe, or none
};

/// The density of noisy data at sigma_min by the probability-flow ODE: with the flow dx/dlog sigma = x - D, log p
/// changes by -(size - tr J), and at sigma_max it is that of N(0, 1 + sigma_max^2). Shapes: x: rows of size. Error: of
/// the solver, order 4 in 1/steps; of the start at sigma_max, about m z / sigma_max for a datum of latent z, m the
/// mean of the data, and |m|^2 / (2 sigma_max^2) in the mean over data; of sigma_min, that data are not noisy.
/// Throws: std::invalid_argument "[log_likelihoods] ..."; tuiqiao::Error where the model's answer is not finite;
/// Interrupted. Cost: 4 evaluations a step with `probes` vector products each, or size of them.
/// Source: arXiv 2011.13456, section 4.3 and appendix D.2; Hutchinson 1990.
std::vector<Likelihood> log_likelihoods(const TraceFunction& model, std::int64_t size, std::span<const double> x,
                                        const LikelihoodOptions& options);

/// Bits for each number of images of 8 bits, v = 127.5 (x + 1), that were made continuous by uniform noise of width 1:
/// nats / (size log 2) + log2 127.5.
double bits_per_dimension(double nats, std::int64_t size);

}  // namespace tuiqiao
