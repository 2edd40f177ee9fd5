// clang 14, and so clang-tidy, cannot read libtorch 1.13's headers as C++20.
#ifndef __clang_analyzer__
#include <fcntl.h>
#include <fmt/format.h>
#include <sys/file.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <optional>
#include <stdexcept>

#include "chart_picture.h"
#include "complaint.h"
#include "diffusion_commands.h"
#include "file_output.h"
#include "program.h"
#include "terminal.h"
#include "tuiqiao/diffusion/training.h"
#include "tuiqiao/error.h"

namespace tuiqiao::cli {

namespace {

namespace fs = std::filesystem;
using nlohmann::json;
using nlohmann::ordered_json;

constexpr const char* kExamples = R"(Examples:
  tuiqiao diffusion train --out build/clothes --steps 14000
  tuiqiao diffusion train --data photos/ --channels 64,128,256 --attention 2 --steps 20000 --out build/photos --device cuda:0
In the folder OUT: state.safetensors (all that training needs to go on), model/ (the averaged network, as diffusers
reads it), metrics.jsonl, loss.png and samples.png. The same command goes on where an earlier one was stopped or killed,
as if it had not been; only --steps and the intervals may change. Exit codes as everywhere: 130 where it was interrupted.)";

constexpr const char* kFashion = "/usr/share/datasets/fashion-mnist";

struct Arguments {
  std::string data = kFashion, out, config, init;
  std::vector<int> channels{32, 64, 96}, attention;
  int layers = 2, groups = 1;
  std::string type = "F32";
  std::string schedule = "linear", prediction = "epsilon", weighting = "epsilon";
  TrainingOptions training;
  std::int64_t steps = 0, save_every = 200, log_every = 50, sample_every = 1000;
  int samples = 64, sample_steps = 50;
  bool json_lines = false;
  DeviceArguments device;
};

UNetConfig network_of(const Arguments& a, const Images& images) {
  if (!a.config.empty()) return read_unet_config(a.config);
  UNetConfig c;
  c.in_channels = c.out_channels = static_cast<int>(images.channels);
  c.block_out_channels = a.channels;
  const int levels = static_cast<int>(a.channels.size());
  c.down_block_types.assign(a.channels.size(), "DownBlock2D");
  c.up_block_types.assign(a.channels.size(), "UpBlock2D");
  for (const int level : a.attention) {
    if (level < 0 || level >= levels)
      throw std::invalid_argument(fmt::format("--attention {}: levels are 0 to {}", level, levels - 1));
    c.down_block_types[static_cast<std::size_t>(level)] = "AttnDownBlock2D";
    c.up_block_types[static_cast<std::size_t>(levels - 1 - level)] = "AttnUpBlock2D";
  }
  c.add_attention = !a.attention.empty();
  c.layers_per_block = a.layers;
  c.norm_num_groups = a.groups;
  c.dropout = a.training.network.dropout;
  return c;
}

/// Records of an earlier run up to a step; what was logged after the last state was saved is done once more.
std::vector<ordered_json> earlier_records(const fs::path& file, std::int64_t step) {
  std::vector<ordered_json> records;
  std::ifstream in(file);
  for (std::string line; std::getline(in, line);) {
    ordered_json record = ordered_json::parse(line, nullptr, false);
    const auto number = [&](const char* name) { return record.contains(name) && record.at(name).is_number(); };
    if (!record.is_object() || !number("step") || !number("loss")) continue;
    if (record.at("step") > 0 && record.at("step") <= step) records.push_back(std::move(record));
  }
  return records;
}

/// Keeps other runs out of a folder.
class FolderLock {
 public:
  explicit FolderLock(const fs::path& folder)
      : descriptor_(::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC)) {
    if (descriptor_ < 0) throw Error(fmt::format("{}: {}", folder.string(), std::strerror(errno)));
    if (::flock(descriptor_, LOCK_EX | LOCK_NB) == 0) return;
    ::close(descriptor_);
    throw Error(fmt::format("{}: another run trains here", folder.string()));
  }
  ~FolderLock() { ::close(descriptor_); }
  FolderLock(const FolderLock&) = delete;
  FolderLock& operator=(const FolderLock&) = delete;

 private:
  int descriptor_;
};

class TrainingRun {
 public:
  TrainingRun(const Arguments& arguments, std::stop_token stop) : a_(arguments), stop_(std::move(stop)), out_(a_.out) {}

  int operator()() {
    a_.device.settle();
    images_ = read_images(a_.data);
    options_ = a_.training;
    options_.network = network_of(a_, images_);
    options_.process.beta_schedule = beta_schedule_from_name(a_.schedule);
    options_.process.prediction = prediction_from_name(a_.prediction);
    options_.weighting = weighting_from_name(a_.weighting);
    std::error_code problem;
    fs::create_directories(out_, problem);
    if (problem) throw Error(fmt::format("{}: {}", out_.string(), problem.message()));
    const FolderLock lock(out_);
    Trainer trainer(options_, images_, at::Device(a_.device.device));
    const bool resumed = fs::exists(state_file());
    if (resumed) {
      trainer.load(state_file());
    } else if (!a_.init.empty()) {
      start_from(trainer);
    }
    saved_ = trainer.steps();
    records_ = earlier_records(out_ / "metrics.jsonl", trainer.steps());
    write_metrics();
    if (!a_.json_lines)
      tell(fmt::format("{} images of {} x {} x {}; {} parameters; {} steps an epoch; {}\n", images_.count,
                       images_.channels, images_.height, images_.width, trainer.averaged().net.parameter_count(),
                       trainer.steps_per_epoch(),
                       resumed ? fmt::format("going on after step {}", saved_) : "from the start"));
    if (trainer.steps() >= a_.steps) {  // an earlier run may have ended between its files
      show(trainer);
      sample(trainer);
    }
    train(trainer);
    bar_.clear();
    report(trainer);
    return kDone;
  }

 private:
  fs::path state_file() const { return out_ / "state.safetensors"; }
  static double now() {
    return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
  }

  void start_from(Trainer& trainer) const {
    const UNet net = UNet::load(a_.init);
    try {
      trainer.start_from(net);
    } catch (const std::invalid_argument& error) {
      throw Error(fmt::format("{}: {}", a_.init, complaint(error.what())));
    }
  }

  void train(Trainer& trainer) {
    const std::int64_t first = trainer.steps();
    const double start = now();
    double log_start = start, loss = 0, norm = 0;
    std::int64_t logged = first;
    while (trainer.steps() < a_.steps) {
      const TrainingStep step = one_step(trainer);
      loss += step.loss;
      norm = std::max(norm, step.gradient_norm);
      const double seconds_a_step = (now() - start) / static_cast<double>(step.step - first);
      const auto left = static_cast<std::int64_t>(seconds_a_step * static_cast<double>(a_.steps - step.step));
      bar_.show(fmt::format("loss {:.4f}, {:.0f} images/s, {}:{:02}:{:02} left", step.loss,
                            options_.batch / seconds_a_step, left / 3600, left / 60 % 60, left % 60),
                step.step, a_.steps);
      const bool stopping = stop_.stop_requested(), last = step.step == a_.steps;
      if (step.step % a_.log_every == 0 || last) {
        const auto count = static_cast<double>(step.step - logged);
        log({{"step", step.step},
             {"epoch", static_cast<double>(step.step) * options_.batch / static_cast<double>(images_.count)},
             {"loss", loss / count},
             {"largest_gradient_norm", norm},
             {"learning_rate", step.learning_rate},
             {"images_per_second", count * options_.batch / (now() - log_start)},
             {"seconds_left", left},
             {"peak_rss_bytes", peak_rss_bytes()}});
        log_start = now();
        logged = step.step;
        loss = norm = 0;
      }
      if (step.step % a_.save_every == 0 || last || stopping) save(trainer);
      if (step.step % a_.sample_every == 0 || last) sample_or_save(trainer);
      if (stopping) throw Interrupted();
    }
  }

  void sample_or_save(const Trainer& trainer) {
    try {
      sample(trainer);
    } catch (const Interrupted&) {
      if (saved_ < trainer.steps()) save(trainer);
      throw;
    }
  }

  TrainingStep one_step(Trainer& trainer) const {
    try {
      return trainer.step();
    } catch (const Error& error) {
      throw Error(saved_ > 0 ? fmt::format("{}; {} keeps step {}", error.what(), state_file().string(), saved_)
                             : fmt::format("{}; nothing was saved before", error.what()));
    }
  }

  void log(ordered_json record) {
    if (a_.json_lines) print(record.dump() + "\n");
    records_.push_back(std::move(record));
    write_metrics();
  }
  void write_metrics() const {
    std::string text;
    for (const ordered_json& record : records_) text += record.dump() + "\n";
    write_file_atomically(out_ / "metrics.jsonl", text);
  }
  void write_curve() const {
    Series loss{"", {}};
    for (const ordered_json& record : records_)
      loss.points.emplace_back(record.value("step", 0.0), record.value("loss", std::nan("")));
    const Chart chart{"Loss of training, the mean of the steps since the point before",
                      {"step"},
                      {"loss", Scale::logarithmic},
                      {std::move(loss)}};
    write_file_atomically(out_ / "loss.png", chart_picture("loss.png", {chart}));
  }

  void save(const Trainer& trainer) {
    trainer.save(state_file());
    saved_ = trainer.steps();
    show(trainer);
  }
  void show(const Trainer& trainer) const {
    trainer.export_model(out_ / "model", a_.type);
    write_curve();
  }

  void sample(const Trainer& trainer) const {
    const DiffusionModel model = trainer.averaged();
    const auto denoiser = denoiser_of(model);
    const NoiseSource noise = image_noise(options_.seed, 0, model.size());
    std::vector<double> x(static_cast<std::size_t>(a_.samples * model.size()));
    noise(0, x);
    AncestralOptions how;
    how.clip = model.process.clip;
    how.progress.stop = stop_;
    sample_ancestral(
        *denoiser, model.process.schedule(),
        strided_steps(model.process.steps, std::min(a_.sample_steps, model.process.steps), Spacing::trailing), noise,
        how, x);
    const std::string png = png_of(image_grid(images_of(x, model.channels, model.height, model.width), 0, 2));
    write_file_atomically(out_ / "samples.png", png);
    write_file_atomically(out_ / fmt::format("samples-{:06}.png", trainer.steps()), png);
  }

  void report(const Trainer& trainer) const {
    const double loss = records_.empty() ? std::nan("") : records_.back().value("loss", std::nan(""));
    if (a_.json_lines) return;
    print(fmt::format("step {}, loss {:.5f}, peak memory {} MB\n{}\n", trainer.steps(), loss, peak_rss_bytes() >> 20,
                      (out_ / "model").string()));
  }

  Arguments a_;
  std::stop_token stop_;
  fs::path out_;
  Images images_;
  TrainingOptions options_;
  std::vector<ordered_json> records_;
  std::int64_t saved_ = 0;
  ProgressBar bar_;
};

constexpr auto kMostSteps = std::int64_t{1} << 31;

void add_network(CLI::App& app, Arguments& a) {
  auto* config = app.add_option("--config", a.config, "A config.json of diffusers' UNet2DModel for the network");
  config->type_name("FILE");
  app.add_option("--channels", a.channels, "Channels of each level [32,64,96]")
      ->type_name("C,...")
      ->delimiter(',')
      ->excludes(config);
  app.add_option("--layers", a.layers, "Residual blocks a level, one more on the way up [2]")
      ->type_name("N")
      ->excludes(config);
  app.add_option("--groups", a.groups, "Groups of the norms; 1 lets skips count against what they join [1]")
      ->type_name("N")
      ->excludes(config);
  app.add_option("--attention", a.attention, "Levels with attention, 0 the first; any puts one in the middle [none]")
      ->type_name("L,...")
      ->delimiter(',')
      ->excludes(config);
  app.add_option("--dropout", a.training.network.dropout, "In residual blocks; 0 for none [0]")
      ->type_name("P")
      ->excludes(config);
}

void add_training(CLI::App& app, Arguments& a) {
  TrainingOptions& t = a.training;
  app.add_option("--beta-schedule", a.schedule, "linear, scaled_linear, squaredcos_cap_v2 or sigmoid [linear]")
      ->type_name("NAME");
  app.add_option("--process-steps", t.process.steps, "Steps T of the forward process [1000]")->type_name("T");
  app.add_option("--prediction", a.prediction, "epsilon, sample or v_prediction [epsilon]")->type_name("NAME");
  app.add_option("--weighting", a.weighting, "Which error is squared: prediction, epsilon or sample [epsilon]")
      ->type_name("NAME");
  app.add_option("--batch", t.batch, "Images a step [128]")->type_name("N");
  app.add_option("--learning-rate", t.learning_rate, "Of AdamW [0.0003]")->type_name("R");
  app.add_option("--warm-up", t.warm_up, "Steps of a rising rate; 0 for none [500]")->type_name("N");
  app.add_option("--weight-decay", t.weight_decay, "0 for none [0.01]")->type_name("W");
  app.add_option("--clip-norm", t.clip_norm, "Longest gradient; 0 for any [1]")->type_name("G");
  app.add_option("--ema", t.ema, "Decay of the averaged weights; 0 for no average [0.999]")->type_name("D");
  app.add_flag("--half", t.half, "Convolutions in bfloat16: faster where the processor has it");
  app.add_flag("--mirror", t.mirror, "Show half of the images mirrored");
  app.add_option("--init", a.init,
                 "Folder of a model of this configuration whose weights are the first ones, where OUT holds no state")
      ->type_name("DIR");
  app.add_option("--type", a.type, "Of the weights in OUT/model: F32, F16 or BF16 [F32]")
      ->type_name("TYPE")
      ->check(CLI::IsMember({"F32", "F16", "BF16"}));
  app.add_option("--seed", t.seed, "Of weights, order and noise [0]")->type_name("S")->check(whole_number());
}

void add_results(CLI::App& app, Arguments& a) {
  const auto positive = CLI::Range(std::int64_t{1}, kMostSteps);
  app.add_option("--save-every", a.save_every, "Steps between states [200]")->type_name("N")->check(positive);
  app.add_option("--log-every", a.log_every, "Steps between lines of metrics [50]")->type_name("N")->check(positive);
  app.add_option("--sample-every", a.sample_every, "Steps between sample grids [1000]")
      ->type_name("N")
      ->check(positive);
  app.add_option("--samples", a.samples, "Images in a sample grid [64]")->type_name("N")->check(CLI::Range(1, 4096));
  app.add_option("--sample-steps", a.sample_steps, "Steps that sampling takes [50]")->type_name("N")->check(positive);
  app.add_flag("--json", a.json_lines, "Print each line of metrics, and nothing else");
}

}  // namespace

Run add_diffusion_train(CLI::App& app) {
  const auto arguments = std::make_shared<Arguments>();
  Arguments& a = *arguments;
  app.footer(kExamples);
  app.add_option("--out", a.out, "Folder of the results and of the state")->type_name("DIR")->required();
  app.add_option("--steps", a.steps, "Steps in all, of one batch each")
      ->type_name("N")
      ->required()
      ->check(CLI::Range(std::int64_t{1}, kMostSteps));
  app.add_option("--data", a.data,
                 fmt::format("Folder of .png images or of MNIST's files, or an IDX or .npy file [{}]", kFashion))
      ->type_name("PATH");
  add_network(app, a);
  add_training(app, a);
  add_results(app, a);
  a.device.add_to(app);
  return [arguments](const std::stop_token& stop) { return TrainingRun(*arguments, stop)(); };
}

}  // namespace tuiqiao::cli
#endif
