#include <gtest/gtest.h>

#include <cmath>
#include <complex>
#include <numbers>
#include <random>

#include "topk/series_kernels.h"

namespace tuiqiao::topk {
namespace {

using Complex = std::complex<double>;

/// Probabilities of every size, 0 and 1 among them; more than a whole number of vectors.
std::vector<double> probabilities(std::uint64_t seed, std::size_t n = 1003) {
  std::mt19937_64 random(seed);
  std::uniform_real_distribution<double> z(-30, 30);
  std::vector<double> p{0, 1, 0.5, 1e-300};
  while (p.size() < n) p.push_back(1 / (1 + std::exp(z(random))));
  return p;
}

std::vector<double> normals(std::uint64_t seed, std::size_t n) {
  std::mt19937_64 random(seed);
  std::normal_distribution<double> normal;
  std::vector<double> v(n);
  for (double& value : v) value = normal(random);
  return v;
}

constexpr std::size_t kDegree = 40;
constexpr double kTheta = 1.2;  // tan(theta / 4)^41 < 1e-20

/// Coefficients of p e^{i theta} / (1 - p + p e^{i theta}) / p in T_m(2 p - 1).
std::vector<Complex> tilt_coefficients() {
  std::vector<Complex> series(kDegree + 1);
  Complex power = std::polar(1.0, kTheta / 2);
  for (std::size_t m = 0; m <= kDegree; ++m) {
    series[m] = m == 0 ? power : 2.0 * power;
    power *= Complex(0, -std::tan(kTheta / 4));
  }
  return series;
}

Complex factor(double p) { return 1 - p + p * std::polar(1.0, kTheta); }

TEST(TopkSeries, ProductMomentsGiveTheLogarithmOfTheProduct) {
  const std::vector<double> p = probabilities(1);
  std::vector<double> moments(kDegree + 1, 0);
  add_product_moments(p, moments);
  Complex by_moments = 0, by_factors = 0;
  for (std::size_t m = 2; m <= kDegree; ++m) {
    const Complex w(0, std::tan(kTheta / 4));
    by_moments += (m % 2 == 0 ? -2.0 : 2.0) / static_cast<double>(m) * std::pow(w, static_cast<int>(m)) * moments[m];
  }
  double variance = 0;
  for (const double chance : p) {
    by_factors += std::log(factor(chance)) - Complex(0, kTheta * chance);
    variance += chance * (1 - chance);
  }
  EXPECT_EQ(moments[0], 0);
  EXPECT_EQ(moments[1], 0);
  EXPECT_LT(std::abs(by_moments - by_factors), 1e-15 * static_cast<double>(p.size()));
  EXPECT_GT(variance, 10);
}

/// What is 0 at both ends keeps its digits there: one entry of 1e-200.
TEST(TopkSeries, ProductMomentsOfATinyChanceHaveDigits) {
  const std::vector<double> p{1e-200};
  std::vector<double> moments(6, 0);
  add_product_moments(p, moments);
  // T_m(-1 + e): T_m' (-1) = (-1)^{m+1} m^2, here with e = 2e-200.
  EXPECT_NEAR(moments[2] / 2e-200, -4, 1e-14);
  EXPECT_NEAR(moments[3] / 2e-200, 8, 1e-14);
  EXPECT_NEAR(moments[4] / 2e-200, -16, 1e-14);
  EXPECT_NEAR(moments[5] / 2e-200, 24, 1e-14);
}

TEST(TopkSeries, TiltMomentsGiveTheirSum) {
  const std::vector<double> p = probabilities(2), v = normals(3, p.size());
  std::vector<double> moments(kDegree + 1, 0);
  add_tilt_moments(p, v, moments);
  const std::vector<Complex> series = tilt_coefficients();
  Complex by_moments = 0, by_entries = 0;
  for (std::size_t m = 0; m <= kDegree; ++m) by_moments += series[m] * moments[m];
  for (std::size_t i = 0; i < p.size(); ++i) by_entries += v[i] * p[i] * std::polar(1.0, kTheta) / factor(p[i]);
  EXPECT_LT(std::abs(by_moments - by_entries), 1e-15 * static_cast<double>(p.size()));
}

TEST(TopkSeries, SeriesOfEachEntryAreSummed) {
  const std::vector<double> p = probabilities(4), v = normals(5, p.size());
  const std::vector<Complex> complex_series = tilt_coefficients();
  std::vector<double> a(kDegree + 1), b(kDegree + 1), c(kDegree + 1);
  for (std::size_t m = 0; m <= kDegree; ++m) {
    a[m] = complex_series[m].real();
    b[m] = complex_series[m].imag();
    c[m] = a[m] - 2 * b[m];
  }
  std::vector<double> tilts(p.size()), pairs(p.size());
  series_tilts(p, a, tilts);
  series_pairs(p, v, a, b, c, pairs);
  for (std::size_t i = 0; i < p.size(); ++i) {
    const Complex r = std::polar(1.0, kTheta) / factor(p[i]);
    EXPECT_NEAR(tilts[i], p[i] * r.real(), 1e-15 * p[i]) << p[i];
    const double wanted = p[i] * (r.real() + v[i] * (r.imag() - p[i] * (r.real() - 2 * r.imag())));
    EXPECT_NEAR(pairs[i], wanted, 2e-14 * p[i]) << p[i];
  }
}

TEST(TopkSeries, NoEntriesAddNothing) {
  std::vector<double> moments(5, 7);
  add_product_moments({}, moments);
  add_tilt_moments({}, {}, moments);
  EXPECT_EQ(moments, std::vector<double>(5, 7));
}

}  // namespace
}  // namespace tuiqiao::topk
