#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <random>
#include <stdexcept>

#include "topk/limits.h"
#include "topk/subsets.h"
#include "tuiqiao/topk.h"

namespace tuiqiao {

namespace {

using Random = std::mt19937_64;

/// In [0, 1), the same with every standard library.
double uniform(Random& random) { return static_cast<double>(random() >> 11) * 0x1p-53; }

/// The index at which the weights reach a share of their sum.
std::size_t drawn(const std::vector<double>& weights, Random& random) {
  double left = uniform(random) * std::accumulate(weights.begin(), weights.end(), 0.0);
  for (std::size_t i = 0; i + 1 < weights.size(); ++i) {
    if (left < weights[i]) return i;
    left -= weights[i];
  }
  // Rounding may lead here: to the last that has any weight.
  std::size_t last = weights.size() - 1;
  while (last > 0 && weights[last] == 0) --last;
  return last;
}

/// Which of a row of independent entries are in, given that k are.
class Halving {
 public:
  Halving(std::span<const double> p, Random& random) : p_(p), random_(random) {
    means_.resize(p.size() + 1);
    variances_.resize(p.size() + 1);
    for (std::size_t i = 0; i < p.size(); ++i) {
      means_[i + 1] = means_[i] + p[i];
      variances_[i + 1] = variances_[i] + p[i] * (1 - p[i]);
    }
  }

  /// Adds those of [from, to) that are in.
  void draw(std::size_t from, std::size_t to, std::int64_t k, std::vector<std::size_t>& in) {
    const auto size = static_cast<std::int64_t>(to - from);
    if (k == 0) return;
    if (k == size) {
      for (std::size_t i = from; i < to; ++i) in.push_back(i);
      return;
    }
    if (to - from <= kFew) return draw_one_by_one(from, to, k, in);
    const std::size_t middle = from + (to - from) / 2;
    const std::int64_t left = number_in_left(from, middle, to, k);
    draw(from, middle, left, in);
    draw(middle, to, k - left, in);
  }

 private:
  static constexpr std::size_t kFew = 48;

  /// How many of the k lie in the left half: P(left = c) P(right = k - c), for the c that can be met.
  std::int64_t number_in_left(std::size_t from, std::size_t middle, std::size_t to, std::int64_t k) {
    const double left = variances_[middle] - variances_[from], right = variances_[to] - variances_[middle];
    const double whole = std::max(left + right, 1e-300), mean = means_[middle] - means_[from];
    const double centre = mean + (static_cast<double>(k) - (means_[to] - means_[from])) * left / whole;
    const double reach = 12 * std::sqrt(left * right / whole) + 48;
    const auto size_left = static_cast<double>(middle - from), size_right = static_cast<double>(to - middle);
    const double least = std::ceil(std::max({0.0, static_cast<double>(k) - size_right, centre - reach}));
    const double most = std::floor(std::min({static_cast<double>(k), size_left, centre + reach}));
    const auto first = static_cast<std::int64_t>(least),
               count = static_cast<std::int64_t>(std::max(most - least, 0.0)) + 1;
    std::vector<double> weights(static_cast<std::size_t>(count)), others(weights.size());
    topk::count_distribution(p_.subspan(from, middle - from), first, weights);
    topk::count_distribution(p_.subspan(middle, to - middle), k - first - count + 1, others);
    for (std::size_t i = 0; i < weights.size(); ++i) weights[i] *= others[weights.size() - 1 - i];
    return first + static_cast<std::int64_t>(drawn(weights, random_));
  }

  /// By the recursion over what the entries behind can still give.
  void draw_one_by_one(std::size_t from, std::size_t to, std::int64_t k, std::vector<std::size_t>& in) {
    const auto width = static_cast<std::size_t>(k) + 1, n = to - from;
    std::vector<double> last((n + 1) * width, 0);  // last[j][m]: that m of the entries from j on are in
    last[n * width] = 1;
    for (std::size_t j = n; j-- > 0;) {
      const double p = p_[from + j];
      for (std::size_t m = 0; m < width; ++m) {
        last[j * width + m] = (1 - p) * last[(j + 1) * width + m] + (m > 0 ? p * last[(j + 1) * width + m - 1] : 0);
      }
    }
    auto left = static_cast<std::size_t>(k);
    for (std::size_t j = 0; j < n && left > 0; ++j) {
      const double with = p_[from + j] * last[(j + 1) * width + left - 1];
      const double without = (1 - p_[from + j]) * last[(j + 1) * width + left];
      if (n - j > left && uniform(random_) * (with + without) >= with) continue;
      in.push_back(from + j);
      --left;
    }
  }

  std::span<const double> p_;
  Random& random_;
  std::vector<double> means_, variances_;  ///< of the number that are in among the first entries
};

}  // namespace

std::vector<std::vector<std::int64_t>> sample_subsets(std::span<const double> x, int k, double tau, std::uint64_t seed,
                                                      int count, const Progress& progress) {
  const auto refuse = [](const std::string& problem) { throw std::invalid_argument("[sample_subsets] " + problem); };
  if (count < 0) refuse(fmt::format("count = {}", count));
  if (!(tau > topk::kLeastTau && std::isfinite(tau)))
    refuse(fmt::format("tau = {} is not above {:g} and finite", tau, topk::kLeastTau));
  std::vector<double> finite;
  std::vector<std::int64_t> places, infinite;
  for (std::size_t i = 0; i < x.size(); ++i) {
    if (std::isnan(x[i])) refuse(fmt::format("entry {} is NaN", i));
    if (std::isfinite(x[i])) {
      finite.push_back(x[i]);
      places.push_back(static_cast<std::int64_t>(i));
    } else if (x[i] > 0) {
      infinite.push_back(static_cast<std::int64_t>(i));
    }
  }
  const auto sure = static_cast<std::int64_t>(infinite.size()), most = static_cast<std::int64_t>(finite.size()) + sure;
  if (k < sure || k > most) refuse(fmt::format("k = {} outside [{}, {}], what the entries allow", k, sure, most));
  Random random(seed);
  const int rest = static_cast<int>(k - sure);
  std::vector<double> p;
  if (rest > 0 && rest < most - sure) p = topk::tilted_chances(finite, rest, tau);
  Halving halving(p, random);
  std::vector<std::vector<std::int64_t>> subsets;
  for (int draw = 0; draw < count; ++draw) {
    progress.step("subsets", draw, count);
    std::vector<std::int64_t>& subset = subsets.emplace_back(infinite);
    std::vector<std::size_t> in;
    if (!p.empty()) {
      halving.draw(0, p.size(), rest, in);
    } else if (rest > 0) {
      in.resize(finite.size());
      std::iota(in.begin(), in.end(), 0);
    }
    for (const std::size_t i : in) subset.push_back(places[i]);
    std::sort(subset.begin(), subset.end());
  }
  return subsets;
}

}  // namespace tuiqiao
