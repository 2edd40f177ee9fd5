#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <numbers>
#include <numeric>
#include <random>
#include <stdexcept>
#include <string>
#include <vector>

#include "topk_rows.h"
#include "tuiqiao/topk.h"

namespace tuiqiao::test {
namespace {

using Function = std::function<double(double)>;

struct Shape {
  std::string name;
  Function f, slope;
};

/// Student's t with one degree of freedom; the second form has digits where the first cancels.
double cauchy(double z) {
  return z < -1 ? std::atan(-1 / z) / std::numbers::pi : 0.5 + std::atan(z) / std::numbers::pi;
}

/// With two: 1/2 + z / (2 sqrt(2 + z^2)) = 1 / (s (s - z)) for s = sqrt(2 + z^2).
double student_of_two(double z) {
  const double s = std::hypot(std::numbers::sqrt2, z);
  return z < 0 ? 1 / (s * (s - z)) : 1 - 1 / (s * (s + z));
}

/// From 0 to 1/2 in [-2, -1], flat, and on to 1 in [1, 2]: three flat parts, four corners.
double two_ramps(double z) { return (std::clamp(z + 2, 0.0, 1.0) + std::clamp(z - 1, 0.0, 1.0)) / 2; }

/// Straight between corners at whole z, steeper and steeper towards the middle.
double straight_pieces(double z) {
  const double away = std::min(std::abs(z), 20.0), whole = std::floor(away);
  const double tail = std::ldexp(1 - (away - whole) / 2, -1 - static_cast<int>(whole));
  const double least = away < 20 ? tail : std::max(0.0, std::ldexp(1, -21) * (21 - std::abs(z)));
  return z < 0 ? least : 1 - least;
}

std::vector<Shape> shapes() {
  const auto inside = [](double z, double from, double to, double value) { return z > from && z < to ? value : 0; };
  return {
      {"normal", [](double z) { return 0.5 * std::erfc(-z); },
       [](double z) { return std::exp(-z * z) / std::sqrt(std::numbers::pi); }},
      {"cauchy", cauchy, [](double z) { return 1 / (std::numbers::pi * (1 + z * z)); }},
      {"student_of_two", student_of_two, [](double z) { return std::pow(2 + z * z, -1.5); }},
      {"two_ramps", two_ramps, [=](double z) { return inside(z, -2, -1, 0.5) + inside(z, 1, 2, 0.5); }},
      {"straight_pieces", straight_pieces,
       [](double z) {
         const double away = std::abs(z);
         return away >= 21 ? 0 : std::ldexp(1, away >= 20 ? -21 : -2 - static_cast<int>(std::floor(away)));
       }},
      {"smooth_step",
       [](double z) {
         const double c = std::clamp(z, 0.0, 1.0);
         return c * c * (3 - 2 * c);
       },
       [=](double z) { return inside(z, 0, 1, 6 * z * (1 - z)); }},
  };
}

struct Case {
  Values x;
  double k = 0, tau = 1;
};

Case random_case(std::mt19937_64& random) {
  std::normal_distribution<double> normal;
  std::cauchy_distribution<double> heavy;
  Case c{Values(2 + random() % 50), 0, std::pow(10, static_cast<int>(random() % 5) - 2)};
  const double spread = std::pow(10, static_cast<int>(random() % 5) - 1);
  const auto kind = random() % 5;
  for (double& value : c.x) {
    value = kind == 0   ? spread * normal(random)
            : kind == 1 ? spread * heavy(random)
            : kind == 2 ? spread * static_cast<double>(random() % 3)
            : kind == 3 ? 7.0
                        : (random() % 2 ? spread : 0) + normal(random);
  }
  const auto most = static_cast<double>(c.x.size());
  c.k = random() % 2 ? 1 + static_cast<double>(random() % (c.x.size() - 1))
                     : most * (static_cast<double>(random() % 998) + 1) / 1000;
  return c;
}

std::string text_of(const Case& c) {
  std::string text = "k = " + std::to_string(c.k) + ", tau = " + std::to_string(c.tau) + ":";
  for (const double value : c.x) text += " " + std::to_string(value);
  return text;
}

TEST(SmoothTopkBy, ServesAnyRisingFunction) {
  for (const Shape& shape : shapes()) {
    std::mt19937_64 random(16);
    for (int i = 0; i < 2000; ++i) {
      const Case c = random_case(random);
      Values p(c.x.size());
      const double t = smooth_topk_by(shape.f, shape.slope, c.x, c.k, c.tau, p);
      ASSERT_NEAR(sum(p), c.k, kTopkError * static_cast<double>(p.size())) << shape.name << " " << text_of(c);
      double largest = 0;
      for (const double value : c.x) largest = std::max(largest, std::abs(value));
      for (std::size_t j = 0; j < p.size(); ++j) {
        // t is one double, what p was made with has more digits.
        const double rounding = 1e-15 * (largest + std::abs(t)) / c.tau;
        ASSERT_NEAR(p[j], shape.f((c.x[j] - t) / c.tau), kTopkError + rounding) << shape.name << " " << text_of(c);
      }
    }
  }
}

TEST(SmoothTopkBy, GivesWhatTheMethodsGive) {
  const std::vector<std::pair<TopkMethod, Shape>> known{
      {TopkMethod::sigmoid,
       {"", [](double z) { return 1 / (1 + std::exp(-z)); },
        [](double z) {
          const double e = std::exp(-std::abs(z));
          return e / ((1 + e) * (1 + e));
        }}},
      {TopkMethod::laplace,
       {"", [](double z) { return z >= 0 ? 1 - std::exp(-z) / 2 : std::exp(z) / 2; },
        [](double z) { return std::exp(-std::abs(z)) / 2; }}},
      {TopkMethod::exponential,
       {"", [](double z) { return std::min(1.0, std::exp(z)); }, [](double z) { return z > 0 ? 0 : std::exp(z); }}},
      {TopkMethod::clip,
       {"", [](double z) { return std::clamp(z, 0.0, 1.0); }, [](double z) { return z > 0 && z < 1 ? 1 : 0; }}},
  };
  for (const auto& [method, shape] : known) {
    std::mt19937_64 random(17);
    for (int i = 0; i < 1000; ++i) {
      const Case c = random_case(random);
      Values p(c.x.size());
      smooth_topk_by(shape.f, shape.slope, c.x, c.k, c.tau, p);
      const Values expected = solve(method, c.x, c.k, c.tau);
      for (std::size_t j = 0; j < p.size(); ++j)
        ASSERT_NEAR(p[j], expected[j], 2 * kTopkError) << name(method) << " " << text_of(c);
    }
  }
}

TEST(SmoothTopkBy, TakesMasksInfinitiesAndTies) {
  Values p(5);
  // One is above all; the others share 1.5 evenly.
  smooth_topk_by(
      cauchy, [](double z) { return 1 / (std::numbers::pi * (1 + z * z)); }, Values{2, -kInfinity, 2, kInfinity, 2},
      2.5, 0.1, p);
  expect_near(p, {0.5, 0, 0.5, 1, 0.5}, 1e-14);
}

TEST(SmoothTopkBy, RefusesBadInput) {
  const Shape shape = shapes()[0];
  const auto refused = [&](const Values& x, double k, double tau, std::size_t size) {
    Values p(size);
    EXPECT_THROW(smooth_topk_by(shape.f, shape.slope, x, k, tau, p), std::invalid_argument);
  };
  refused({1, 2}, 0, 1, 2);
  refused({1, 2}, 2, 1, 2);
  refused({1, kInfinity, 2}, 1, 1, 3);
  refused({1, -kInfinity}, 1, 1, 2);
  refused({1, std::nan("")}, 1, 1, 2);
  refused({1, 2}, std::nan(""), 1, 2);
  refused({1, 2}, 1, 0, 2);
  refused({1, 2}, 1, 1, 3);
}

/// Bounded work whatever f: "expected O(n) calls of f".
TEST(SmoothTopkBy, HasTheGradientOfDifferences) {
  const auto f = [](double z) { return std::atan(z) / std::numbers::pi + 0.5; };
  const auto slope = [](double z) { return 1 / (std::numbers::pi * (1 + z * z)); };
  const Values x{0.3, -1, 2, INFINITY, 0.1, -INFINITY, 0.9}, v{1, -2, 3, 9, 0.5, 7, -1};
  Values p(x.size()), gradient(x.size());
  const double t = smooth_topk_by(f, slope, x, 2.7, 0.6, p);
  smooth_topk_by_vjp(slope, x, t, 0.6, v, gradient);
  for (std::size_t i = 0; i < x.size(); ++i) {
    if (!std::isfinite(x[i])) {
      EXPECT_EQ(gradient[i], 0);
      continue;
    }
    const auto at = [&](double step) {
      Values moved = x;
      moved[i] += step;
      smooth_topk_by(f, slope, moved, 2.7, 0.6, p);
      return std::inner_product(p.begin(), p.end(), v.begin(), 0.0);
    };
    EXPECT_NEAR(gradient[i], (at(1e-5) - at(-1e-5)) / 2e-5, 1e-8);
  }
  Values wrong(2);
  EXPECT_THROW(smooth_topk_by_vjp(slope, x, t, 0.6, v, wrong), std::invalid_argument);
  EXPECT_THROW(smooth_topk_by_vjp(slope, x, t, 0, v, gradient), std::invalid_argument);
}

TEST(SmoothTopkBy, RefusesFunctionsThatCannotGiveTheSum) {
  const Values x{1, 1, 3};
  Values p(3);
  const auto by = [&](const std::function<double(double)>& f, double k, double tau) {
    smooth_topk_by(
        f, [](double) { return 0.0; }, x, k, tau, p);
  };
  EXPECT_THROW(by([](double z) { return z > 0 ? 1.0 : 0.0; }, 1.5, 1), std::invalid_argument);  // jumps
  EXPECT_THROW(by([](double) { return 0.2; }, 1, 1), std::invalid_argument);
  EXPECT_THROW(by([](double) { return std::nan(""); }, 1, 1), std::invalid_argument);
  EXPECT_THROW(by({}, 1, 1), std::invalid_argument);
  EXPECT_THROW(by([](double z) { return 1 / (1 + std::exp(-z)); }, 1, INFINITY), std::invalid_argument);
}

TEST(SmoothTopkBy, CallsTheFunctionLinearlyOften) {
  std::mt19937_64 random(18);
  std::normal_distribution<double> normal;
  for (const Shape& shape : shapes()) {
    for (const std::size_t n : {100U, 10000U}) {
      Values x(n), p(n);
      for (double& value : x) value = 5 * normal(random);
      std::int64_t calls = 0;
      const auto counted = [&](double z) { return ++calls, shape.f(z); };
      smooth_topk_by(counted, shape.slope, x, static_cast<double>(n) / 10, 1, p);
      EXPECT_LT(calls, 40 * static_cast<std::int64_t>(n) + 2000) << shape.name << " " << n;
    }
  }
}

}  // namespace
}  // namespace tuiqiao::test
