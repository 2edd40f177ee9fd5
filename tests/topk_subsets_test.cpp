#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <map>
#include <numeric>
#include <random>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "topk/subsets.h"
#include "topk_rows.h"
#include "tuiqiao/topk.h"

namespace tuiqiao::test {
namespace {

using Random = std::mt19937_64;

// ---- The law: marginals and log Z_k ----

TEST(TopkSubsets, IsThatOfAllSubsets) {
  Random random(7);
  std::normal_distribution<double> normal;
  std::cauchy_distribution<double> cauchy;
  for (std::size_t n = 1; n <= 12; ++n) {
    for (int k = 0; k <= static_cast<int>(n); ++k) {
      for (int kind = 0; kind < 6; ++kind) {
        Values x(n);
        const double spread = std::pow(10, static_cast<int>(random() % 5) - 2);
        const double tau = std::pow(10, static_cast<int>(random() % 3) - 1);
        for (double& value : x) {
          value = kind == 0   ? spread * normal(random) + 5
                  : kind == 1 ? spread * cauchy(random)
                  : kind == 2 ? static_cast<double>(random() % 2)
                  : kind == 3 ? 4.0
                  : kind == 4 ? 1e4 + spread * normal(random)
                              : (random() % 2 ? 80 : 0) + normal(random);
        }
        const SubsetLaw law = subset_law_by_force(x, k, tau, x);
        const Found found = solve(x, k, options_of(TopkMethod::gradient, tau));
        for (std::size_t i = 0; i < n; ++i) {
          EXPECT_NEAR(found.p[i], law.p[i], kTopkError) << n << " " << k << " kind " << kind;
          if (law.p[i] > 1e-290) {
            EXPECT_NEAR(found.p[i] / law.p[i], 1, 1e-10) << n << " " << k << " kind " << kind;
          }
        }
        EXPECT_NEAR(found.row.log_z, law.log_z, 1e-12 * (1 + std::abs(law.log_z))) << n << " " << k;
      }
    }
  }
  // A node at pi would drop a term where p = 1/2.
  expect_near(solve(TopkMethod::gradient, {0, 0}, 1), {0.5, 0.5}, 1e-15);
}

TEST(TopkSubsets, EqualsTheRecursion) {
  Random random(8);
  std::normal_distribution<double> normal;
  for (int i = 0; i < 200; ++i) {
    const std::size_t n = 2 + random() % 300;
    const int k = 1 + static_cast<int>(random() % (n - 1));
    Values x(n), by_nodes(n), by_recursion(n);
    const double spread = std::pow(10, static_cast<int>(random() % 5) - 1);
    for (double& value : x) value = spread * normal(random);
    const double a = topk::subset_marginals(x, k, 1, by_nodes),
                 b = topk::subset_marginals_by_recursion(x, k, 1, by_recursion);
    expect_near(by_nodes, by_recursion, kTopkError);
    EXPECT_NEAR(a, b, 1e-12 * (1 + std::abs(a)));
  }
}

TEST(TopkSubsets, HasDigitsBelowAWideGapToo) {
  // p_2 = e^-80 / (1 + e^-80): from the nodes alone it would be wrong in the first digit.
  const Values p = solve(TopkMethod::gradient, {80, 0}, 1);
  EXPECT_NEAR(p[1] / std::exp(-80), 1, 1e-10);
}

// ---- The number of entries that are in ----

/// P(m of them are in) for all m, entry by entry.
Values counts_by_recursion(const Values& p, std::size_t from, std::size_t to) {
  Values chances{1};
  for (std::size_t i = from; i < to; ++i) {
    chances.push_back(0);
    for (std::size_t m = chances.size() - 1; m > 0; --m) chances[m] = (1 - p[i]) * chances[m] + p[i] * chances[m - 1];
    chances[0] *= 1 - p[i];
  }
  return chances;
}

TEST(CountDistribution, EqualsTheRecursion) {
  Random random(24);
  std::uniform_real_distribution<double> uniform;
  for (int i = 0; i < 100; ++i) {
    Values p(1 + random() % 200);
    const auto kind = random() % 4;
    for (double& chance : p) {
      chance = kind == 0   ? uniform(random)
               : kind == 1 ? std::pow(uniform(random), 8)
               : kind == 2 ? 0.5
                           : static_cast<double>(random() % 2);
    }
    const Values expected = counts_by_recursion(p, 0, p.size());
    const std::size_t least = random() % (p.size() + 1);
    Values found(1 + random() % (p.size() + 1 - least));
    topk::count_distribution(p, static_cast<std::int64_t>(least), found);
    for (std::size_t m = 0; m < found.size(); ++m)
      ASSERT_NEAR(found[m], expected[least + m], 1e-14)  // measured up to 8e-15 for n <= 200
          << i << " " << least + m;
  }
}

// ---- Draws ----

/// What a sum of squares with so many degrees of freedom exceeds once in 10,000 times. Source: Wilson and Hilferty
/// 1931.
double chi_square_limit(int degrees) {
  const double part = 2.0 / (9 * degrees);
  return degrees * std::pow(1 - part + 3.719 * std::sqrt(part), 3);
}

/// Compares counts with chances that sum to 1; chances of few draws are taken together.
void expect_drawn_from(const Values& chances, const std::vector<int>& counts, int draws, const std::string& what) {
  constexpr double kLeast = 8;
  double chi = 0, expected = 0, count = 0, left = draws;
  int groups = 0;
  for (std::size_t m = 0; m < chances.size(); ++m) {
    expected += draws * chances[m], count += counts[m];
    if (m + 1 < chances.size() && (expected < kLeast || left - expected < kLeast)) continue;
    chi += (count - expected) * (count - expected) / expected;
    left -= expected;
    expected = count = 0;
    ++groups;
  }
  ASSERT_GE(groups, 5) << what;
  EXPECT_LT(chi, chi_square_limit(groups - 1)) << what << ", " << groups << " groups";
}

TEST(SampleSubsets, DrawsEachSubsetAsOftenAsItShould) {
  const Values x{0.5, -1, 2, 0, 1, -0.5};
  constexpr int kDraws = 60000;
  std::map<unsigned, int> counts;
  for (const auto& subset : sample_subsets(x, 3, 0.8, 5, kDraws)) {
    ASSERT_EQ(subset.size(), 3U);
    ASSERT_TRUE(std::is_sorted(subset.begin(), subset.end()));
    unsigned set = 0;
    for (const std::int64_t i : subset) set |= 1U << i;
    ++counts[set];
  }
  Values chances;
  std::vector<int> drawn;
  for (unsigned set = 0; set < 64; ++set) {
    if (std::popcount(set) != 3) continue;
    double sum_x = 0;
    for (std::size_t i = 0; i < x.size(); ++i) sum_x += set >> i & 1U ? x[i] / 0.8 : 0;
    chances.push_back(std::exp(sum_x));
    drawn.push_back(counts[set]);
  }
  const double total = sum(chances);
  for (double& chance : chances) chance /= total;
  expect_drawn_from(chances, drawn, kDraws, "subsets");
}

/// The number of chosen entries in [from, to): P(m within) P(k - m without) / P(k).
Values chances_within(const Values& p, std::size_t from, std::size_t to, std::size_t k) {
  Values others(p.begin(), p.begin() + static_cast<std::ptrdiff_t>(from));
  others.insert(others.end(), p.begin() + static_cast<std::ptrdiff_t>(to), p.end());
  const Values within = counts_by_recursion(p, from, to), without = counts_by_recursion(others, 0, others.size());
  Values chances(k + 1, 0);
  for (std::size_t m = 0; m <= k; ++m)
    chances[m] = m < within.size() && k - m < without.size() ? within[m] * without[k - m] : 0;
  const double total = sum(chances);
  for (double& chance : chances) chance /= total;
  return chances;
}

/// Independent chances of which the subset is those that are in, given their number: any threshold does, found here by
/// halving.
Values independent_chances(const Values& x, double k) {
  double low = -1e3, high = 1e3;
  Values p(x.size());
  for (int i = 0; i < 100; ++i) {
    const double middle = (low + high) / 2;
    for (std::size_t j = 0; j < x.size(); ++j) p[j] = 1 / (1 + std::exp(middle - x[j]));
    (sum(p) > k ? low : high) = middle;
  }
  return p;
}

TEST(SampleSubsets, HalvesLongRowsRightly) {
  constexpr std::size_t kEntries = 200, kChosen = 60;
  constexpr int kDraws = 2000;
  Random random(17);
  std::normal_distribution<double> normal;
  Values x(kEntries);
  for (std::size_t i = 0; i < kEntries; ++i) x[i] = 2 * normal(random) + (i < kEntries / 2 ? 0.7 : 0);
  const Values p = independent_chances(x, kChosen);
  const auto subsets = sample_subsets(x, kChosen, 1, 6, kDraws);
  // Halves, quarters, eighths (within which entries are drawn one by one), and what lies across their edges.
  for (const auto& [from, to] : std::vector<std::pair<std::size_t, std::size_t>>{
           {0, 100}, {0, 50}, {50, 100}, {100, 150}, {150, 200}, {0, 25}, {25, 50}, {175, 200}, {40, 75}, {80, 130}}) {
    std::vector<int> counts(kChosen + 1, 0);
    for (const auto& subset : subsets) {
      ASSERT_EQ(subset.size(), kChosen);
      const auto first = std::lower_bound(subset.begin(), subset.end(), static_cast<std::int64_t>(from));
      const auto last = std::lower_bound(first, subset.end(), static_cast<std::int64_t>(to));
      ++counts[static_cast<std::size_t>(last - first)];
    }
    expect_drawn_from(chances_within(p, from, to, kChosen), counts, kDraws,
                      std::to_string(from) + " to " + std::to_string(to));
  }
  // Each entry by itself, at 5 deviations; the rest is for chances of less than a draw.
  Values marginals(kEntries), times(kEntries, 0);
  topk::subset_marginals(x, kChosen, 1, marginals);
  for (const auto& subset : subsets) {
    for (const std::int64_t i : subset) ++times[static_cast<std::size_t>(i)];
  }
  for (std::size_t i = 0; i < kEntries; ++i) {
    const double deviation = std::sqrt(kDraws * marginals[i] * (1 - marginals[i]));
    EXPECT_NEAR(times[i], kDraws * marginals[i], 5 * deviation + 3) << i;
  }
}

TEST(SampleSubsets, KeepsMasksInfinitiesAndSeeds) {
  const Values x{1, -kInfinity, kInfinity, 0, 2};
  for (const auto& subset : sample_subsets(x, 2, 1, 7, 50)) {
    EXPECT_TRUE(std::count(subset.begin(), subset.end(), 2) == 1 && std::count(subset.begin(), subset.end(), 1) == 0);
  }
  EXPECT_EQ(sample_subsets(x, 4, 1, 7, 1)[0], (std::vector<std::int64_t>{0, 2, 3, 4}));
  EXPECT_EQ(sample_subsets(x, 2, 1, 7, 9), sample_subsets(x, 2, 1, 7, 9));
  EXPECT_TRUE(sample_subsets(x, 2, 1, 7, 0).empty());
  EXPECT_THROW(sample_subsets(x, 0, 1, 7), std::invalid_argument);
  EXPECT_THROW(sample_subsets(x, 5, 1, 7), std::invalid_argument);
  EXPECT_THROW(sample_subsets(x, 2, 0, 7), std::invalid_argument);
  EXPECT_THROW(sample_subsets(x, 2, 1, 7, -1), std::invalid_argument);
  EXPECT_THROW(sample_subsets({{1.0, std::nan("")}}, 1, 1, 7), std::invalid_argument);
}

/// Of rows with wide gaps, all that can be drawn is the hard choice; of even ones, anything.
TEST(SampleSubsets, StandsWideAndEvenRows) {
  Random random(26);
  for (const std::size_t n : {1U, 2U, 48U, 49U, 97U, 500U}) {
    for (const std::size_t k : {std::size_t{0}, std::size_t{1}, n / 2, n - 1, n}) {
      Values wide(n);
      for (std::size_t i = 0; i < n; ++i) wide[i] = 1e4 * static_cast<double>(i * 37 % n);
      std::shuffle(wide.begin(), wide.end(), random);
      std::vector<std::int64_t> hard = top_indices<double>(wide, static_cast<std::int64_t>(k));
      std::sort(hard.begin(), hard.end());
      EXPECT_EQ(sample_subsets(wide, static_cast<int>(k), 1, 3)[0], hard) << n << " " << k;
      for (const auto& subset : sample_subsets(Values(n, 3.0), static_cast<int>(k), 1, 3, 5)) {
        EXPECT_EQ(subset.size(), k);
        EXPECT_TRUE(std::adjacent_find(subset.begin(), subset.end(), std::greater_equal<>()) == subset.end());
      }
    }
  }
}

TEST(TopIndices, AreTheLargestInOrder) {
  const Values x{3, 1, 4, 1, 5, 9, 2, 6, 5};
  EXPECT_EQ(top_indices<double>(x, 4), (std::vector<std::int64_t>{5, 7, 4, 8}));
  EXPECT_EQ(top_indices<double>(x, 0), std::vector<std::int64_t>{});
  EXPECT_EQ(top_indices<double>(x, 9).back(), 3);
  EXPECT_THROW(top_indices<double>(x, 10), std::invalid_argument);
  EXPECT_THROW(top_indices<double>(x, -1), std::invalid_argument);
  EXPECT_THROW(top_indices<double>(Values{1, std::nan("")}, 1), std::invalid_argument);
}

// ---- Logarithms ----

TEST(SubsetLogProbabilities, AreLogarithmsOfTheMarginals) {
  std::mt19937_64 random(31);
  std::normal_distribution<double> normal;
  for (const std::size_t n : {2U, 5U, 40U, 3000U}) {
    for (const double spread : {0.3, 3.0, 30.0}) {
      Values x(n), log_p(n), p(n);
      for (double& value : x) value = spread * normal(random);
      const int k = static_cast<int>(n / 2);
      const double log_z = subset_log_probabilities(x, k, 0.7, log_p);
      SmoothTopkOptions options;
      options.method = TopkMethod::gradient;
      options.tau = {0.7};
      const auto rows =
          smooth_topk<double>({x.data(), 1, static_cast<std::int64_t>(n)}, std::array{static_cast<double>(k)}, options,
                              {p.data(), 1, static_cast<std::int64_t>(n)});
      EXPECT_NEAR(log_z, rows[0].log_z, 1e-12 * (1 + std::abs(log_z)));
      for (std::size_t i = 0; i < n; ++i) EXPECT_NEAR(std::exp(log_p[i]), p[i], 1e-12 + 1e-10 * p[i]) << n;
    }
  }
}

/// Of k = 1 it is log softmax, for chances that are no doubles too; masks, all and none.
TEST(SubsetLogProbabilities, HaveDigitsWhereChancesUnderflow) {
  const Values x{0, -1000, -2, -50000, -INFINITY};
  Values log_p(5);
  const double log_z = subset_log_probabilities(x, 1, 1, log_p);
  const double total = std::log1p(std::exp(-2));
  EXPECT_NEAR(log_z, total, 1e-14);
  for (std::size_t i = 0; i < 4; ++i) EXPECT_NEAR(log_p[i], x[i] - total, 1e-10 * (1 + std::abs(x[i])));
  EXPECT_EQ(log_p[4], -INFINITY);
  EXPECT_EQ(subset_log_probabilities(x, 4, 2, log_p), -51002.0 / 2);
  EXPECT_EQ(log_p, (Values{0, 0, 0, 0, -INFINITY}));
  EXPECT_EQ(subset_log_probabilities(x, 0, 2, log_p), 0);
  EXPECT_EQ(log_p, Values(5, -INFINITY));
  EXPECT_THROW(subset_log_probabilities(x, 5, 1, log_p), std::invalid_argument);
  EXPECT_THROW(subset_log_probabilities(x, 1, 0, log_p), std::invalid_argument);
}

/// Entries that take no part do not cost log Z its digits.
TEST(SubsetLogProbabilities, LogZDoesNotCancelOverFarEntries) {
  const Values x{-1.5863299900088677e-05, -103618.57036200918, -2339401.3438448873};
  Values log_p(3);
  EXPECT_NEAR(subset_log_probabilities(x, 1, 0.001, log_p), x[0] / 0.001, 1e-15);
}

}  // namespace
}  // namespace tuiqiao::test
