#include <fmt/format.h>
#include <gtest/gtest.h>

#include <cmath>
#include <numeric>
#include <optional>
#include <random>

#include "audit/rules.h"
#include "audit/scan_kernels.h"
#include "audit/screen.h"
#include "audit/sweep.h"

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
  const std::size_t width = block_rows(), blocks = 7, count = 16;
  for (const std::size_t pairs : {1, 3, 150}) {  // beyond 128 the loops are the other way round
    // As long as they may be, so that sums come near the ends of int32.
    const auto most = static_cast<int>(kMostScanned / std::sqrt(2.0 * static_cast<double>(pairs)));
    const auto draw = [&] {
      return static_cast<std::int16_t>(std::uniform_int_distribution<int>(-most, most)(random));
    };
    std::vector<std::int16_t> rows(blocks * width * pairs * 2), witnesses(count * pairs * 2), packed(rows.size());
    for (auto& x : rows) x = draw();
    for (auto& x : witnesses) x = draw();
    std::copy_n(rows.begin(), 2 * pairs, witnesses.begin());
    for (std::size_t t = 0; t < 2 * pairs; ++t)
      rows[2 * pairs + t] = rows[t] = witnesses[t] = static_cast<std::int16_t>(most);
    for (std::size_t i = 0; i < blocks * width; ++i) pack_row(rows.data() + i * 2 * pairs, pairs, i, packed.data());
    EXPECT_EQ(packed_size(blocks * width, pairs), packed.size());
    EXPECT_EQ(packed_size(blocks * width - 1, pairs), packed.size());
    const auto value = [&](std::size_t w, std::size_t i) {
      std::int64_t sum = 0;
      for (std::size_t t = 0; t < 2 * pairs; ++t)
        sum += std::int64_t{rows[i * 2 * pairs + t]} * std::int64_t{witnesses[w * 2 * pairs + t]};
      return sum;
    };
    std::vector<std::int32_t> thresholds(count), best(count, std::numeric_limits<std::int32_t>::min());
    for (std::size_t w = 0; w < count; ++w) thresholds[w] = static_cast<std::int32_t>(value(w, w + 1));  // just reached
    std::vector<Survivors> found;
    scan({packed.data(), blocks, pairs, witnesses.data(), thresholds.data(), count, best.data()}, found);
    std::size_t expected = 0, seen = 0, bits = 0;
    for (const Survivors& one : found) bits += static_cast<std::size_t>(__builtin_popcount(one.rows));
    for (std::size_t w = 0; w < count; ++w) {
      std::int64_t below = std::numeric_limits<std::int32_t>::min();
      for (std::size_t i = 0; i < blocks * width; ++i) {
        const bool reaches = value(w, i) >= thresholds[w];
        if (!reaches) below = std::max(below, value(w, i));
        expected += reaches ? 1 : 0;
        for (const Survivors& one : found)
          seen += reaches && one.witness == w && one.block == i / width && (one.rows >> (i % width) & 1U) != 0 ? 1 : 0;
      }
      EXPECT_EQ(best[w], below);
    }
    EXPECT_GE(expected, count);
    EXPECT_EQ(seen, expected);
    EXPECT_EQ(bits, expected);
  }
}

TEST(AuditScan, RoundsToNearest) {
  std::mt19937 random(3);
  std::uniform_real_distribution<float> uniform(-1, 1);
  std::vector<float> x(133);
  std::vector<std::int16_t> rounded(x.size());
  for (int turn = 0; turn < 1000; ++turn) {
    for (float& one : x) one = uniform(random);
    quantise(x.data(), x.size(), 32000, rounded.data());
    for (std::size_t j = 0; j < x.size(); ++j)
      EXPECT_LE(std::abs(static_cast<double>(x[j]) * 32000 - static_cast<double>(rounded[j])), kQuantiseError);
  }
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

std::vector<std::int64_t> groups_of(const Problem& problem) {
  std::vector<std::int64_t> groups;
  for (std::int64_t i = 0; i < problem.classes(); ++i) {
    if (problem.group()[static_cast<std::size_t>(i)] == i) groups.push_back(i);
  }
  return groups;
}

/// An outcome is that of all products, and its margin no more.
void expect_same(const Problem& problem, std::int64_t k, const double* z, const WitnessOutcome& found,
                 const WitnessOutcome& expected) {
  ASSERT_EQ(found.wins, expected.wins) << k;
  if (found.wins) {
    EXPECT_GT(found.margin, 0) << k;
    EXPECT_LE(found.margin, expected.margin + 1e-12 * std::abs(expected.margin)) << k;
    return;
  }
  EXPECT_FALSE(found.violators.empty()) << k;
  const auto checked = compare_exactly(problem, k, z, found.violators);
  EXPECT_EQ(checked.violators.size(), found.violators.size()) << k;
}

/// The screen's outcomes by the rules, and the sweep's by any witness.
void expect_same_outcomes(const OutputHead& head, const std::optional<double>& radius = {}) {
  const Problem problem(head, radius);
  const std::vector<std::int64_t> groups = groups_of(problem);
  const AuditFrame frame = frame_of(problem, groups);
  const std::size_t n = problem.columns();
  std::vector<float> centre = frame.centre;
  centre.resize(n, 0);
  const Sweep kept(problem, groups, centre, true), made(problem, groups, {}, false);
  std::mt19937 random(9);
  std::normal_distribution<double> normal;
  for (const WitnessRule rule : {WitnessRule::row, WitnessRule::centred}) {
    const Screen screen(problem, groups, rule == WitnessRule::row ? std::vector<float>{} : frame.centre, frame.reach);
    ASSERT_TRUE(screen.is_usable());
    std::vector<double> z, turned;
    for (const std::int64_t k : groups) {
      const std::vector<double> one = witness_of(problem, frame, rule, k);
      z.insert(z.end(), one.begin(), one.end());
      for (const double x : one) turned.push_back(3 * x + 0.1 * normal(random));
    }
    AuditEffort effort;
    const auto screened = screen.check(frame, rule, groups, {}, effort);
    EXPECT_EQ(effort.pairs, static_cast<std::int64_t>(groups.size() * groups.size()));
    EXPECT_EQ(effort.by_norm + effort.by_few + effort.by_more + effort.by_product, effort.pairs);
    const std::vector<double> lengths = lengths_of(problem);
    const auto expected = check_all_rows(problem, lengths, groups, z);
    const auto swept = kept.check(groups, z, {});
    const auto turned_expected = check_all_rows(problem, lengths, groups, turned);
    const auto turned_swept = made.check(groups, turned, {});
    for (std::size_t g = 0; g < groups.size(); ++g) {
      SCOPED_TRACE(name(rule));
      expect_same(problem, groups[g], z.data() + g * n, screened[g], expected[g]);
      expect_same(problem, groups[g], z.data() + g * n, swept[g], expected[g]);
      expect_same(problem, groups[g], turned.data() + g * n, turned_swept[g], turned_expected[g]);
    }
  }
}

class AuditSpectrum : public testing::TestWithParam<double> {};

TEST_P(AuditSpectrum, AgreesWithAllProducts) {
  for (const double spread : {0.0, 0.02, 0.3}) {
    for (const std::int64_t columns : {5, 33, 96}) {
      OutputHead head = made_head(700, columns, GetParam(), spread, 11);
      std::copy_n(head.rows.begin(), columns, head.rows.begin() + 50 * columns);  // an equal row
      SCOPED_TRACE(fmt::format("decay {}, spread {}, {} columns", GetParam(), spread, columns));
      expect_same_outcomes(head);
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Decays, AuditSpectrum, testing::Values(0.0, 0.05, 1.0));

TEST(AuditScreen, LeadsByNoMoreThanOverRowsThatItDidNotCompare) {
  // Thousands of rivals that float32 cannot put in order, and a class that leads them by little more than it can tell.
  std::mt19937 random(14);
  std::normal_distribution<float> normal;
  constexpr std::size_t kColumns = 256, kRivals = 4000;
  std::vector<float> base(kColumns);
  for (float& x : base) x = normal(random);
  const double square = std::inner_product(base.begin(), base.end(), base.begin(), 0.0);
  int close = 0;
  for (const float ahead : {1e-6F, 2e-6F, 4e-6F, 8e-6F, 1.6e-5F, 3.2e-5F, 6.4e-5F}) {
    OutputHead head;
    head.columns = kColumns;
    head.classes = kRivals + 1;
    for (const float x : base) head.rows.push_back(x * (1 + ahead));
    for (std::size_t i = 0; i < kRivals; ++i) {
      // Of the same product with the base, but for the rounding of its entries.
      std::vector<double> rival(base.begin(), base.end());
      for (double& x : rival) x += 0.1 * static_cast<double>(normal(random));
      const double product = std::inner_product(rival.begin(), rival.end(), base.begin(), 0.0);
      for (const double x : rival) head.rows.push_back(static_cast<float>(x * square / product));
    }
    const Problem problem(head, {});
    const std::vector<std::int64_t> groups = groups_of(problem);
    const std::vector<double> z(base.begin(), base.end());
    std::vector<std::int64_t> everyone(groups.begin() + 1, groups.end());
    const WitnessOutcome exact = compare_exactly(problem, 0, z.data(), everyone);
    ASSERT_TRUE(exact.wins);
    const Sweep sweep(problem, groups, std::vector<float>(kColumns), true);
    for (const WitnessOutcome& one :
         {check_all_rows(problem, lengths_of(problem), {0}, z)[0], sweep.check({0}, z, {})[0]}) {
      if (!one.wins) continue;  // too close to tell
      EXPECT_LE(one.margin, exact.margin) << ahead;
      EXPECT_GT(one.margin, 0);
      close += one.margin < 0.9 * exact.margin;
    }
  }
  EXPECT_GT(close, 0);
}

TEST(AuditScreen, AgreesWhereBiasesCount) {
  std::mt19937 random(12);
  std::normal_distribution<double> normal;
  for (const double size : {1e-3, 1.0, 100.0}) {
    for (const HeadNorm norm : {HeadNorm::none, HeadNorm::rms, HeadNorm::layer}) {
      OutputHead head = made_head(700, 33, 0.05, 0.1, 13);
      head.norm = norm;
      for (std::int64_t i = 0; i < head.classes; ++i) head.bias.push_back(size * (10 + normal(random)));
      if (norm != HeadNorm::none) {
        for (std::int64_t j = 0; j < head.columns; ++j)
          head.gain.push_back(static_cast<float>(1 + 0.3 * normal(random)));
      }
      if (norm == HeadNorm::layer) {
        for (std::int64_t j = 0; j < head.columns; ++j) head.shift.push_back(static_cast<float>(0.1 * normal(random)));
      }
      SCOPED_TRACE(fmt::format("biases of {}, norm {}", size, name(norm)));
      expect_same_outcomes(head);
      if (norm == HeadNorm::none) expect_same_outcomes(head, 3.0);
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
