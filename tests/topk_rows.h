#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <cstdint>
#include <functional>
#include <limits>
#include <numeric>
#include <ostream>
#include <type_traits>
#include <vector>

#include "tuiqiao/topk.h"

namespace tuiqiao {

/// As GoogleTest and ctest show it.
inline void PrintTo(TopkMethod method, std::ostream* out) { *out << name(method); }

}  // namespace tuiqiao

/// Single rows through the smooth top-k, for its tests.
namespace tuiqiao::test {

inline constexpr double kInfinity = std::numeric_limits<double>::infinity();
inline constexpr std::array kMethods{TopkMethod::softmax_iterated, TopkMethod::gradient, TopkMethod::exponential,
                                     TopkMethod::sigmoid,          TopkMethod::laplace,  TopkMethod::clip};
inline constexpr std::array kThresholdMethods{TopkMethod::exponential, TopkMethod::sigmoid, TopkMethod::laplace,
                                              TopkMethod::clip};

using Values = std::vector<double>;

inline bool takes_whole_k(TopkMethod method) {
  return method == TopkMethod::softmax_iterated || method == TopkMethod::gradient;
}

inline SmoothTopkOptions options_of(TopkMethod method, double tau = 1) {
  SmoothTopkOptions options;
  options.method = method;
  options.tau = {tau};
  return options;
}

template <class T>
Batch<T> one_row(std::vector<std::remove_const_t<T>>& row) {
  return {row.data(), 1, static_cast<std::int64_t>(row.size())};
}
template <class T>
Batch<const T> one_row(const std::vector<T>& row) {
  return {row.data(), 1, static_cast<std::int64_t>(row.size())};
}

struct Found {
  Values p;
  SmoothTopkRow row;
};

inline Found solve(const Values& x, double k, const SmoothTopkOptions& options) {
  Found found{Values(x.size()), {}};
  found.row = smooth_topk<double>(one_row(x), std::array{k}, options, one_row<double>(found.p)).at(0);
  return found;
}

inline Values solve(TopkMethod method, const Values& x, double k, double tau = 1) {
  return solve(x, k, options_of(method, tau)).p;
}

struct Pulled {
  Values x;
  SmoothTopkGradient row;
};

inline Pulled pull_back(const Values& x, double k, const SmoothTopkOptions& options, const Values& v) {
  const Found found = solve(x, k, options);
  Pulled pulled{Values(x.size()), {}};
  pulled.row =
      smooth_topk_vjp<double>(one_row(x), std::array{found.row}, one_row(v), options, one_row<double>(pulled.x)).at(0);
  return pulled;
}

template <class T>
double sum(const std::vector<T>& p) {
  double total = 0;
  for (const T& value : p) total += static_cast<double>(static_cast<float>(value));
  return total;
}
template <>
inline double sum(const Values& p) {
  return std::accumulate(p.begin(), p.end(), 0.0);
}

inline void expect_near(const Values& a, const Values& b, double error) {
  ASSERT_EQ(a.size(), b.size());
  for (std::size_t i = 0; i < a.size(); ++i) EXPECT_NEAR(a[i], b[i], error) << i;
}

/// What TopkMethod::gradient stands for, from all k-subsets one by one.
struct SubsetLaw {
  Values p;
  double log_z = 0;
  Values vjp;  ///< covariances of each entry's being in with sum v over S, over tau
};

inline SubsetLaw subset_law_by_force(const Values& x, int k, double tau, const Values& v) {
  const std::size_t n = x.size();
  Values falling = x;
  std::sort(falling.begin(), falling.end(), std::greater<>());
  long double most = 0;  // the largest sum of x over a subset
  for (int i = 0; i < k; ++i) most += falling[static_cast<std::size_t>(i)];
  std::vector<long double> in(n, 0), with(n, 0);
  long double total = 0, mean = 0;
  for (unsigned set = 0; set < 1U << n; ++set) {
    if (std::popcount(set) != k) continue;
    long double weight = -most, value = 0;
    for (std::size_t i = 0; i < n; ++i) {
      if (set >> i & 1U) weight += x[i], value += v[i];
    }
    weight = std::exp(weight / tau);
    total += weight;
    mean += weight * value;
    for (std::size_t i = 0; i < n; ++i) {
      if (set >> i & 1U) in[i] += weight, with[i] += weight * value;
    }
  }
  SubsetLaw law{{}, static_cast<double>(std::log(total) + most / tau), {}};
  for (std::size_t i = 0; i < n; ++i) {
    law.p.push_back(static_cast<double>(in[i] / total));
    law.vjp.push_back(static_cast<double>((with[i] - in[i] * (mean / total)) / total / tau));
  }
  return law;
}

}  // namespace tuiqiao::test
