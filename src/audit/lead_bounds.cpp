#include "audit/lead_bounds.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "audit/exact.h"

namespace tuiqiao::auditing {

namespace {

constexpr double kMostNumbers = 1e7;
constexpr double kOutwardly = 1e-9;  // relative, far more than what float64 loses

double length_of(std::span<const double> x) {
  return std::sqrt(std::inner_product(x.begin(), x.end(), x.begin(), 0.0));
}

}  // namespace

LeadBounds lead_bounds(const Problem& problem, std::int64_t k, std::span<const std::int64_t> rows,
                       std::span<const double> weights, std::span<const std::int64_t> near) {
  const std::size_t n = problem.columns();
  std::vector<double> own(n), other(n), sum(n, 0);
  double blur = problem.row(k, own.data()), longest = 0;
  /// x_k - x_i, and how long it is.
  const auto difference = [&](std::int64_t i) {
    if (i == kBiasGenerator) {
      std::fill(other.begin(), other.end(), 0.0);
      other.back() = 1;
    } else {
      blur = std::max(blur, problem.row(i, other.data()));
      for (std::size_t j = 0; j < n; ++j) other[j] = own[j] - other[j];
    }
    longest = std::max(longest, length_of(other));
    return length_of(other);
  };
  LeadBounds bounds;
  const double total = std::accumulate(weights.begin(), weights.end(), 0.0);
  if (total > 0 && std::any_of(rows.begin(), rows.end(), [](std::int64_t i) { return i >= 0; })) {
    double of_rows = 0;  // the bias generator only adds to what rows lead by
    for (std::size_t s = 0; s < rows.size(); ++s) {
      difference(rows[s]);
      of_rows += rows[s] >= 0 ? weights[s] : 0;
      for (std::size_t j = 0; j < n; ++j) sum[j] += weights[s] * other[j];
    }
    for (double& x : sum) x /= of_rows;
    bounds.most = length_of(sum);
  } else {
    bounds.most = HUGE_VAL;
    for (const std::int64_t i : near) bounds.most = std::min(bounds.most, difference(i));
  }
  const double slack = kOutwardly * longest + 2 * blur;
  bounds.most += slack;
  const double length = length_of(sum);
  if (!(length > 0) || static_cast<double>(problem.classes()) * static_cast<double>(n) > kMostNumbers) return bounds;
  for (double& x : sum) x /= length;
  if (problem.has_bias() && !problem.is_in_domain(sum)) return bounds;
  double least = HUGE_VAL;
  for (std::int64_t i = 0; i < problem.classes(); ++i) {
    if (problem.group()[static_cast<std::size_t>(i)] != i || i == problem.group()[static_cast<std::size_t>(k)])
      continue;
    difference(i);
    least = std::min(least, std::inner_product(sum.begin(), sum.end(), other.begin(), 0.0));
  }
  bounds.least = least - slack;
  return bounds;
}

}  // namespace tuiqiao::auditing
