#include <algorithm>
#include <cmath>

#include "diffusion/samplers/run.h"

// Samplers whose steps know nothing of one another.

namespace tuiqiao::sampling {

namespace {

/// x + part * direction.
void step_along(std::span<const double> x, double part, const Numbers& direction, std::span<double> result) {
  for (std::size_t i = 0; i < x.size(); ++i) result[i] = x[i] + part * direction[i];
}

}  // namespace

void euler(Run& run) {
  Numbers epsilon;
  for (int n = 0; n < run.steps(); ++n) {
    run.epsilon(n, run.x, run.sigma(n), epsilon);
    step_along(run.x, run.sigma(n + 1) - run.sigma(n), epsilon, run.x);
  }
}

// x' = D + sqrt(sigma'^2 - v) epsilon + sqrt(v) z with v = eta^2 sigma'^2 (sigma^2 - sigma'^2) / sigma^2.
void ddim(Run& run) {
  Numbers epsilon;
  for (int n = 0; n < run.steps(); ++n) {
    const double from = run.sigma(n), to = run.sigma(n + 1), eta = run.options.eta;
    run.epsilon(n, run.x, from, epsilon);
    const double deviation = to < from ? eta * to * std::sqrt(1 - to / from * (to / from)) : 0;
    step_along(run.x, std::sqrt(to * to - deviation * deviation) - from, epsilon, run.x);
    run.add_noise(n, from, to, deviation);
  }
}

void heun(Run& run) {
  const SamplerOptions& options = run.options;
  Numbers first, second, there(run.x.size());
  for (int n = 0; n < run.steps(); ++n) {
    double from = run.sigma(n);
    const double to = run.sigma(n + 1);
    if (options.churn > 0 && from >= options.churn_from && from <= options.churn_to) {
      const double raised = from * (1 + std::min(options.churn / run.steps(), std::sqrt(2.0) - 1));
      run.add_noise(n, from, raised, options.churn_noise * std::sqrt(raised * raised - from * from));
      from = raised;
    }
    run.epsilon(n, run.x, from, first);
    if (to == 0) {
      step_along(run.x, -from, first, run.x);
      continue;
    }
    step_along(run.x, to - from, first, there);
    run.epsilon(n, there, to, second);
    for (std::size_t i = 0; i < first.size(); ++i) first[i] = (first[i] + second[i]) / 2;
    step_along(run.x, to - from, first, run.x);
  }
}

void dpm_2(Run& run) {
  Numbers epsilon, there(run.x.size());
  for (int n = 0; n < run.steps(); ++n) {
    const double from = run.sigma(n), to = run.sigma(n + 1), middle = std::sqrt(from * to);
    run.epsilon(n, run.x, from, epsilon);
    if (to > 0) {
      step_along(run.x, middle - from, epsilon, there);
      run.epsilon(n, there, middle, epsilon);
    }
    step_along(run.x, to - from, epsilon, run.x);
  }
}

// With r_1 = 1/3, r_2 = 2/3.
void dpm_3(Run& run) {
  Numbers e0, e1, e2, there(run.x.size());
  for (int n = 0; n < run.steps(); ++n) {
    const double from = run.sigma(n), to = run.sigma(n + 1), h = run.h(n);
    run.epsilon(n, run.x, from, e0);
    if (to == 0) {
      step_along(run.x, -from, e0, run.x);
      continue;
    }
    const double s1 = from * std::exp(-h / 3), s2 = from * std::exp(-2 * h / 3);
    step_along(run.x, s1 - from, e0, there);
    run.epsilon(n, there, s1, e1);
    // sigma (exp(h) - 1) / h - sigma, of a part h of the step that ends at sigma
    const auto rest = [](double sigma, double part) { return sigma * (std::expm1(part) / part - 1); };
    for (std::size_t i = 0; i < there.size(); ++i)
      there[i] = run.x[i] + (s2 - from) * e0[i] - 2 * rest(s2, 2 * h / 3) * (e1[i] - e0[i]);
    run.epsilon(n, there, s2, e2);
    for (std::size_t i = 0; i < there.size(); ++i)
      run.x[i] += (to - from) * e0[i] - 1.5 * rest(to, h) * (e2[i] - e0[i]);
  }
}

void euler_maruyama(Run& run) {
  Numbers epsilon;
  for (int n = 0; n < run.steps(); ++n) {
    const double from = run.sigma(n), to = run.sigma(n + 1);
    run.epsilon(n, run.x, from, epsilon);
    if (to == 0) {  // the rate and the noise of the last moment belong to no step of finite length
      step_along(run.x, -from, epsilon, run.x);
      continue;
    }
    step_along(run.x, run.rate(n, run.s_fraction(n)) * (to - from), epsilon, run.x);
    run.add_noise(n, from, to, run.s_fraction(n) * std::sqrt(std::abs((from - to) * (from + to))));
  }
}

// The linear part and the noise are exact, D is that of the step's start.
void sde(Run& run) {
  Numbers denoised;
  for (int n = 0; n < run.steps(); ++n) {
    run.denoise(n, run.x, run.sigma(n), denoised);
    const double part = -std::expm1(-run.rate(n, run.s_fraction(n)) * run.h(n));
    for (std::size_t i = 0; i < denoised.size(); ++i) run.x[i] += part * (denoised[i] - run.x[i]);
    run.add_noise(n, run.sigma(n), run.sigma(n + 1), run.deviation(n, run.s_fraction(n)));
  }
}

// The same, then once more with D linear between the start and where that led, and the same noise.
void sde_heun(Run& run) {
  Numbers first, second, noise, there(run.x.size());
  for (int n = 0; n < run.steps(); ++n) {
    const double from = run.sigma(n), to = run.sigma(n + 1), h = run.h(n), rate = run.rate(n, run.s_fraction(n));
    run.denoise(n, run.x, from, first);
    if (to == 0) {
      std::copy(first.begin(), first.end(), run.x.begin());
      continue;
    }
    const double part = -std::expm1(-rate * h), deviation = run.deviation(n, run.s_fraction(n));
    noise.assign(run.x.size(), 0);
    if (deviation > 0) run.normal(n, from, to, noise);
    for (std::size_t i = 0; i < noise.size(); ++i)
      there[i] = run.x[i] + part * (first[i] - run.x[i]) + deviation * noise[i];
    run.denoise(n, there, to, second);
    const std::vector<double> weights = exponential_weights(rate, h, std::vector<double>{0, h});
    for (std::size_t i = 0; i < noise.size(); ++i)
      run.x[i] += rate * (weights[0] * first[i] + weights[1] * second[i]) - part * run.x[i] + deviation * noise[i];
  }
}

}  // namespace tuiqiao::sampling
