#include <algorithm>
#include <array>
#include <cmath>

#include "diffusion/samplers/run.h"

// Samplers that remember what the model said in earlier steps.

namespace tuiqiao::sampling {

namespace {

constexpr int kDefaultOrder = 3;

int order_of(const Run& run) { return run.options.order > 0 ? run.options.order : kDefaultOrder; }

/// What step n can have, with `known` values behind it.
std::size_t order_of_step(const Run& run, int n, int order, std::size_t known) {
  if (run.options.lower_order_final) order = std::min(order, run.steps() - n);
  return run.sigma(n + 1) > 0 ? std::min(static_cast<std::size_t>(order), known) : 1;
}

double lambda_of(const Run& run, int n) { return -std::log(run.sigma(n)); }

/// x' = exp(-rate h) x + sum of weights * values.
void combine(std::span<double> x, double decay, const std::vector<double>& weights, const History& values) {
  for (std::size_t i = 0; i < x.size(); ++i) {
    double sum = decay * x[i];
    for (std::size_t j = 0; j < weights.size(); ++j) sum += weights[j] * values[j][i];
    x[i] = sum;
  }
}

/// What each of the last D counts over a step, from their polynomial in lambda; for two of them as published, where the
/// slope counts half the step.
std::vector<double> data_weights(const History& values, std::size_t order, double rate, double h) {
  const double whole = std::isfinite(h) ? -std::expm1(-rate * h) : 1;
  if (order == 1) return {whole};
  const std::vector<double> nodes = values.nodes(order);
  if (order == 2) {
    const double slope = whole * h / (2 * -nodes[1]);
    return {whole + slope, -slope};
  }
  std::vector<double> weights = exponential_weights(rate, h, nodes);
  for (double& weight : weights) weight *= rate;
  return weights;
}

/// DPM-Solver++ multistep of any order for any s.
void dpmpp(Run& run, int order, bool stochastic) {
  History values(order);
  for (int n = 0; n < run.steps(); ++n) {
    run.denoise(n, run.x, run.sigma(n), values.push(lambda_of(run, n)));
    if (run.starts_exactly(n, order - 1)) continue;
    const double h = run.h(n), c = stochastic ? run.s_fraction(n) : 0;
    const double rate = run.rate(n, c);
    const std::vector<double> weights = data_weights(values, order_of_step(run, n, order, values.size()), rate, h);
    combine(run.x, std::isfinite(h) ? std::exp(-rate * h) : 0, weights, values);
    run.add_noise(n, run.sigma(n), run.sigma(n + 1), run.deviation(n, c));
  }
}

}  // namespace

void dpmpp_2m(Run& run) { dpmpp(run, 2, false); }
void dpmpp_3m(Run& run) { dpmpp(run, 3, false); }
void sde_dpmpp_2m(Run& run) { dpmpp(run, 2, true); }
void sde_dpmpp_3m(Run& run) { dpmpp(run, 3, true); }

// Predict as DPM-Solver++ does (their B(h) = exp(h) - 1 makes order 2 the same); the model's word there, which the next
// step needs anyway, then corrects with one order more.
void unipc(Run& run) {
  const int order = order_of(run);
  History values(order + 1);
  Numbers before(run.x.size());
  run.denoise(0, run.x, run.sigma(0), values.push(lambda_of(run, 0)));
  for (int n = 0; n < run.steps(); ++n) {
    const double h = run.h(n), decay = std::isfinite(h) ? std::exp(-h) : 0;
    const std::size_t used = order_of_step(run, n, order, values.size());
    const bool last = n + 1 == run.steps();
    if (run.starts_exactly(n, order - 1)) {
      if (!last) run.denoise(n + 1, run.x, run.sigma(n + 1), values.push(lambda_of(run, n + 1)));
      continue;
    }
    std::copy(run.x.begin(), run.x.end(), before.begin());
    combine(run.x, decay, data_weights(values, used, 1, h), values);
    if (last) break;
    run.denoise(n + 1, run.x, run.sigma(n + 1), values.push(lambda_of(run, n + 1)));
    if (!run.options.corrector) continue;
    std::vector<double> weights;
    if (used == 1) {
      const double half = -std::expm1(-h) / 2;
      weights = {half, half};
    } else {
      std::vector<double> nodes = values.nodes(used + 1);
      for (double& node : nodes) node += h;  // from the step's start
      weights = exponential_weights(1, h, nodes);
    }
    std::copy(before.begin(), before.end(), run.x.begin());
    combine(run.x, decay, weights, values);
  }
}

// epsilon by its polynomial in lambda ("rho-AB" in log rho), integrated exactly.
void deis(Run& run) {
  const int order = order_of(run);
  History values(order);
  for (int n = 0; n < run.steps(); ++n) {
    const double from = run.sigma(n), to = run.sigma(n + 1);
    run.epsilon(n, run.x, from, values.push(lambda_of(run, n)));
    if (run.starts_exactly(n, order - 1)) continue;
    std::vector<double> weights{to - from};
    const std::size_t used = order_of_step(run, n, order, values.size());
    if (used > 1) {
      weights = exponential_weights(-1, run.h(n), values.nodes(used));
      for (double& weight : weights) weight *= -to;
    }
    combine(run.x, 1, weights, values);
  }
}

// Adams and Bashforth's coefficients of equal steps, whatever the steps are.
void ipndm(Run& run) {
  static constexpr std::array<std::array<double, 4>, 4> kCoefficients{{{1, 0, 0, 0},
                                                                       {1.5, -0.5, 0, 0},
                                                                       {23.0 / 12, -16.0 / 12, 5.0 / 12, 0},
                                                                       {55.0 / 24, -59.0 / 24, 37.0 / 24, -9.0 / 24}}};
  const int order = order_of(run);
  History values(order);
  for (int n = 0; n < run.steps(); ++n) {
    run.epsilon(n, run.x, run.sigma(n), values.push(lambda_of(run, n)));
    if (run.starts_exactly(n, order - 1)) continue;
    std::size_t used = std::min(static_cast<std::size_t>(order), values.size());
    if (run.options.lower_order_final) used = std::min(used, static_cast<std::size_t>(run.steps() - n));
    std::vector<double> weights(used);
    for (std::size_t j = 0; j < used; ++j) weights[j] = (run.sigma(n + 1) - run.sigma(n)) * kCoefficients[used - 1][j];
    combine(run.x, 1, weights, values);
  }
}

}  // namespace tuiqiao::sampling
