// Learns which 3 of 100 features matter, by gradients through a smooth top-k.
//
// Fashion-MNIST at 10 x 10 pixels: 3 pixels are as they are, each of the other 97 is shuffled over the images, so that
// it looks like a pixel and says nothing. A small network names the garment from features times p, and one score a
// feature is learnt with it, p = smooth_topk(scores, 3). Beside it the same with p = softmax(scores). Temperatures are
// found for a mean entropy of p that falls from nearly that of an even p; at the end both are as hard as each other.
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <set>

#include "fashion.h"
#include "tuiqiao/topk_torch.h"
#include "tuiqiao/torch.h"

namespace {

constexpr std::int64_t kFeatures = 100, kRelevant = 3;
constexpr double kLastBits = 0.001;  // mean entropy of p at the end

struct Task {
  torch::Tensor x, labels;
  std::set<std::int64_t> relevant;
};

/// Pixels of the middle of the picture are relevant, three of them, drawn by the seed.
Task make_task(const Fashion& data, std::uint64_t seed) {
  torch::manual_seed(seed);
  Task task{torch::adaptive_avg_pool2d(data.images, {10, 10}).reshape({-1, kFeatures}), data.labels, {}};
  while (static_cast<std::int64_t>(task.relevant.size()) < kRelevant) {
    const auto row = torch::randint(2, 8, {1}).item<std::int64_t>(),
               column = torch::randint(2, 8, {1}).item<std::int64_t>();
    task.relevant.insert(row * 10 + column);
  }
  for (std::int64_t i = 0; i < kFeatures; ++i) {
    if (task.relevant.count(i) == 0)
      task.x.select(1, i).copy_(task.x.select(1, i).index_select(0, torch::randperm(task.x.size(0))));
  }
  task.x = (task.x - task.x.mean(0)) / (task.x.std(0) + 1e-6);
  return task;
}

struct Outcome {
  int found = 0;
  double loss = 0;
};

Outcome learn(const Task& task, std::int64_t k, tuiqiao::SmoothTopkOptions options, int steps, std::uint64_t seed) {
  torch::manual_seed(1000 + seed);
  torch::nn::Sequential network(torch::nn::Linear(kFeatures, 32), torch::nn::ReLU(), torch::nn::Linear(32, 10));
  torch::Tensor scores = (1e-3 * torch::randn({kFeatures})).requires_grad_();
  std::vector<torch::Tensor> parameters = network->parameters();
  parameters.push_back(scores);
  torch::optim::Adam optimiser(parameters, torch::optim::AdamOptions(0.01));
  options.temperature = tuiqiao::TopkTemperature::entropy;
  const double share = static_cast<double>(k) / kFeatures;
  const double most_bits = -share * std::log2(share) - (1 - share) * std::log2(1 - share);
  Outcome outcome;
  for (int step = 0; step < steps; ++step) {
    const double done = static_cast<double>(step) / steps;
    options.entropy_bits = 0.95 * most_bits * (1 - done) + kLastBits * done;
    const torch::Tensor batch = torch::randint(task.x.size(0), {256});
    const torch::Tensor p = tuiqiao::smooth_topk(scores, static_cast<double>(k), options);
    const torch::Tensor loss = torch::nn::functional::cross_entropy(network->forward(task.x.index_select(0, batch) * p),
                                                                    task.labels.index_select(0, batch));
    optimiser.zero_grad();
    loss.backward();
    optimiser.step();
    outcome.loss = step == 0 ? loss.item<double>() : 0.98 * outcome.loss + 0.02 * loss.item<double>();
  }
  const torch::Tensor chosen = std::get<1>(torch::topk(scores.detach(), kRelevant));
  for (std::int64_t i = 0; i < kRelevant; ++i)
    outcome.found += static_cast<int>(task.relevant.count(chosen[i].item<std::int64_t>()));
  return outcome;
}

int run(const std::string& folder, int steps, int seeds) {
  tuiqiao::set_torch_threads(0);
  const Fashion data = read_fashion(folder, "train");
  struct Way {
    const char* name;
    std::int64_t k;
    tuiqiao::TopkMethod method;
  };
  using tuiqiao::TopkMethod;
  // `exponential` with k = 1 is softmax.
  for (const Way& way : {Way{"softmax", 1, TopkMethod::exponential}, Way{"laplace", 3, TopkMethod::laplace},
                         Way{"sigmoid", 3, TopkMethod::sigmoid}, Way{"gradient", 3, TopkMethod::gradient},
                         Way{"exponential", 3, TopkMethod::exponential}}) {
    int found = 0, all = 0;
    double loss = 0;
    for (int seed = 0; seed < seeds; ++seed) {
      tuiqiao::SmoothTopkOptions options;
      options.method = way.method;
      const Outcome outcome = learn(make_task(data, static_cast<std::uint64_t>(seed)), way.k, options, steps,
                                    static_cast<std::uint64_t>(seed));
      found += outcome.found;
      all += outcome.found == kRelevant ? 1 : 0;
      loss += outcome.loss / seeds;
    }
    std::printf("%-12s found %2d of %d relevant features, all three in %d of %d runs, loss %.3f nats\n", way.name,
                found, static_cast<int>(kRelevant) * seeds, all, seeds, loss);
    std::fflush(stdout);
  }
  return 0;
}

}  // namespace

int main(int argc, char** argv) { return run_example(argc, argv, 600, 5, run); }
