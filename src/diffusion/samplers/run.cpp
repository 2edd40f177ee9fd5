#include "diffusion/samplers/run.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <stdexcept>

namespace tuiqiao::sampling {

double Run::h(int n) const {
  return sigma(n + 1) > 0 ? std::log(sigma(n) / sigma(n + 1)) : std::numeric_limits<double>::infinity();
}

double Run::s_fraction(int n) const {
  if (!options.s_fraction_of) return options.s_fraction;
  const double fraction = options.s_fraction_of(sigma(n + 1) > 0 ? std::sqrt(sigma(n) * sigma(n + 1)) : sigma(n));
  if (!(fraction >= 0 && fraction <= 1))
    throw std::invalid_argument(fmt::format("[sample] s_fraction_of gave {}, outside [0, 1]", fraction));
  return fraction;
}

double Run::rate(int n, double c) const { return 2 * score_weight(sigma(n + 1) < sigma(n), 1, c); }

double Run::deviation(int n, double c) const {
  const double step = std::abs(h(n));
  return std::isfinite(step) ? sigma(n + 1) * std::sqrt(-std::expm1(-2 * c * c * step)) : 0;
}

void Run::denoise(int n, std::span<const double> at, double level, Numbers& denoised) {
  options.progress.step("sampling", n, steps());
  denoised.resize(at.size());
  denoiser_.denoise(at, level, denoised);
  ++evaluations_;
  check_answer(denoised, level);
  if (options.clip > 0) {
    for (double& value : denoised) value = std::clamp(value, -options.clip, options.clip);
  }
  if (options.watch) options.watch({n, level, at, denoised});
}

void Run::epsilon(int n, std::span<const double> at, double level, Numbers& result) {
  denoise(n, at, level, result);
  for (std::size_t i = 0; i < at.size(); ++i) result[i] = (at[i] - result[i]) / level;
}

void Run::normal(int n, double from, double to, Numbers& values) const {
  values.resize(x.size());
  if (options.path) return options.path(from, to, values);
  noise_(static_cast<std::uint64_t>(n) + 1, values);
}

void Run::add_noise(int n, double from, double to, double deviation) {
  if (!(deviation > 0)) return;
  normal(n, from, to, random_);
  for (std::size_t i = 0; i < x.size(); ++i) x[i] += deviation * random_[i];
}

bool Run::starts_exactly(int n, int count) {
  if (!options.exact_start || n >= count) return false;
  options.exact_start(sigma(n + 1), x);
  return true;
}

Numbers& History::push(double lambda) {
  Numbers oldest;
  if (values_.size() == most_) {
    oldest = std::move(values_.back());
    values_.pop_back();
    lambdas_.pop_back();
  }
  values_.push_front(std::move(oldest));
  lambdas_.push_front(lambda);
  return values_.front();
}

std::vector<double> History::nodes(std::size_t count) const {
  std::vector<double> nodes;
  for (std::size_t i = 0; i < count; ++i) nodes.push_back(lambdas_[i] - lambdas_[0]);
  return nodes;
}

std::vector<double> exponential_moments(double rate, double h, std::size_t count) {
  std::vector<double> moments(count);
  if (std::abs(rate * h) < 1) {
    for (std::size_t k = 0; k < count; ++k) {  // sum over m of (-rate)^m k! h^(k+m+1) / (k+m+1)!
      double term = std::pow(h, static_cast<double>(k + 1)) / static_cast<double>(k + 1), sum = 0;
      for (std::size_t m = 0; m < 30; ++m) {
        sum += term;
        term *= -rate * h / static_cast<double>(k + m + 2);
      }
      moments[k] = sum;
    }
    return moments;
  }
  moments[0] = -std::expm1(-rate * h) / rate;
  double power = 1;
  for (std::size_t k = 1; k < count; ++k) {
    power *= h;
    moments[k] = (power - static_cast<double>(k) * moments[k - 1]) / rate;
  }
  return moments;
}

std::vector<double> exponential_weights(double rate, double h, std::span<const double> nodes) {
  const std::vector<double> moments = exponential_moments(rate, h, nodes.size());
  std::vector<double> weights;
  for (std::size_t j = 0; j < nodes.size(); ++j) {
    std::vector<double> polynomial{1};  // by rising powers
    for (std::size_t i = 0; i < nodes.size(); ++i) {
      if (i == j) continue;
      polynomial.push_back(0);
      for (std::size_t k = polynomial.size(); k-- > 0;)
        polynomial[k] = ((k > 0 ? polynomial[k - 1] : 0) - nodes[i] * polynomial[k]) / (nodes[j] - nodes[i]);
    }
    double weight = 0;
    for (std::size_t k = 0; k < polynomial.size(); ++k) weight += polynomial[k] * moments[k];
    weights.push_back(weight);
  }
  return weights;
}

}  // namespace tuiqiao::sampling
