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
#include "program.h"
#include "terminal.h"
#include "tuiqiao/diffusion/images.h"
#include "tuiqiao/diffusion/samplers.h"

// Data part of the way into noise and back: SDEdit (arXiv 2108.01073), or along the flow both ways.

namespace tuiqiao::cli {

namespace {

using nlohmann::ordered_json;

constexpr const char* kExamples = R"(Examples:
  tuiqiao diffusion edit --model models/fashion-mnist --data /usr/share/datasets/fashion-mnist -n 8 --strength 0.5 --grid edited.png
  tuiqiao diffusion edit --model models/fashion-mnist --data /usr/share/datasets/fashion-mnist -n 8 --strength 1 --mask mask.npy \
      --grid filled.png
  tuiqiao diffusion edit --model models/fashion-mnist --x x.npy --by flow --strength 0.6 --rho-bottom 0.8 --out y.npy
By noise: noise is added up to a step of the process, --strength of all its steps, and a sampler goes back from there: the
more, the less is kept. By flow: the flow goes up without noise by the plain model, and down with --to-class, --rho-bottom and
the like (heun, unless another sampler is named). What a --mask holds at 0 comes back as it was, and the rest is fitted to it.)";

// Noise lets a sampler fit what may change to what is held; the flow has none.
constexpr const char *kByNoise = "sde-dpmpp-2m", *kByFlow = "heun";

struct Arguments {
  ModelArguments model;
  SamplerArguments sampler;
  InputArguments inputs;
  std::vector<std::int64_t> to_class;
  std::string by = "noise", mask, out, grid;
  double strength = 0.3;
  int variations = 4, scale = 2;
  std::int64_t batch = 64;
  std::uint64_t seed = 0;
  bool as_json = false, sampler_given = false, variations_given = false;
  DeviceArguments device;
};

class Edit {
 public:
  Edit(const Arguments& arguments, const std::stop_token& stop) : a_(arguments), stop_(stop) {}

  int operator()() {
    a_.device.settle();
    check_outputs({{"--out", a_.out}, {"--grid", a_.grid}});
    if (a_.out.empty() && a_.grid.empty() && !a_.as_json)
      throw std::invalid_argument("neither --out nor --grid says where to write");
    model_.emplace(open_model(a_.model, a_.device.device));
    if (!model_->is_image() && !a_.grid.empty())
      throw std::invalid_argument("--grid shows images, which an analytic model has not");
    if (by_flow() && a_.variations_given && a_.variations != 1)
      throw std::invalid_argument("--variations: the flow has one answer");
    settle_sigmas();
    const Inputs data = read_inputs(a_.inputs, *model_);
    count_ = data.count;
    available_ = data.available;
    count_text_ = count_of(data);
    settle_mask();
    a_.sampler.tell_of_reach(*model_, sigmas_);
    const auto size = static_cast<std::size_t>(model_->size());
    for (std::int64_t n = 0; n < count_; ++n) {
      const auto row = data.values.begin() + n * model_->size();
      for (int v = 0; v < variations(); ++v) known_.insert(known_.end(), row, row + static_cast<std::ptrdiff_t>(size));
    }
    edited_ = known_;
    const auto rows = static_cast<std::int64_t>(edited_.size() / size);
    for (std::int64_t from = 0; from < rows; from += a_.batch) edit(from, std::min(a_.batch, rows - from), rows);
    bar_.clear();
    write();
    return kDone;
  }

 private:
  bool by_flow() const { return a_.by == "flow"; }
  /// The flow has one answer.
  int variations() const { return by_flow() ? 1 : a_.variations; }

  void settle_sigmas() {
    if (!std::isfinite(a_.strength)) throw std::invalid_argument("--strength: not finite");
    if (by_flow() && !a_.sampler_given) a_.sampler.sampler = kByFlow;
    if (!by_flow() && !a_.to_class.empty()) throw std::invalid_argument("--to-class goes with --by flow");
    const int steps = model_->schedule.steps();
    const int step = static_cast<int>(std::lround(a_.strength * steps));
    if (step < 2)
      throw std::invalid_argument(
          fmt::format("--strength {}: {} of the process's {} steps; an edit begins at the second or later", a_.strength,
                      step, steps));
    a_.sampler.check_belong();
    a_.sampler.sigma_max = model_->schedule.sigma(step);
    sigmas_ = a_.sampler.sigmas(*model_);
    if (by_flow() && sigmas_.size() == 2 && sigmas_.back() == 0)
      throw std::invalid_argument("--steps 1: the way up the flow begins above 0, and has no step");
    if (by_flow()) a_.sampler.check_flow();
  }

  void settle_mask() {
    held_.assign(static_cast<std::size_t>(model_->size()), false);
    if (a_.mask.empty()) return;
    const Inputs mask = read_states(a_.mask, *model_);
    if (mask.count != 1) throw Error(fmt::format("{}: {} masks; one for all is wanted", a_.mask, mask.count));
    for (std::size_t i = 0; i < held_.size(); ++i) {
      if (mask.values[i] != 0 && mask.values[i] != 1)
        throw Error(fmt::format("{}: holds {}; a mask is of 0 (held) and 1", a_.mask, mask.values[i]));
      held_[i] = mask.values[i] == 0;
    }
  }

  void edit(std::int64_t from, std::int64_t rows, std::int64_t all) {
    const std::int64_t size = model_->size();
    const std::span<double> x(edited_.data() + from * size, static_cast<std::size_t>(rows * size));
    ModelArguments down = a_.model;
    if (by_flow()) {
      ModelArguments plain = a_.model;
      plain.rho_bottom = plain.rho_top = 1;
      plain.rho.clear();
      plain.freeu.clear();
      std::vector<double> rising(sigmas_.rbegin(), sigmas_.rend());
      if (rising.front() == 0) rising.erase(rising.begin());
      const auto denoiser = model_->denoiser(plain, a_.inputs.first + from, rows);
      nfe_ = go("following", *denoiser, rising, from, rows, all, x);
      if (!a_.to_class.empty()) down.classes = a_.to_class;
    } else {
      std::vector<double> noise(x.size());
      image_noise(a_.seed, static_cast<std::uint64_t>(from), size)(0, noise);
      for (std::size_t i = 0; i < x.size(); ++i) x[i] += sigmas_.front() * noise[i];
    }
    const auto first = known_.begin() + from * size;
    const auto inner = denoiser_down(down, from, rows);
    const HeldDenoiser held(*inner, {first, first + rows * size}, held_);
    const std::int64_t before = by_flow() ? nfe_ : 0;
    nfe_ = before + go("editing", held, sigmas_, from, rows, all, x);
    held.hold(x);
  }

  /// Each row has the class of its datum.
  std::unique_ptr<Denoiser> denoiser_down(const ModelArguments& model, std::int64_t from, std::int64_t rows) const {
    if (model.classes.empty() || variations() == 1) return model_->denoiser(model, a_.inputs.first + from, rows);
    ModelArguments each = model;
    each.classes.clear();
    for (std::int64_t row = from; row < from + rows; ++row)
      each.classes.push_back(model.classes_of(a_.inputs.first + row / variations(), 1).front());
    return model_->denoiser(each, 0, rows);
  }

  std::int64_t go(const char* what, const Denoiser& denoiser, const std::vector<double>& sigmas, std::int64_t from,
                  std::int64_t rows, std::int64_t all, std::span<double> x) {
    const auto first = static_cast<std::uint64_t>(from);
    SamplerOptions options = a_.sampler.options(sigmas, model_->schedule, a_.seed, first, model_->size());
    if (!by_flow()) options.clip = model_->clip;
    options.progress = {[&](std::string_view, std::int64_t done, std::int64_t total) {
                          bar_.show(what, from * total + rows * done, all * total);
                        },
                        stop_};
    return sample(a_.sampler.sampler, denoiser, sigmas, image_noise(a_.seed, first, model_->size()), options, x);
  }

  void write() const {
    const std::int64_t rows = count_ * variations(), size = model_->size();
    std::vector<std::int64_t> shape = model_->shape;
    shape.insert(shape.begin(), rows);
    if (!a_.out.empty()) write_file_atomically(a_.out, npy_of(edited_, shape));
    if (!a_.grid.empty()) {
      std::vector<double> shown;
      for (std::int64_t n = 0; n < count_; ++n) {
        const std::int64_t first = n * variations() * size;
        shown.insert(shown.end(), known_.begin() + first, known_.begin() + first + size);
        shown.insert(shown.end(), edited_.begin() + first, edited_.begin() + first + variations() * size);
      }
      write_file_atomically(
          a_.grid, png_of(image_grid(images_of(shown, shape[1], shape[2], shape[3]), 1 + variations(), a_.scale)));
    }
    double squares = 0;
    for (std::size_t i = 0; i < edited_.size(); ++i) squares += (edited_[i] - known_[i]) * (edited_[i] - known_[i]);
    const double change = std::sqrt(squares / static_cast<double>(edited_.size()));
    if (a_.as_json) {
      print(ordered_json{{"n", count_},
                         {"available", available_},
                         {"variations", variations()},
                         {"by", a_.by},
                         {"sigma", sigmas_.front()},
                         {"nfe", nfe_},
                         {"change_rms", change},
                         {"peak_rss_bytes", peak_rss_bytes()}}
                .dump() +
            "\n");
    } else {
      tell(
          fmt::format("{}, {} each, from sigma {:.3g} in {} evaluations; changed by {:.3g} root mean square, "
                      "peak memory {} MB\n",
                      count_text_, variations(), sigmas_.front(), nfe_, change, peak_rss_bytes() >> 20));
    }
  }

  Arguments a_;
  std::stop_token stop_;
  std::optional<OpenedModel> model_;
  std::vector<double> sigmas_, known_, edited_;
  std::vector<bool> held_;
  std::int64_t count_ = 0, available_ = 0, nfe_ = 0;
  std::string count_text_;
  ProgressBar bar_;
};

}  // namespace

Run add_diffusion_edit(CLI::App& app) {
  const auto arguments = std::make_shared<Arguments>();
  Arguments& a = *arguments;
  app.footer(kExamples);
  a.model.add_to(app);
  a.sampler.sampler = kByNoise;
  a.sampler.schedule = "karras";
  a.sampler.with_steps = false;
  a.sampler.add_to(app);
  app.remove_option(app.get_option("--sigma-max"));  // --strength says where editing begins
  a.inputs.as_it_is = true;
  a.inputs.count = 8;
  a.inputs.add_to(app);
  app.add_option("--strength", a.strength, "How far into noise, of the process's steps [0.3]")
      ->type_name("F")
      ->check(CLI::Range(0.0, 1.0));
  app.add_option("--by", a.by, "noise, or flow: up without noise, and down with what differs [noise]")
      ->type_name("NAME")
      ->check(CLI::IsMember({"noise", "flow"}));
  app.add_option("--to-class", a.to_class, "By flow: class of each image on the way down, used in turn")
      ->type_name("C,...")
      ->delimiter(',');
  app.add_option("--mask", a.mask, "An .npy file [1, shape of one] of 0 and 1: what is 0 stays as it is")
      ->type_name("FILE");
  app.add_option("--variations", a.variations, "Edits of each datum, by noise of their own [4]")
      ->type_name("N")
      ->check(CLI::Range(1, 1000));
  app.add_option("--seed", a.seed, "Of all noise [0]")->type_name("S")->check(whole_number());
  app.add_option("--batch", a.batch, "Data at once [64]")
      ->type_name("N")
      ->check(CLI::Range(std::int64_t{1}, std::int64_t{1} << 31));
  app.add_option("--out", a.out, "Write the edits here as .npy, float64, those of a datum one after another")
      ->type_name("FILE");
  app.add_option("--grid", a.grid, "Write here, as .png, each datum with its edits in a row")->type_name("FILE");
  app.add_option("--scale", a.scale, "Pixels a side of each pixel in .png files [2]")
      ->type_name("N")
      ->check(CLI::Range(1, 64));
  app.add_flag("--json", a.as_json,
               "Print one JSON object: n, available, variations, by, sigma, nfe, change_rms, peak_rss_bytes");
  a.device.add_to(app);
  return [arguments, &app](const std::stop_token& stop) {
    arguments->sampler_given = app.count("--sampler") > 0;
    arguments->variations_given = app.count("--variations") > 0;
    return Edit(*arguments, stop)();
  };
}

}  // namespace tuiqiao::cli
#endif
