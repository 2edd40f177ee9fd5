// clang 14, and so clang-tidy, cannot read libtorch 1.13's headers as C++20.
#ifndef __clang_analyzer__
#include "tuiqiao/diffusion/classifier.h"

#include <ATen/ATen.h>
#include <c10/core/GradMode.h>
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <map>
#include <numbers>
#include <numeric>
#include <stdexcept>

#include "diffusion/adam.h"
#include "file_output.h"
#include "safetensors.h"
#include "tuiqiao/diffusion/noise.h"
#include "tuiqiao/idx.h"

namespace tuiqiao {

namespace {

using at::Tensor;
namespace fs = std::filesystem;

constexpr std::int64_t kBatch = 500;  // of images that are only looked at
constexpr double kWeightDecay = 0.01;

constexpr std::array<const char*, 8> kNames{"conv1.bias",    "conv1.weight",    "conv2.bias",   "conv2.weight",
                                            "features.bias", "features.weight", "classes.bias", "classes.weight"};
const std::map<std::string, std::vector<std::int64_t>>& shapes() {
  static const std::map<std::string, std::vector<std::int64_t>> all{
      {"conv1.weight", {32, 1, 5, 5}},  {"conv1.bias", {32}},
      {"conv2.weight", {64, 32, 3, 3}}, {"conv2.bias", {64}},
      {"features.bias", {128}},         {"features.weight", {128, 64 * 7 * 7}},
      {"classes.weight", {10, 128}},    {"classes.bias", {10}}};
  return all;
}

void check(const char* function, const Images& images) {
  if (images.channels != 1 || images.height != Classifier::kSide || images.width != Classifier::kSide)
    throw std::invalid_argument(fmt::format("[{}] images of [{}, {}, {}]; the classifier has [1, 28, 28]", function,
                                            images.channels, images.height, images.width));
}

}  // namespace

std::vector<std::uint8_t> read_labels(const fs::path& folder, const std::string& part) {
  for (const char* end : {"-labels-idx1-ubyte.gz", "-labels-idx1-ubyte"}) {
    const fs::path file = folder / (part + end);
    if (!fs::exists(file)) continue;
    IdxArray labels = read_idx(file);
    if (labels.shape.size() != 1)
      throw Error(fmt::format("{}: {} sides; labels have one", file.string(), labels.shape.size()));
    for (const std::uint8_t label : labels.values) {
      if (label >= Classifier::kClasses)
        throw Error(fmt::format("{}: label {} is none of 0 to 9", file.string(), label));
    }
    return std::move(labels.values);
  }
  throw Error(fmt::format("{}: no {}-labels-idx1-ubyte.gz", folder.string(), part));
}

struct Classifier::Parts {
  std::map<std::string, Tensor> weights;

  const Tensor& operator[](const char* name) const { return weights.at(name); }

  /// Images as [n, 1, 28, 28] in [-1, 1].
  Tensor features(const Tensor& x) const {
    const Parts& w = *this;
    Tensor h = at::relu(at::max_pool2d(at::conv2d(x, w["conv1.weight"], w["conv1.bias"], 1, 2), 2));
    h = at::relu(at::max_pool2d(at::conv2d(h, w["conv2.weight"], w["conv2.bias"], 1, 1), 2));
    return at::relu(at::linear(h.flatten(1), w["features.weight"], w["features.bias"]));
  }
  Tensor logits(const Tensor& features) const {
    return at::linear(features, (*this)["classes.weight"], (*this)["classes.bias"]);
  }
};

Classifier::Classifier(std::unique_ptr<Parts> parts) : parts_(std::move(parts)) {}
Classifier::Classifier(Classifier&&) noexcept = default;
Classifier::~Classifier() = default;

Classifier Classifier::load(const fs::path& file) {
  const SafetensorsFile in(file);
  auto parts = std::make_unique<Parts>();
  for (const auto& [name, shape] : shapes()) {
    if (in.at(name).shape != shape)
      throw Error(fmt::format("{}: tensor '{}' has another shape than a classifier's", file.string(), name));
    const std::vector<float> values = in.read(name);
    if (!std::all_of(values.begin(), values.end(), [](float value) { return std::isfinite(value); }))
      throw Error(fmt::format("{}: tensor '{}' holds numbers that are not finite", file.string(), name));
    parts->weights[name] = at::from_blob(const_cast<float*>(values.data()), shape, at::kFloat).clone();
  }
  return Classifier(std::move(parts));
}

void Classifier::save(const fs::path& file) {
  const c10::NoGradGuard no_grad;
  std::map<std::string, SafetensorsTensor> tensors;
  for (auto& [name, tensor] : parts_->weights) {
    tensor = tensor.detach().to(at::kBFloat16).to(at::kFloat).contiguous();
    tensors[name] = {
        tensor.sizes().vec(), {tensor.data_ptr<float>(), static_cast<std::size_t>(tensor.numel())}, "BF16"};
  }
  write_file_atomically(file, safetensors_of(tensors));
}

std::int64_t Classifier::parameter_count() const {
  std::int64_t count = 0;
  for (const auto& [name, tensor] : parts_->weights) count += tensor.numel();
  return count;
}

namespace {

/// Images `rows` as a tensor.
Tensor batch_of(const Images& images, std::span<const std::int64_t> rows) {
  const std::int64_t side = Classifier::kSide, size = side * side;
  Tensor batch = at::empty({static_cast<std::int64_t>(rows.size()), 1, side, side}, at::kFloat);
  float* to = batch.data_ptr<float>();
  for (const std::int64_t row : rows) {
    const std::uint8_t* from = images.values.data() + row * size;
    to = std::transform(from, from + size, to, [](std::uint8_t value) { return static_cast<float>(unit_of(value)); });
  }
  return batch;
}

void check(const Images& images, std::span<const std::uint8_t> labels, const ClassifierOptions& options) {
  check("train_classifier", images);
  if (static_cast<std::size_t>(images.count) != labels.size() || images.count < 1)
    throw std::invalid_argument(fmt::format("[train_classifier] {} images, {} labels", images.count, labels.size()));
  if (const auto most = std::max_element(labels.begin(), labels.end()); *most >= Classifier::kClasses)
    throw std::invalid_argument(fmt::format("[train_classifier] label {} of {} classes", *most, Classifier::kClasses));
  if (options.epochs < 1 || options.batch < 1 || !(options.learning_rate > 0) ||
      !(options.dropout >= 0 && options.dropout < 1))
    throw std::invalid_argument(fmt::format("[train_classifier] {} epochs, batches of {}, rate {}, dropout {}",
                                            options.epochs, options.batch, options.learning_rate, options.dropout));
}

/// The first weights of tensor i of kNames: He's initialisation (2015, eq. 10), and biases of 0.
Tensor first_weights(std::uint64_t seed, std::size_t i) {
  const auto& shape = shapes().at(kNames[i]);
  Tensor tensor = at::zeros(shape, at::kFloat);
  if (shape.size() == 1) return tensor;
  std::vector<double> normal(static_cast<std::size_t>(tensor.numel()));
  fill_normal(seed, i, 0, normal);
  const double scale = std::sqrt(2.0 * static_cast<double>(shape[0]) / static_cast<double>(tensor.numel()));
  std::transform(normal.begin(), normal.end(), tensor.data_ptr<float>(),
                 [scale](double value) { return static_cast<float>(scale * value); });
  return tensor;
}

/// Another order of the images for an epoch, by Fisher and Yates.
void shuffle(std::uint64_t seed, std::uint64_t epoch, std::vector<std::int64_t>& order) {
  for (std::size_t i = 0; i + 1 < order.size(); ++i)
    std::swap(order[i], order[i + random_below(seed, 1000 + epoch, i, order.size() - i)]);
}

Tensor truth_of(std::span<const std::uint8_t> labels, std::span<const std::int64_t> rows) {
  Tensor truth = at::empty({static_cast<std::int64_t>(rows.size())}, at::kLong);
  std::transform(rows.begin(), rows.end(), truth.data_ptr<std::int64_t>(),
                 [labels](std::int64_t row) { return labels[static_cast<std::size_t>(row)]; });
  return truth;
}

}  // namespace

Classifier Classifier::train(const Images& images, std::span<const std::uint8_t> labels,
                             const ClassifierOptions& options, const Progress& progress) {
  check(images, labels, options);
  auto parts = std::make_unique<Parts>();
  AdamW adam;
  for (std::size_t i = 0; i < kNames.size(); ++i) {
    Tensor tensor = first_weights(options.seed, i);
    adam.add(tensor);
    parts->weights[kNames[i]] = tensor.requires_grad_(true);
  }
  at::manual_seed(options.seed);
  const std::int64_t batches = (images.count + options.batch - 1) / options.batch, steps = batches * options.epochs;
  std::vector<std::int64_t> order(static_cast<std::size_t>(images.count));
  std::iota(order.begin(), order.end(), 0);
  for (std::int64_t step = 0; step < steps; ++step) {
    progress.step("training the classifier", step, steps);
    if (step % batches == 0) shuffle(options.seed, static_cast<std::uint64_t>(step / batches), order);
    const auto from = static_cast<std::size_t>(step % batches * options.batch);
    const auto count = std::min(static_cast<std::size_t>(options.batch), order.size() - from);
    const std::span<const std::int64_t> rows(order.data() + from, count);
    const Tensor features = at::dropout(parts->features(batch_of(images, rows)), options.dropout, true);
    const Tensor loss = at::cross_entropy_loss(parts->logits(features), truth_of(labels, rows));
    if (!std::isfinite(loss.item<double>())) throw Error(fmt::format("the loss is not finite at step {}", step + 1));
    loss.backward();
    const c10::NoGradGuard no_grad;
    const double rate = options.learning_rate / 2 *
                        (1 + std::cos(std::numbers::pi * static_cast<double>(step) / static_cast<double>(steps)));
    for (std::size_t i = 0; i < kNames.size(); ++i) {
      Tensor& weight = parts->weights.at(kNames[i]);
      adam.update(i, weight, weight.grad(), step + 1, {.learning = rate, .weight_decay = kWeightDecay});
      weight.mutable_grad() = Tensor();
    }
  }
  progress.step("training the classifier", steps, steps);
  for (auto& [name, tensor] : parts->weights) tensor = tensor.detach();
  return Classifier(std::move(parts));
}

std::vector<float> Classifier::features(const Images& images, const Progress& progress) const {
  check("features", images);
  const c10::NoGradGuard no_grad;
  std::vector<float> all;
  for (std::int64_t from = 0; from < images.count; from += kBatch) {
    progress.step("looking at images", from, images.count);
    std::vector<std::int64_t> rows(static_cast<std::size_t>(std::min(kBatch, images.count - from)));
    std::iota(rows.begin(), rows.end(), from);
    const Tensor some = parts_->features(batch_of(images, rows)).contiguous();
    all.insert(all.end(), some.data_ptr<float>(), some.data_ptr<float>() + some.numel());
  }
  return all;
}

std::vector<std::uint8_t> Classifier::classes(const Images& images, const Progress& progress) const {
  const c10::NoGradGuard no_grad;
  std::vector<float> rows = features(images, progress);
  const Tensor best = parts_->logits(at::from_blob(rows.data(), {images.count, kFeatures}, at::kFloat)).argmax(1);
  std::vector<std::uint8_t> found;
  for (std::int64_t i = 0; i < images.count; ++i)
    found.push_back(static_cast<std::uint8_t>(best[i].item<std::int64_t>()));
  return found;
}

}  // namespace tuiqiao
#endif
