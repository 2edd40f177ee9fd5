#include "tuiqiao/diffusion/likelihood.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <numbers>
#include <stdexcept>

#include "tuiqiao/diffusion/noise.h"

namespace tuiqiao {

namespace {

using Numbers = std::vector<double>;

/// Runge and Kutta's classical method: where its stages stand, each building on the one before it, and what they count.
constexpr std::array kAt{0.0, 0.5, 0.5, 1.0}, kWeights{1.0 / 6, 1.0 / 3, 1.0 / 3, 1.0 / 6};

/// 1 or -1, numbers that are functions of the seed and the row alone.
Numbers rademacher(std::uint64_t seed, std::uint64_t first, std::size_t rows, std::size_t width, int probes) {
  constexpr std::uint64_t kProbes = std::uint64_t{1} << 30;  // apart from the draws of samplers and of dequantisation
  Numbers values(rows * width * static_cast<std::size_t>(probes));
  for (int p = 0; p < probes; ++p) {
    const auto from = static_cast<std::ptrdiff_t>(static_cast<std::size_t>(p) * rows * width);
    image_noise(seed, first, static_cast<std::int64_t>(width))(kProbes + static_cast<std::uint64_t>(p),
                                                               {values.data() + from, rows * width});
  }
  for (double& value : values) value = value < 0 ? -1 : 1;
  return values;
}

void check(std::int64_t size, std::span<const double> x, const LikelihoodOptions& o) {
  const auto refuse = [](const std::string& what) { throw std::invalid_argument("[log_likelihoods] " + what); };
  if (size < 1 || x.size() % static_cast<std::size_t>(size) != 0)
    refuse(fmt::format("{} numbers are no rows of {}", x.size(), size));
  if (!(o.sigma_min > 0 && o.sigma_min < o.sigma_max && std::isfinite(o.sigma_max)))
    refuse(fmt::format("sigmas from {} to {}", o.sigma_min, o.sigma_max));
  if (o.steps < 1 || o.probes < 0) refuse(fmt::format("{} steps, {} probes", o.steps, o.probes));
  if (!std::all_of(x.begin(), x.end(), [](double value) { return std::isfinite(value); })) refuse("x is not finite");
}

/// At the end of the flow, u is N(0, 1); `grown`: by how much log p fell on the way, for each estimate and row.
std::vector<Likelihood> ended(const Numbers& u, const Numbers& grown, std::size_t rows, std::size_t estimates,
                              double sigma_max) {
  std::vector<Likelihood> found(rows);
  const std::size_t width = rows > 0 ? u.size() / rows : 0;
  const double volume = static_cast<double>(width) / 2 * std::log(2 * std::numbers::pi * (1 + sigma_max * sigma_max));
  for (std::size_t row = 0; row < rows; ++row) {
    double squares = 0, mean = 0, spread = 0;
    for (std::size_t i = 0; i < width; ++i) squares += u[row * width + i] * u[row * width + i];
    for (std::size_t p = 0; p < estimates; ++p) mean += grown[p * rows + row] / static_cast<double>(estimates);
    for (std::size_t p = 0; p < estimates; ++p) spread += std::pow(grown[p * rows + row] - mean, 2);
    found[row].nats = squares / 2 + volume - mean;
    if (estimates > 1) found[row].error = std::sqrt(spread / static_cast<double>((estimates - 1) * estimates));
    if (!std::isfinite(found[row].nats)) throw Error("[log_likelihoods] the model's answer is not finite");
  }
  return found;
}

}  // namespace

TraceFunction trace_of(const MixtureDenoiser& denoiser) {
  return [&denoiser](std::span<const double> x, double sigma, std::span<const double> probes,
                     std::span<double> denoised, std::span<double> traces) {
    denoiser.denoise(x, sigma, denoised);
    const Mixture& m = denoiser.mixture();
    const auto width = static_cast<std::size_t>(denoiser.size());
    const std::size_t rows = x.size() / width, parts = m.weights.size();
    const std::size_t count = probes.empty() ? 1 : probes.size() / x.size();
    Numbers share(parts), to_mean(width);
    for (std::size_t row = 0; row < rows; ++row) {
      const double* at = x.data() + row * width;
      denoiser.shares(x.subspan(row * width, width), sigma, share);
      // J = sum of share_k (s_k I + c_k (g_k - mean g)'): c_k the part's own estimate, g_k its score.
      const auto score = [&](std::size_t k, std::size_t i) {
        return -(at[i] - m.means[k][i]) / (m.stds[k] * m.stds[k] + sigma * sigma);
      };
      std::ranges::fill(to_mean, 0);
      for (std::size_t k = 0; k < parts; ++k) {
        for (std::size_t i = 0; i < width; ++i) to_mean[i] += share[k] * score(k, i);
      }
      for (std::size_t p = 0; p < count; ++p) {
        const double* v = probes.empty() ? nullptr : probes.data() + p * x.size() + row * width;
        double trace = 0;
        for (std::size_t k = 0; k < parts; ++k) {
          const double shrink = m.stds[k] * m.stds[k] / (m.stds[k] * m.stds[k] + sigma * sigma);
          double squares = 0, of_estimate = 0, of_score = 0, both = 0;
          for (std::size_t i = 0; i < width; ++i) {
            const double estimate = m.means[k][i] + shrink * (at[i] - m.means[k][i]), pull = score(k, i) - to_mean[i];
            both += estimate * pull;
            if (!v) continue;
            squares += v[i] * v[i];
            of_estimate += v[i] * estimate;
            of_score += v[i] * pull;
          }
          trace +=
              share[k] * (v ? shrink * squares + of_estimate * of_score : shrink * static_cast<double>(width) + both);
        }
        traces[p * rows + row] = trace;
      }
    }
  };
}

std::vector<Likelihood> log_likelihoods(const TraceFunction& model, std::int64_t size, std::span<const double> x,
                                        const LikelihoodOptions& options) {
  check(size, x, options);
  const auto width = static_cast<std::size_t>(size);
  const std::size_t rows = x.size() / width,
                    estimates = std::max<std::size_t>(static_cast<std::size_t>(options.probes), 1);
  const Numbers probes = rademacher(options.seed, options.first, rows, width, options.probes);
  const double start = std::log(options.sigma_min), step = (std::log(options.sigma_max) - start) / options.steps;
  // u = x / growth, growth^2 = 1 + sigma^2, stays of one size where x grows as sigma: a Runge-Kutta step of x itself
  // would be wrong there by its own growth.
  Numbers u(x.begin(), x.end()), there(u.size()), slope(u.size()), moved(u.size());
  for (double& value : u) value /= std::hypot(1, options.sigma_min);
  Numbers grown(rows * estimates, 0), traces(grown.size()), added(grown.size());
  for (int n = 0; n < options.steps && rows > 0; ++n) {
    options.progress.step("following the flow", n, options.steps);
    std::ranges::fill(moved, 0);
    std::ranges::fill(added, 0);
    for (std::size_t s = 0; s < kAt.size(); ++s) {
      const double sigma = std::exp(start + (n + kAt[s]) * step), growth = std::hypot(1, sigma);
      for (std::size_t i = 0; i < u.size(); ++i) there[i] = growth * (s == 0 ? u[i] : u[i] + kAt[s] * step * slope[i]);
      model(there, sigma, probes, slope, traces);
      for (std::size_t i = 0; i < u.size(); ++i) {  // `slope` holds D
        slope[i] = (there[i] / (growth * growth) - slope[i]) / growth;
        moved[i] += kWeights[s] * step * slope[i];
      }
      for (std::size_t i = 0; i < added.size(); ++i)
        added[i] += kWeights[s] * step * (static_cast<double>(size) - traces[i]);
    }
    for (std::size_t i = 0; i < u.size(); ++i) u[i] += moved[i];
    for (std::size_t i = 0; i < grown.size(); ++i) grown[i] += added[i];
  }
  options.progress.step("following the flow", options.steps, options.steps);
  return ended(u, grown, rows, estimates, options.sigma_max);
}

double bits_per_dimension(double nats, std::int64_t size) {
  return nats / (static_cast<double>(size) * std::numbers::ln2) + std::log2(127.5);
}

}  // namespace tuiqiao
