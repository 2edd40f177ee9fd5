#pragma once

#include <CLI/CLI.hpp>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "diffusion_model.h"
#include "diffusion_sampler_options.h"
#include "tuiqiao/diffusion/classifier.h"
#include "tuiqiao/diffusion/metrics.h"
#include "tuiqiao/diffusion/model.h"
#include "tuiqiao/progress.h"

namespace tuiqiao::cli {

/// What samples are measured by.
struct MeasureArguments {
  std::string reference = "/usr/share/datasets/fashion-mnist",
              classifier = "models/fashion-mnist-classifier/classifier.safetensors";
  std::int64_t count = 1000, batch = 100;

  void add_to(CLI::App& app);
};

/// Samples of one network with scaled skips, and how far they are from its images.
class Measure {
 public:
  /// Opens the network (a copy of its own, whose skips it sets) and looks at the reference images.
  /// Throws: std::invalid_argument for an analytic model; tuiqiao::Error.
  Measure(const MeasureArguments& arguments, const ModelArguments& model, const OpenedModel& opened,
          const Progress& progress);

  struct Way {
    SamplerArguments sampler;
    std::vector<double> sigmas;
    double rho_bottom = 1, rho_top = 1;

    /// Evaluations of each image.
    std::int64_t evaluations() const;
  };
  /// Images 0 to count - 1 of a seed: image i has the same noise whatever the way.
  std::vector<double> samples(const Way& way, std::uint64_t seed, std::int64_t count, const std::string& what);

  struct Quality {
    double fd = 0;
    KernelDistance kid;
  };
  Quality quality(const std::vector<double>& samples);

  std::int64_t size() const { return model_->size(); }

 private:
  MeasureArguments a_;
  std::vector<std::int64_t> classes_;
  std::unique_ptr<DiffusionModel> model_;
  std::optional<Classifier> classifier_;
  std::vector<float> reference_;
  FeatureMoments moments_;
  double clip_ = 0;
  Progress progress_;
};

/// Steps of a sampler that take about `nfe` evaluations, the step to 0 being one.
int steps_of(const SamplerInfo& sampler, int nfe);

}  // namespace tuiqiao::cli
