#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <vector>

#include "tuiqiao/diffusion/samplers.h"

// The family itself, for an f that is not linear: in one dimension the density follows from the Fokker-Planck equation
// on a grid, and with its score every s in [0, g] must keep it, forwards and backwards in time.

namespace tuiqiao {
namespace {

constexpr double kEdge = 4, kStep = 0.02, kTime = 0.6, kG = 1;
constexpr std::size_t kCells = 401;
constexpr int kFine = 40, kCoarse = 300;  // steps of the equation in one of the particles, and of those
constexpr double kDt = kTime / kCoarse;

double place(std::size_t i) { return -kEdge + kStep * static_cast<double>(i); }
/// Two wells.
double f(double x) { return x - x * x * x; }

/// Densities at each coarse time, by explicit steps of p_t = -(f p)' + g^2/2 p''.
const std::vector<std::vector<double>>& densities() {
  static const std::vector<std::vector<double>> all = [] {
    std::vector<double> p(kCells);
    double total = 0;
    for (std::size_t i = 0; i < kCells; ++i) total += p[i] = std::exp(-std::pow(place(i) - 0.3, 2) / (2 * 0.25));
    for (double& value : p) value /= total * kStep;
    std::vector<std::vector<double>> kept{p};
    const double dt = kDt / kFine;
    for (int n = 0; n < kCoarse; ++n) {
      for (int m = 0; m < kFine; ++m) {
        std::vector<double> next = p;
        for (std::size_t i = 1; i + 1 < kCells; ++i)
          next[i] += dt * (-(f(place(i + 1)) * p[i + 1] - f(place(i - 1)) * p[i - 1]) / (2 * kStep) +
                           kG * kG / 2 * (p[i + 1] - 2 * p[i] + p[i - 1]) / (kStep * kStep));
        p = next;
      }
      kept.push_back(p);
    }
    return kept;
  }();
  return all;
}

/// d log p / dx, between the cells' middles.
double score(const std::vector<double>& p, double x) {
  const double at = std::clamp((x + kEdge) / kStep, 1.0, static_cast<double>(kCells) - 3);
  const auto cell = static_cast<std::size_t>(at);
  const auto slope = [&](std::size_t i) {
    return (std::log(std::max(p[i + 1], 1e-12)) - std::log(std::max(p[i - 1], 1e-12))) / (2 * kStep);
  };
  const double part = at - static_cast<double>(cell);
  return (1 - part) * slope(cell) + part * slope(cell + 1);
}

/// Largest difference of the particles' distribution from a density's.
double distance(std::vector<double> x, const std::vector<double>& p) {
  std::ranges::sort(x);
  double cumulated = 0, most = 0;
  std::size_t below = 0;
  for (std::size_t i = 0; i + 1 < kCells; ++i) {
    cumulated += (p[i] + p[i + 1]) / 2 * kStep;
    while (below < x.size() && x[below] <= place(i + 1)) ++below;
    most = std::max(most, std::abs(static_cast<double>(below) / static_cast<double>(x.size()) - cumulated));
  }
  return most;
}

/// Particles at the quantiles of a density: no chance in the start.
std::vector<double> particles(const std::vector<double>& p, std::size_t count) {
  std::vector<double> x;
  double cumulated = 0;
  for (std::size_t i = 0; i + 1 < kCells; ++i) {
    const double mass = (p[i] + p[i + 1]) / 2 * kStep;
    while (x.size() < count && (static_cast<double>(x.size()) + 0.5) / static_cast<double>(count) <= cumulated + mass) {
      const double part = ((static_cast<double>(x.size()) + 0.5) / static_cast<double>(count) - cumulated) / mass;
      x.push_back(place(i) + part * kStep);
    }
    cumulated += mass;
  }
  return x;
}

/// s at a time in [0, 1] of the way.
using Noise = std::function<double(double)>;

/// What the score counts, in place of the family's.
using Weight = double (*)(bool backwards, double g, double s);

/// Goes with the family's process.
std::vector<double> moved(bool backwards, const Noise& noise_of, Weight weight_of = score_weight) {
  constexpr std::size_t kParticles = 10000;
  std::vector<double> x = particles(densities()[backwards ? kCoarse : 0], kParticles), noise(kParticles);
  for (int n = 0; n < kCoarse; ++n) {
    const std::vector<double>& p = densities()[static_cast<std::size_t>(backwards ? kCoarse - n : n)];
    const double s = noise_of((n + 0.5) / kCoarse), weight = weight_of(backwards, kG, s);
    image_noise(7, 0, 1)(static_cast<std::uint64_t>(n), noise);
    for (std::size_t i = 0; i < x.size(); ++i) {
      const double drift = f(x[i]) - weight * score(p, x[i]);
      // Backwards the wells push outward, and what is wrong may leave the grid.
      x[i] = std::clamp(x[i] + (backwards ? -drift : drift) * kDt + s * std::sqrt(kDt) * noise[i], -kEdge, kEdge);
    }
  }
  return x;
}

constexpr double kChance = 0.016;  // 10,000 true samples are within it in 99 of 100 cases

TEST(Family, KeepsTheDensityOfTheFokkerPlanckEquation) {
  EXPECT_GT(distance(particles(densities()[0], 10000), densities()[kCoarse]), 0.1);  // it does change
  std::vector<Noise> all{[](double t) { return kG * (0.5 + 0.5 * std::sin(9 * t)); }};
  for (const double c : {0.0, 0.25, 0.5, 0.75, 1.0}) all.emplace_back([=](double) { return c * kG; });
  for (const Noise& noise : all) {
    EXPECT_LT(distance(moved(false, noise), densities()[kCoarse]), kChance) << noise(0.5);
    EXPECT_LT(distance(moved(true, noise), densities()[0]), kChance) << noise(0.5);
  }
}

TEST(Family, WithTheOtherSignHasOtherDensities) {
  const auto half = [](double) { return 0.5 * kG; };
  const Weight other = [](bool backwards, double g, double s) { return score_weight(!backwards, g, s); };
  const Weight none = [](bool, double, double) { return 0.0; };
  EXPECT_GT(distance(moved(false, half, other), densities()[kCoarse]), 2 * kChance);
  EXPECT_GT(distance(moved(true, half, other), densities()[0]), 2 * kChance);
  EXPECT_GT(distance(moved(false, half, none), densities()[kCoarse]), 2 * kChance);
}

}  // namespace
}  // namespace tuiqiao
