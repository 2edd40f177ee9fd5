#include "audit/rules.h"

#include <cblas.h>

#include <algorithm>
#include <cmath>

#include "lapack.h"

namespace tuiqiao::auditing {

namespace {

constexpr std::size_t kMostWhitened = 2048;    // columns: the matrix is part of every certificates file
constexpr std::size_t kMostSampled = 1 << 15;  // rows for the covariance, evenly spread

}  // namespace

AuditFrame frame_of(const Problem& problem, const std::vector<std::int64_t>& groups) {
  const std::size_t n = problem.linear_columns();
  AuditFrame frame;
  frame.classes = problem.classes();
  frame.columns = static_cast<std::int64_t>(problem.columns());
  frame.has_bias = problem.has_bias();
  frame.has_ball = problem.has_ball();
  frame.radius = problem.radius();
  std::vector<double> sum(n, 0);
  for (const std::int64_t i : groups) {
    const float* row = problem.approximate(i);
    for (std::size_t j = 0; j < n; ++j) sum[j] += static_cast<double>(row[j]);
  }
  for (const double s : sum) frame.centre.push_back(static_cast<float>(s / static_cast<double>(groups.size())));
  if (!problem.has_bias()) return frame;
  // Far enough out that products of rows outweigh the biases, or the ball's edge.
  double least = HUGE_VAL, most = -HUGE_VAL, squares = 0;
  for (const std::int64_t i : groups) {
    const float* row = problem.approximate(i);
    least = std::min(least, static_cast<double>(row[n]));
    most = std::max(most, static_cast<double>(row[n]));
    for (std::size_t j = 0; j < n; ++j) {
      const double x = static_cast<double>(row[j]) - static_cast<double>(frame.centre[j]);
      squares += x * x;
    }
  }
  const double typical = std::sqrt(squares / static_cast<double>(groups.size()));
  frame.reach = problem.has_ball() ? problem.radius() : typical > 0 ? 100 * (most - least) / typical : 1;
  if (!(frame.reach > 0 && std::isfinite(frame.reach))) frame.reach = 1;
  return frame;
}

bool add_whitening(const Problem& problem, const std::vector<std::int64_t>& groups, AuditFrame& frame) {
  const std::size_t n = problem.linear_columns();
  if (n < 2 || n > kMostWhitened || groups.size() < 2 * n) return false;
  const std::size_t step = (groups.size() + kMostSampled - 1) / kMostSampled;
  std::vector<float> rows;
  rows.reserve((groups.size() + step - 1) / step * n);
  for (std::size_t g = 0; g < groups.size(); g += step) {
    const float* row = problem.approximate(groups[g]);
    for (std::size_t j = 0; j < n; ++j) rows.push_back(row[j] - frame.centre[j]);
  }
  const int size = static_cast<int>(n), sampled = static_cast<int>(rows.size() / n);
  std::vector<float> products(n * n);
  cblas_ssyrk(CblasRowMajor, CblasUpper, CblasTrans, size, sampled, 1, rows.data(), size, 0, products.data(), size);
  std::vector<double> covariance(n * n), inverse(n * n, 0);
  double trace = 0;
  for (std::size_t i = 0; i < n; ++i) trace += static_cast<double>(products[i * n + i]);
  if (!(trace > 0 && std::isfinite(trace))) return false;
  for (std::size_t i = 0; i < n; ++i) {
    for (std::size_t j = i; j < n; ++j)
      covariance[i * n + j] = covariance[j * n + i] =
          static_cast<double>(products[i * n + j]) * static_cast<double>(n) / trace;
    covariance[i * n + i] += 1e-3;  // of directions that hardly vary
    inverse[i * n + i] = 1;
  }
  int info = 0;
  dpotrf_("U", &size, covariance.data(), &size, &info);
  if (info == 0) dpotrs_("U", &size, &size, covariance.data(), &size, inverse.data(), &size, &info);
  if (info != 0) return false;
  frame.whitening.resize(n * n);
  for (std::size_t i = 0; i < n * n; ++i) frame.whitening[i] = static_cast<float>(inverse[i]);
  return std::all_of(frame.whitening.begin(), frame.whitening.end(), [](float x) { return std::isfinite(x); });
}

std::vector<double> witness_of(const Problem& problem, const AuditFrame& frame, WitnessRule rule, std::int64_t k) {
  const std::size_t n = problem.linear_columns();
  const float* row = problem.approximate(k);
  std::vector<double> z(problem.columns());
  for (std::size_t j = 0; j < n; ++j)
    z[j] = static_cast<double>(rule == WitnessRule::row ? row[j] : row[j] - frame.centre[j]);
  if (rule == WitnessRule::whitened) {
    std::vector<double> turned(n, 0);
    for (std::size_t i = 0; i < n; ++i) {
      for (std::size_t j = 0; j < n; ++j) turned[j] += z[i] * static_cast<double>(frame.whitening[i * n + j]);
    }
    std::copy(turned.begin(), turned.end(), z.begin());
  }
  if (!problem.has_bias()) return z;
  double squares = 0;
  for (std::size_t j = 0; j < n; ++j) squares += z[j] * z[j];
  z[n] = squares > 0 ? std::sqrt(squares) * (1 + 0x1p-10) / frame.reach : 1;
  return z;
}

}  // namespace tuiqiao::auditing
