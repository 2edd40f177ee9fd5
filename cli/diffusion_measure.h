#pragma once

#include <CLI/CLI.hpp>
#include <cstdint>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "diffusion_model.h"
#include "diffusion_sampler_options.h"
#include "program.h"
#include "tuiqiao/diffusion/classifier.h"
#include "tuiqiao/diffusion/images.h"
#include "tuiqiao/diffusion/metrics.h"
#include "tuiqiao/diffusion/model.h"
#include "tuiqiao/progress.h"

namespace tuiqiao::cli {

/// What samples are measured by.
struct MeasureArguments {
  std::string reference = "/usr/share/datasets/fashion-mnist",
              classifier = data_file("models/fashion-mnist-classifier/classifier.safetensors");
  std::int64_t count = 1000, batch = 1024;

  void add_to(CLI::App& app);
};

/// Samples of one network with scaled skips, and how far they are from its images.
class Measure {
 public:
  /// Opens the network (a copy of its own, whose skips it sets) and reads the reference images.
  /// Domain: a network, as settings_of checks. Throws: tuiqiao::Error.
  Measure(const MeasureArguments& arguments, const ModelArguments& model, const OpenedModel& opened,
          const Progress& progress);

  struct Way {
    SamplerArguments sampler;
    std::vector<double> sigmas;
    double rho_bottom = 1, rho_top = 1;

    /// Evaluations of each image.
    std::int64_t evaluations() const;
  };
  /// Seconds of one evaluation, and of the features of one image.
  struct Speed {
    double evaluation = 0, features = 0;
  };
  /// By timing one batch.
  Speed speed() const;
  /// Reference images whose features are still to be looked at, once.
  std::int64_t reference_left() const { return reference_.empty() ? images_.count : 0; }
  /// Images 0 to count - 1 of a seed: image i has the same noise whatever the way.
  std::vector<double> samples(const Way& way, std::uint64_t seed, std::int64_t count, const std::string& what);

  /// skip_effects of the network at half of its process, on noised reference images.
  std::vector<double> skip_effects() const;

  /// Of images that samples() made.
  std::vector<float> features(const std::vector<double>& samples) const;
  /// The first of these looks at the reference images.
  double frechet(std::span<const float> features);
  KernelDistance kernel(std::span<const float> features);

 private:
  void look_at_reference();

  MeasureArguments a_;
  ModelArguments arguments_;
  std::unique_ptr<DiffusionModel> model_;
  std::optional<Classifier> classifier_;
  Images images_;                 ///< of the reference, until their features are known
  std::vector<float> reference_;  ///< features
  std::vector<double> shown_;     ///< a few of the reference images
  FeatureMoments moments_;
  double clip_ = 0;
  Progress progress_;
};

/// All that figures depend on but the ways themselves; weights by their content too.
/// Throws: std::invalid_argument for an analytic model.
nlohmann::ordered_json settings_of(const MeasureArguments& measure, const ModelArguments& model,
                                   const OpenedModel& opened, const SamplerArguments& sampler);
/// What an earlier run with the same "settings" wrote there; null where there is none.
/// Throws: tuiqiao::Error where they are others: what is there may have taken hours.
nlohmann::json kept_results(const std::string& file, const nlohmann::ordered_json& settings);
/// A list of objects in it. Throws: tuiqiao::Error where it is none.
const nlohmann::json& kept_list(const std::string& file, const nlohmann::json& kept, const char* name);

/// The largest whole number that every reader of JSON keeps.
constexpr std::uint64_t kMostSeed = std::uint64_t{1} << 53;

/// "40 s", "12 min", "3.5 h".
std::string duration(double seconds);

/// Steps of a sampler that take about `nfe` evaluations, the step to 0 being one.
int steps_of(const SamplerInfo& sampler, int nfe);

}  // namespace tuiqiao::cli
