// clang 14, and so clang-tidy, cannot read libtorch 1.13's headers as C++20.
#ifndef __clang_analyzer__
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>

#include "diffusion_commands.h"
#include "diffusion_inputs.h"
#include "diffusion_model.h"
#include "diffusion_sampler_options.h"
#include "file_output.h"
#include "npy.h"
#include "terminal.h"
#include "tuiqiao/diffusion/images.h"
#include "tuiqiao/diffusion/samplers.h"

// The flow both ways: data to latents, latents to data, and paths between.

namespace tuiqiao::cli {

namespace {

using nlohmann::ordered_json;

constexpr const char* kEncodeExamples = R"(Examples:
  tuiqiao diffusion encode --model models/fashion-mnist --data /usr/share/datasets/fashion-mnist -n 16 --steps 200 --out z.npy
  tuiqiao diffusion encode --model analytic:mixture.json --x points.npy --sampler dpm-3 --steps 50 --out z.npy --json
Latents are N(0, 1) numbers where data are like the model's: the state at the last sigma over sqrt(1 + sigma^2), which is what
sample --initial-noise takes. The error told is that of the way there and back, root mean square, by as many steps.)";
constexpr const char* kDecodeExamples = R"(Examples:
  tuiqiao diffusion decode --model models/fashion-mnist --z z.npy --steps 200 --grid back.png
  tuiqiao diffusion decode --model models/fashion-mnist --z z.npy --steps 20 --sampler dpmpp-2m --out x.npy)";
constexpr const char* kInterpolateExamples = R"(Examples:
  tuiqiao diffusion interpolate --model models/fashion-mnist --data /usr/share/datasets/fashion-mnist -n 8 --columns 9 \
      --grid between.png
  tuiqiao diffusion interpolate --model models/fashion-mnist --x x.npy --steps 100 --grid between.png --out between.npy
Data 0 and 1 are the ends of the first row, 2 and 3 of the next, and so on; latents between lie on great circles.)";

struct Arguments {
  ModelArguments model;
  SamplerArguments sampler;
  InputArguments inputs;
  std::string z, out, grid;
  int columns = 9, scale = 2;
  std::int64_t batch = 64;
  bool unchecked = false, as_json = false;
  DeviceArguments device;
};

class Flow {
 public:
  Flow(const Arguments& arguments, const std::stop_token& stop) : a_(arguments), stop_(stop) {
    a_.device.settle();
    check_outputs({{"--out", a_.out}, {"--grid", a_.grid}});
    if (a_.out.empty() && a_.grid.empty()) throw std::invalid_argument("neither --out nor --grid says where to write");
    model_ = std::make_unique<OpenedModel>(open_model(a_.model, a_.device.device));
    if (!model_->is_image() && !a_.grid.empty())
      throw std::invalid_argument("--grid shows images, which an analytic model has not");
    a_.sampler.check_belong();
    a_.sampler.check_flow();
    if (!(a_.sampler.sigma_min > 0)) a_.sampler.sigma_min = model_->schedule.sigma(1);
    falling_ = a_.sampler.sigmas(*model_);
    rising_.assign(falling_.rbegin(), falling_.rend());
  }

  const OpenedModel& model() const { return *model_; }
  void tell_of_reach() const { a_.sampler.tell_of_reach(*model_, falling_); }

  /// To latents, or back, in the place of the data.
  void encode(std::vector<double>& x) { go("encoding", rising_, x, 1, 1 / std::hypot(1, falling_.front())); }
  void decode(std::vector<double>& x) { go("decoding", falling_, x, std::hypot(1, falling_.front()), 1); }

  /// Evaluations of the last way, of the batch that took most.
  std::int64_t nfe() const { return nfe_; }
  /// None where the sampler chooses them.
  std::optional<std::size_t> steps() const {
    return a_.sampler.is_adaptive() ? std::nullopt : std::optional(falling_.size() - 1);
  }
  /// "in 100 steps, 199 evaluations"
  std::string cost() const {
    const auto count = steps();
    return fmt::format("{}{} evaluations", count ? fmt::format("in {} steps, ", *count) : "by ", nfe_);
  }

  void write(const std::vector<double>& values, int columns) const {
    std::vector<std::int64_t> shape = model_->shape;
    shape.insert(shape.begin(), static_cast<std::int64_t>(values.size()) / model_->size());
    if (!a_.out.empty()) write_file_atomically(a_.out, npy_of(values, shape));
    if (!a_.grid.empty())
      write_file_atomically(a_.grid,
                            png_of(image_grid(images_of(values, shape[1], shape[2], shape[3]), columns, a_.scale)));
  }

 private:
  void go(const char* what, const std::vector<double>& sigmas, std::vector<double>& x, double before, double after) {
    const std::int64_t size = model_->size(), count = static_cast<std::int64_t>(x.size()) / size;
    nfe_ = 0;
    for (double& value : x) value *= before;
    for (std::int64_t from = 0; from < count; from += a_.batch) {
      const std::int64_t rows = std::min(a_.batch, count - from);
      SamplerOptions options = a_.sampler.options(sigmas, model_->schedule, 0, 0, size);
      options.progress = {[&](std::string_view, std::int64_t done, std::int64_t total) {
                            bar_.show(what, from * total + rows * done, count * total);
                          },
                          stop_};
      const auto denoiser = model_->denoiser(a_.model, a_.inputs.first + from, rows);
      const std::span<double> batch(x.data() + from * size, static_cast<std::size_t>(rows * size));
      nfe_ = std::max(nfe_, sample(a_.sampler.sampler, *denoiser, sigmas, image_noise(0, 0, size), options, batch));
    }
    for (double& value : x) value *= after;
    bar_.clear();
  }

  Arguments a_;
  std::stop_token stop_;
  std::unique_ptr<OpenedModel> model_;
  std::vector<double> falling_, rising_;
  std::int64_t nfe_ = 0;
  ProgressBar bar_;
};

double root_mean_square(const std::vector<double>& a, const std::vector<double>& b) {
  double sum = 0;
  for (std::size_t i = 0; i < a.size(); ++i) sum += (a[i] - b[i]) * (a[i] - b[i]);
  return std::sqrt(sum / static_cast<double>(a.size()));
}

int encode(const Arguments& a, const std::stop_token& stop) {
  Flow flow(a, stop);
  const Inputs data = read_inputs(a.inputs, flow.model());
  flow.tell_of_reach();
  std::vector<double> z = data.values;
  flow.encode(z);
  flow.write(z, 0);
  ordered_json told{{"n", data.count}, {"sampler", a.sampler.sampler}};
  if (flow.steps()) told["steps"] = *flow.steps();
  told["nfe"] = flow.nfe();
  const std::string cost = flow.cost();
  double squares = 0;
  for (const double value : z) squares += value * value / static_cast<double>(z.size());
  told["latent_rms"] = std::sqrt(squares);
  if (!a.unchecked) {
    flow.decode(z);
    told["round_trip_rms"] = root_mean_square(z, data.values);
  }
  told["peak_rss_bytes"] = peak_rss_bytes();
  if (a.as_json) {
    print(told.dump() + "\n");
  } else {
    tell(fmt::format("{} {}; latents of root mean square {:.4f}{}\n", count_of(data), cost, std::sqrt(squares),
                     a.unchecked ? "" : fmt::format("; there and back {:.3g}", told["round_trip_rms"].get<double>())));
  }
  return kDone;
}

int decode(const Arguments& a, const std::stop_token& stop) {
  Flow flow(a, stop);
  Inputs latents = read_states(a.z, flow.model());
  flow.tell_of_reach();
  flow.decode(latents.values);
  flow.write(latents.values, 0);
  tell(fmt::format("{} data {}, peak memory {} MB\n", latents.count, flow.cost(), peak_rss_bytes() >> 20));
  return kDone;
}

/// Points of the great circle through two rows, of lengths between theirs.
std::vector<double> between(std::span<const double> a, std::span<const double> b, int columns) {
  double aa = 0, bb = 0, ab = 0;
  for (std::size_t i = 0; i < a.size(); ++i) {
    aa += a[i] * a[i];
    bb += b[i] * b[i];
    ab += a[i] * b[i];
  }
  const double angle = std::acos(std::clamp(ab / std::sqrt(std::max(aa * bb, 1e-300)), -1.0, 1.0));
  std::vector<double> rows;
  for (int c = 0; c < columns; ++c) {
    const double part = static_cast<double>(c) / (columns - 1);
    const bool straight = std::sin(angle) < 1e-8;
    const double of_a = straight ? 1 - part : std::sin((1 - part) * angle) / std::sin(angle);
    const double of_b = straight ? part : std::sin(part * angle) / std::sin(angle);
    for (std::size_t i = 0; i < a.size(); ++i) rows.push_back(of_a * a[i] + of_b * b[i]);
  }
  return rows;
}

int interpolate(const Arguments& a, const std::stop_token& stop) {
  Flow flow(a, stop);
  Inputs data = read_inputs(a.inputs, flow.model());
  if (data.count % 2 != 0)
    throw std::invalid_argument(fmt::format("-n: {} data are no pairs to go between", data.count));
  if (a.model.classes.size() > 1)
    throw std::invalid_argument("--class: between two classes there is none to decode by; give one for all");
  flow.tell_of_reach();
  flow.encode(data.values);
  const auto size = static_cast<std::size_t>(flow.model().size());
  const std::span<const double> z(data.values);
  std::vector<double> path;
  for (std::size_t pair = 0; pair < static_cast<std::size_t>(data.count) / 2; ++pair) {
    const auto row = between(z.subspan(2 * pair * size, size), z.subspan((2 * pair + 1) * size, size), a.columns);
    path.insert(path.end(), row.begin(), row.end());
  }
  flow.decode(path);
  flow.write(path, a.columns);
  tell(fmt::format("{} paths of {} data between {}, {} evaluations each way, peak memory {} MB\n", data.count / 2,
                   a.columns, count_of(data), flow.nfe(), peak_rss_bytes() >> 20));
  return kDone;
}

/// Options that all three have.
void add_common(CLI::App& app, Arguments& a, const char* examples) {
  app.footer(examples);
  a.model.add_to(app);
  a.sampler.sampler = "heun";
  a.sampler.steps = 100;
  a.sampler.schedule = "log_sigma";
  a.sampler.with_steps = false;  // they end at sigma 0, from where there is no way back
  a.sampler.add_to(app);
  app.get_option("--sigma-min")->description("The lowest sigma, that of data [the process's first]");
  app.add_option("--batch", a.batch, "Data at once [64]")
      ->type_name("N")
      ->check(CLI::Range(std::int64_t{1}, std::int64_t{1} << 31));
  a.device.add_to(app);
}

void add_pictures(CLI::App& app, Arguments& a) {
  app.add_option("--out", a.out, "Write the data here as .npy, float64")->type_name("FILE");
  app.add_option("--grid", a.grid, "Write them here as one .png")->type_name("FILE");
  app.add_option("--scale", a.scale, "Pixels a side of each pixel in .png files [2]")
      ->type_name("N")
      ->check(CLI::Range(1, 64));
}

}  // namespace

Run add_diffusion_encode(CLI::App& app) {
  const auto arguments = std::make_shared<Arguments>();
  Arguments& a = *arguments;
  add_common(app, a, kEncodeExamples);
  a.inputs.as_it_is = true;
  a.inputs.add_to(app);
  app.add_option("--out", a.out, "Write the latents here as .npy, float64")->type_name("FILE")->required();
  app.add_flag("--unchecked", a.unchecked, "Do not go back to tell the error");
  app.add_flag("--json", a.as_json,
               "Print one JSON object: n, sampler, steps, nfe, latent_rms, round_trip_rms, peak_rss_bytes");
  return [arguments](const std::stop_token& stop) { return encode(*arguments, stop); };
}

Run add_diffusion_decode(CLI::App& app) {
  const auto arguments = std::make_shared<Arguments>();
  Arguments& a = *arguments;
  add_common(app, a, kDecodeExamples);
  app.add_option("--z", a.z, "Latents, an .npy file that encode wrote")->type_name("FILE")->required();
  add_pictures(app, a);
  return [arguments](const std::stop_token& stop) { return decode(*arguments, stop); };
}

Run add_diffusion_interpolate(CLI::App& app) {
  const auto arguments = std::make_shared<Arguments>();
  Arguments& a = *arguments;
  add_common(app, a, kInterpolateExamples);
  a.inputs.as_it_is = true;
  a.inputs.count = 8;
  a.inputs.add_to(app);
  app.add_option("--columns", a.columns, "Data in a row, with its ends [9]")
      ->type_name("N")
      ->check(CLI::Range(2, 1000));
  add_pictures(app, a);
  return [arguments](const std::stop_token& stop) { return interpolate(*arguments, stop); };
}

}  // namespace tuiqiao::cli
#endif
