#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <map>
#include <stdexcept>

#include "diffusion_commands.h"
#include "tuiqiao/error.h"
#include "tuiqiao/torch.h"

namespace tuiqiao::cli {

void DeviceArguments::add_to(CLI::App& app) {
  app.add_option("--device", device, "cpu, or cuda:0 and so on where there is one [cpu]")->type_name("NAME");
  add_threads_to(app);
}

void DeviceArguments::add_threads_to(CLI::App& app) {
  app.add_option("--threads", threads, "Processor threads, at most 512; 0 for all [0]")
      ->type_name("N")
      ->check(CLI::Range(0, 512));
}

void DeviceArguments::settle() const {
  set_torch_threads(threads);
  const auto devices = torch_system().devices;
  const std::string wanted = device == "cuda" ? "cuda:0" : device;
  if (std::find(devices.begin(), devices.end(), wanted) == devices.end())
    throw Error(fmt::format("device '{}' is none of this machine's: {}", device, fmt::join(devices, ", ")));
}

Run add_diffusion(CLI::App& app) {
  app.require_subcommand(1);
  std::map<const CLI::App*, Run> commands;
  const auto add = [&](const char* name, const char* what, Run (*of)(CLI::App&)) {
    CLI::App* command = app.add_subcommand(name, what);
    commands[command] = of(*command);
  };
  add("train", "Train a network on images, or go on with it", add_diffusion_train);
  add("sample", "Draw samples from a model", add_diffusion_sample);
  add("forward", "Evaluate a network once, to compare it with another implementation", add_diffusion_forward);
  add("likelihood", "Tell how probable data are, by the probability-flow ODE", add_diffusion_likelihood);
  add("encode", "Follow the flow from data to latents", add_diffusion_encode);
  add("decode", "Follow the flow from latents to data", add_diffusion_decode);
  add("interpolate", "Draw paths between data through their latents", add_diffusion_interpolate);
  add("edit", "Send data part of the way into noise and back, or fill in a part of them", add_diffusion_edit);
  add("quality", "Measure how far samples are from images, in a classifier's features", add_diffusion_quality);
  add("tune-skips", "Search the factor of a network's skips that few evaluations want", add_diffusion_tune);
  add("compare", "Measure samplers against one another at few evaluations", add_diffusion_compare);
  add("classifier", "Train that classifier", add_diffusion_classifier);
  return [&app, commands](const std::stop_token& stop) { return commands.at(app.get_subcommands().front())(stop); };
}

}  // namespace tuiqiao::cli
