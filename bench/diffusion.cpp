// A diffusion network's forward pass and training step beside the machine's matrix product and beside the same network
// in Python's PyTorch (diffusers), in turns; what layouts and types do to it; and what every sampler and scaled skips
// add to the network.
// clang 14, and so clang-tidy, cannot read libtorch 1.13's headers as C++20.
#ifndef __clang_analyzer__
#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <c10/core/GradMode.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <stdexcept>

#include "file_output.h"
#include "npy.h"
#include "timing.h"
#include "tuiqiao/diffusion/ancestral.h"
#include "tuiqiao/diffusion/grids.h"
#include "tuiqiao/diffusion/model.h"
#include "tuiqiao/diffusion/samplers.h"
#include "tuiqiao/diffusion/skip_tuning.h"
#include "tuiqiao/diffusion/unet.h"

extern char** environ;

namespace {

using namespace tuiqiao;
using at::Tensor;
using bench::Comparison;
using bench::Spread;
using nlohmann::json;

constexpr std::int64_t kBatch = 64, kSide = 28;
constexpr int kPairs = 9;

UNetConfig config_of(std::vector<int> channels, int layers, bool attention) {
  UNetConfig c;
  c.sample_size = {kSide, kSide};
  c.in_channels = c.out_channels = 1;
  c.down_block_types.assign(channels.size(), "DownBlock2D");
  c.up_block_types.assign(channels.size(), "UpBlock2D");
  if (attention) {
    c.down_block_types.back() = "AttnDownBlock2D";
    c.up_block_types.front() = "AttnUpBlock2D";
  }
  c.block_out_channels = std::move(channels);
  c.layers_per_block = layers;
  c.norm_num_groups = 1;
  c.attention_head_dim = 32;
  c.add_attention = attention;
  return c;
}

/// Floating-point operations of the convolutions for one image: two for each weight and place of the output.
double convolution_flops(const UNet& net) {
  const auto levels = static_cast<std::int64_t>(net.config().block_out_channels.size());
  double sum = 0;
  for (const auto& [name, weight] : net.parameters()) {
    if (weight.dim() != 4) continue;
    std::int64_t level = 0;
    const auto number_after = [&](std::size_t at) { return static_cast<std::int64_t>(name[at] - '0'); };
    if (name.starts_with("down_blocks."))
      level = number_after(12) + (name.find("downsamplers") != std::string::npos ? 1 : 0);
    if (name.starts_with("mid_block.")) level = levels - 1;
    if (name.starts_with("up_blocks."))
      level = levels - 1 - number_after(10) - (name.find("upsamplers") != std::string::npos ? 1 : 0);
    const std::int64_t side = kSide >> level;
    sum += 2.0 * static_cast<double>(weight.numel() * side * side);
  }
  return sum;
}

/// The peer: bench/diffusion_peer.py, which does what it is told and answers with seconds.
class Peer {
 public:
  Peer(const std::string& python, const std::string& folder, int threads) {
    std::array<int, 2> to{}, from{};
    if (::pipe(to.data()) != 0 || ::pipe(from.data()) != 0) throw std::runtime_error("pipe");
    posix_spawn_file_actions_t actions;
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_adddup2(&actions, to[0], STDIN_FILENO);
    posix_spawn_file_actions_adddup2(&actions, from[1], STDOUT_FILENO);
    for (const int end : {to[0], to[1], from[0], from[1]}) posix_spawn_file_actions_addclose(&actions, end);
    std::string script = "bench/diffusion_peer.py", count = std::to_string(threads), in = folder, program = python;
    std::array<char*, 5> argv{program.data(), script.data(), in.data(), count.data(), nullptr};
    if (::posix_spawnp(&child_, program.c_str(), &actions, nullptr, argv.data(), environ) != 0)
      throw std::runtime_error(fmt::format("{} cannot be run", python));
    posix_spawn_file_actions_destroy(&actions);
    ::close(to[0]);
    ::close(from[1]);
    out_ = ::fdopen(to[1], "w");
    in_ = ::fdopen(from[0], "r");
  }
  ~Peer() {
    std::fclose(out_);
    std::fclose(in_);
    ::waitpid(child_, nullptr, 0);
  }
  Peer(const Peer&) = delete;
  Peer& operator=(const Peer&) = delete;

  double ask(const char* what) {
    fmt::print(out_, "{}\n", what);
    std::fflush(out_);
    double seconds = 0;
    if (std::fscanf(in_, "%lf", &seconds) != 1) throw std::runtime_error("the peer went away");
    return seconds;
  }

 private:
  pid_t child_ = -1;
  std::FILE *out_ = nullptr, *in_ = nullptr;
};

struct Network {
  explicit Network(const UNetConfig& config) : net(config) {
    at::manual_seed(1);
    x = at::randn({kBatch, 1, kSide, kSide});
    t = at::randint(0, 1000, {kBatch}).to(at::kFloat);
    for (const auto& [name, weight] : net.parameters()) weight.add_(at::randn_like(weight), 0.02);
  }
  Tensor forward() const { return net.forward(x, t); }
  void train() const {
    const c10::AutoGradMode grad(true);
    for (const auto& [name, weight] : net.parameters()) {
      weight.requires_grad_(true);
      weight.mutable_grad() = Tensor();
    }
    (net.forward(x, t) - x).square().mean().backward();
    for (const auto& [name, weight] : net.parameters()) weight.requires_grad_(false);
  }

  UNet net;
  Tensor x, t;
};

/// Seconds of a and b in turn.
Comparison in_turns(const std::function<double()>& a, const std::function<double()>& b) {
  a();
  b();
  std::vector<double> times_a, times_b, ratios;
  for (int i = 0; i < kPairs; ++i) {
    times_a.push_back(a());
    times_b.push_back(b());
    ratios.push_back(times_a.back() / times_b.back());
  }
  return {Spread::of(times_a), Spread::of(times_b), Spread::of(ratios)};
}

/// Operations a second of large matrix products.
double product_peak() {
  constexpr std::int64_t kSize = 2048;
  const Tensor a = at::randn({kSize, kSize}), b = at::randn({kSize, kSize});
  std::vector<double> times;
  for (int i = 0; i < kPairs; ++i) times.push_back(bench::seconds_of([&] { at::mm(a, b); }));
  return 2.0 * kSize * kSize * kSize / Spread::of(times).least;
}

json bench_network(const char* name, const UNetConfig& config, double peak, const char* python) {
  Network plain(config);
  const double flops = convolution_flops(plain.net) * kBatch;
  json result{{"network", name}, {"parameters", plain.net.parameter_count()}, {"gflop_an_image", flops / kBatch / 1e9}};
  fmt::print("\n{}: {:.2f} million parameters, {:.3f} GFLOP an image forward\n{:<34}{:>12}{:>12}{:>14}\n", name,
             static_cast<double>(plain.net.parameter_count()) / 1e6, flops / kBatch / 1e9, "", "images/s", "ratio",
             "of product");
  const auto row = [&](const std::string& what, double seconds, double ratio, double work) {
    fmt::print("{:<34}{:>12.1f}{:>12}{:>13.1f} %\n", what, kBatch / seconds,
               ratio > 0 ? fmt::format("{:.2f}", ratio) : "", 100 * work / seconds / peak);
    std::fflush(stdout);
    result["rows"].push_back(
        {{"what", what}, {"images_per_second", kBatch / seconds}, {"ratio", ratio}, {"seconds", seconds}});
  };
  const auto forward = [&] { return bench::seconds_of([&] { plain.forward(); }); };
  const auto train = [&] { return bench::seconds_of([&] { plain.train(); }); };
  if (python != nullptr) {
    const std::filesystem::path folder = std::filesystem::temp_directory_path() / fmt::format("tuiqiao-{}", ::getpid());
    plain.net.save(folder);
    Peer peer(python, folder, at::get_num_threads());
    for (const bool training : {false, true}) {
      const Comparison times = in_turns([&] { return peer.ask(training ? "train" : "forward"); },
                                        [&] { return training ? train() : forward(); });
      const double work = flops * (training ? 3 : 1);
      const char* what = training ? "training step" : "forward";
      row(fmt::format("{}, Python", what), times.a.median, 0, work);
      row(fmt::format("{}, ours over Python", what), times.b.median, times.ratio.median, work);
    }
    std::filesystem::remove_all(folder);
  }
  // As samplers use it: parts of the batch side by side.
  DiffusionModel model{plain.net.clone(), {}, 1, kSide, kSide};
  const auto denoiser = denoiser_of(model);
  std::vector<double> rows(static_cast<std::size_t>(plain.x.numel()), 0.5), denoised(rows.size());
  const auto denoise = [&] { return bench::seconds_of([&] { denoiser->denoise(rows, 1, denoised); }); };
  const Comparison parts = in_turns(forward, denoise);
  row("forward, in parts over at once", parts.b.median, parts.ratio.median, flops);
  Network half(config);
  half.net.set_half_convolutions(true);
  for (const bool training : {false, true}) {
    const Comparison times =
        in_turns([&] { return training ? train() : forward(); },
                 [&] { return bench::seconds_of([&] { training ? half.train() : (void)half.forward(); }); });
    row(fmt::format("{}, bfloat16 over float32", training ? "training step" : "forward"), times.b.median,
        times.ratio.median, flops * (training ? 3 : 1));
  }
  model.net.set_half_convolutions(true);
  const Comparison half_parts = in_turns(forward, denoise);
  row("forward, bfloat16 in parts over float32 at once", half_parts.b.median, half_parts.ratio.median, flops);
  return result;
}

/// The network's time with scaled skips over that with plain ones.
json bench_skips(const UNetConfig& config) {
  json results;
  for (const bool half : {false, true}) {
    DiffusionModel plain{UNet(config), {}, 1, kSide, kSide}, tuned{UNet(config), {}, 1, kSide, kSide};
    plain.net.set_half_convolutions(half);
    tuned.net.set_half_convolutions(half);
    tune_skips(tuned.net, {.bottom = 0.86});
    const auto without = denoiser_of(plain), with = denoiser_of(tuned);
    std::vector<double> x(static_cast<std::size_t>(kBatch * plain.size()), 0.5), denoised(x.size());
    const Comparison times = in_turns([&] { return bench::seconds_of([&] { with->denoise(x, 1, denoised); }); },
                                      [&] { return bench::seconds_of([&] { without->denoise(x, 1, denoised); }); });
    fmt::print("{}scaled skips over plain ones, {}: {:.3f} [{:.3f}, {:.3f}]\n", half ? "" : "\n",
               half ? "bfloat16" : "float32", times.ratio.median, times.ratio.least, times.ratio.most);
    results.push_back({{"half", half}, {"times", times.json()}});
  }
  return results;
}

/// What a sampler's own work is of the network's, for the fastest network: convolutions in bfloat16.
json bench_samplers(const UNetConfig& config) {
  DiffusionModel model{UNet(config), {}, 1, kSide, kSide};
  model.net.set_half_convolutions(true, true);
  const auto inner = denoiser_of(model);
  const NoiseSource noise = image_noise(1, 0, model.size());
  constexpr int kSteps = 10;
  json results = json::array();
  fmt::print("\n| sampler | its work, % of the network's [least, most] |\n|---|---|\n");
  const auto measure = [&](const std::string& name, const auto& go) {
    std::vector<double> shares;
    for (int i = 0; i < 5; ++i) {
      const CountingDenoiser counting(*inner);
      std::vector<double> x(static_cast<std::size_t>(kBatch * model.size()));
      noise(0, x);
      const double seconds = bench::seconds_of([&] { go(counting, x); });
      shares.push_back(100 * (seconds - counting.seconds()) / counting.seconds());
    }
    const Spread share = Spread::of(shares);
    fmt::print("| {} | {:.2f} [{:.2f}, {:.2f}] |\n", name, share.median, share.least, share.most);
    results.push_back({{"sampler", name}, {"percent", share.json()}});
  };
  const Schedule schedule = model.process.schedule();
  measure("ancestral", [&](const Denoiser& denoiser, std::span<double> x) {
    sample_ancestral(denoiser, schedule, strided_steps(1000, kSteps, Spacing::leading), noise, {}, x);
  });
  const std::vector<double> sigmas = sigma_grid(Grid::karras, kSteps, {.sigma_max = 80, .sigma_min = 0.01});
  for (const SamplerInfo& info : samplers()) {
    const bool noisy = info.stochastic || info.name == "ddim";
    for (const bool brownian : {false, true}) {
      if (brownian && !noisy) continue;
      measure(fmt::format("{}{}", info.name, brownian ? " --brownian" : ""),
              [&](const Denoiser& denoiser, std::span<double> x) {
                SamplerOptions options;
                options.eta = 1;
                options.tolerance = 0.1;
                if (brownian) options.path = brownian_path(1, 0, model.size(), 0.01, 80);
                for (double& value : x) value *= sigmas.front();
                sample(info.name, denoiser, sigmas, noise, options, x);
              });
    }
  }
  return results;
}

int run(const std::string& out) {
  const c10::NoGradGuard no_grad;
  const char* threads = std::getenv("TUIQIAO_THREADS");
  at::set_num_threads(threads != nullptr ? std::atoi(threads) : 2);
  const double load = bench::warn_of_load();
  const char* python = std::getenv("TUIQIAO_PYTHON");
  if (python == nullptr) fmt::print("left out: Python; name one that has diffusers as TUIQIAO_PYTHON\n");
  const double peak = product_peak();
  fmt::print("{} threads, matrix product of 2048: {:.0f} GFLOP/s\n", at::get_num_threads(), peak / 1e9);
  json results{{"threads", at::get_num_threads()}, {"load", load}, {"product_gflops", peak / 1e9}};
  const UNetConfig shipped = config_of({32, 64, 128}, 1, false);
  results["networks"].push_back(bench_network("32-64-128, 1 layer (shipped)", shipped, peak, python));
  results["networks"].push_back(bench_network("32-64-96, 2 layers", config_of({32, 64, 96}, 2, false), peak, python));
  results["networks"].push_back(
      bench_network("32-64-128, 1 layer, attention", config_of({32, 64, 128}, 1, true), peak, python));
  results["scaled_skips"] = bench_skips(shipped);
  results["sampler_overhead"] = bench_samplers(shipped);
  write_file_atomically(out, results.dump(2) + "\n");
  return 0;
}

}  // namespace

int main(int argc, char** argv) { return tuiqiao::bench::main_of("bench_diffusion", argc, argv, run); }
#endif
