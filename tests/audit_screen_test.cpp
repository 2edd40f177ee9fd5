#include <fmt/format.h>
#include <gtest/gtest.h>

#include <cmath>
#include <random>

#include "audit/scan_kernels.h"
#include "audit/screen.h"

namespace tuiqiao::auditing {
namespace {

/// Rows of a spectrum that falls as 1 / (1 + decay j), lengths spread by `spread`.
OutputHead made_head(std::int64_t classes, std::int64_t columns, double decay, double spread, unsigned seed) {
  std::mt19937 random(seed);
  std::normal_distribution<double> normal;
  OutputHead head;
  head.classes = classes;
  head.columns = columns;
  std::vector<double> centre(static_cast<std::size_t>(columns));
  for (double& c : centre) c = 0.3 * normal(random);
  for (std::int64_t i = 0; i < classes; ++i) {
    const double length = std::exp(spread * normal(random));
    for (std::int64_t j = 0; j < columns; ++j) {
      const double strength = 1 / (1 + decay * static_cast<double>(j));
      head.rows.push_back(
          static_cast<float>(length * (strength * normal(random) + centre[static_cast<std::size_t>(j)])));
    }
  }
  return head;
}

TEST(AuditScan, FindsWhatReachesTheThreshold) {
  std::mt19937 random(1);
  std::normal_distribution<float> normal;
  const std::size_t width = block_rows(), terms = 5, blocks = 7, count = 16;
  std::vector<float> packed(blocks * width * terms), witnesses(count * terms), thresholds(count), best(count, -1e30F);
  for (float& x : packed) x = normal(random);
  for (float& x : witnesses) x = normal(random);
  for (float& x : thresholds) x = 2 * normal(random);
  packed[3] = std::nanf("");  // survives whatever the threshold
  std::vector<Survivors> found;
  scan({packed.data(), 1, blocks - 1, terms, witnesses.data(), thresholds.data(), count, best.data()}, found);
  scan({packed.data(), 0, 1, terms, witnesses.data(), thresholds.data(), count, best.data()}, found);
  std::size_t expected = 0, seen = 0;
  for (std::size_t w = 0; w < count; ++w) {
    float most = -1e30F;
    for (std::size_t i = 0; i < blocks * width; ++i) {
      double sum = 0;
      for (std::size_t t = 0; t < terms; ++t)
        sum += static_cast<double>(packed[i / width * width * terms + t * width + i % width]) *
               static_cast<double>(witnesses[w * terms + t]);
      const bool below = sum < static_cast<double>(thresholds[w]);
      if (below) most = std::max(most, static_cast<float>(sum));
      expected += below ? 0 : 1;
      for (const Survivors& one : found)
        seen += !below && one.witness == w && one.block == i / width && (one.rows >> (i % width) & 1U) != 0 ? 1 : 0;
    }
    EXPECT_NEAR(best[w], most, 1e-5);
  }
  std::size_t bits = 0;
  for (const Survivors& one : found) bits += static_cast<std::size_t>(__builtin_popcount(one.rows));
  EXPECT_EQ(seen, expected);
  EXPECT_EQ(bits, expected);
}

TEST(AuditScan, MultipliesRowsOfAnyLength) {
  std::mt19937 random(2);
  std::normal_distribution<float> normal;
  for (std::size_t n = 0; n < 200; ++n) {
    std::vector<float> a(n), b(n);
    double exact = 0, size = 0;
    for (std::size_t j = 0; j < n; ++j) {
      a[j] = normal(random);
      b[j] = normal(random);
      exact += static_cast<double>(a[j]) * static_cast<double>(b[j]);
      size += std::abs(static_cast<double>(a[j]) * static_cast<double>(b[j]));
    }
    EXPECT_LE(std::abs(static_cast<double>(product(a.data(), b.data(), n)) - exact),
              static_cast<double>(n + 1) * 0x1p-24 * size);
  }
}

/// Every class's outcome by bounds is that of all products, and its margin no more.
void expect_same_outcomes(const OutputHead& head, const std::vector<float>& shift, bool turned) {
  const Problem problem(head, {});
  std::vector<std::int64_t> groups;
  for (std::int64_t i = 0; i < head.classes; ++i) {
    if (problem.group()[static_cast<std::size_t>(i)] == i) groups.push_back(i);
  }
  const Screen screen(problem, groups, shift);
  const std::size_t n = problem.columns();
  std::vector<double> z(groups.size() * n);
  std::mt19937 random(9);
  std::normal_distribution<double> normal;
  for (std::size_t g = 0; g < groups.size(); ++g) {
    for (std::size_t j = 0; j < n; ++j) {
      z[g * n + j] =
          static_cast<double>(problem.approximate(groups[g])[j]) - (shift.empty() ? 0 : static_cast<double>(shift[j]));
      if (turned) z[g * n + j] = 3 * z[g * n + j] + 0.1 * normal(random);
    }
  }
  AuditEffort effort;
  const auto found = screen.check(groups, z, effort);
  const auto expected = check_all_rows(problem, lengths_of(problem), groups, z);
  for (std::size_t g = 0; g < groups.size(); ++g) {
    ASSERT_EQ(found[g].wins, expected[g].wins) << g;
    if (!found[g].wins) {
      EXPECT_FALSE(found[g].violators.empty()) << g;
      const auto checked = compare_exactly(problem, groups[g], z.data() + g * n, found[g].violators);
      EXPECT_EQ(checked.violators.size(), found[g].violators.size());
    } else {
      EXPECT_GT(found[g].margin, 0) << g;
      EXPECT_LE(found[g].margin, expected[g].margin * (1 + 1e-12)) << g;
    }
  }
  EXPECT_EQ(effort.pairs, static_cast<std::int64_t>(groups.size() * groups.size()));
  EXPECT_EQ(effort.by_norm + effort.by_few + effort.by_more + effort.by_product, effort.pairs);
}

TEST(AuditScreen, AgreesWithAllProducts) {
  for (const double decay : {0.0, 0.05, 1.0}) {
    for (const double spread : {0.0, 0.02, 0.3}) {
      for (const std::int64_t columns : {5, 33, 96}) {
        OutputHead head = made_head(700, columns, decay, spread, 11);
        std::copy_n(head.rows.begin(), columns, head.rows.begin() + 50 * columns);  // an equal row
        SCOPED_TRACE(fmt::format("decay {}, spread {}, {} columns", decay, spread, columns));
        expect_same_outcomes(head, {}, false);
        expect_same_outcomes(head, std::vector<float>(static_cast<std::size_t>(columns), 0.25F), false);
        expect_same_outcomes(head, {}, true);
      }
    }
  }
}

TEST(AuditScreen, KeepsTheVerdicts) {
  OutputHead head = made_head(3000, 48, 0.02, 0.15, 5);
  for (std::size_t j = 0; j < 48; ++j) {  // one row deep inside
    double sum = 0;
    for (std::size_t i = 0; i < 3000; ++i) sum += static_cast<double>(head.rows[i * 48 + j]);
    head.rows[700 * 48 + j] = static_cast<float>(sum / 3000);
  }
  AuditOptions with, without;
  with.bounds_from = 0;
  without.bounds_from = 1 << 30;
  const AuditResult a = audit(head, with), b = audit(head, without);
  for (std::size_t i = 0; i < a.verdicts.size(); ++i) EXPECT_EQ(a.verdicts[i].verdict, b.verdicts[i].verdict) << i;
  EXPECT_GT(a.effort.by_few, a.effort.by_product);
  EXPECT_EQ(a.verdicts[700].verdict, Verdict::unargmaxable);
}

TEST(AuditScreen, TakesRowsOfAnySize) {
  for (const float scale : {1e-30F, 1e30F}) {
    OutputHead head = made_head(300, 8, 0.1, 0.2, 6);
    const AuditResult plain = audit(head);
    for (float& x : head.rows) x *= scale;
    AuditOptions options;
    options.bounds_from = 0;
    const AuditResult scaled = audit(head, options);
    std::int64_t different = 0;
    for (std::size_t i = 0; i < plain.verdicts.size(); ++i) {
      EXPECT_NE(scaled.verdicts[i].verdict, Verdict::unknown);
      different += plain.verdicts[i].verdict != scaled.verdicts[i].verdict ? 1 : 0;
    }
    EXPECT_EQ(different, 0) << scale;  // scaling rounds nothing away that decides
  }
}

}  // namespace
}  // namespace tuiqiao::auditing
