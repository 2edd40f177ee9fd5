#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <string_view>

#include "tuiqiao/diffusion/images.h"
#include "tuiqiao/diffusion/model.h"

namespace tuiqiao {

/// Which error is squared, whatever the network predicts: |v|^2 errors are |eps|^2 / A^2 and |x_0|^2 errors are
/// |eps|^2 B^2 / A^2.
enum class Weighting {
  prediction,  ///< of what the network predicts
  epsilon,     ///< of the noise: the usual choice
  sample       ///< of the clean data
};
std::string_view name(Weighting weighting);
/// Throws: std::invalid_argument that lists the names.
Weighting weighting_from_name(std::string_view text);
/// The factor of the squared error of a prediction at signal A and noise B. Domain: A, B > 0.
double loss_weight(Prediction prediction, Weighting weighting, double A, double B);

struct TrainingOptions {
  UNetConfig network = {};
  ProcessConfig process = {};
  Weighting weighting = Weighting::epsilon;
  int batch = 128;
  double learning_rate = 3e-4;
  int warm_up = 500;           ///< steps of a rate that rises linearly; 0 for none
  double weight_decay = 0.01;  ///< of matrices and convolutions; 0 for none
  double beta1 = 0.9, beta2 = 0.999;
  double clip_norm = 1;    ///< gradients longer than this are shortened to it; 0 for never
  double ema = 0.999;      ///< of the averaged weights, from 0 on as (1 + step) / (10 + step); 0 for no average
  bool half = false;       ///< convolutions are done in bfloat16
  bool mirror = false;     ///< half of the images are seen mirrored
  std::uint64_t seed = 0;  ///< of weights, order, steps and noise
};

/// What one step of training was like.
struct TrainingStep {
  std::int64_t step = 0;  ///< 1 after the first
  double loss = 0;        ///< of this batch, before the update
  double gradient_norm = 0;
  double learning_rate = 0;
};

/// Trains a UNet on images. All randomness comes from (seed, step), so that a state that was saved and loaded goes on
/// bit by bit as if it had not been (same build, machine and number of threads).
/// Source: arXiv 2006.11239, algorithm 1; AdamW: 1711.05101.
class Trainer {
 public:
  /// `images` is kept by reference. Throws: std::invalid_argument "[Trainer] ..." where options are wrong or do not fit
  /// the images.
  Trainer(const TrainingOptions& options, const Images& images, const at::Device& device);
  Trainer(Trainer&&) noexcept;
  ~Trainer();

  /// Takes weights and their average from a network, with a fresh optimiser: where no state was kept. Before any step.
  /// Throws: std::invalid_argument "[start_from] ..." on another configuration (sizes and dropout may differ).
  void start_from(const UNet& net);

  /// One batch. Throws: tuiqiao::Error where loss or gradient is not finite; the weights are left as they were.
  TrainingStep step();
  std::int64_t steps() const;
  /// Steps in which every image is seen once.
  std::int64_t steps_per_epoch() const;

  /// Weights, their average, the optimiser's moments and the step in one .safetensors file, renamed into place.
  /// Throws: tuiqiao::Error.
  void save(const std::filesystem::path& file) const;
  /// Goes on from there. Throws: tuiqiao::Error that names the file and the option or tensor that differs.
  void load(const std::filesystem::path& file);

  /// The averaged network with its process, for sampling.
  DiffusionModel averaged() const;
  /// Writes it as a folder that load_diffusion_model and diffusers read; weights as "F32", "F16" or "BF16".
  void export_model(const std::filesystem::path& folder, const std::string& type = "F32") const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

/// Mean loss over images that training did not see: `draws` noisings of each of the first `count`, at steps spread
/// evenly over the process. Cost: count * draws evaluations. Throws: std::invalid_argument "[validation_loss] ...".
double validation_loss(const DiffusionModel& model, Weighting weighting, const Images& images, std::int64_t count,
                       int draws, std::uint64_t seed);

}  // namespace tuiqiao
