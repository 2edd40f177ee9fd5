#pragma once

#include <CLI/CLI.hpp>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "tuiqiao/diffusion/ancestral.h"
#include "tuiqiao/diffusion/denoiser.h"
#include "tuiqiao/diffusion/schedule.h"

namespace tuiqiao {
struct DiffusionModel;
}

namespace tuiqiao::cli {

/// The option --model of every command that drives a Denoiser: a folder with a network, or analytic:FILE.json.
struct ModelArguments {
  std::string model;
  std::string beta_schedule = "linear";
  int process_steps = 1000;
  std::vector<std::int64_t> classes;
  bool half = false;
  double rho_bottom = 1, rho_top = 1;
  std::vector<double> rho, freeu;

  void add_to(CLI::App& app);
  /// For commands of networks alone, which set the skips by themselves.
  static void keep_network(CLI::App& app);
  /// Whether the process of an analytic model was given.
  bool names_process() const;
  bool scales_skips() const { return !rho.empty() || !freeu.empty() || rho_bottom != 1 || rho_top != 1; }
  /// The classes of rows first to first + rows of a run.
  std::vector<std::int64_t> classes_of(std::int64_t first, std::int64_t rows) const;

 private:
  const CLI::App* app_ = nullptr;
};

/// A model that was opened, whatever it is.
struct OpenedModel {
  std::shared_ptr<DiffusionModel> network;  ///< none for an analytic one
  std::optional<Mixture> mixture;
  Schedule schedule;
  std::vector<std::int64_t> shape;  ///< of one datum: [C, H, W] or [D]
  double clip = 0;
  Variance variance = Variance::posterior;
  Spacing spacing = Spacing::leading;
  int steps_offset = 0;

  std::int64_t size() const;
  bool is_image() const { return network != nullptr; }
  /// A Denoiser for rows first to first + rows of a run, which the classes of those rows go to. The model must outlive
  /// it. Its skips are those of the last one that was made: the network is one.
  std::unique_ptr<Denoiser> denoiser(const ModelArguments& arguments, std::int64_t first, std::int64_t rows) const;
};

/// Whether --model names no network.
bool is_analytic(const std::string& model);

/// Tells of a network where sigmas, from `first` down to `last`, lie outside of its process.
void tell_of_range(const OpenedModel& model, double first, double last);

/// Throws: tuiqiao::Error that names the file and what is wrong with it; std::invalid_argument.
OpenedModel open_model(const ModelArguments& arguments, const std::string& device);

}  // namespace tuiqiao::cli
