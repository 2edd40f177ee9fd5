#include "tuiqiao/diffusion/samplers.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <stdexcept>
#include <utility>

#include "diffusion/samplers/run.h"

namespace tuiqiao {

namespace {

using sampling::Run;

struct Sampler {
  SamplerInfo info;
  void (*go)(Run&);
};

constexpr Sampler kSamplers[] = {
    {{"euler", 1, "any", false, 1, "DDIM, DPM-Solver-1: arXiv 2010.02502, equation 13"}, sampling::euler},
    {{"ddim", 1, "any", false, 1, "with eta: arXiv 2010.02502, equations 12 and 16"}, sampling::ddim},
    {{"heun", 2, "any", false, 2, "EDM: arXiv 2206.00364, algorithms 1 and 2"}, sampling::heun},
    {{"dpm-2", 2, "any", false, 2, "DPM-Solver-2: arXiv 2206.00927, algorithm 1"}, sampling::dpm_2},
    {{"dpm-3", 3, "any", false, 3, "DPM-Solver-3: arXiv 2206.00927, algorithm 2"}, sampling::dpm_3},
    {{"dpmpp-2m", 2, "any", false, 1, "DPM-Solver++(2M): arXiv 2211.01095, algorithm 2"}, sampling::dpmpp_2m},
    {{"dpmpp-3m", 3, "any", false, 1, "the same with one value more, whole weights (docs/samplers.md)"},
     sampling::dpmpp_3m},
    {{"unipc", 4, "any", false, 1, "UniPC-p, order p + 1: arXiv 2302.04867, algorithms 1 and 2"}, sampling::unipc},
    {{"deis", 3, "any", false, 1, "DEIS, AB in log sigma: arXiv 2204.13902, section 3"}, sampling::deis},
    {{"ipndm", 3, "uniform in sigma", false, 1, "iPNDM: arXiv 2204.13902; Adams and Bashforth 1883"}, sampling::ipndm},
    {{"adaptive", 5, "chosen by the error", false, 6, "Dormand and Prince 1980, RK5(4)7M"}, sampling::adaptive},
    {{"euler-maruyama", 1, "any", true, 1, "of the reverse SDE: arXiv 2011.13456, equation 6"},
     sampling::euler_maruyama},
    {{"sde", 1, "any", true, 1, "exponential Euler; at s = g SDE-DPM-Solver++1: arXiv 2211.01095, section 5"},
     sampling::sde},
    {{"sde-heun", 2, "any", true, 2, "the same with Heun's corrector: Kloeden and Platen 1992, chapter 15"},
     sampling::sde_heun},
    {{"sde-dpmpp-2m", 2, "any", true, 1, "at s = g SDE-DPM-Solver++(2M): arXiv 2211.01095, section 5"},
     sampling::sde_dpmpp_2m},
    {{"sde-dpmpp-3m", 2, "any", true, 1, "the same with one value more, whole weights"}, sampling::sde_dpmpp_3m}};

[[noreturn]] void refuse(const std::string& what) { throw std::invalid_argument("[sample] " + what); }

void check_range(const char* name, double value, double low, double high) {
  if (!(value >= low && value <= high)) refuse(fmt::format("{} = {} is not within [{}, {}]", name, value, low, high));
}

void check_options(const SamplerInfo& info, const SamplerOptions& options, bool rises) {
  check_range("s_fraction", options.s_fraction, 0, 1);
  check_range("eta", options.eta, 0, 1);
  check_range("order", options.order, 0, info.name == "unipc" ? 3 : 4);
  if (!(options.tolerance > 0)) refuse(fmt::format("tolerance = {} is not positive", options.tolerance));
  if (!(options.clip >= 0)) refuse(fmt::format("clip = {} is negative", options.clip));
  if (!(options.churn >= 0)) refuse(fmt::format("churn = {} is negative", options.churn));
  check_range("churn_noise", options.churn_noise, 0, std::numeric_limits<double>::max());
  if (rises && info.name == "ddim" && options.eta > 0) refuse("ddim with eta above 0 goes down only");
  if (rises && info.name == "heun" && options.churn > 0) refuse("heun with churn goes down only");
}

/// Without neighbours that are equal, or so near that a step between them has no length in log sigma.
std::vector<double> checked_sigmas(std::span<const double> sigmas) {
  if (sigmas.empty()) refuse("no sigmas");
  std::vector<double> kept;
  for (const double sigma : sigmas) {
    if (!(sigma >= 0 && std::isfinite(sigma))) refuse(fmt::format("sigma = {}", sigma));
    if (kept.empty() || std::log(sigma) != std::log(kept.back())) kept.push_back(sigma);
  }
  if (kept.front() == 0) refuse("sigmas start at 0, where nothing is noisy");
  const bool falls = std::is_sorted(kept.rbegin(), kept.rend());
  if (!falls && !std::is_sorted(kept.begin(), kept.end())) refuse("sigmas neither fall nor rise");
  return kept;
}

}  // namespace

std::span<const SamplerInfo> samplers() {
  static const std::vector<SamplerInfo> infos = [] {
    std::vector<SamplerInfo> made;
    for (const Sampler& sampler : kSamplers) made.push_back(sampler.info);
    return made;
  }();
  return infos;
}

const SamplerInfo& sampler_named(std::string_view name) {
  std::vector<std::string_view> known;
  for (const SamplerInfo& info : samplers()) {
    if (info.name == name) return info;
    known.push_back(info.name);
  }
  throw std::invalid_argument(fmt::format("[sample] no sampler '{}': {}", name, fmt::join(known, ", ")));
}

std::int64_t sample(std::string_view name, const Denoiser& denoiser, std::span<const double> sigmas,
                    const NoiseSource& noise, const SamplerOptions& options, std::span<double> x) {
  const SamplerInfo& info = sampler_named(name);
  if (denoiser.size() < 1 || x.size() % static_cast<std::size_t>(denoiser.size()) != 0)
    refuse(fmt::format("{} numbers are no rows of {}", x.size(), denoiser.size()));
  std::vector<double> levels = checked_sigmas(sigmas);
  check_options(info, options, levels.front() < levels.back());
  if (x.empty() || levels.size() == 1) return 0;
  Run run(denoiser, noise, options, std::move(levels), x);
  kSamplers[&info - samplers().data()].go(run);
  options.progress.step("sampling", run.steps(), run.steps());
  return run.evaluations();
}

}  // namespace tuiqiao
