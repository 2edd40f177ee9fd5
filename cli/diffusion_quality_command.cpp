// clang 14, and so clang-tidy, cannot read libtorch 1.13's headers as C++20.
#ifndef __clang_analyzer__
#include <fmt/format.h>

#include <algorithm>
#include <memory>
#include <nlohmann/json.hpp>

#include "diffusion_commands.h"
#include "diffusion_inputs.h"
#include "npy.h"
#include "program.h"
#include "terminal.h"
#include "tuiqiao/diffusion/classifier.h"
#include "tuiqiao/diffusion/metrics.h"

namespace tuiqiao::cli {

namespace {

using nlohmann::ordered_json;

constexpr const char* kQualityExamples = R"(Examples:
  tuiqiao diffusion sample --model models/fashion-mnist -n 2000 --sampler dpmpp-2m --steps 10 --out x.npy
  tuiqiao diffusion quality --samples x.npy
  tuiqiao diffusion quality --samples pictures/ --json
FD-FMNIST is the Frechet distance to the training images in 128 features of one frozen classifier of Fashion-MNIST: no FID, and
not comparable with one. Samples are rounded to 8 bits first. It is biased upwards for few samples: compare equal numbers.
KID is not, but skewed: of few samples it is mostly a little too low and rarely much too high. kid_error tells how much the drawn
subsets of at most 1000 move it, not the samples.)";

struct QualityArguments {
  std::string samples, reference = "/usr/share/datasets/fashion-mnist",
                       classifier = data_file("models/fashion-mnist-classifier/classifier.safetensors");
  bool as_json = false;
  DeviceArguments device;
};

/// An .npy file of numbers in [-1, 1] that `sample --out` wrote, else what read_images reads: pixels are whole numbers,
/// one of them above 1.
Images samples_of(const std::string& path) {
  if (!path.ends_with(".npy")) return read_images(path);
  const NpyArray array = read_npy(path);
  const auto whole = [](double x) { return x >= 0 && x == std::floor(x); };
  if (std::all_of(array.values.begin(), array.values.end(), whole) &&
      std::any_of(array.values.begin(), array.values.end(), [](double x) { return x > 1; }))
    return read_images(path);
  if (array.shape.size() != 4 || array.values.empty())
    throw Error(fmt::format("{}: {} sides; samples are [N, C, H, W]", path, array.shape.size()));
  if (!std::all_of(array.values.begin(), array.values.end(), [](double x) { return std::isfinite(x); }))
    throw Error(fmt::format("{}: holds numbers that are not finite", path));
  return images_of(array.values, array.shape[1], array.shape[2], array.shape[3]);
}

int measure(const QualityArguments& a, const std::stop_token& stop) {
  a.device.settle();
  ProgressBar bar;
  const Progress progress{
      [&](std::string_view what, std::int64_t done, std::int64_t total) { bar.show(what, done, total); }, stop};
  const Classifier classifier = Classifier::load(a.classifier);
  const Images samples = samples_of(a.samples);
  if (samples.count < 2) throw Error(fmt::format("{}: a distance needs two images or more", a.samples));
  check_size(a.samples, samples);
  const std::vector<float> of_train = classifier.features(images_to_classify(a.reference), progress);
  const std::vector<float> of_test = classifier.features(images_to_classify(a.reference, "t10k"), progress);
  const std::vector<float> of_samples = classifier.features(samples, progress);
  bar.clear();
  const FeatureMoments train = feature_moments(of_train, Classifier::kFeatures);
  const double distance = frechet_distance(train, feature_moments(of_samples, Classifier::kFeatures));
  // As many test images as there are samples: the bias of few images is the same.
  const auto rows = std::min(of_test.size(), of_samples.size());
  const double floor = frechet_distance(train, feature_moments(std::span(of_test).first(rows), Classifier::kFeatures));
  const KernelDistance kernel = kernel_distance(of_train, of_samples, Classifier::kFeatures);
  if (a.as_json) {
    print(ordered_json{{"samples", samples.count},
                       {"fd_fmnist", distance},
                       {"floor", floor},
                       {"floor_images", static_cast<std::int64_t>(rows) / Classifier::kFeatures},
                       {"kid", kernel.value},
                       {"kid_error", kernel.error},
                       {"peak_rss_bytes", peak_rss_bytes()}}
              .dump() +
          "\n");
  } else {
    print(fmt::format("FD-FMNIST {:.3f} of {} samples; {:.3f} of {} test images\nKID       {:.5f} +- {:.5f}\n",
                      distance, samples.count, floor, rows / Classifier::kFeatures, kernel.value, kernel.error));
  }
  return kDone;
}

}  // namespace

Run add_diffusion_quality(CLI::App& app) {
  const auto arguments = std::make_shared<QualityArguments>();
  QualityArguments& a = *arguments;
  app.footer(kQualityExamples);
  app.add_option("--samples", a.samples, "An .npy file that sample --out wrote, or images as train reads them")
      ->type_name("PATH")
      ->required();
  app.add_option("--reference", a.reference,
                 "Folder of the training and test images [/usr/share/datasets/fashion-mnist]")
      ->type_name("DIR");
  app.add_option("--classifier", a.classifier,
                 "Whose features [models/fashion-mnist-classifier/classifier.safetensors]")
      ->type_name("FILE");
  app.add_flag("--json", a.as_json,
               "Print one JSON object: samples, fd_fmnist, floor, floor_images, kid, kid_error, peak_rss_bytes");
  a.device.add_threads_to(app);
  return [arguments](const std::stop_token& stop) { return measure(*arguments, stop); };
}

}  // namespace tuiqiao::cli
#endif
