// clang 14, and so clang-tidy, cannot read libtorch 1.13's headers as C++20.
#ifndef __clang_analyzer__
#include "diffusion_model.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>
#include <stdexcept>

#include "complaint.h"
#include "file_output.h"
#include "json_excerpt.h"
#include "terminal.h"
#include "tuiqiao/diffusion/model.h"
#include "tuiqiao/diffusion/skip_tuning.h"

namespace tuiqiao::cli {

namespace {

using nlohmann::json;

constexpr std::string_view kAnalytic = "analytic:";
constexpr const char* kNetworkFiles =
    "config.json, diffusion_pytorch_model.safetensors, scheduler_config.json, or a pipeline of diffusers";

void check_factors(const ModelArguments& a) {
  const auto check = [](const char* option, const std::vector<double>& factors) {
    if (!std::all_of(factors.begin(), factors.end(), [](double factor) { return std::isfinite(factor); }))
      throw std::invalid_argument(fmt::format("{}: not finite", option));
  };
  check("--rho-bottom", {a.rho_bottom});
  check("--rho-top", {a.rho_top});
  check("--rho", a.rho);
  check("--freeu", a.freeu);
}

json parsed(const std::string& file) {
  try {
    return json::parse(read_text(file));
  } catch (const json::parse_error& error) {
    throw Error(fmt::format("{}: is no JSON, at byte {}", file, error.byte));
  } catch (const json::out_of_range&) {
    throw Error(fmt::format("{}: holds a number beyond those of float64", file));
  }
}

Mixture read_mixture(const std::string& file) {
  const json object = parsed(file);
  if (!object.is_object()) throw Error(fmt::format("{}: is no JSON object", file));
  for (const auto& [key, value] : object.items()) {
    if (key != "weights" && key != "means" && key != "stds")
      throw Error(fmt::format("{}: field '{}' is none of weights, means, stds", file, key.substr(0, 60)));
  }
  Mixture mixture;
  const auto numbers = [&](const json& value, const std::string& name) {
    std::vector<double> found;
    for (const json& entry : value) {
      if (!entry.is_number())
        throw Error(fmt::format("{}: field '{}' holds {}, no number", file, name, excerpt(entry)));
      found.push_back(entry.get<double>());
    }
    return found;
  };
  const auto list = [&](const char* name) -> const json& {
    if (!object.contains(name)) throw Error(fmt::format("{}: has no field '{}'", file, name));
    if (!object[name].is_array()) throw Error(fmt::format("{}: field '{}' is no list", file, name));
    return object[name];
  };
  mixture.weights = numbers(list("weights"), "weights");
  mixture.stds = numbers(list("stds"), "stds");
  const json& means = list("means");
  for (std::size_t k = 0; k < means.size(); ++k) {
    if (!means[k].is_array()) throw Error(fmt::format("{}: means[{}] is no list", file, k));
    mixture.means.push_back(numbers(means[k], fmt::format("means[{}]", k)));
  }
  try {
    MixtureDenoiser check(mixture);
  } catch (const std::invalid_argument& error) {
    throw Error(fmt::format("{}: {}", file, complaint(error.what())));
  }
  return mixture;
}

void set_skips(const ModelArguments& a, UNet& net) {
  if (!a.freeu.empty()) {
    set_freeu(net, {a.freeu[0], a.freeu[1], a.freeu[2], a.freeu[3]});
  } else if (a.scales_skips()) {
    tune_skips(net, {.top = a.rho_top, .bottom = a.rho_bottom, .each = a.rho});
  } else {
    net.set_join({});
  }
}

}  // namespace

bool ModelArguments::names_process() const {
  const auto given = [&](const char* name) {
    const CLI::Option* option = app_->get_option_no_throw(name);
    return option != nullptr && option->count() > 0;
  };
  return given("--beta-schedule") || given("--process-steps");
}

void ModelArguments::add_to(CLI::App& app) {
  app_ = &app;
  app.add_option("--model", model,
                 fmt::format("Folder of a network ({}), or analytic:FILE.json, an isotropic mixture {{\"weights\": "
                             "[..], \"means\": [[..]], \"stds\": [..]}}",
                             kNetworkFiles))
      ->type_name("DIR")
      ->required();
  app.add_option("--beta-schedule", beta_schedule,
                 "Of an analytic model's process: linear, scaled_linear, squaredcos_cap_v2 or sigmoid [linear]")
      ->type_name("NAME");
  app.add_option("--process-steps", process_steps, "Steps T of an analytic model's process [1000]")
      ->type_name("T")
      ->check(CLI::Range(1, 1000000));
  app.add_flag("--half", half, "The network's convolutions in bfloat16: faster where the processor has it");
  app.add_option("--rho-bottom", rho_bottom,
                 "Factor of the network's deepest skip, linear up to --rho-top: Skip-Tuning for few steps [1]")
      ->type_name("R");
  app.add_option("--rho-top", rho_top, "Factor of the skip nearest the input [1]")->type_name("R");
  const auto each = app.add_option("--rho", rho, "Factors of all skips, the one nearest the input first")
                        ->type_name("R,...")
                        ->delimiter(',')
                        ->excludes("--rho-bottom")
                        ->excludes("--rho-top");
  app.add_option("--freeu", freeu,
                 "FreeU instead: factors of what comes up and of the skips' low frequencies, deepest two levels")
      ->type_name("B1,B2,S1,S2")
      ->delimiter(',')
      ->expected(4)
      ->excludes(each)
      ->excludes("--rho-bottom")
      ->excludes("--rho-top");
  app.add_option("--class", classes, "Class of each image, used in turn, where the network wants one")
      ->type_name("C,...")
      ->delimiter(',');
}

void ModelArguments::keep_network(CLI::App& app) {
  for (const char* name : {"--freeu", "--rho", "--rho-bottom", "--rho-top", "--beta-schedule", "--process-steps"})
    app.remove_option(app.get_option(name));
  app.get_option("--model")->description(fmt::format("Folder of a network ({})", kNetworkFiles));
}

std::int64_t OpenedModel::size() const {
  std::int64_t product = 1;
  for (const std::int64_t side : shape) product *= side;
  return product;
}

std::vector<std::int64_t> ModelArguments::classes_of(std::int64_t first, std::int64_t rows) const {
  std::vector<std::int64_t> chosen;
  for (std::int64_t row = first; row < first + rows && !classes.empty(); ++row)
    chosen.push_back(classes[static_cast<std::size_t>(row) % classes.size()]);
  return chosen;
}

std::unique_ptr<Denoiser> OpenedModel::denoiser(const ModelArguments& arguments, std::int64_t first,
                                                std::int64_t rows) const {
  if (mixture) return std::make_unique<MixtureDenoiser>(*mixture);
  set_skips(arguments, network->net);
  return denoiser_of(*network, arguments.classes_of(first, rows));
}

bool is_analytic(const std::string& model) { return model.starts_with(kAnalytic); }

void tell_of_range(const OpenedModel& model, double first, double last) {
  constexpr double kRounding = 0.01;
  const double low = model.schedule.sigma(1), high = model.schedule.sigma(model.schedule.steps());
  if (!model.is_image() || (first <= (1 + kRounding) * high && last >= (1 - kRounding) * low)) return;
  tell(fmt::format("tuiqiao: sigmas from {:.3g} to {:.3g}; the network was made for {:.4g} to {:.3g}\n", first, last,
                   high, low));
}

OpenedModel open_model(const ModelArguments& arguments, const std::string& device) {
  if (arguments.model.empty() || arguments.model == kAnalytic)
    throw std::invalid_argument(fmt::format("--model '{}': names no file", arguments.model));
  check_factors(arguments);
  if (is_analytic(arguments.model)) {
    if (!arguments.classes.empty()) throw std::invalid_argument("--class: an analytic model takes no classes");
    if (arguments.scales_skips()) throw std::invalid_argument("--rho and --freeu: an analytic model has no skips");
    if (arguments.half) throw std::invalid_argument("--half: an analytic model has no convolutions");
    const auto betas = betas_of(beta_schedule_from_name(arguments.beta_schedule), arguments.process_steps);
    OpenedModel opened{
        nullptr, read_mixture(arguments.model.substr(kAnalytic.size())), Schedule::from_betas(betas), {}};
    opened.shape = {static_cast<std::int64_t>(opened.mixture->means.front().size())};
    return opened;
  }
  if (arguments.names_process())
    throw std::invalid_argument("--beta-schedule and --process-steps are of analytic models; a network has its own");
  const auto network = std::make_shared<DiffusionModel>(load_diffusion_model(arguments.model, at::Device(device)));
  network->net.set_half_convolutions(arguments.half, true);
  set_skips(arguments, network->net);
  OpenedModel opened{network, {}, network->process.schedule(), {network->channels, network->height, network->width}};
  opened.clip = network->process.clip;
  opened.variance = network->process.variance;
  opened.spacing = network->process.spacing;
  opened.steps_offset = network->process.steps_offset;
  return opened;
}

}  // namespace tuiqiao::cli
#endif
