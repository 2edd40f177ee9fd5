// clang 14, and so clang-tidy, cannot read libtorch 1.13's headers as C++20.
#ifndef __clang_analyzer__
#include <fmt/format.h>

#include <memory>

#include "diffusion_commands.h"
#include "diffusion_inputs.h"
#include "program.h"
#include "terminal.h"
#include "tuiqiao/diffusion/classifier.h"

namespace tuiqiao::cli {

namespace {

constexpr const char* kExamples = R"(Examples:
  tuiqiao diffusion classifier --out build/classifier.safetensors
  tuiqiao diffusion classifier --out build/classifier.safetensors --epochs 2 --threads 2)";

struct ClassifierArguments {
  std::string data = "/usr/share/datasets/fashion-mnist", out;
  ClassifierOptions options;
  DeviceArguments device;
};

std::vector<std::uint8_t> labels_of(const std::string& folder, const Images& images, const std::string& part) {
  std::vector<std::uint8_t> labels = read_labels(folder, part);
  if (static_cast<std::int64_t>(labels.size()) != images.count)
    throw Error(fmt::format("{}: {} labels for {} images of {}", folder, labels.size(), images.count, part));
  return labels;
}

int train_classifier(const ClassifierArguments& a, const std::stop_token& stop) {
  a.device.settle();
  check_outputs({{"--out", a.out}});
  ProgressBar bar;
  const Progress progress{
      [&](std::string_view what, std::int64_t done, std::int64_t total) { bar.show(what, done, total); }, stop};
  const Images images = images_to_classify(a.data), test = images_to_classify(a.data, "t10k");
  const std::vector<std::uint8_t> labels = labels_of(a.data, images, "train"), truth = labels_of(a.data, test, "t10k");
  Classifier classifier = Classifier::train(images, labels, a.options, progress);
  classifier.save(a.out);
  const std::vector<std::uint8_t> found = classifier.classes(test, progress);
  bar.clear();
  std::int64_t right = 0;
  for (std::size_t i = 0; i < truth.size(); ++i) right += found[i] == truth[i];
  print(fmt::format("{:.2f} % of {} test images right, {} parameters\n",
                    100.0 * static_cast<double>(right) / static_cast<double>(truth.size()), truth.size(),
                    classifier.parameter_count()));
  return kDone;
}

}  // namespace

Run add_diffusion_classifier(CLI::App& app) {
  const auto arguments = std::make_shared<ClassifierArguments>();
  ClassifierArguments& a = *arguments;
  app.footer(kExamples);
  app.add_option("--out", a.out, "Write its weights here (.safetensors, bfloat16)")->type_name("FILE")->required();
  app.add_option("--data", a.data, "Folder of MNIST's four files [/usr/share/datasets/fashion-mnist]")
      ->type_name("DIR");
  app.add_option("--epochs", a.options.epochs, "Times that each image is seen [12]")
      ->type_name("N")
      ->check(CLI::Range(1, 10000));
  app.add_option("--batch", a.options.batch, "Images a step [64]")->type_name("N")->check(CLI::Range(1, 100000));
  app.add_option("--learning-rate", a.options.learning_rate, "Of AdamW, falling to 0 [0.001]")
      ->type_name("R")
      ->check(positive_number());
  app.add_option("--seed", a.options.seed, "Of weights, order and what is dropped [0]")
      ->type_name("S")
      ->check(whole_number());
  a.device.add_threads_to(app);
  return [arguments](const std::stop_token& stop) { return train_classifier(*arguments, stop); };
}

}  // namespace tuiqiao::cli
#endif
