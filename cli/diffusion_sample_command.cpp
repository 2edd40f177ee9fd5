// clang 14, and so clang-tidy, cannot read libtorch 1.13's headers as C++20.
#ifndef __clang_analyzer__
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>
#include <optional>
#include <stdexcept>

#include "diffusion_commands.h"
#include "diffusion_inputs.h"
#include "diffusion_model.h"
#include "diffusion_sampler_options.h"
#include "file_output.h"
#include "npy.h"
#include "program.h"
#include "terminal.h"
#include "tuiqiao/diffusion/ancestral.h"
#include "tuiqiao/diffusion/images.h"
#include "tuiqiao/error.h"

namespace tuiqiao::cli {

namespace {

using nlohmann::ordered_json;

constexpr const char* kExamples = R"(Examples:
  tuiqiao diffusion sample --model models/fashion-mnist -n 64 --steps 50 --grid clothes.png
  tuiqiao diffusion sample --model models/fashion-mnist -n 64 --sampler dpmpp-2m --schedule karras --steps 10 --grid few.png
  tuiqiao diffusion sample --model analytic:mixture.json -n 1000 --steps 1000 --variance beta --noise-in-last-step
  tuiqiao diffusion sample --model analytic:mixture.json -n 8 --sampler unipc --schedule log_sigma --steps 40 --sigma-min 0.1
Samples lie in [-1, 1] as the network saw its data. Image i has noise of its own, a function of the seed and i, so that
neither -n nor --batch changes it (but for the rounding of the network); the adaptive sampler alone chooses its steps for
a whole batch. Samplers other than the ancestral start at --initial-noise times sqrt(1 + sigma^2) of the first sigma, in the variables
x / A. Samples stopped at --sigma-min are in those variables too. Where orders or exact inversion count, --clip 0.)";

struct Arguments {
  ModelArguments model;
  SamplerArguments sampler;
  std::int64_t count = 64, batch = 64;
  int scale = 2;
  std::uint64_t seed = 0, first = 0;
  std::string variance, initial_noise, out, grid, trajectory, data;
  std::int64_t variance_images = 512;
  double clip = -1;
  bool noise_in_last_step = false, as_json = false;
  bool variance_images_given = false, initial_noise_given = false, count_given = false;
  DeviceArguments device;
};

constexpr const char* kAncestral = "ancestral";
constexpr int kTrajectoryImages = 8, kTrajectoryColumns = 10;

class SampleRun {
 public:
  SampleRun(const Arguments& arguments, const std::stop_token& stop) : a_(arguments) { options_.progress.stop = stop; }

  int operator()() {
    a_.device.settle();
    check_outputs({{"--out", a_.out}, {"--grid", a_.grid}, {"--trajectory", a_.trajectory}});
    model_.emplace(open_model(a_.model, a_.device.device));
    if (!model_->is_image() && !(a_.grid.empty() && a_.trajectory.empty()))
      throw std::invalid_argument("--grid and --trajectory show images, which an analytic model has not");
    options_.clip = a_.clip < 0 ? model_->clip : a_.clip;
    if (!takes_data() && (!a_.data.empty() || a_.variance_images_given))
      throw std::invalid_argument("--data and --variance-images go with --variance optimal");
    if (is_ancestral()) {
      settle_ancestral();
    } else {
      settle_sampler();
    }
    initial_noise();
    check_streams();
    a_.sampler.tell_of_reach(*model_, is_ancestral() ? std::vector{model_->schedule.sigma(steps_.front())} : sigmas_);
    estimate_variances();
    for (std::int64_t from = 0; from < a_.count; from += a_.batch) sample(from, std::min(a_.batch, a_.count - from));
    bar_.clear();
    if (!a_.trajectory.empty() && seen_.empty()) throw std::invalid_argument("--trajectory: there is no step to show");
    write();
    return kDone;
  }

 private:
  bool is_ancestral() const { return a_.sampler.sampler == kAncestral; }

  bool takes_data() const { return is_ancestral() && a_.variance == name(Variance::optimal); }

  /// Each image's noise has a stream of its own.
  void check_streams() const {
    constexpr std::uint64_t kStreams = std::uint64_t{1} << 32;
    if (a_.first >= kStreams || static_cast<std::uint64_t>(a_.count) > kStreams - a_.first)
      throw std::invalid_argument(fmt::format("--first {}: images are numbered below {}", a_.first, kStreams));
  }

  void settle_ancestral() {
    a_.sampler.check_belong();
    if (a_.sampler.brownian)
      throw std::invalid_argument(
          "--brownian: the ancestral sampler's steps are the process's, with noise of their own");
    if (a_.sampler.schedule != "steps")
      throw std::invalid_argument("--schedule: the ancestral sampler takes the process's own steps");
    options_.variance = a_.variance.empty() ? model_->variance : variance_from_name(a_.variance);
    options_.noise_in_last_step = a_.noise_in_last_step;
    steps_ = a_.sampler.process_steps(*model_);
  }

  void settle_sampler() {
    a_.sampler.check_belong();
    if (!a_.variance.empty() || a_.noise_in_last_step)
      throw std::invalid_argument("--variance and --noise-in-last-step are the ancestral sampler's");
    sigmas_ = a_.sampler.sigmas(*model_);
  }

  void initial_noise() {
    if (!a_.initial_noise_given) {
      x_.resize(static_cast<std::size_t>(a_.count * model_->size()));
      image_noise(a_.seed, a_.first, model_->size())(0, x_);
      return;
    }
    if (a_.initial_noise.empty()) throw std::invalid_argument("--initial-noise: names no file");
    Inputs noise = read_states(a_.initial_noise, *model_);
    if (a_.count_given && a_.count != noise.count)
      throw std::invalid_argument(fmt::format("-n {}: {} holds noise for {}", a_.count, a_.initial_noise, noise.count));
    a_.count = noise.count;
    x_ = std::move(noise.values);
  }

  void estimate_variances() {
    if (!is_ancestral() || options_.variance != Variance::optimal) return;
    std::vector<double> data;
    if (model_->mixture) {
      data.resize(static_cast<std::size_t>(a_.variance_images * model_->size()));
      sample_mixture(*model_->mixture, a_.seed + 1, 0, data);
    } else {
      if (a_.data.empty()) throw std::invalid_argument("--variance optimal needs --data to estimate it from");
      const Images images = read_images_for(*model_, a_.data);
      const std::int64_t count = std::min(images.count, a_.variance_images);
      for (std::int64_t i = 0; i < count * images.size(); ++i)
        data.push_back(unit_of(images.values[static_cast<std::size_t>(i)]));
    }
    if (!model_->is_image() || a_.model.classes.empty()) {
      const auto denoiser = model_->denoiser(a_.model, 0, a_.batch);
      Progress progress = options_.progress;
      progress.report = [&](std::string_view what, std::int64_t done, std::int64_t total) {
        bar_.show(what, done, total);
      };
      options_.mean_square_errors = mean_square_errors(*denoiser, model_->schedule, steps_, data, 1, a_.seed + 2,
                                                       a_.batch, progress, options_.clip);
      return;
    }
    throw std::invalid_argument("--variance optimal is not estimated for networks with classes");
  }

  void sample(std::int64_t from, std::int64_t rows) {
    const std::int64_t size = model_->size();
    const auto inner = model_->denoiser(a_.model, static_cast<std::int64_t>(a_.first) + from, rows);
    const CountingDenoiser denoiser(*inner);
    const std::span<double> x(x_.data() + from * size, static_cast<std::size_t>(rows * size));
    const std::uint64_t first = a_.first + static_cast<std::uint64_t>(from);
    options_.progress.report = [&](std::string_view what, std::int64_t done, std::int64_t total) {
      bar_.show(what, from * total + rows * done, a_.count * total);
    };
    const double start = CountingDenoiser::now();
    is_ancestral() ? run_ancestral(denoiser, first, from == 0, x) : run_sampler(denoiser, first, from == 0, x);
    seconds_ += CountingDenoiser::now() - start;
    network_seconds_ += denoiser.seconds();
    evaluations_ = std::max(evaluations_, denoiser.evaluations());
  }

  void run_ancestral(const Denoiser& denoiser, std::uint64_t first, bool watched, std::span<double> x) {
    options_.watch = [&](const SampleStep& step) {
      if (watched) watch(step.index, static_cast<int>(steps_.size()), step.predicted);
    };
    sample_ancestral(denoiser, model_->schedule, steps_, image_noise(a_.seed, first, model_->size()), options_, x);
  }

  /// From where the ancestral sampler starts, in its variables: N(0, 1) over the process's last signal.
  void run_sampler(const Denoiser& denoiser, std::uint64_t first, bool watched, std::span<double> x) {
    SamplerOptions options = a_.sampler.options(sigmas_, model_->schedule, a_.seed, first, model_->size());
    options.clip = options_.clip;
    options.progress = options_.progress;
    options.watch = [&](const SamplerStep& step) {
      if (watched) watch(step.index, static_cast<int>(sigmas_.size()) - 1, step.predicted);
    };
    const double scale = std::hypot(1, sigmas_.front());
    for (double& value : x) value *= scale;
    tuiqiao::sample(a_.sampler.sampler, denoiser, sigmas_, image_noise(a_.seed, first, model_->size()), options, x);
  }

  /// Keeps the predicted x_0 of the first images at steps spread over the run.
  void watch(int step, int steps, std::span<const double> predicted) {
    if (a_.trajectory.empty()) return;
    const int columns = std::min(kTrajectoryColumns, steps), column = static_cast<int>(seen_.size());
    if (column >= columns || step < (columns == 1 ? 0 : column * (steps - 1) / (columns - 1))) return;
    const auto size = static_cast<std::size_t>(model_->size());
    const auto rows = std::min<std::size_t>(kTrajectoryImages, predicted.size() / size);
    const auto end = predicted.begin() + static_cast<std::ptrdiff_t>(rows * size);
    seen_.emplace_back(predicted.begin(), end);
  }

  Images as_images(std::span<const double> x) const {
    return images_of(x, model_->shape[0], model_->shape[1], model_->shape[2]);
  }

  /// How it was sampled.
  ordered_json summary() const {
    ordered_json result{{"model", a_.model.model}, {"sampler", a_.sampler.sampler}};
    if (!is_ancestral()) {
      result.update(a_.sampler.told());
      if (!a_.sampler.is_adaptive()) result["steps"] = sigmas_.size() - 1;
      result["sigmas"] = a_.sampler.is_adaptive() ? std::vector<double>{sigmas_.front(), sigmas_.back()} : sigmas_;
      return result;
    }
    result["steps"] = steps_.size();
    result["variance"] = std::string(name(options_.variance));
    result["noise_in_last_step"] = options_.noise_in_last_step;
    if (!options_.mean_square_errors.empty()) result["mean_square_errors"] = options_.mean_square_errors;
    return result;
  }

  void write() const {
    std::vector<std::int64_t> shape = model_->shape;
    shape.insert(shape.begin(), a_.count);
    if (!a_.out.empty()) write_file_atomically(a_.out, npy_of(x_, shape));
    if (!a_.grid.empty()) write_file_atomically(a_.grid, png_of(image_grid(as_images(x_), 0, a_.scale)));
    if (!a_.trajectory.empty()) {
      std::vector<double> rows;
      const auto size = static_cast<std::size_t>(model_->size());
      for (std::size_t row = 0; row < seen_.front().size() / size; ++row) {
        for (const auto& column : seen_)
          rows.insert(rows.end(), column.begin() + static_cast<std::ptrdiff_t>(row * size),
                      column.begin() + static_cast<std::ptrdiff_t>((row + 1) * size));
      }
      write_file_atomically(a_.trajectory,
                            png_of(image_grid(as_images(rows), static_cast<int>(seen_.size()), a_.scale)));
    }
    const bool silent = a_.out.empty() && a_.grid.empty() && a_.trajectory.empty() && !a_.as_json;
    if (silent) {
      std::string text;
      const auto size = static_cast<std::size_t>(model_->size());
      for (std::size_t i = 0; i < x_.size(); ++i)
        text += fmt::format("{:.8g}{}", x_[i], (i + 1) % size == 0 ? '\n' : ' ');
      print(text);
    }
    if (a_.as_json) {
      ordered_json result = summary();
      result["n"] = a_.count;
      result["shape"] = shape;
      result["nfe"] = evaluations_;
      result["clip"] = options_.clip;
      result["seed"] = std::to_string(a_.seed);
      result["first"] = std::to_string(a_.first);
      if (!a_.model.classes.empty()) result["classes"] = a_.model.classes;
      result["seconds"] = seconds_;
      result["network_seconds"] = network_seconds_;
      result["peak_rss_bytes"] = peak_rss_bytes();
      print(result.dump() + "\n");
    } else {
      const std::string steps = a_.sampler.is_adaptive()
                                    ? "steps by its error, at most"
                                    : fmt::format("{} steps,", is_ancestral() ? steps_.size() : sigmas_.size() - 1);
      tell(fmt::format("{} of {} {} evaluations each, {:.1f} s ({:.1f} % outside the model), peak memory {} MB\n",
                       a_.count, steps, evaluations_, seconds_, 100 * (1 - network_seconds_ / seconds_),
                       peak_rss_bytes() >> 20));
    }
  }

  Arguments a_;
  std::optional<OpenedModel> model_;
  AncestralOptions options_;
  std::vector<int> steps_;      ///< of the ancestral sampler
  std::vector<double> sigmas_;  ///< of the others
  std::vector<double> x_;
  std::vector<std::vector<double>> seen_;
  double seconds_ = 0, network_seconds_ = 0;
  std::int64_t evaluations_ = 0;
  ProgressBar bar_;
};

}  // namespace

Run add_diffusion_sample(CLI::App& app) {
  const auto arguments = std::make_shared<Arguments>();
  Arguments& a = *arguments;
  app.footer(kExamples);
  a.model.add_to(app);
  const auto positive = CLI::Range(std::int64_t{1}, std::int64_t{1} << 31);
  app.add_option("-n,--count", a.count, "Samples [64]")->type_name("N")->check(positive);
  a.sampler.sampler = kAncestral;
  a.sampler.with_ancestral = true;
  a.sampler.add_to(app);
  app.add_option(
         "--variance", a.variance,
         "Of the ancestral sampler: posterior, beta, learned_range or optimal [the model's own, else posterior]")
      ->type_name("NAME");
  app.add_option("--data", a.data, "Images that --variance optimal is estimated from, as for train")->type_name("PATH");
  app.add_option("--variance-images", a.variance_images, "How many of them [512]")->type_name("N")->check(positive);
  app.add_flag("--noise-in-last-step", a.noise_in_last_step, "Add noise in the last step too (diffusers adds none)");
  app.add_option("--clip", a.clip, "Hold predicted data within [-C, C]; 0 lets it be [the model's own, else 0]")
      ->type_name("C")
      ->check(number_from_zero());
  app.add_option("--seed", a.seed, "Of all noise [0]")->type_name("S")->check(whole_number());
  app.add_option("--first", a.first, "Number of the first image, for its noise [0]")
      ->type_name("I")
      ->check(whole_number());
  app.add_option("--initial-noise", a.initial_noise,
                 "An .npy file of N(0, 1) numbers to start from, as many samples as it holds")
      ->type_name("FILE");
  app.add_option("--batch", a.batch, "Images at once [64]")->type_name("N")->check(positive);
  app.add_option("--out", a.out, "Write the samples here as .npy, float64 [N, C, H, W]")->type_name("FILE");
  app.add_option("--grid", a.grid, "Write them here as one .png")->type_name("FILE");
  app.add_option("--trajectory", a.trajectory,
                 "Write here, as .png, what the first 8 images were predicted to be on the way")
      ->type_name("FILE");
  app.add_option("--scale", a.scale, "Pixels a side of each pixel in .png files [2]")
      ->type_name("N")
      ->check(CLI::Range(1, 64));
  app.add_flag("--json", a.as_json, "Print one JSON object: how it was sampled, evaluations, seconds, peak_rss_bytes");
  a.device.add_to(app);
  return [arguments, &app](const std::stop_token& stop) {
    arguments->variance_images_given = app.count("--variance-images") > 0;
    arguments->initial_noise_given = app.count("--initial-noise") > 0;
    arguments->count_given = app.count("--count") > 0;
    return SampleRun(*arguments, stop)();
  };
}

}  // namespace tuiqiao::cli
#endif
