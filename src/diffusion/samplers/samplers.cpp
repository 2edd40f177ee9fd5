#include "tuiqiao/diffusion/samplers.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <stdexcept>
#include <utility>

#include "diffusion/samplers/run.h"

namespace tuiqiao {

namespace {

using sampling::Run;

constexpr SamplerInfo kSamplers[] = {
    {"euler", 1, "any", false, 1, "DDIM: arXiv 2010.02502, equation 13"},
    {"ddim", 1, "any", false, 1, "with eta: arXiv 2010.02502, equations 12 and 16"},
    {"heun", 2, "any", false, 2, "EDM: arXiv 2206.00364, algorithms 1 and 2"},
    {"dpm-2", 2, "any", false, 2, "DPM-Solver-2: arXiv 2206.00927, algorithm 1"},
    {"dpm-3", 3, "any", false, 3, "DPM-Solver-3: arXiv 2206.00927, algorithm 2"},
    {"dpmpp-2m", 2, "any", false, 1, "DPM-Solver++(2M): arXiv 2211.01095, algorithm 2"},
    {"dpmpp-3m", 3, "any", false, 1, "the same with one value more, whole weights"},
    {"unipc", 4, "any", false, 1, "UniPC-p, order p + 1: arXiv 2302.04867, algorithms 1 and 2"},
    {"deis", 3, "any", false, 1, "DEIS, AB in log sigma: arXiv 2204.13902, section 3"},
    {"ipndm", 3, "uniform in sigma", false, 1, "iPNDM: arXiv 2204.13902; Adams and Bashforth 1883"},
    {"adaptive", 5, "chosen by the error", false, 6, "Dormand and Prince 1980, RK5(4)7M"},
    {"euler-maruyama", 1, "any", true, 1, "of the reverse SDE: arXiv 2011.13456, equation 6"},
    {"sde", 1, "any", true, 1, "exponential Euler; at s = g SDE-DPM-Solver++1: arXiv 2211.01095"},
    {"sde-heun", 2, "any", true, 2, "the same with Heun's corrector: Kloeden and Platen 1992, chapter 15"},
    {"sde-dpmpp-2m", 2, "any", true, 1, "SDE-DPM-Solver++(2M): arXiv 2211.01095"},
    {"sde-dpmpp-3m", 2, "any", true, 1, "the same with one value more"}};

constexpr std::pair<std::string_view, void (*)(Run&)> kFunctions[] = {{"euler", sampling::euler},
                                                                      {"ddim", sampling::ddim},
                                                                      {"heun", sampling::heun},
                                                                      {"dpm-2", sampling::dpm_2},
                                                                      {"dpm-3", sampling::dpm_3},
                                                                      {"dpmpp-2m", sampling::dpmpp_2m},
                                                                      {"dpmpp-3m", sampling::dpmpp_3m},
                                                                      {"unipc", sampling::unipc},
                                                                      {"deis", sampling::deis},
                                                                      {"ipndm", sampling::ipndm},
                                                                      {"adaptive", sampling::adaptive},
                                                                      {"euler-maruyama", sampling::euler_maruyama},
                                                                      {"sde", sampling::sde},
                                                                      {"sde-heun", sampling::sde_heun},
                                                                      {"sde-dpmpp-2m", sampling::sde_dpmpp_2m},
                                                                      {"sde-dpmpp-3m", sampling::sde_dpmpp_3m}};

void (*function_of(std::string_view name))(Run&) {
  const auto found = std::find_if(std::begin(kFunctions), std::end(kFunctions),
                                  [&](const auto& entry) { return entry.first == name; });
  return found->second;
}

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
  if (rises && info.name == "ddim" && options.eta > 0) refuse("ddim with eta above 0 goes down only");
  if (rises && info.name == "heun" && options.churn > 0) refuse("heun with churn goes down only");
}

/// Without equal neighbours.
std::vector<double> checked_sigmas(std::span<const double> sigmas) {
  if (sigmas.empty()) refuse("no sigmas");
  std::vector<double> kept;
  for (const double sigma : sigmas) {
    if (!(sigma >= 0 && std::isfinite(sigma))) refuse(fmt::format("sigma = {}", sigma));
    if (kept.empty() || sigma != kept.back()) kept.push_back(sigma);
  }
  if (kept.front() == 0) refuse("sigmas start at 0, where nothing is noisy");
  const bool falls = std::is_sorted(kept.rbegin(), kept.rend());
  if (!falls && !std::is_sorted(kept.begin(), kept.end())) refuse("sigmas neither fall nor rise");
  return kept;
}

}  // namespace

std::span<const SamplerInfo> samplers() { return kSamplers; }

const SamplerInfo& sampler_named(std::string_view name) {
  std::vector<std::string_view> known;
  for (const SamplerInfo& info : kSamplers) {
    if (info.name == name) return info;
    known.push_back(info.name);
  }
  throw std::invalid_argument(fmt::format("[sample] no sampler '{}': {}", name, fmt::join(known, ", ")));
}

std::int64_t sample(std::string_view name, const Denoiser& denoiser, std::span<const double> sigmas,
                    const NoiseSource& noise, const SamplerOptions& options, std::span<double> x) {
  const SamplerInfo& info = sampler_named(name);
  if (x.size() % static_cast<std::size_t>(denoiser.size()) != 0)
    refuse(fmt::format("{} numbers are no rows of {}", x.size(), denoiser.size()));
  std::vector<double> levels = checked_sigmas(sigmas);
  check_options(info, options, levels.front() < levels.back());
  if (x.empty() || levels.size() == 1) return 0;
  Run run(denoiser, noise, options, std::move(levels), x);
  function_of(info.name)(run);
  options.progress.step("sampling", run.steps(), run.steps());
  return run.evaluations();
}

}  // namespace tuiqiao
