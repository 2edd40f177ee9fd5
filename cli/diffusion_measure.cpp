// clang 14, and so clang-tidy, cannot read libtorch 1.13's headers as C++20.
#ifndef __clang_analyzer__
#include "diffusion_measure.h"

#include <ATen/ATen.h>
#include <fmt/format.h>
#include <fmt/ranges.h>
#define XXH_INLINE_ALL
#include <xxhash.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <stdexcept>

#include "diffusion_inputs.h"
#include "file_output.h"
#include "json_excerpt.h"
#include "tuiqiao/diffusion/skip_tuning.h"

namespace tuiqiao::cli {

using nlohmann::json;
using nlohmann::ordered_json;

void MeasureArguments::add_to(CLI::App& app) {
  const std::int64_t most = std::int64_t{1} << 31;
  app.add_option("-n,--count", count, "Images for each measurement [1000]")
      ->type_name("N")
      ->check(CLI::Range(std::int64_t{2}, most));
  app.add_option("--batch", batch, "Images at once [1024]")->type_name("N")->check(CLI::Range(std::int64_t{1}, most));
  app.add_option("--reference", reference, "Folder of the training images [/usr/share/datasets/fashion-mnist]")
      ->type_name("DIR");
  app.add_option("--classifier", classifier, "Whose features [models/fashion-mnist-classifier/classifier.safetensors]")
      ->type_name("FILE");
}

std::string duration(double seconds) {
  if (seconds < 100) return fmt::format("{:.0f} s", seconds);
  return seconds < 6000 ? fmt::format("{:.0f} min", seconds / 60) : fmt::format("{:.1f} h", seconds / 3600);
}

int steps_of(const SamplerInfo& sampler, int nfe) { return (nfe - 1) / sampler.evaluations + 1; }

std::int64_t Measure::Way::evaluations() const {
  const auto steps = static_cast<std::int64_t>(sigmas.size()) - 1;
  const int each = sampler_named(sampler.sampler).evaluations;
  return sigmas.back() > 0 ? steps * each : (steps - 1) * each + 1;
}

Measure::Measure(const MeasureArguments& arguments, const ModelArguments& model, const OpenedModel& opened,
                 const Progress& progress)
    : a_(arguments), arguments_(model), progress_(progress) {
  constexpr std::int64_t kSide = Classifier::kSide;
  if (opened.shape != std::vector<std::int64_t>{1, kSide, kSide})
    throw Error(fmt::format("{}: makes images of {}; the classifier looks at 1 x {} x {}", model.model,
                            fmt::join(opened.shape, " x "), kSide, kSide));
  classifier_.emplace(Classifier::load(a_.classifier));
  const DiffusionModel& network = *opened.network;
  model_ = std::make_unique<DiffusionModel>(
      DiffusionModel{network.net.clone(), network.process, network.channels, network.height, network.width});
  model_->net.set_half_convolutions(model.half, true);
  clip_ = opened.clip;
  images_ = images_to_classify(a_.reference);
  constexpr std::int64_t kShown = 16;
  for (std::int64_t i = 0; i < std::min(images_.count, kShown) * images_.size(); ++i)
    shown_.push_back(unit_of(images_.values[static_cast<std::size_t>(i)]));
}

void Measure::look_at_reference() {
  if (!reference_.empty()) return;
  reference_ = classifier_->features(images_, progress_);
  images_ = {};
  moments_ = feature_moments(reference_, Classifier::kFeatures);
}

std::vector<double> Measure::samples(const Way& way, std::uint64_t seed, std::int64_t count, const std::string& what) {
  tune_skips(model_->net, {.top = way.rho_top, .bottom = way.rho_bottom});
  const std::int64_t size = model_->size();
  const Schedule process = model_->process.schedule();
  std::vector<double> all(static_cast<std::size_t>(count * size));
  for (std::int64_t from = 0; from < count; from += a_.batch) {
    progress_.step(what, from, count);
    const std::int64_t rows = std::min(a_.batch, count - from);
    const std::span<double> x(all.data() + from * size, static_cast<std::size_t>(rows * size));
    const auto first = static_cast<std::uint64_t>(from);
    const auto denoiser = denoiser_of(*model_, arguments_.classes_of(from, rows));
    const NoiseSource noise = image_noise(seed, first, size);
    noise(0, x);
    for (double& value : x) value *= std::hypot(1, way.sigmas.front());
    SamplerOptions options = way.sampler.options(way.sigmas, process, seed, first, size);
    options.clip = clip_;
    options.progress.stop = progress_.stop;
    sample(way.sampler.sampler, *denoiser, way.sigmas, noise, options, x);
  }
  return all;
}

Measure::Speed Measure::speed() const {
  const std::int64_t rows = std::min(a_.batch, a_.count);
  std::vector<double> x(static_cast<std::size_t>(rows * model_->size()), 0), denoised(x.size());
  const auto denoiser = denoiser_of(*model_, arguments_.classes_of(0, rows));
  const CountingDenoiser counting(*denoiser);
  counting.denoise(x, 1, denoised);
  const double start = CountingDenoiser::now();
  features(denoised);
  const double looking = CountingDenoiser::now() - start;
  return {counting.seconds() / static_cast<double>(rows), looking / static_cast<double>(rows)};
}

std::vector<double> Measure::skip_effects() const {
  const Schedule schedule = model_->process.schedule();
  const int step = (schedule.steps() + 1) / 2;
  std::vector<double> noise(shown_.size());
  image_noise(0, 0, model_->size())(0, noise);
  const auto rows = static_cast<std::int64_t>(shown_.size()) / model_->size();
  at::Tensor x = at::empty({rows, model_->channels, model_->height, model_->width}, at::kFloat);
  for (std::size_t i = 0; i < noise.size(); ++i)
    x.data_ptr<float>()[i] = static_cast<float>(schedule.A(step) * shown_[i] + schedule.B(step) * noise[i]);
  at::Tensor classes;
  const std::vector<std::int64_t> labels = arguments_.classes_of(0, rows);
  if (!labels.empty()) classes = at::tensor(at::ArrayRef<std::int64_t>(labels));
  const at::Device device = model_->net.device();
  if (classes.defined()) classes = classes.to(device);
  return tuiqiao::skip_effects(model_->net, x.to(device), at::full({rows}, step - 1, at::kFloat).to(device), classes);
}

std::vector<float> Measure::features(const std::vector<double>& samples) const {
  return classifier_->features(images_of(samples, model_->channels, model_->height, model_->width));
}
double Measure::frechet(std::span<const float> features) {
  look_at_reference();
  return frechet_distance(moments_, feature_moments(features, Classifier::kFeatures));
}
KernelDistance Measure::kernel(std::span<const float> features) {
  look_at_reference();
  return kernel_distance(reference_, features, Classifier::kFeatures);
}

namespace {

std::string text_of(XXH64_hash_t hash) { return fmt::format("{:016x}", hash); }

std::string hash_of_text(const std::string& text) { return text_of(XXH3_64bits(text.data(), text.size())); }

std::string hash_of(const Images& images) { return text_of(XXH3_64bits(images.values.data(), images.values.size())); }

std::string hash_of(const UNet& net) {
  XXH64_hash_t hash = 0;
  for (const auto& [name, tensor] : net.parameters()) {
    const at::Tensor values = tensor.detach().cpu().contiguous();
    hash =
        XXH3_64bits_withSeed(values.data_ptr<float>(), static_cast<std::size_t>(values.numel()) * sizeof(float), hash);
  }
  return text_of(hash);
}

}  // namespace

ordered_json settings_of(const MeasureArguments& measure, const ModelArguments& model, const OpenedModel& opened,
                         const SamplerArguments& sampler) {
  if (!opened.is_image()) throw std::invalid_argument("--model: an analytic model has no skips and no images");
  return {{"model", model.model},
          {"weights", hash_of(opened.network->net)},
          {"network", hash_of_text(unet_config_text(opened.network->net.config()))},
          {"process", hash_of_text(process_config_text(opened.network->process))},
          {"half", model.half},
          {"classes", model.classes},
          {"classifier", measure.classifier},
          {"classifier_weights", hash_of_text(read_text(measure.classifier))},
          {"reference", measure.reference},
          {"reference_images", hash_of(read_images(measure.reference))},
          {"count", measure.count},
          {"schedule", sampler.schedule},
          {"spacing", sampler.spacing},
          {"sigma_min", sampler.sigma_min},
          {"sigma_max", sampler.sigma_max},
          {"karras_rho", sampler.rho},
          {"order", sampler.order},
          {"predictor_only", sampler.predictor_only},
          {"s_fraction", sampler.s_fractions},
          {"eta", sampler.eta},
          {"churn", sampler.churn},
          {"brownian", sampler.brownian}};
}

json kept_results(const std::string& file, const ordered_json& settings) {
  std::error_code problem;  // a pipe would be waited for
  if (!std::filesystem::is_regular_file(file, problem) || std::filesystem::is_empty(file, problem)) return nullptr;
  std::ifstream in(file);
  json kept = json::parse(in, nullptr, false);
  if (!kept.is_object() || !kept.contains("settings") || !kept["settings"].is_object())
    throw Error(fmt::format("{}: is there, and holds no results of an earlier run; name another file", file));
  for (const auto& [name, value] : settings.items()) {
    const json there = kept["settings"].value(name, json());
    if (there != json(value))
      throw Error(fmt::format("{}: holds results of another run, whose {} is {}, not {}; name another file", file, name,
                              excerpt(there), excerpt(value)));
  }
  return kept;
}

const json& kept_list(const std::string& file, const json& kept, const char* name) {
  const auto found = kept.find(name);
  if (found == kept.end() || !found->is_array()) throw Error(fmt::format("{}: holds no list '{}'", file, name));
  for (const json& entry : *found) {
    if (!entry.is_object()) throw Error(fmt::format("{}: '{}' holds {}", file, name, excerpt(entry)));
  }
  return *found;
}

}  // namespace tuiqiao::cli
#endif
