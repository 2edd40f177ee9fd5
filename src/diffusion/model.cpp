// clang 14, and so clang-tidy, cannot read libtorch 1.13's headers as C++20.
#ifndef __clang_analyzer__
#include "tuiqiao/diffusion/model.h"

#include <ATen/ATen.h>
#include <c10/core/GradMode.h>
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <stdexcept>
#include <utility>

#include "diffusion/parts.h"

namespace tuiqiao {

namespace fs = std::filesystem;

namespace {

/// The sides of a datum are what a file says, and memory is asked for by them.
void check_sides(const fs::path& file, const UNetConfig& config) {
  const std::int64_t unit = std::int64_t{1} << (config.block_out_channels.size() - 1);
  std::int64_t size = config.in_channels;
  for (const std::int64_t side : config.sample_size) {
    if (side % unit != 0)
      throw Error(fmt::format("{}: field 'sample_size' holds {}; of {} levels it is a multiple of {}", file.string(),
                              side, config.block_out_channels.size(), unit));
    constexpr std::int64_t kMost = std::int64_t{1} << 28;
    if (side > kMost / size)
      throw Error(fmt::format("{}: field 'sample_size' makes data of more than {} numbers", file.string(), kMost));
    size *= side;
  }
}

}  // namespace

DiffusionModel load_diffusion_model(const fs::path& folder, const at::Device& device) {
  const bool pipeline = !fs::exists(folder / "config.json") && fs::exists(folder / "unet" / "config.json");
  const fs::path where = pipeline ? folder / "unet" : folder;
  DiffusionModel model{UNet::load(where), {}};
  const UNetConfig& config = model.net.config();
  if (config.time_embedding_type == "fourier")
    throw Error(fmt::format("{}: a network of continuous sigma (time embedding 'fourier'), not of discrete steps",
                            where.string()));
  if (config.sample_size.empty())
    throw Error(fmt::format("{}: field 'sample_size' is missing", (where / "config.json").string()));
  model.process = read_process_config((pipeline ? folder / "scheduler" : folder) / "scheduler_config.json");
  check_sides(where / "config.json", config);
  model.channels = config.in_channels;
  model.height = config.sample_size[0];
  model.width = config.sample_size[1];
  const bool learned = model.process.variance == Variance::learned_range;
  if (config.out_channels != config.in_channels * (learned ? 2 : 1))
    throw Error(fmt::format("{}: field 'out_channels' is {} for {} channels{}", (where / "config.json").string(),
                            config.out_channels, config.in_channels, learned ? " with learned variances" : ""));
  model.net.to(device);
  return model;
}

namespace {

/// What the network makes of rows x_t at a step of the process, on its device. No classes: it wants none.
at::Tensor answer(const DiffusionModel& model, const at::Tensor& x, double step,
                  std::span<const std::int64_t> classes) {
  const at::Device device = model.net.device();
  const at::Tensor t = at::full({x.size(0)}, step - 1, at::kFloat);  // diffusers counts from 0
  at::Tensor labels;
  if (!classes.empty())
    labels = at::tensor(at::ArrayRef<std::int64_t>(classes.data(), static_cast<std::size_t>(x.size(0)))).to(device);
  return model.net.forward(x.to(device), t.to(device), labels);
}

void check_classes(const char* function, std::span<const std::int64_t> classes, std::int64_t rows) {
  if (!classes.empty() && static_cast<std::int64_t>(classes.size()) != rows)
    throw std::invalid_argument(fmt::format("[{}] {} classes for {} rows", function, classes.size(), rows));
}

/// Rows of numbers as images.
at::Tensor images_tensor(const DiffusionModel& model, std::span<const double> x) {
  at::Tensor images = at::empty(
      {static_cast<std::int64_t>(x.size()) / model.size(), model.channels, model.height, model.width}, at::kFloat);
  std::copy(x.begin(), x.end(), images.data_ptr<float>());
  return images;
}

}  // namespace

std::unique_ptr<Denoiser> denoiser_of(const DiffusionModel& model, std::vector<std::int64_t> classes) {
  const auto run = [&model, classes = std::move(classes)](std::span<const double> x, double step,
                                                          std::span<double> output) {
    const std::int64_t rows = static_cast<std::int64_t>(x.size()) / model.size();
    if (rows == 0) return;
    check_classes("denoiser_of", classes, rows);
    const auto size = static_cast<std::size_t>(model.size()), made = output.size() / static_cast<std::size_t>(rows);
    for_parts(rows, model.net.device().is_cpu(), [&](std::int64_t, std::int64_t from_row, std::int64_t rows_of_part) {
      const c10::NoGradGuard no_grad;
      const auto from = static_cast<std::size_t>(from_row), count = static_cast<std::size_t>(rows_of_part);
      const auto labels = classes.empty() ? std::span<const std::int64_t>() : std::span(classes).subspan(from, count);
      const at::Tensor in = images_tensor(model, x.subspan(from * size, count * size));
      const at::Tensor out = answer(model, in, step, labels).cpu().contiguous();
      if (static_cast<std::size_t>(out.numel()) != count * made)
        throw std::invalid_argument(fmt::format("[denoiser_of] a network of {} channels to {}, with{} variances",
                                                in.size(1), out.size(1), made > size ? "" : "out"));
      std::copy_n(out.data_ptr<float>(), count * made, output.begin() + static_cast<std::ptrdiff_t>(from * made));
    });
  };
  return std::make_unique<ModelDenoiser>(run, model.size(), model.process.schedule(), model.process.prediction,
                                         model.process.variance == Variance::learned_range);
}

namespace {

/// v' (dout/dx) v of rows, for each of the probes that follow one another; `x` and `out` hold the graph.
void probe(at::Tensor& x, const at::Tensor& out, std::span<const double> probes, std::span<double> products) {
  const auto numbers = static_cast<std::size_t>(x.numel());
  const std::size_t count = probes.size() / numbers, rows = products.size() / count, width = numbers / rows;
  for (std::size_t p = 0; p < count; ++p) {
    at::Tensor v = at::empty(x.sizes(), at::kFloat);
    std::copy_n(probes.data() + p * numbers, numbers, v.data_ptr<float>());
    x.mutable_grad() = at::Tensor();
    out.backward(v.to(x.device()), p + 1 < count);
    const at::Tensor pulled = x.grad().cpu().contiguous();
    for (std::size_t row = 0; row < rows; ++row) {
      double sum = 0;
      for (std::size_t i = row * width; i < (row + 1) * width; ++i)
        sum += probes[p * numbers + i] * static_cast<double>(pulled.data_ptr<float>()[i]);
      products[p * rows + row] = sum;
    }
  }
}

/// The network at steps of one process, with the graph of its inputs.
class TracedNetwork {
 public:
  TracedNetwork(const DiffusionModel& model, std::vector<std::int64_t> classes)
      : model_(model), schedule_(model.process.schedule()), classes_(std::move(classes)) {}

  void operator()(std::span<const double> x, double sigma, std::span<const double> probes, std::span<double> denoised,
                  std::span<double> traces) const {
    check_classes("trace_of", classes_, static_cast<std::int64_t>(x.size()) / model_.size());
    const double A = 1 / std::hypot(1, sigma), B = sigma * A;
    std::vector<double> scaled(x.begin(), x.end());
    for (double& value : scaled) value *= A;
    at::Tensor in = images_tensor(model_, scaled).to(model_.net.device()).requires_grad_(!probes.empty());
    const double step = schedule_.step_of(sigma);
    const at::Tensor out = answer(model_, in, step, classes_);
    const at::Tensor values = out.detach().cpu().contiguous();
    for (std::size_t i = 0; i < x.size(); ++i)
      denoised[i] =
          clean_of(model_.process.prediction, static_cast<double>(values.data_ptr<float>()[i]), scaled[i], A, B);
    if (probes.empty()) {
      for (std::size_t row = 0; row < traces.size(); ++row) traces[row] = whole_trace(in, row, step);
    } else {
      probe(in, out, probes, traces);
    }
    // From the network's derivative in x_t to that of D in x = x_t / A. Probes of 1 and -1 have the square `size`.
    const auto size = static_cast<double>(model_.size());
    for (double& trace : traces) {
      const Prediction prediction = model_.process.prediction;
      if (prediction == Prediction::epsilon) trace = size - B * trace;
      if (prediction == Prediction::sample) trace = A * trace;
      if (prediction == Prediction::v) trace = A * A * size - A * B * trace;
    }
  }

 private:
  static constexpr std::int64_t kChunk = 112;  // numbers of a datum that are probed at once

  /// Row after row of the identity as probes of copies of one datum.
  double whole_trace(const at::Tensor& all, std::size_t row, double step) const {
    const std::int64_t size = model_.size();
    double sum = 0;
    for (std::int64_t from = 0; from < size; from += kChunk) {
      const std::int64_t count = std::min(kChunk, size - from);
      at::Tensor x =
          all[static_cast<std::int64_t>(row)].detach().unsqueeze(0).repeat({count, 1, 1, 1}).requires_grad_(true);
      const std::vector<std::int64_t> classes(classes_.empty() ? 0 : static_cast<std::size_t>(count),
                                              classes_.empty() ? 0 : classes_[row]);
      const at::Tensor out = answer(model_, x, step, classes);
      at::Tensor v = at::zeros({count, size}, at::kFloat);
      for (std::int64_t i = 0; i < count; ++i) v.data_ptr<float>()[i * size + from + i] = 1;
      out.backward(v.view(x.sizes()).to(x.device()));
      const at::Tensor pulled = x.grad().cpu().contiguous();
      for (std::int64_t i = 0; i < count; ++i)
        sum += static_cast<double>(pulled.data_ptr<float>()[i * size + from + i]);
    }
    return sum;
  }

  const DiffusionModel& model_;
  Schedule schedule_;
  std::vector<std::int64_t> classes_;
};

}  // namespace

TraceFunction trace_of(const DiffusionModel& model, std::vector<std::int64_t> classes) {
  if (model.process.variance == Variance::learned_range)
    throw std::invalid_argument("[trace_of] a network that predicts variances");
  return TracedNetwork(model, std::move(classes));
}

}  // namespace tuiqiao
#endif
