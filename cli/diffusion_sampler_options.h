#pragma once

#include <CLI/CLI.hpp>
#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "diffusion_model.h"
#include "tuiqiao/diffusion/samplers.h"

namespace tuiqiao::cli {

/// Which sampler runs along which sigmas: options of every command that solves the flow or its SDEs.
struct SamplerArguments {
  std::string sampler, schedule = "steps", spacing;
  int steps = 50, order = 0;
  double sigma_min = 0, sigma_max = 0, rho = 7, eta = 0, churn = 0, tolerance = 1e-4;
  std::vector<double> s_fractions{1};  ///< one, or that of the highest sigma and that of the lowest
  bool brownian = false, predictor_only = false;
  bool with_ancestral = false, with_steps = true;  ///< whether there are that sampler and --schedule steps

  void add_to(CLI::App& app);
  /// Throws: std::invalid_argument on a sampler that there is not, or an option that does nothing for any of these.
  void check_belong() const;
  void check_belong(const std::vector<std::string>& samplers, const char* option) const;
  /// Whether a sampler, of those that these options are for, adds no noise with them.
  bool is_deterministic(const SamplerInfo& of) const;
  /// Throws: std::invalid_argument where the sampler adds noise: the flow has none.
  void check_flow() const;
  /// Whether the sampler chooses its steps, and so its evaluations.
  bool is_adaptive() const { return sampler == "adaptive"; }
  /// The process's steps of --schedule steps, falling.
  std::vector<int> process_steps(const OpenedModel& model) const;
  /// Tells where falling sigmas are not what was likely meant: they begin far from the process's end, or lie outside of
  /// what a network was made for.
  void tell_of_reach(const OpenedModel& model, const std::vector<double>& sigmas) const;
  /// What a summary says of them: all that the sampler takes but its sigmas.
  nlohmann::ordered_json told() const;
  /// Falling, from the process's last sigma or --sigma-max to 0 or --sigma-min.
  std::vector<double> sigmas(const OpenedModel& model) const;
  /// `process`: the model's, along which Brownian paths of --schedule steps lie, however many steps are taken.
  /// `first`: number of the first image, for a path of its own.
  SamplerOptions options(const std::vector<double>& sigmas, const Schedule& process, std::uint64_t seed,
                         std::uint64_t first, std::int64_t size) const;

 private:
  CLI::App* app_ = nullptr;
};

double last_above_zero(const std::vector<double>& sigmas);

/// The table that --list-samplers prints.
std::string list_of_samplers();

}  // namespace tuiqiao::cli
