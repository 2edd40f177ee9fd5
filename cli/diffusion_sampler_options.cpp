// clang 14, and so clang-tidy, cannot read libtorch 1.13's headers as C++20.
#ifndef __clang_analyzer__
#include "diffusion_sampler_options.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <initializer_list>
#include <stdexcept>
#include <string_view>
#include <tuple>
#include <utility>

#include "program.h"
#include "terminal.h"
#include "tuiqiao/diffusion/grids.h"

namespace tuiqiao::cli {

double last_above_zero(const std::vector<double>& sigmas) {
  return sigmas.back() > 0 || sigmas.size() < 2 ? sigmas.back() : sigmas[sigmas.size() - 2];
}

std::string list_of_samplers() {
  std::string text =
      fmt::format("{:<15} {:>5} {:<20} {:>11}  {}\n", "sampler", "order", "on grids", "evaluations", "source");
  text += fmt::format("{:<15} {:>5} {:<20} {:>11}  {}\n", "ancestral", "1 *", "the process's steps", 1,
                      "DDPM: arXiv 2006.11239, algorithm 2");
  for (const SamplerInfo& info : samplers())
    text += fmt::format("{:<15} {:>3} {} {:<20} {:>11}  {}\n", info.name, info.order, info.stochastic ? '*' : ' ',
                        info.grid, info.evaluations, info.source);
  return text +
         "* stochastic: of moments (weak). Multistep methods: from exact first values; from their own, dpmpp-3m and "
         "deis have 2.\n";
}

void SamplerArguments::check_belong() const { check_belong({sampler}, "--sampler"); }

void SamplerArguments::check_flow() const {
  if (is_deterministic(sampler_named(sampler))) return;
  const char* cause = sampler == "ddim" ? " --eta" : sampler == "heun" ? " --churn" : "";
  throw std::invalid_argument(fmt::format("--sampler {}{}: the flow has no noise", sampler, cause));
}

void SamplerArguments::check_belong(const std::vector<std::string>& samplers, const char* option) const {
  std::vector<std::string_view> known;
  if (with_ancestral) known.emplace_back("ancestral");
  for (const SamplerInfo& info : tuiqiao::samplers()) known.push_back(info.name);
  for (const std::string& name : samplers) {
    if (name == "ancestral" && !with_ancestral)
      throw std::invalid_argument(fmt::format("{} ancestral: of the command sample alone{}", option,
                                              with_steps ? "; ddim with --eta 1 takes the same steps" : ""));
    if (std::find(known.begin(), known.end(), name) == known.end())
      throw std::invalid_argument(fmt::format("{} {}: none of {}", option, name, fmt::join(known, ", ")));
  }
  const bool stochastic = std::any_of(samplers.begin(), samplers.end(), [](const std::string& name) {
    return name != "ancestral" && sampler_named(name).stochastic;
  });
  const auto is = [&](std::initializer_list<std::string_view> names) {
    return std::find_first_of(names.begin(), names.end(), samplers.begin(), samplers.end()) != names.end();
  };
  const std::tuple<const char*, bool, const char*> all[] = {
      {"--eta", is({"ddim"}), "ddim"},
      {"--order", is({"unipc", "deis", "ipndm"}), "unipc, deis and ipndm"},
      {"--predictor-only", is({"unipc"}), "unipc"},
      {"--churn", is({"heun"}), "heun"},
      {"--tolerance", is({"adaptive"}), "adaptive"},
      {"--brownian", stochastic || is({"ddim", "ancestral"}), "samplers with noise"},
      {"--s-fraction", stochastic, "the SDE samplers"},
      {"--sigma-min", !is({"ancestral"}), "the samplers with a --schedule"},
      {"--sigma-max", !is({"ancestral"}), "the samplers with a --schedule"},
      {"--karras-rho", !is({"ancestral"}), "the samplers with a --schedule"}};
  for (const auto& [name, belongs, whose] : all) {
    if (!belongs && app_->count(name) > 0)
      throw std::invalid_argument(
          fmt::format("{} is of {}; {} {} has none", name, whose, option, fmt::join(samplers, ", ")));
  }
  if (order > 3 && is({"unipc"})) throw std::invalid_argument("--order: unipc has 1 to 3");
}

void SamplerArguments::add_to(CLI::App& app) {
  app_ = &app;
  const auto option = [&](const char* name, auto& value, const char* type, const char* text) {
    return app.add_option(name, value, text)->type_name(type);
  };
  option("--sampler", sampler, "NAME", "")->description("Of --list-samplers [" + sampler + "]");
  app.add_flag_callback(
      "--list-samplers",
      [] {
        print(list_of_samplers());
        throw CLI::Success();
      },
      "Print names, orders and sources of all samplers, and end");
  option("--steps", steps, "N", "Steps; in steps of the process at most as many as those [50; of latents 100]")
      ->check(CLI::Range(1, 10000000));
  std::vector<std::string> schedules{"log_sigma", "karras", "cosine", "time"};
  if (with_steps) schedules.insert(schedules.begin(), "steps");
  option("--schedule", schedule, "NAME", "")
      ->description(
          fmt::format("Sigmas: {}uniform in log_sigma, karras (sigma^(1/7)), cosine (atan sigma) or time [{}]",
                      with_steps ? "the process's own steps, or " : "", schedule))
      ->check(CLI::IsMember(schedules));
  if (with_steps)
    option("--spacing", spacing, "NAME", "Which of its own steps: leading, trailing or linspace [the model's own]");
  option("--karras-rho", rho, "R", "Of --schedule karras [7]")->check(positive_number());
  option("--sigma-max", sigma_max, "S", "Where other schedules begin [the process's last sigma]")
      ->check(positive_number());
  option("--sigma-min", sigma_min, "S", "Stop at this sigma; 0: the process's first, then a step to 0 [0]")
      ->check(number_from_zero());
  option("--s-fraction", s_fractions, "F[,F]",
         "s/g of the SDE samplers: 0 the ODE, 1 the reverse SDE; two: from the first sigma to the last, linear in log "
         "sigma [1]")
      ->delimiter(',')
      ->expected(1, 2)
      ->check(CLI::Range(0.0, 1.0));
  option("--eta", eta, "E", "Of ddim: 0 the ODE, 1 the ancestral variance [0]")->check(CLI::Range(0.0, 1.0));
  option("--order", order, "P", "Of unipc, deis and ipndm [3]")->check(CLI::Range(1, 4));
  app.add_flag("--predictor-only", predictor_only, "unipc without its corrector");
  option("--churn", churn, "S", "Of heun: noise added before its steps, S_churn of EDM [0]")->check(number_from_zero());
  option("--tolerance", tolerance, "T", "Of adaptive: largest error of a step [1e-4]")->check(positive_number());
  app.add_flag("--brownian", brownian,
               "Take noise from a Brownian path in log sigma, the same for any number of steps");
}

bool SamplerArguments::is_deterministic(const SamplerInfo& of) const {
  const bool no_fraction = std::all_of(s_fractions.begin(), s_fractions.end(), [](double s) { return s == 0; });
  return (!of.stochastic || no_fraction) && (of.name != "ddim" || eta == 0) && (of.name != "heun" || churn == 0);
}

void SamplerArguments::tell_of_reach(const OpenedModel& model, const std::vector<double>& sigmas) const {
  const double first = sigmas.front();
  if (schedule != "steps") return tell_of_range(model, first, last_above_zero(sigmas));
  constexpr double kFar = 0.1;
  const double end = model.schedule.sigma(model.schedule.steps());
  if (first < kFar * end)
    tell(
        fmt::format("tuiqiao: {} in {} steps begins at sigma {:.3g}, the process ends at {:.4g}: --spacing trailing{} "
                    "begins there\n",
                    sampler, steps, first, end, sampler == "ancestral" ? "" : ", or another --schedule,"));
}

nlohmann::ordered_json SamplerArguments::told() const {
  const SamplerInfo& info = sampler_named(sampler);
  nlohmann::ordered_json result{{"schedule", schedule}};
  if (schedule == "karras") result["karras_rho"] = rho;
  if (info.stochastic) result["s_fraction"] = s_fractions;
  if (sampler == "ddim") result["eta"] = eta;
  if (sampler == "unipc" || sampler == "deis" || sampler == "ipndm") result["order"] = order == 0 ? 3 : order;
  if (sampler == "unipc") result["predictor_only"] = predictor_only;
  if (sampler == "heun") result["churn"] = churn;
  if (is_adaptive()) result["tolerance"] = tolerance;
  result["brownian"] = brownian;
  return result;
}

std::vector<int> SamplerArguments::process_steps(const OpenedModel& model) const {
  return strided_steps(model.schedule.steps(), steps, spacing.empty() ? model.spacing : spacing_from_name(spacing),
                       model.steps_offset);
}

std::vector<double> SamplerArguments::sigmas(const OpenedModel& model) const {
  const auto check = [](const char* option, double value) {  // which a range lets through
    if (std::isnan(value)) throw std::invalid_argument(fmt::format("{}: {} is not finite", option, value));
  };
  check("--eta", eta);
  for (const double fraction : s_fractions) check("--s-fraction", fraction);
  if (schedule != "karras" && app_->count("--karras-rho") > 0)
    throw std::invalid_argument("--karras-rho goes with --schedule karras");
  if (schedule == "steps") {
    if (sigma_min > 0 || sigma_max > 0)
      throw std::invalid_argument("--sigma-min and --sigma-max go with --schedule log_sigma, karras, cosine or time");
    return sigmas_of(model.schedule, process_steps(model));
  }
  if (!spacing.empty()) throw std::invalid_argument("--spacing goes with --schedule steps");
  GridOptions options;
  options.sigma_max = sigma_max > 0 ? sigma_max : model.schedule.sigma(model.schedule.steps());
  options.sigma_min = sigma_min > 0 ? sigma_min : model.schedule.sigma(1);
  options.to_zero = !(sigma_min > 0);
  options.rho = rho;
  options.schedule = &model.schedule;
  return sigma_grid(grid_from_name(schedule), steps, options);
}

SamplerOptions SamplerArguments::options(const std::vector<double>& sigmas, const Schedule& process, std::uint64_t seed,
                                         std::uint64_t first, std::int64_t size) const {
  if (brownian && churn > 0) throw std::invalid_argument("--brownian: what --churn adds is on no path");
  SamplerOptions made;
  made.s_fraction = s_fractions.front();
  made.eta = eta;
  made.order = order;
  made.corrector = !predictor_only;
  made.churn = churn;
  made.tolerance = tolerance;
  const double last = last_above_zero(sigmas);
  if (s_fractions.size() == 2 && sigmas.front() > last) {
    const double from = s_fractions[0], to = s_fractions[1], width = std::log(sigmas.front() / last);
    made.s_fraction_of = [=, first = sigmas.front()](double sigma) {
      return from + (to - from) * std::clamp(std::log(first / sigma) / width, 0.0, 1.0);
    };
  }
  if (!brownian || sigmas.front() <= last) return made;
  // The first or the last of the process's steps differs with their number.
  const bool own = schedule == "steps";
  made.path = brownian_path(seed, first, size, own ? process.sigma(1) : last,
                            own ? process.sigma(process.steps()) : sigmas.front());
  return made;
}

}  // namespace tuiqiao::cli
#endif
