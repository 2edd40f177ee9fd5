#include "audit/prove.h"

#include <cblas.h>

#include <algorithm>
#include <cmath>

#include "audit/exact.h"
#include "lapack.h"

namespace tuiqiao::auditing {

namespace {

constexpr double kUnit = 0x1p-53;
constexpr double kOutward = 1 + 1e-9;  // for the roundings of the bounds themselves

/// Columns of the simplex's vertices over a row of ones, divided by a power of 2, with a bound on every entry's error.
struct Vertices {
  std::size_t n = 0;
  std::vector<double> entries;  ///< column after column
  std::vector<double> errors;   ///< of a column's entries
};

Vertices vertices_of(const Problem& problem, std::int64_t k, std::span<const std::int64_t> rows) {
  const std::size_t columns = problem.columns(), n = problem.dimension() + 1;
  const std::size_t dropped = problem.dependent_column();
  Vertices made{n, std::vector<double>(n * n), std::vector<double>(n)};
  std::vector<double> own(columns), other(columns);
  const double own_error = problem.row(k, own.data());
  double largest = 0;
  for (std::size_t v = 0; v < n; ++v) {
    double* to = made.entries.data() + v * n;
    if (rows[v] == kBiasGenerator) {
      to[n - 2] = 1;
    } else {
      const double error = problem.row(rows[v], other.data()) + own_error;
      double most = 0;
      for (std::size_t j = 0, at = 0; j < columns; ++j) {
        if (j == dropped) continue;
        to[at] = own[j] - other[j];
        most = std::max(most, std::abs(to[at++]));
      }
      made.errors[v] = (error + kUnit * most) * kOutward;
      largest = std::max(largest, most);
    }
  }
  const double scale = std::exp2(-std::ceil(std::log2(std::max(largest, 1e-300))));
  for (std::size_t v = 0; v < n; ++v) {
    // The bias generator may be of any length.
    for (std::size_t j = 0; j + 1 < n && rows[v] != kBiasGenerator; ++j) made.entries[v * n + j] *= scale;
    made.errors[v] *= scale;
    made.entries[v * n + n - 1] = 1;
  }
  return made;
}

}  // namespace

bool is_inside_simplex(const Problem& problem, std::int64_t k, std::span<const std::int64_t> rows) {
  if (rows.size() != problem.dimension() + 1) return false;
  const Vertices m = vertices_of(problem, k, rows);
  const std::size_t n = m.n;
  const int size = static_cast<int>(n);
  std::vector<double> inverse = m.entries;
  std::vector<int> pivots(n);
  int info = 0;
  dgetrf_(&size, &size, inverse.data(), &size, pivots.data(), &info);
  if (info != 0) return false;
  const int most_work = 64 * size;
  std::vector<double> work(static_cast<std::size_t>(most_work));
  dgetri_(&size, inverse.data(), &size, pivots.data(), work.data(), &most_work, &info);
  if (info != 0 || !std::all_of(inverse.begin(), inverse.end(), [](double x) { return std::isfinite(x); }))
    return false;

  // Sticks at what is no number, which std::max would pass over.
  const auto raise = [](double& most, double value) {
    if (value > most || std::isnan(value)) most = value;
  };
  std::vector<double> rest(n * n);
  cblas_dgemm(CblasColMajor, CblasNoTrans, CblasNoTrans, size, size, size, 1, inverse.data(), size, m.entries.data(),
              size, 0, rest.data(), size);
  const double gamma = static_cast<double>(n + 4) * 2 * kUnit;
  std::vector<double> sums(n, 0), deviation(n, 0), inverse_sums(n, 0);
  double errors = 0;
  for (std::size_t v = 0; v < n; ++v) errors += m.errors[v];
  for (std::size_t v = 0; v < n; ++v) {
    for (std::size_t j = 0; j < n; ++j) {
      sums[j] += std::abs(m.entries[v * n + j]);
      deviation[j] += std::abs(rest[v * n + j] - (j == v ? 1 : 0));
      inverse_sums[j] += std::abs(inverse[v * n + j]);
    }
  }
  double rho = 0;
  for (std::size_t j = 0; j < n; ++j) {
    double rounding = 0;
    for (std::size_t l = 0; l < n; ++l) rounding += std::abs(inverse[l * n + j]) * sums[l];
    raise(rho, deviation[j] + gamma * (rounding + 1) + inverse_sums[j] * errors);
  }
  rho *= kOutward;
  if (!(rho < 0.5)) return false;

  const double* weights = inverse.data() + (n - 1) * n;  // the inverse's last column solves M v = (0, ..., 0, 1)
  std::vector<double> residual(n, 0), bound(n, 0);
  for (std::size_t v = 0; v < n; ++v) {
    for (std::size_t j = 0; j < n; ++j) {
      residual[j] += m.entries[v * n + j] * weights[v];
      bound[j] += std::abs(m.entries[v * n + j] * weights[v]) * gamma + m.errors[v] * std::abs(weights[v]);
    }
  }
  residual[n - 1] -= 1;
  double away = 0, least = weights[0];
  for (std::size_t j = 0; j < n; ++j) {
    double sum = 0;
    for (std::size_t l = 0; l < n; ++l)
      sum += std::abs(inverse[l * n + j]) * (std::abs(residual[l]) + bound[l] + 2 * kUnit);
    raise(away, sum);
    least = std::min(least, weights[j]);
  }
  return least > away * kOutward / (1 - rho);
}

bool is_below_in_ball(const Problem& problem, std::int64_t k, std::span<const std::int64_t> rows,
                      std::span<const double> weights) {
  const std::size_t columns = problem.columns();
  std::vector<double> own(columns), other(columns), sum(columns, 0);
  const double own_error = problem.row(k, own.data());
  double size = 0, error = 0, total = 0;
  for (std::size_t s = 0; s < rows.size(); ++s) {
    if (rows[s] == kBiasGenerator || !(weights[s] > 0)) continue;
    error += weights[s] * (problem.row(rows[s], other.data()) + own_error);
    double squares = 0;
    for (std::size_t j = 0; j < columns; ++j) {
      const double difference = own[j] - other[j];
      sum[j] += weights[s] * difference;
      squares += difference * difference;
    }
    size += weights[s] * std::sqrt(squares);
    total += weights[s];
  }
  if (!(total > 0)) return false;
  double squares = 0;
  for (std::size_t j = 0; j + 1 < columns; ++j) squares += sum[j] * sum[j];
  const double bound = (error + static_cast<double>(columns + rows.size() + 8) * 2 * kUnit * size) * kOutward;
  return problem.radius() * (std::sqrt(squares) + bound) * kOutward + sum.back() + bound < 0;
}

}  // namespace tuiqiao::auditing
