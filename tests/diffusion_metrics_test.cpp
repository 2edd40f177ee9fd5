#include <gtest/gtest.h>

#include <cmath>
#include <stdexcept>

#include "tuiqiao/diffusion/metrics.h"
#include "tuiqiao/diffusion/noise.h"

namespace tuiqiao {
namespace {

std::vector<float> normal_rows(std::uint64_t seed, std::size_t rows, std::size_t width, double scale = 1,
                               double shift = 0) {
  std::vector<double> values(rows * width);
  image_noise(seed, 0, static_cast<std::int64_t>(width))(0, values);
  std::vector<float> features;
  for (const double value : values) features.push_back(static_cast<float>(shift + scale * value));
  return features;
}

TEST(FrechetDistance, IsKnownForGaussians) {
  // Covariances that commute: sum of (sqrt a - sqrt b)^2.
  const FeatureMoments a{10, {1, 2, 3}, {4, 0, 0, 0, 9, 0, 0, 0, 0}}, b{10, {1, 0, 4}, {1, 0, 0, 0, 16, 0, 0, 0, 25}};
  EXPECT_NEAR(frechet_distance(a, b), 4 + 1 + 1 + 1 + 25, 1e-9);
  EXPECT_NEAR(frechet_distance(b, a), 32, 1e-9);
  EXPECT_NEAR(frechet_distance(a, a), 0, 1e-9);
  // Two columns that do not: tr (C C')^(1/2) = (tr C C' + 2 (det C C')^(1/2))^(1/2).
  const FeatureMoments c{10, {0, 0}, {2, 1, 1, 3}}, d{10, {0, 0}, {5, -2, -2, 1}};
  const double trace = 2 * 5 - 2 - 2 + 3, determinant = 5.0 * 1.0;
  EXPECT_NEAR(frechet_distance(c, d), 5 + 6 - 2 * std::sqrt(trace + 2 * std::sqrt(determinant)), 1e-9);
  EXPECT_THROW(frechet_distance(a, c), std::invalid_argument);
}

TEST(FeatureMoments, AreThoseOfTheRows) {
  const std::vector<float> rows = normal_rows(1, 3000, 5, 2, 1);  // more than one part
  const FeatureMoments moments = feature_moments(rows, 5);
  EXPECT_EQ(moments.count, 3000);
  for (std::size_t j = 0; j < 5; ++j) {
    double mean = 0;
    for (std::size_t i = 0; i < 3000; ++i) mean += static_cast<double>(rows[i * 5 + j]) / 3000;
    EXPECT_NEAR(moments.mean[j], mean, 1e-12);
    for (std::size_t k = 0; k < 5; ++k) {
      double sum = 0;
      for (std::size_t i = 0; i < 3000; ++i)
        sum += (static_cast<double>(rows[i * 5 + j]) - moments.mean[j]) *
               (static_cast<double>(rows[i * 5 + k]) - moments.mean[k]);
      EXPECT_NEAR(moments.covariance[j * 5 + k], sum / 2999, 1e-10);
    }
  }
  EXPECT_THROW(feature_moments(std::vector<float>(5), 5), std::invalid_argument);
  EXPECT_THROW(feature_moments(std::vector<float>(11), 5), std::invalid_argument);
  EXPECT_THROW(feature_moments(std::vector<float>{1, NAN, 2, 3}, 2), std::invalid_argument);
}

TEST(AreaUnderCurve, CountsPairs) {
  for (std::uint64_t seed = 0; seed < 50; ++seed) {
    std::vector<double> own, other;
    for (std::uint64_t i = 0; i < 1 + random_below(seed, 0, 0, 20); ++i)
      own.push_back(static_cast<double>(random_below(seed, 1, i, 9)));
    for (std::uint64_t i = 0; i < 1 + random_below(seed, 0, 1, 20); ++i)
      other.push_back(static_cast<double>(random_below(seed, 2, i, 9)));
    double pairs = 0;
    for (const double a : own) {
      for (const double b : other) pairs += b > a ? 1 : b == a ? 0.5 : 0;
    }
    EXPECT_NEAR(area_under_curve(own, other), pairs / static_cast<double>(own.size() * other.size()), 1e-12);
  }
  EXPECT_EQ(area_under_curve(std::vector<double>{1, -HUGE_VAL}, std::vector<double>{HUGE_VAL}), 1);
  EXPECT_THROW(area_under_curve(std::vector<double>{}, std::vector<double>{1}), std::invalid_argument);
  EXPECT_THROW(area_under_curve(std::vector<double>{1}, std::vector<double>{NAN}), std::invalid_argument);
}

TEST(KernelDistance, IsTheUnbiasedMeanOverAllPairs) {
  const std::vector<float> a = normal_rows(2, 7, 3), b = normal_rows(3, 9, 3, 1.5, 0.5);
  // All of a, and all of b but two: with as many rows as there are, every subset of a is a.
  const std::vector<float> some(b.begin(), b.begin() + 21);
  const auto kernel = [](std::span<const float> x, std::span<const float> y) {
    double product = 0;
    for (std::size_t j = 0; j < 3; ++j) product += static_cast<double>(x[j]) * static_cast<double>(y[j]);
    return std::pow(product / 3 + 1, 3);
  };
  const auto row = [](const std::vector<float>& rows, std::size_t i) { return std::span(rows).subspan(3 * i, 3); };
  double expected = 0;
  for (std::size_t i = 0; i < 7; ++i) {
    for (std::size_t j = 0; j < 7; ++j) {
      if (i != j) expected += (kernel(row(a, i), row(a, j)) + kernel(row(some, i), row(some, j))) / 42;
      expected -= 2 * kernel(row(a, i), row(some, j)) / 49;
    }
  }
  const KernelDistance found = kernel_distance(a, some, 3, 1, 4);
  EXPECT_NEAR(found.value, expected, 1e-10);
  EXPECT_NEAR(found.error, 0, 1e-10);
  EXPECT_THROW(kernel_distance(a, std::vector<float>(3), 3), std::invalid_argument);
  EXPECT_THROW(kernel_distance(a, std::vector<float>(10), 3), std::invalid_argument);
}

TEST(KernelDistance, IsZeroForOneLawAndSeesAnother) {
  const std::vector<float> a = normal_rows(4, 4000, 8), b = normal_rows(5, 4000, 8), c = normal_rows(6, 4000, 8, 1.2);
  const KernelDistance same = kernel_distance(a, b, 8, 0, 50, 400), other = kernel_distance(a, c, 8, 0, 50, 400);
  EXPECT_LT(std::abs(same.value), 5 * same.error);
  EXPECT_GT(other.value, 20 * other.error);
}

}  // namespace
}  // namespace tuiqiao
