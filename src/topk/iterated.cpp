#include "topk/iterated.h"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <string_view>
#include <vector>

namespace tuiqiao::topk {

namespace {

using Row = std::vector<double>;

constexpr std::string_view kWork = "softmax stages";

Row scaled(std::span<const double> x, double tau) {
  const double least = *std::min_element(x.begin(), x.end());
  Row z(x.begin(), x.end());
  for (double& value : z) value = (value - least) / tau;
  return z;
}

/// softmax((1 - p) z)
void softmax_of_rest(const Row& z, std::span<const double> p, Row& s) {
  double most = (1 - p[0]) * z[0], sum = 0;
  for (std::size_t i = 0; i < z.size(); ++i) most = std::max(most, s[i] = (1 - p[i]) * z[i]);
  for (double& value : s) sum += value = std::exp(value - most);
  for (double& value : s) value /= sum;
}

}  // namespace

void softmax_iterated(std::span<const double> x, int k, double tau, std::span<double> p, const Progress& progress) {
  const Row z = scaled(x, tau);
  Row s(x.size());
  std::fill(p.begin(), p.end(), 0);
  for (int j = 0; j < k; ++j) {
    progress.step(kWork, j, k);
    softmax_of_rest(z, p, s);
    for (std::size_t i = 0; i < s.size(); ++i) p[i] += s[i];
  }
}

double softmax_iterated_vjp(std::span<const double> x, int k, double tau, std::span<const double> v,
                            std::span<double> out, const Progress& progress) {
  const std::size_t n = x.size();
  const Row z = scaled(x, tau);
  const int stride = std::max(1, static_cast<int>(std::ceil(std::sqrt(k))));
  Row p(n, 0), s(n), dz(n, 0), g(v.begin(), v.end());
  std::vector<Row> kept;  // p before stages 0, stride, 2 stride, ...
  for (int j = 0; j < k; ++j) {
    progress.step(kWork, j, 2 * std::int64_t{k});
    if (j % stride == 0) kept.push_back(p);
    softmax_of_rest(z, p, s);
    for (std::size_t i = 0; i < n; ++i) p[i] += s[i];
  }
  for (int from = (static_cast<int>(kept.size()) - 1) * stride; from >= 0; from -= stride) {
    std::vector<Row> stages{kept[static_cast<std::size_t>(from / stride)]};  // p before each of them
    const int count = std::min(stride, k - from);
    for (int j = 1; j < count; ++j) {
      Row next = stages.back();
      softmax_of_rest(z, next, s);
      for (std::size_t i = 0; i < n; ++i) next[i] += s[i];
      stages.push_back(std::move(next));
    }
    for (; !stages.empty(); stages.pop_back()) {
      progress.step(kWork, 2 * std::int64_t{k} - from - static_cast<std::int64_t>(stages.size()), 2 * std::int64_t{k});
      const Row& before = stages.back();
      softmax_of_rest(z, before, s);
      double mean = 0;
      for (std::size_t i = 0; i < n; ++i) mean += s[i] * g[i];
      for (std::size_t i = 0; i < n; ++i) {
        const double du = s[i] * (g[i] - mean);  // of u = (1 - p) z
        dz[i] += (1 - before[i]) * du;
        g[i] -= z[i] * du;
      }
    }
  }
  // z = (x - min x) / tau; equals of the least entry share its part.
  const double least = *std::min_element(x.begin(), x.end());
  double sum = 0, in_tau = 0, equals = 0;
  for (std::size_t i = 0; i < n; ++i) {
    sum += dz[i];
    in_tau -= dz[i] * z[i] / tau;
    equals += x[i] == least ? 1 : 0;
  }
  for (std::size_t i = 0; i < n; ++i) out[i] = (dz[i] - (x[i] == least ? sum / equals : 0)) / tau;
  return in_tau;
}

}  // namespace tuiqiao::topk
