#pragma once

#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "tuiqiao/diffusion/ancestral.h"
#include "tuiqiao/diffusion/denoiser.h"
#include "tuiqiao/diffusion/likelihood.h"
#include "tuiqiao/diffusion/unet.h"

namespace tuiqiao {

/// The process that a network was trained on, by the fields of diffusers' scheduler_config.json.
struct ProcessConfig {
  BetaSchedule beta_schedule = BetaSchedule::linear;
  int steps = 1000;  ///< num_train_timesteps
  double beta_start = 1e-4, beta_end = 0.02;
  std::vector<double> trained_betas = {};  ///< in place of the schedule where there are any
  Prediction prediction = Prediction::epsilon;
  Variance variance = Variance::posterior;  ///< variance_type: fixed_small, fixed_large or learned_range
  double clip = 1;                          ///< clip_sample_range; 0 where clip_sample is false
  Spacing spacing = Spacing::leading;
  int steps_offset = 0;  ///< that leading steps are later by

  /// Throws: std::invalid_argument where betas or the schedule's numbers are outside (0, 1).
  Schedule schedule() const;
};

/// Reads it. Fields of other schedulers are passed over; one that is missing is as its class has it by default.
/// Throws: tuiqiao::Error "FILE: field 'NAME' ..." on a wrong type or value.
ProcessConfig read_process_config(const std::filesystem::path& file);
/// The text of scheduler_config.json, which DDPMScheduler loads. Throws: std::invalid_argument.
std::string process_config_text(const ProcessConfig& config);

/// A network with its process, ready to sample from.
struct DiffusionModel {
  UNet net;
  ProcessConfig process;
  std::int64_t channels = 0, height = 0, width = 0;  ///< of one datum

  std::int64_t size() const { return channels * height * width; }
};

/// Reads a folder as UNet::load does, with scheduler_config.json in it; or a pipeline's folder, with unet/ and
/// scheduler/ in it. The size is the configuration's sample_size.
/// Throws: tuiqiao::Error, also where the network has no size, or is not of a discrete process (time embedding
///         "fourier").
DiffusionModel load_diffusion_model(const std::filesystem::path& folder, const at::Device& device);

/// The network as a Denoiser that keeps a reference to it: float64 outside, float32 inside, without gradients.
/// `classes` is one class for each row of every batch, or empty. On the CPU parts of a batch go side by side, a thread
/// each; the skips of each part pass through UNet::set_join's function by themselves. Its calls throw:
/// std::invalid_argument where there are not as many classes as rows.
std::unique_ptr<Denoiser> denoiser_of(const DiffusionModel& model, std::vector<std::int64_t> classes = {});

/// The same with derivatives, by one backward pass for each probe, or for each number of a datum where there is none.
/// Error: float32's. Throws: std::invalid_argument for a network that predicts variances too.
TraceFunction trace_of(const DiffusionModel& model, std::vector<std::int64_t> classes = {});

}  // namespace tuiqiao
