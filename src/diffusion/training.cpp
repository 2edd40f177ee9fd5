// clang 14, and so clang-tidy, cannot read libtorch 1.13's headers as C++20.
#ifndef __clang_analyzer__
#include "tuiqiao/diffusion/training.h"

#include <ATen/ATen.h>
#include <c10/core/GradMode.h>
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <torch/csrc/autograd/autograd.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <functional>
#include <limits>
#include <map>
#include <nlohmann/json.hpp>
#include <numeric>
#include <optional>
#include <set>
#include <stdexcept>

#include "diffusion/adam.h"
#include "diffusion/parts.h"
#include "file_output.h"
#include "json_excerpt.h"
#include "safetensors.h"
#include "tuiqiao/diffusion/noise.h"

namespace tuiqiao {

using at::Tensor;
using nlohmann::ordered_json;

namespace {

/// A grain of at::parallel_for that leaves all to one thread.
constexpr std::int64_t kAll = std::numeric_limits<std::int64_t>::max();

/// The stream of random numbers that orders the images; those of a step's rows are 0 to batch - 1.
constexpr std::uint64_t kOrder = 0xFFFFFFFF;

void check(const TrainingOptions& o, const Images& images) {
  const auto refuse = [](const std::string& what) { throw std::invalid_argument("[Trainer] " + what); };
  if (images.count < 1) refuse("no images");
  if (o.network.in_channels != images.channels || o.network.out_channels != images.channels)
    refuse(fmt::format("a network of {} to {} channels for images of {}", o.network.in_channels, o.network.out_channels,
                       images.channels));
  const std::size_t levels = std::clamp<std::size_t>(o.network.block_out_channels.size(), 1, 32);
  const std::int64_t unit = std::int64_t{1} << (levels - 1);
  if (images.height % unit != 0 || images.width % unit != 0)
    refuse(fmt::format("images of {} x {} do not halve {} times: take fewer levels of channels", images.height,
                       images.width, o.network.block_out_channels.size() - 1));
  if (o.network.has_classes()) refuse("networks with classes are not trained");
  if (o.process.variance == Variance::learned_range) refuse("variances are not trained");
  if (o.network.time_embedding_type != "positional") refuse("time embeddings other than 'positional' are not trained");
  if (o.batch < 1 || o.batch > (1 << 20)) refuse(fmt::format("batch = {}", o.batch));
  if (!(o.learning_rate > 0 && o.learning_rate <= 1e30))
    refuse(fmt::format("learning_rate = {} outside (0, 1e30]", o.learning_rate));
  if (o.warm_up < 0) refuse(fmt::format("warm_up = {} is negative", o.warm_up));
  if (!(o.weight_decay >= 0)) refuse(fmt::format("weight_decay = {} is negative", o.weight_decay));
  if (!(o.beta1 >= 0 && o.beta1 < 1 && o.beta2 >= 0 && o.beta2 < 1))
    refuse(fmt::format("beta1 = {}, beta2 = {} outside [0, 1)", o.beta1, o.beta2));
  if (!(o.clip_norm >= 0)) refuse(fmt::format("clip_norm = {} is negative", o.clip_norm));
  if (!(o.ema >= 0 && o.ema < 1)) refuse(fmt::format("ema = {} outside [0, 1)", o.ema));
}

/// Options that decide what the weights become, to compare a saved state with what is asked for.
ordered_json as_json(const TrainingOptions& o, const Images& images) {
  ordered_json text = ordered_json::parse(unet_config_text(o.network));
  text.update(ordered_json::parse(process_config_text(o.process)));
  text["weighting"] = std::string(name(o.weighting));
  text["batch"] = o.batch;
  text["learning_rate"] = o.learning_rate;
  text["warm_up"] = o.warm_up;
  text["weight_decay"] = o.weight_decay;
  text["beta1"] = o.beta1;
  text["beta2"] = o.beta2;
  text["clip_norm"] = o.clip_norm;
  text["ema"] = o.ema;
  text["half"] = o.half;
  text["mirror"] = o.mirror;
  text["seed"] = o.seed;
  text["images"] = images.count;
  text["height"] = images.height;
  text["width"] = images.width;
  text["pixels"] = fmt::format("{:016x}", XXH3_64bits(images.values.data(), images.values.size()));
  return text;
}

/// Noised images with what the network should say of them.
class Batch {
 public:
  Batch(std::int64_t rows, const Images& images)
      : images_(images),
        x_(at::empty({rows, images.channels, images.height, images.width}, at::kFloat)),
        target_(at::empty_like(x_)),
        times_(at::empty({rows}, at::kFloat)),
        weights_(at::empty({rows, 1, 1, 1}, at::kFloat)) {}

  void set(std::int64_t row, std::int64_t image, bool mirrored, const Schedule& schedule, int t,
           std::span<const double> noise, Prediction prediction, Weighting weighting) {
    const std::int64_t size = images_.size(), width = images_.width;
    const std::uint8_t* from = images_.values.data() + image * size;
    const double A = schedule.A(t), B = schedule.B(t);
    float* noised = x_.data_ptr<float>() + row * size;
    float* target = target_.data_ptr<float>() + row * size;
    for (std::int64_t i = 0; i < size; ++i) {
      const double clean = unit_of(from[mirrored ? i - i % width + width - 1 - i % width : i]);
      const double epsilon = noise[static_cast<std::size_t>(i)];
      noised[i] = static_cast<float>(A * clean + B * epsilon);
      target[i] = static_cast<float>(target_of(prediction, clean, epsilon, A, B));
    }
    times_.data_ptr<float>()[row] = static_cast<float>(t - 1);  // diffusers counts from 0
    weights_.data_ptr<float>()[row] = static_cast<float>(loss_weight(prediction, weighting, A, B));
  }

  std::int64_t count() const { return x_.size(0); }

  /// What `count` rows add to the mean loss of all.
  Tensor loss(const UNet& net, std::int64_t from, std::int64_t count) const {
    const auto rows = [&](const Tensor& all) { return all.narrow(0, from, count).to(net.device()); };
    const Tensor error = net.forward(rows(x_), rows(times_)) - rows(target_);
    return (error.square() * rows(weights_)).sum() / x_.numel();
  }

  /// The mean loss, without gradients.
  double mean_loss(const UNet& net) const {
    std::vector<double> losses(static_cast<std::size_t>(count()));
    for_parts(count(), net.device().is_cpu(), [&](std::int64_t part, std::int64_t from, std::int64_t count) {
      const c10::NoGradGuard no_grad;
      losses[static_cast<std::size_t>(part)] = loss(net, from, count).item<double>();
    });
    return std::accumulate(losses.begin(), losses.end(), 0.0);
  }

 private:
  const Images& images_;
  Tensor x_, target_, times_, weights_;
};

/// The first key whose values differ, one that only one of them has included.
std::optional<std::string> first_difference(const ordered_json& a, const ordered_json& b,
                                            const std::set<std::string>& but = {}) {
  for (const ordered_json* side : {&a, &b}) {
    for (const auto& [key, value] : side->items()) {
      if (!but.contains(key) && (!a.contains(key) || !b.contains(key) || a.at(key) != b.at(key))) return key;
    }
  }
  return std::nullopt;
}

std::string told(const ordered_json& of, const std::string& key) {
  return of.contains(key) ? excerpt(of.at(key)) : "nothing";
}

std::span<const float> numbers_of(const Tensor& tensor) {
  return {tensor.data_ptr<float>(), static_cast<std::size_t>(tensor.numel())};
}

}  // namespace

std::string_view name(Weighting weighting) {
  if (weighting == Weighting::prediction) return "prediction";
  return weighting == Weighting::epsilon ? "epsilon" : "sample";
}

Weighting weighting_from_name(std::string_view text) {
  for (const Weighting weighting : {Weighting::prediction, Weighting::epsilon, Weighting::sample}) {
    if (text == name(weighting)) return weighting;
  }
  throw std::invalid_argument(fmt::format("[weighting_from_name] '{}' is none of prediction, epsilon, sample", text));
}

double loss_weight(Prediction prediction, Weighting weighting, double A, double B) {
  if (weighting == Weighting::prediction) return 1;
  // The squared error of eps in units of the prediction's.
  const double epsilon =
      prediction == Prediction::epsilon ? 1 : (prediction == Prediction::v ? A * A : A * A / (B * B));
  return weighting == Weighting::epsilon ? epsilon : epsilon * B * B / (A * A);
}

struct Trainer::State {
  State(const TrainingOptions& options_, const Images& images_, const at::Device& device_)
      : options(options_),
        images(images_),
        device(device_),
        schedule(options_.process.schedule()),
        net(options_.network, options_.seed),
        average(net.clone()) {
    net.to(device);
    average.to(device);
    for (const auto& [name, tensor] : net.parameters()) {
      adam.add(tensor);
      tensor.requires_grad_(true);
    }
    net.set_half_convolutions(options.half);
  }

  /// The images of a step: every image once an epoch, in an order of its own each time.
  std::int64_t image(std::int64_t place) {
    const std::int64_t epoch = place / images.count;
    if (epoch != shuffled_epoch) {
      order.resize(static_cast<std::size_t>(images.count));
      std::iota(order.begin(), order.end(), 0);
      for (std::size_t i = order.size() - 1; i > 0; --i) {
        const std::uint64_t seed = options.seed + 0x9E3779B97F4A7C15 * static_cast<std::uint64_t>(epoch + 1);
        std::swap(order[i], order[random_below(seed, kOrder, i, i + 1)]);
      }
      shuffled_epoch = epoch;
    }
    return order[static_cast<std::size_t>(place % images.count)];
  }

  /// The mean loss; its gradient goes to the parameters. On the CPU parts of the batch go side by side, a thread each,
  /// and are added in their order: the sum does not depend on the number of threads.
  double find_gradients(const Batch& batch) {
    std::vector<Tensor> parameters;
    for (const auto& [name, tensor] : net.parameters()) parameters.push_back(tensor);
    std::vector<double> losses(static_cast<std::size_t>(batch.count()));
    std::vector<std::vector<Tensor>> gradients(losses.size());
    const auto find = [&](std::int64_t part, std::int64_t from, std::int64_t count) {
      const c10::AutoGradMode with_gradients(true);
      const Tensor loss = batch.loss(net, from, count);
      losses[static_cast<std::size_t>(part)] = loss.item<double>();
      gradients[static_cast<std::size_t>(part)] = torch::autograd::grad({loss}, parameters);
    };
    const bool drops = options.network.dropout > 0;  // what is dropped is drawn one after another
    for_parts(batch.count(), device.is_cpu(), find, drops);
    for_each_parameter([&](std::size_t i) {
      Tensor& sum = parameters[i].mutable_grad() = gradients[0][i].contiguous(parameters[i].suggest_memory_format());
      for (std::size_t part = 1; part < gradients.size() && !gradients[part].empty(); ++part)
        sum.add_(gradients[part][i]);
    });
    return std::accumulate(losses.begin(), losses.end(), 0.0);
  }

  /// Calls work(i), on the CPU side by side: operations of small tensors have no use for threads of their own.
  void for_each_parameter(const std::function<void(std::size_t)>& work) const {
    at::parallel_for(0, static_cast<std::int64_t>(net.parameters().size()), device.is_cpu() ? 1 : kAll,
                     [&](std::int64_t first, std::int64_t last) {
                       const c10::NoGradGuard no_grad;
                       for (std::int64_t i = first; i < last; ++i) work(static_cast<std::size_t>(i));
                     });
  }

  TrainingOptions options;
  const Images& images;
  at::Device device;
  Schedule schedule;
  UNet net, average;
  AdamW adam;
  std::int64_t step = 0;
  std::int64_t shuffled_epoch = -1;
  std::vector<std::int64_t> order;
};

Trainer::Trainer(const TrainingOptions& options, const Images& images, const at::Device& device) {
  check(options, images);
  TrainingOptions sized = options;
  sized.network.sample_size = {static_cast<int>(images.height), static_cast<int>(images.width)};
  state_ = std::make_unique<State>(sized, images, device);
}
Trainer::Trainer(Trainer&&) noexcept = default;
Trainer::~Trainer() = default;

std::int64_t Trainer::steps() const { return state_->step; }
std::int64_t Trainer::steps_per_epoch() const {
  return (state_->images.count + state_->options.batch - 1) / state_->options.batch;
}

void Trainer::start_from(const UNet& net) {
  State& s = *state_;
  const auto refuse = [](const std::string& what) { throw std::invalid_argument("[start_from] " + what); };
  if (s.step > 0) refuse(fmt::format("{} steps are done already", s.step));
  const ordered_json mine = ordered_json::parse(unet_config_text(s.options.network));
  const ordered_json given = ordered_json::parse(unet_config_text(net.config()));
  if (const auto key = first_difference(mine, given, {"sample_size", "dropout"}))
    refuse(fmt::format("{} is {}, not {}", *key, told(given, *key), told(mine, *key)));
  const c10::NoGradGuard no_grad;
  for (std::size_t i = 0; i < net.parameters().size(); ++i) {
    s.net.parameters()[i].second.copy_(net.parameters()[i].second);
    s.average.parameters()[i].second.copy_(net.parameters()[i].second);
  }
}

TrainingStep Trainer::step() {
  State& s = *state_;
  const TrainingOptions& o = s.options;
  const auto draw = static_cast<std::uint64_t>(s.step);
  Batch batch(o.batch, s.images);
  std::vector<double> noise(static_cast<std::size_t>(s.images.size()));
  for (std::int64_t row = 0; row < o.batch; ++row) {
    const auto stream = static_cast<std::uint64_t>(row);
    const bool mirrored = o.mirror && random_below(o.seed, stream, 2 * draw + 1, 2) == 1;
    const auto steps = static_cast<std::uint64_t>(s.schedule.steps());
    const int t = 1 + static_cast<int>(random_below(o.seed, stream, 2 * draw, steps));
    fill_normal(o.seed, stream, draw, noise);
    batch.set(row, s.image(s.step * o.batch + row), mirrored, s.schedule, t, noise, o.process.prediction, o.weighting);
  }

  if (o.network.dropout > 0) at::manual_seed(o.seed * 0x9E3779B97F4A7C15 + draw);
  TrainingStep report;
  report.step = s.step + 1;
  s.net.set_training(true);
  report.loss = s.find_gradients(batch);
  if (!std::isfinite(report.loss))
    throw Error(fmt::format("the loss is {} at step {}", std::abs(report.loss), report.step));
  std::vector<double> squares(s.net.parameters().size());
  s.for_each_parameter(
      [&](std::size_t i) { squares[i] = s.net.parameters()[i].second.grad().square().sum().item<double>(); });
  report.gradient_norm = std::sqrt(std::accumulate(squares.begin(), squares.end(), 0.0));
  if (!std::isfinite(report.gradient_norm))
    throw Error(fmt::format("the gradient's norm is {} at step {}", report.gradient_norm, report.step));
  const bool shorten = o.clip_norm > 0 && report.gradient_norm > o.clip_norm;
  report.learning_rate = o.learning_rate * std::min(1.0, static_cast<double>(report.step) / std::max(1, o.warm_up));
  const double keep = std::min(o.ema, (1.0 + static_cast<double>(s.step)) / (10.0 + static_cast<double>(s.step)));
  s.for_each_parameter([&](std::size_t i) {
    const Tensor& weight = s.net.parameters()[i].second;
    const Tensor gradient = weight.grad() * (shorten ? o.clip_norm / report.gradient_norm : 1);
    s.adam.update(i, weight, gradient, report.step, {report.learning_rate, o.beta1, o.beta2, o.weight_decay});
    s.average.parameters()[i].second.lerp_(weight, 1 - keep);
  });
  s.step = report.step;
  return report;
}

void Trainer::save(const std::filesystem::path& file) const {
  const State& s = *state_;
  std::map<std::string, SafetensorsTensor> tensors;
  std::vector<Tensor> kept;
  const auto add = [&](const std::string& name, const Tensor& tensor) {
    kept.push_back(tensor.detach().cpu().contiguous());
    tensors.emplace(name, SafetensorsTensor{tensor.sizes().vec(), numbers_of(kept.back())});
  };
  for (std::size_t i = 0; i < s.net.parameters().size(); ++i) {
    const auto& [name, tensor] = s.net.parameters()[i];
    add("weight." + name, tensor);
    add("average." + name, s.average.parameters()[i].second);
    add("adam_mean." + name, s.adam.mean(i));
    add("adam_square." + name, s.adam.square(i));
  }
  write_file_atomically(file, safetensors_of(tensors, {{"step", std::to_string(s.step)},
                                                       {"options", as_json(s.options, s.images).dump()}}));
}

void Trainer::load(const std::filesystem::path& file) {
  State& s = *state_;
  const SafetensorsFile saved(file);
  const auto refuse = [&](const std::string& what) { throw Error(fmt::format("{}: {}", file.string(), what)); };
  if (!saved.metadata().contains("options") || !saved.metadata().contains("step")) refuse("no state of training");
  ordered_json was = ordered_json::parse(saved.metadata().at("options"), nullptr, false);
  const ordered_json wanted = as_json(s.options, s.images);
  if (!was.is_object()) refuse("its options are no JSON object");
  // Of states from before these were kept:
  if (!was.contains("half")) was["half"] = false;
  if (!was.contains("pixels")) was["pixels"] = wanted["pixels"];
  if (const auto key = first_difference(wanted, was))
    refuse(fmt::format("was trained with {} = {}, not {}", key->substr(0, 60), told(was, *key), told(wanted, *key)));
  const std::string& text = saved.metadata().at("step");
  constexpr std::int64_t kMostSteps = std::int64_t{1} << 40;
  std::int64_t step = -1;
  const auto [end, problem] = std::from_chars(text.data(), text.data() + text.size(), step);
  if (problem != std::errc() || end != text.data() + text.size() || step < 0 || step > kMostSteps)
    refuse(fmt::format("step '{}' is no number of steps", text.substr(0, 40)));
  std::vector<std::pair<std::string, Tensor>> all;
  for (std::size_t i = 0; i < s.net.parameters().size(); ++i) {
    const auto& [name, tensor] = s.net.parameters()[i];
    all.emplace_back("weight." + name, tensor);
    all.emplace_back("average." + name, s.average.parameters()[i].second);
    all.emplace_back("adam_mean." + name, s.adam.mean(i));
    all.emplace_back("adam_square." + name, s.adam.square(i));
  }
  for (const auto& [name, into] : all) {  // all are looked at before the first is taken
    if (saved.at(name).shape != into.sizes().vec()) refuse(fmt::format("tensor '{}' has another shape", name));
  }
  const c10::NoGradGuard no_grad;
  for (const auto& [name, into] : all) {
    const Tensor values = at::empty(into.sizes(), at::kFloat);
    saved.read(name, 0, {values.data_ptr<float>(), static_cast<std::size_t>(values.numel())});
    into.copy_(values);
  }
  s.step = step;
  s.shuffled_epoch = -1;
}

DiffusionModel Trainer::averaged() const {
  const State& s = *state_;
  return {s.average.clone(), s.options.process, s.images.channels, s.images.height, s.images.width};
}

void Trainer::export_model(const std::filesystem::path& folder, const std::string& type) const {
  const State& s = *state_;
  UNet net(s.options.network);  // with the images' size in its configuration
  const c10::NoGradGuard no_grad;
  for (std::size_t i = 0; i < net.parameters().size(); ++i)
    net.parameters()[i].second.copy_(s.average.parameters()[i].second.cpu());
  net.save(folder, type);
  write_file_atomically(folder / "scheduler_config.json", process_config_text(s.options.process));
}

double validation_loss(const DiffusionModel& model, Weighting weighting, const Images& images, std::int64_t count,
                       int draws, std::uint64_t seed) {
  count = std::min(count, images.count);
  if (images.size() != model.size() || count < 1 || draws < 1)
    throw std::invalid_argument(fmt::format("[validation_loss] {} images of {} numbers, {} draws, for a model of {}",
                                            count, images.size(), draws, model.size()));
  if (model.process.variance == Variance::learned_range)
    throw std::invalid_argument("[validation_loss] the model predicts variances too");
  const Schedule schedule = model.process.schedule();
  const c10::NoGradGuard no_grad;
  double sum = 0;
  std::vector<double> noise(static_cast<std::size_t>(images.size()));
  constexpr std::int64_t kBatch = 64;
  const std::int64_t scatter = count % 7919 == 0 ? 7907 : 7919;  // primes, so that neighbours in time are other images
  for (int draw = 0; draw < draws; ++draw) {
    for (std::int64_t from = 0; from < count; from += kBatch) {
      const std::int64_t rows = std::min(kBatch, count - from);
      Batch batch(rows, images);
      for (std::int64_t row = 0; row < rows; ++row) {
        // Times spread evenly over the images of a draw, so that the mean varies little.
        const std::int64_t n = from + row;
        const int t = 1 + static_cast<int>((2 * n + 1) * schedule.steps() / (2 * count));
        fill_normal(seed, static_cast<std::uint64_t>(n), static_cast<std::uint64_t>(draw), noise);
        batch.set(row, (n * scatter + draw) % count, false, schedule, t, noise, model.process.prediction, weighting);
      }
      sum += batch.mean_loss(model.net) * static_cast<double>(rows);
    }
  }
  return sum / (static_cast<double>(count) * draws);
}

}  // namespace tuiqiao
#endif
