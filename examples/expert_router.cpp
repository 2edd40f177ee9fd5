// A mixture of experts whose router keeps its load: each expert takes the k = batch / experts images that want it most,
// by a smooth top-k over the batch. Beside it the usual router, a softmax over the experts for each image, which is
// free to send everything to a few. Fashion-MNIST, 8 experts of 16 hidden units and a linear classifier that all images
// pass. Both are as hard as each other: one mean entropy of p, which falls while they learn.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>

#include "fashion.h"
#include "tuiqiao/topk_torch.h"
#include "tuiqiao/torch.h"

namespace {

using tuiqiao::SmoothTopkOptions;

constexpr std::int64_t kExperts = 8, kBatch = 256, kHidden = 16, kPixels = 784, kClasses = 10;
constexpr double kFirstBits = 0.5, kLastBits = 0.02;  // of at most 0.544, that of p = 1 / 8

enum class Router { softmax, topk };

struct Model : torch::nn::Module {
  torch::nn::Linear wants, shared;
  torch::Tensor first, second;

  Model() : wants(kPixels, kExperts), shared(kPixels, kClasses) {
    register_module("wants", wants);
    register_module("shared", shared);
    first = register_parameter("first", torch::randn({kExperts, kPixels, kHidden}) * std::sqrt(2.0 / kPixels));
    second = register_parameter("second", torch::randn({kExperts, kHidden, kClasses}) * std::sqrt(2.0 / kHidden));
  }

  /// [batch, experts]: how much of each expert an image gets.
  torch::Tensor routes(const torch::Tensor& x, Router router, SmoothTopkOptions options) {
    const torch::Tensor scores = wants->forward(x);
    if (router == Router::topk) {
      options.method = tuiqiao::TopkMethod::laplace;
      const double k = static_cast<double>(x.size(0)) / kExperts;
      return tuiqiao::smooth_topk(scores.t().contiguous(), k, options).t();
    }
    options.method = tuiqiao::TopkMethod::exponential;  // softmax, with k = 1
    return tuiqiao::smooth_topk(scores, 1.0, options);
  }

  torch::Tensor forward(const torch::Tensor& x, const torch::Tensor& p) {
    const torch::Tensor each =
        torch::matmul(torch::relu(torch::matmul(x, first)), second);  // [experts, batch, classes]
    return shared->forward(x) + (each * p.t().unsqueeze(2)).sum(0);
  }
};

struct Outcome {
  double accuracy = 0, hard_accuracy = 0, load = 0, unserved = 0;
};

/// Over the test images in batches: accuracy, with p and with the hard choice, the fullest expert's images over
/// those of an even share, and the share of images that no expert takes.
Outcome measure(Model& model, const Fashion& test, Router router, SmoothTopkOptions options) {
  const torch::NoGradGuard no_gradient;
  Outcome outcome;
  torch::Tensor load = torch::zeros({kExperts});
  const std::int64_t batches = test.labels.size(0) / kBatch;
  for (std::int64_t i = 0; i < batches; ++i) {
    const torch::Tensor x = test.images.narrow(0, i * kBatch, kBatch).flatten(1),
                        labels = test.labels.narrow(0, i * kBatch, kBatch);
    for (const bool hard : {false, true}) {
      options.hard = hard;
      const torch::Tensor p = model.routes(x, router, options);
      const double right = model.forward(x, p).argmax(1).eq(labels).to(torch::kFloat32).mean().item<double>() /
                           static_cast<double>(batches);
      (hard ? outcome.hard_accuracy : outcome.accuracy) += right;
      if (!hard) continue;
      load += p.sum(0);
      outcome.unserved += p.sum(1).lt(0.5).to(torch::kFloat32).mean().item<double>() / static_cast<double>(batches);
    }
  }
  outcome.load = (load.max() / load.mean()).item<double>();
  return outcome;
}

Outcome learn(const Fashion& train, const Fashion& test, Router router, int steps, std::uint64_t seed) {
  torch::manual_seed(seed);
  Model model;
  torch::optim::Adam optimiser(model.parameters(), torch::optim::AdamOptions(1e-3));
  SmoothTopkOptions options;
  options.temperature = tuiqiao::TopkTemperature::entropy;
  for (int step = 0; step < steps; ++step) {
    options.entropy_bits = kFirstBits + (kLastBits - kFirstBits) * step / steps;
    const torch::Tensor batch = torch::randint(train.labels.size(0), {kBatch});
    const torch::Tensor x = train.images.index_select(0, batch).flatten(1);
    const torch::Tensor loss = torch::nn::functional::cross_entropy(model.forward(x, model.routes(x, router, options)),
                                                                    train.labels.index_select(0, batch));
    optimiser.zero_grad();
    loss.backward();
    optimiser.step();
  }
  return measure(model, test, router, options);
}

int run(const std::string& folder, int steps, int seeds) {
  tuiqiao::set_torch_threads(0);
  const Fashion train = read_fashion(folder, "train"), test = read_fashion(folder, "t10k");
  for (const Router router : {Router::softmax, Router::topk}) {
    for (int seed = 0; seed < seeds; ++seed) {
      const Outcome o = learn(train, test, router, steps, static_cast<std::uint64_t>(seed));
      std::printf(
          "%-12s seed %d: accuracy %.1f%%, hard %.1f%%; fullest expert %.2f of an even share; %.1f%% of images without "
          "an expert\n",
          router == Router::topk ? "smooth top-k" : "softmax", seed, 100 * o.accuracy, 100 * o.hard_accuracy, o.load,
          100 * o.unserved);
      std::fflush(stdout);
    }
  }
  return 0;
}

}  // namespace

int main(int argc, char** argv) { return run_example(argc, argv, 1000, 3, run); }
