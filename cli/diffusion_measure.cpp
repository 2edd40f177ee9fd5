// clang 14, and so clang-tidy, cannot read libtorch 1.13's headers as C++20.
#ifndef __clang_analyzer__
#include "diffusion_measure.h"

#include <algorithm>
#include <cmath>
#include <stdexcept>

#include "tuiqiao/diffusion/images.h"
#include "tuiqiao/diffusion/skip_tuning.h"

namespace tuiqiao::cli {

void MeasureArguments::add_to(CLI::App& app) {
  const std::int64_t most = std::int64_t{1} << 31;
  app.add_option("-n,--count", count, "Images for each measurement [1000]")
      ->type_name("N")
      ->check(CLI::Range(std::int64_t{2}, most));
  app.add_option("--batch", batch, "Images at once [100]")->type_name("N")->check(CLI::Range(std::int64_t{1}, most));
  app.add_option("--reference", reference, "Folder of the training images [/usr/share/datasets/fashion-mnist]")
      ->type_name("DIR");
  app.add_option("--classifier", classifier, "Whose features [models/fashion-mnist-classifier/classifier.safetensors]")
      ->type_name("FILE");
}

int steps_of(const SamplerInfo& sampler, int nfe) { return (nfe - 1) / sampler.evaluations + 1; }

std::int64_t Measure::Way::evaluations() const {
  const auto steps = static_cast<std::int64_t>(sigmas.size()) - 1;
  const int each = sampler_named(sampler.sampler).evaluations;
  return sigmas.back() > 0 ? steps * each : (steps - 1) * each + 1;
}

Measure::Measure(const MeasureArguments& arguments, const ModelArguments& model, const OpenedModel& opened,
                 const Progress& progress)
    : a_(arguments), classes_(model.classes), progress_(progress) {
  if (!opened.is_image()) throw std::invalid_argument("--model: an analytic model has no skips and no images");
  classifier_.emplace(Classifier::load(a_.classifier));
  const DiffusionModel& network = *opened.network;
  model_ = std::make_unique<DiffusionModel>(
      DiffusionModel{network.net.clone(), network.process, network.channels, network.height, network.width});
  model_->net.set_half_convolutions(model.half);
  clip_ = opened.clip;
  reference_ = classifier_->features(read_images(a_.reference), progress_);
  moments_ = feature_moments(reference_, Classifier::kFeatures);
}

std::vector<double> Measure::samples(const Way& way, std::uint64_t seed, std::int64_t count, const std::string& what) {
  tune_skips(model_->net, {.top = way.rho_top, .bottom = way.rho_bottom});
  const std::int64_t size = model_->size();
  std::vector<double> all(static_cast<std::size_t>(count * size));
  for (std::int64_t from = 0; from < count; from += a_.batch) {
    progress_.step(what, from, count);
    const std::int64_t rows = std::min(a_.batch, count - from);
    const std::span<double> x(all.data() + from * size, static_cast<std::size_t>(rows * size));
    const auto first = static_cast<std::uint64_t>(from);
    std::vector<std::int64_t> classes;
    for (std::int64_t row = from; row < from + rows && !classes_.empty(); ++row)
      classes.push_back(classes_[static_cast<std::size_t>(row) % classes_.size()]);
    const auto denoiser = denoiser_of(*model_, std::move(classes));
    const NoiseSource noise = image_noise(seed, first, size);
    noise(0, x);
    for (double& value : x) value *= std::hypot(1, way.sigmas.front());
    SamplerOptions options = way.sampler.options(way.sigmas, seed, first, size);
    options.clip = clip_;
    options.progress.stop = progress_.stop;
    sample(way.sampler.sampler, *denoiser, way.sigmas, noise, options, x);
  }
  return all;
}

Measure::Quality Measure::quality(const std::vector<double>& samples) {
  const auto features = classifier_->features(images_of(samples, model_->channels, model_->height, model_->width));
  return {frechet_distance(moments_, feature_moments(features, Classifier::kFeatures)),
          kernel_distance(reference_, features, Classifier::kFeatures)};
}

}  // namespace tuiqiao::cli
#endif
