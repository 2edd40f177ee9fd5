// clang 14, and so clang-tidy, cannot read libtorch 1.13's headers as C++20.
#ifndef __clang_analyzer__
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <nlohmann/json.hpp>
#include <stdexcept>

#include "complaint.h"
#include "file_output.h"
#include "json_excerpt.h"
#include "tuiqiao/diffusion/model.h"

namespace tuiqiao {

namespace fs = std::filesystem;
using nlohmann::json;
using nlohmann::ordered_json;

namespace {

/// The value of a field, or `otherwise`.
template <class T, class Is>
T field(const fs::path& file, const json& object, const char* name, T otherwise, Is is) {
  const auto it = object.find(name);
  if (it == object.end() || it->is_null()) return otherwise;
  if (!((*it).*is)())
    throw Error(fmt::format("{}: field '{}' has a value of a wrong type: {}", file.string(), name, excerpt(*it)));
  return it->get<T>();
}

/// What a name means, the field named where it means nothing.
template <class Of>
auto named(const fs::path& file, const char* name, const std::string& value, const Of& of) {
  try {
    return of(value);
  } catch (const std::invalid_argument& error) {
    throw Error(fmt::format("{}: field '{}': {}", file.string(), name, complaint(error.what())));
  }
}

Variance variance_of(const std::string& type) {
  if (type.starts_with("fixed_small")) return Variance::posterior;
  if (type.starts_with("fixed_large")) return Variance::beta;
  if (type == "learned_range") return Variance::learned_range;
  throw std::invalid_argument(
      fmt::format("[variance_of] '{}' is none of fixed_small, fixed_large, learned_range", type));
}

void check_process(const fs::path& file, const ProcessConfig& c) {
  const auto refuse = [&](const char* name, double value, const char* wanted) {
    throw Error(fmt::format("{}: field '{}' holds {}; {} is wanted", file.string(), name, value, wanted));
  };
  constexpr int kMostSteps = 1000000;
  if (c.steps < 1 || c.steps > kMostSteps) refuse("num_train_timesteps", c.steps, "1 to 1000000");
  if (c.steps_offset < 0 || c.steps_offset >= c.steps) refuse("steps_offset", c.steps_offset, "0 to the steps less 1");
  if (!(c.beta_start > 0 && c.beta_start < 1)) refuse("beta_start", c.beta_start, "a number in (0, 1)");
  if (!(c.beta_end >= c.beta_start && c.beta_end < 1)) refuse("beta_end", c.beta_end, "a number in [beta_start, 1)");
  if (!(c.clip >= 0)) refuse("clip_sample_range", c.clip, "a positive number");
  for (const double beta : c.trained_betas) {
    if (!(beta > 0 && beta < 1)) refuse("trained_betas", beta, "numbers in (0, 1)");
  }
}

/// The class, having refused processes of another kind, and what would change the samples but is not done here.
std::string checked_kind(const fs::path& file, const json& object) {
  const auto kind = field<std::string>(file, object, "_class_name", "DDPMScheduler", &json::is_string);
  constexpr std::array kOthers{"ScoreSdeVe",   "ScoreSdeVp",  "EDM",    "KarrasVe",      "Consistency",
                               "CMStochastic", "VQDiffusion", "UnCLIP", "FlowMatch",     "RePaint",
                               "LCM",          "TCD",         "IPNDM",  "DDPMWuerstchen"};
  const bool other = std::any_of(kOthers.begin(), kOthers.end(), [&](const char* of) { return kind.starts_with(of); });
  if (other || !kind.ends_with("Scheduler"))
    throw Error(fmt::format("{}: field '_class_name' is '{}': no scheduler of discrete betas that is known here",
                            file.string(), kind.substr(0, 60)));
  for (const char* name : {"thresholding", "rescale_betas_zero_snr"}) {
    if (field<bool>(file, object, name, false, &json::is_boolean))
      throw Error(fmt::format("{}: field '{}' is true, which is not supported", file.string(), name));
  }
  return kind;
}

}  // namespace

Schedule ProcessConfig::schedule() const {
  return Schedule::from_betas(trained_betas.empty() ? betas_of(beta_schedule, steps, beta_start, beta_end)
                                                    : trained_betas);
}

ProcessConfig read_process_config(const fs::path& file) {
  const json object = json::parse(read_text(file), nullptr, false);
  if (!object.is_object()) throw Error(fmt::format("{}: is no JSON object", file.string()));
  ProcessConfig c;
  const std::string kind = checked_kind(file, object);
  // A field that is missing is as the class that wrote the file has it.
  const bool clips = kind.starts_with("DDPM") || kind.starts_with("DDIM");
  const bool leads = clips || kind.starts_with("PNDM");
  if (kind.starts_with("HeunDiscrete") || kind.starts_with("KDPM2") || kind.starts_with("DPMSolverSDE")) {
    c.beta_start = 0.00085;
    c.beta_end = 0.012;
  }
  const auto text = [&](const char* name, const char* otherwise) {
    return field<std::string>(file, object, name, otherwise, &json::is_string);
  };
  const auto number = [&](const char* name, double otherwise) {
    return field<double>(file, object, name, otherwise, &json::is_number);
  };
  const auto steps = field<std::int64_t>(file, object, "num_train_timesteps", c.steps, &json::is_number_integer);
  c.steps = static_cast<int>(std::clamp<std::int64_t>(steps, 0, std::numeric_limits<int>::max()));
  c.beta_start = number("beta_start", c.beta_start);
  c.beta_end = number("beta_end", c.beta_end);
  if (const auto betas = object.find("trained_betas"); betas != object.end() && !betas->is_null()) {
    if (!betas->is_array())
      throw Error(
          fmt::format("{}: field 'trained_betas' has a value of a wrong type: {}", file.string(), excerpt(*betas)));
    for (const json& beta : *betas) c.trained_betas.push_back(beta.is_number() ? beta.get<double>() : std::nan(""));
  }
  if (c.trained_betas.empty())
    c.beta_schedule = named(file, "beta_schedule", text("beta_schedule", "linear"), beta_schedule_from_name);
  c.prediction = named(file, "prediction_type", text("prediction_type", "epsilon"), prediction_from_name);
  c.variance = named(file, "variance_type", text("variance_type", "fixed_small"), variance_of);
  c.spacing =
      named(file, "timestep_spacing", text("timestep_spacing", leads ? "leading" : "linspace"), spacing_from_name);
  const auto offset = field<std::int64_t>(file, object, "steps_offset", 0, &json::is_number_integer);
  c.steps_offset = static_cast<int>(std::clamp<std::int64_t>(offset, -1, std::numeric_limits<int>::max()));
  c.clip = field<bool>(file, object, "clip_sample", clips, &json::is_boolean) ? number("clip_sample_range", 1) : 0;
  check_process(file, c);
  if (!c.trained_betas.empty()) c.steps = static_cast<int>(c.trained_betas.size());
  try {
    c.schedule();
  } catch (const std::invalid_argument& error) {
    throw Error(fmt::format("{}: {}", file.string(), complaint(error.what())));
  }
  return c;
}

std::string process_config_text(const ProcessConfig& c) {
  c.schedule();
  const char* variance = c.variance == Variance::beta            ? "fixed_large"
                         : c.variance == Variance::learned_range ? "learned_range"
                                                                 : "fixed_small";
  constexpr const char* kSpacings[] = {"leading", "trailing", "linspace"};
  ordered_json text{{"_class_name", "DDPMScheduler"},
                    {"_diffusers_version", "0.21.4"},
                    {"num_train_timesteps", c.steps},
                    {"beta_start", c.beta_start},
                    {"beta_end", c.beta_end},
                    {"beta_schedule", std::string(name(c.beta_schedule))},
                    {"trained_betas", c.trained_betas.empty() ? ordered_json() : ordered_json(c.trained_betas)},
                    {"variance_type", variance},
                    {"clip_sample", c.clip > 0},
                    {"clip_sample_range", c.clip > 0 ? c.clip : 1.0},
                    {"prediction_type", std::string(name(c.prediction))},
                    {"timestep_spacing", kSpacings[static_cast<int>(c.spacing)]}};
  // Results of measurements keep a hash of this text: what is as it always was adds nothing.
  if (c.steps_offset != 0) text["steps_offset"] = c.steps_offset;
  return text.dump(2) + "\n";
}

}  // namespace tuiqiao
#endif
