#include "tuiqiao/minsum.h"

#include <gtest/gtest.h>
#include <omp.h>

#include <array>
#include <numeric>
#include <random>
#include <stop_token>

#include "minsum/run_kernel.h"
#include "minsum_twins.h"

namespace tuiqiao {
namespace {

using minsum::to_mpz;
using test::min_sum_over_a;
using test::min_sum_over_p;
using test::Optima;

MinSumOptions with_all() {
  MinSumOptions options;
  options.all = true;
  return options;
}

UInt128 power(UInt128 base, int exponent) {
  UInt128 result = 1;
  for (int i = 0; i < exponent; ++i) result *= base;
  return result;
}

mpz_class big_power(unsigned long base, unsigned long exponent) {
  mpz_class result;
  mpz_ui_pow_ui(result.get_mpz_t(), base, exponent);
  return result;
}

template <class Integer>
void expect_consistent(const MinSum<Integer>& found, const Integer& n) {
  EXPECT_TRUE(found.a * found.b + found.c == n);
  EXPECT_TRUE(found.a <= found.b);
  EXPECT_TRUE(found.a + found.b + found.c == found.s);
  ASSERT_FALSE(found.optima.empty());
  for (const auto& split : found.optima) {
    EXPECT_TRUE(split.a * split.b + split.c == n && split.a <= split.b);
    EXPECT_TRUE(split.a + split.b + split.c == found.s);
  }
}

/// Against a twin, in all integer types that hold n, with one and with all optima.
void expect_equal(UInt128 n, const Optima& expected) {
  const MinSum<UInt128> one = min_sum(n), all = min_sum(n, with_all());
  expect_consistent(one, n);
  EXPECT_TRUE(one.s == expected.s) << to_mpz(n);
  EXPECT_EQ(one.optima.size(), 1U);
  EXPECT_TRUE((one.optima[0] == Split<UInt128>{one.a, one.b, one.c}));
  EXPECT_TRUE(all.s == expected.s);
  EXPECT_EQ(all.optima, expected.splits) << to_mpz(n);
  const MinSum<mpz_class> big = min_sum(to_mpz(n), with_all());
  expect_consistent(big, to_mpz(n));
  EXPECT_EQ(big.s, to_mpz(all.s));
  EXPECT_EQ(big.steps, all.steps);
  EXPECT_EQ(big.last_p, to_mpz(all.last_p));
  ASSERT_EQ(big.optima.size(), all.optima.size());
  for (std::size_t i = 0; i < big.optima.size(); ++i) EXPECT_EQ(big.optima[i].b, to_mpz(all.optima[i].b));
  if (n >> 64 == 0) {
    const MinSum<std::uint64_t> word = min_sum(static_cast<std::uint64_t>(n), with_all());
    EXPECT_TRUE(word.s == all.s && word.a == all.a && word.b == all.b && word.c == all.c);
    EXPECT_EQ(word.steps, all.steps);
    EXPECT_EQ(word.optima.size(), all.optima.size());
  }
}

// ---- Every optimum ----

TEST(MinSum, EqualsBruteForceUpTo20000WithEveryOptimum) {
  constexpr std::uint32_t kMost = 20000;
  std::vector<std::uint32_t> least(kMost + 1), optima(kMost + 1, 0);
  std::iota(least.begin(), least.end(), 0);
  const auto for_each_pair = [](const auto& body) {
    for (std::uint32_t a = 0; a <= kMost; ++a) {
      for (std::uint32_t b = a; a * b <= kMost && b <= kMost; ++b) body(a, b);
    }
  };
  // c = n - a b, so that a + b + c is n and an excess that does not depend on it.
  for_each_pair([&](std::uint32_t a, std::uint32_t b) {
    const std::int64_t excess = std::int64_t{a} + b - std::int64_t{a} * b;
    if (excess > 0) return;
    for (std::uint32_t n = a * b; n <= kMost; ++n)
      least[n] = std::min(least[n], static_cast<std::uint32_t>(n + excess));
  });
  for_each_pair([&](std::uint32_t a, std::uint32_t b) {
    const std::int64_t excess = std::int64_t{a} + b - std::int64_t{a} * b;
    if (excess > 0) return;
    for (std::uint32_t n = a * b; n <= kMost; ++n) optima[n] += least[n] == n + excess ? 1 : 0;
  });
  for (std::uint32_t n = 0; n <= kMost; ++n) {
    const MinSum<std::uint64_t> found = min_sum(std::uint64_t{n}, with_all());
    expect_consistent(found, std::uint64_t{n});
    ASSERT_EQ(found.s, least[n]) << n;
    ASSERT_EQ(found.optima.size(), optima[n]) << n;
    for (std::size_t i = 1; i < found.optima.size(); ++i) {
      EXPECT_LT(found.optima[i - 1].a + found.optima[i - 1].b, found.optima[i].a + found.optima[i].b);
    }
  }
}

TEST(MinSum, SmallNumbersAsTheyAre) {
  using Splits = std::vector<Split<std::uint64_t>>;
  EXPECT_EQ(min_sum(std::uint64_t{0}, with_all()).optima, (Splits{{0, 0, 0}}));
  EXPECT_EQ(min_sum(std::uint64_t{1}, with_all()).optima, (Splits{{0, 0, 1}}));
  EXPECT_EQ(min_sum(std::uint64_t{2}, with_all()).optima, (Splits{{0, 0, 2}}));
  EXPECT_EQ(min_sum(std::uint64_t{3}, with_all()).optima, (Splits{{0, 0, 3}}));
  EXPECT_EQ(min_sum(std::uint64_t{4}, with_all()).optima, (Splits{{0, 0, 4}, {2, 2, 0}}));
  EXPECT_EQ(min_sum(std::uint64_t{5}, with_all()).optima, (Splits{{0, 0, 5}, {2, 2, 1}}));
  EXPECT_EQ(min_sum(std::uint64_t{10}, with_all()).optima, (Splits{{3, 3, 1}, {2, 5, 0}}));
  EXPECT_EQ(min_sum(std::uint64_t{130}, with_all()).optima, (Splits{{10, 13, 0}}));
  EXPECT_EQ(min_sum(std::uint64_t{200}, with_all()).optima, (Splits{{10, 20, 0}}));
}

// ---- Against the twins ----

TEST(MinSum, EqualsTheScanOverAOnRandomNumbersUpTo1e12) {
  std::mt19937_64 random(101);
  for (int i = 0; i < 120; ++i) {
    const std::uint64_t most = i % 4 == 0 ? 1000000000000 : i % 4 == 1 ? 1000000000 : i % 4 == 2 ? 10000000 : 100000;
    const std::uint64_t n = random() % most;
    expect_equal(n, min_sum_over_a(n));
  }
}

TEST(MinSum, EqualsTheScanOverPOnRandomNumbersUpTo1e24) {
  std::mt19937_64 random(102);
  for (int exponent = 3; exponent <= 24; ++exponent) {
    for (int i = 0; i < (exponent < 20 ? 10 : 2); ++i) {
      const UInt128 n = 4 + ((UInt128{random()} << 64) | random()) % power(10, exponent);
      expect_equal(n, min_sum_over_p(n));
    }
  }
}

TEST(MinSum, EqualsTheScanOverPOnNumbersOfEveryShape) {
  std::vector<UInt128> numbers;
  for (const std::uint64_t root :
       {2ULL, 3ULL, 17ULL, 1000ULL, 65536ULL, 99999ULL, 4294967295ULL, 4294967296ULL, 1000000007ULL, 123456789012ULL}) {
    const UInt128 square = UInt128{root} * root;
    for (const UInt128 n : {square - 1, square, square + 1, square + root - 1, square + root, square + root + 1})
      numbers.push_back(n);
  }
  for (int e = 2; e <= 80; e += 3) {
    for (const int by : {-1, 0, 1}) numbers.push_back(power(2, e) + static_cast<UInt128>(by));
  }
  for (const std::uint64_t prime : {5ULL, 7919ULL, 2147483647ULL, 1000000000039ULL, 18446744073709551557ULL})
    numbers.push_back(prime);
  for (const int by : {-3, -2, -1, 0, 1, 2, 3}) numbers.push_back(power(2, 64) + static_cast<UInt128>(by));
  for (const UInt128 n : numbers) {
    if (n >= 4) expect_equal(n, min_sum_over_p(n));
  }
}

TEST(MinSum, CrossesFrom128BitsIntoBigIntegers) {
  const UInt128 last = ~UInt128{0};
  for (int by = 0; by < 4; ++by) {
    const UInt128 n = last - static_cast<UInt128>(by);
    const MinSum<UInt128> wide = min_sum(n);
    const MinSum<mpz_class> big = min_sum(to_mpz(n));
    expect_consistent(wide, n);
    expect_consistent(big, to_mpz(n));
    EXPECT_EQ(big.s, to_mpz(wide.s));
    EXPECT_EQ(big.steps, wide.steps);
    EXPECT_EQ(big.c, to_mpz(wide.c));
  }
  for (int by = 0; by < 3; ++by) {
    const mpz_class n = to_mpz(last) + 1 + by;
    const MinSum<mpz_class> found = min_sum(n);
    expect_consistent(found, n);
    // The scan starts from the same place, and each further number can add at most 1.
    EXPECT_LE(found.s, min_sum(mpz_class(n - 1)).s + 1);
  }
}

TEST(MinSum, SquaresAndPronicNumbersAreFoundAtOnceAtAnySize) {
  for (const unsigned long exponent : {5UL, 20UL, 37UL, 60UL, 200UL, 5000UL}) {
    const mpz_class root = big_power(10, exponent) + 7;
    const MinSum<mpz_class> square = min_sum(mpz_class(root * root));
    EXPECT_EQ(square.s, 2 * root);
    EXPECT_EQ(square.steps, 1U);
    const MinSum<mpz_class> pronic = min_sum(mpz_class(root * (root + 1)));
    EXPECT_EQ(pronic.a, root);
    EXPECT_EQ(pronic.c, 0);
    EXPECT_EQ(pronic.steps, 2U);
    // One more needs a c of 1, or a sum greater by 1.
    EXPECT_EQ(min_sum(mpz_class(root * root + 1)).s, 2 * root + 1);
  }
}

// ---- The loop ----

/// The least c of a p by big integers.
mpz_class exact_c(const mpz_class& n, const mpz_class& p) {
  const mpz_class d = p * p - 4 * n;
  mpz_class q = sqrt(d);
  if (q * q < d) ++q;
  if (mpz_odd_p(q.get_mpz_t()) != mpz_odd_p(p.get_mpz_t())) ++q;
  return (q * q - d) / 4;
}

TEST(MinSumKernel, MissesNoHitAndInventsFewAtEverySizeItServes) {
  std::mt19937_64 random(103);
  for (const unsigned long exponent : {10UL, 20UL, 30UL, 38UL, 44UL, 48UL, 54UL}) {
    const mpz_class n = 7 * big_power(10, exponent) + static_cast<unsigned long>(random());
    mpz_class first = sqrt(mpz_class(4 * n)) + 1 +
                      static_cast<unsigned long>(random() % (exponent < 20 ? 50 : 200000) +
                                                 (exponent == 54 ? 1000000 : 0));  // y > 2^54
    for (int parity = 0; parity < 2; ++parity, ++first) {
      constexpr std::size_t kCount = 3001;
      const mpz_class x = first / 2, f = x * (first - x) - n;
      const minsum::Run run{f.get_d(), first.get_d(), minsum::low_word(f), minsum::low_word(first),
                            minsum::is_odd(first) ? 1U : 0U};
      std::vector<std::uint64_t> exact;
      for (std::size_t k = 0; k < kCount; ++k)
        exact.push_back(exact_c(n, mpz_class(first + 2 * static_cast<unsigned long>(k))).get_ui());
      std::vector<std::uint64_t> sorted = exact;
      std::sort(sorted.begin(), sorted.end());
      for (const std::uint64_t limit : {std::uint64_t{0}, sorted[20], sorted[1500]}) {
        std::vector<std::uint32_t> hits(kCount);
        hits.resize(minsum::possible_hits(run, kCount, limit, hits.data()));
        EXPECT_TRUE(std::is_sorted(hits.begin(), hits.end()));
        std::size_t right = 0;
        for (const std::uint32_t k : hits) right += exact[k] <= limit ? 1 : 0;
        const auto all = static_cast<std::size_t>(
            std::count_if(exact.begin(), exact.end(), [&](std::uint64_t c) { return c <= limit; }));
        EXPECT_EQ(right, all) << "10^" << exponent << " limit " << limit;
        if (exponent >= 30) {
          EXPECT_LE(hits.size(), all + 3) << "10^" << exponent << " limit " << limit;
        }
      }
    }
  }
}

/// The same scan with a big-integer root at every p, for numbers that are too large for the twins.
MinSum<mpz_class> min_sum_by_big_integers(const mpz_class& n, bool all) {
  const mpz_class r = sqrt(mpz_class(4 * n));
  MinSum<mpz_class> best;
  best.s = r + n - (r / 2) * (r - r / 2);
  for (mpz_class p = r; all ? p <= best.s : p < best.s; ++p) {
    const mpz_class c = p == r ? mpz_class(n - (r / 2) * (r - r / 2)) : exact_c(n, p);
    if (p + c < best.s) best.s = p + c, best.c = c;
    best.last_p = p;
    ++best.steps;
  }
  return best;
}

TEST(MinSum, EqualsBigIntegersAcrossTheWordsOfTheLoop) {
  // n = a b with (b - a)^2 near 4 sqrt(n) j has a sum without rest at the j-th step, at any size: 64-bit words, 128-bit
  // words and big integers in the loop. A wrong c there, or a wrong small one before, shows.
  for (const unsigned long exponent : {10UL, 20UL, 24UL, 28UL, 30UL, 36UL, 41UL, 60UL}) {
    for (const unsigned long j : {3UL, 90UL, 1000UL}) {
      const mpz_class a = 3 * big_power(10, exponent) + 12345, b = a + sqrt(mpz_class(4 * a * j)), n = a * b;
      for (const bool all : {false, true}) {
        MinSumOptions options;
        options.all = all;
        const MinSum<mpz_class> found = min_sum(n, options), expected = min_sum_by_big_integers(n, all);
        expect_consistent(found, n);
        EXPECT_EQ(found.s, expected.s) << "10^" << 2 * exponent << ", step " << j;
        EXPECT_LE(found.s, a + b);
        EXPECT_EQ(found.steps, expected.steps);
        EXPECT_EQ(found.last_p, expected.last_p);
      }
    }
  }
}

TEST(MinSum, DoesNotDependOnTheNumberOfThreads) {
  const int threads = omp_get_max_threads();
  std::mt19937_64 random(105);
  for (int i = 0; i < 5; ++i) {
    const mpz_class n = 3 * big_power(10, 34) + static_cast<unsigned long>(random());
    omp_set_num_threads(1);
    const MinSum<mpz_class> one = min_sum(n, with_all());
    omp_set_num_threads(4);
    const MinSum<mpz_class> four = min_sum(n, with_all());
    omp_set_num_threads(threads);
    EXPECT_EQ(one.s, four.s);
    EXPECT_EQ(one.steps, four.steps);
    EXPECT_EQ(one.optima, four.optima);
    EXPECT_EQ(one.s, min_sum(n).s);
  }
}

// ---- Steps, stops and refusals ----

TEST(MinSum, NeedsAboutAsManyStepsAsExpected) {
  std::mt19937_64 random(106);
  double sum = 0;
  int beyond = 0;
  constexpr int kNumbers = 400;
  for (int i = 0; i < kNumbers; ++i) {
    const mpz_class n = big_power(10, 21) + static_cast<unsigned long>(random());
    const MinSumSteps expected = expected_min_sum_steps(n);
    const auto steps = static_cast<double>(min_sum(n).steps);
    sum += steps / std::exp(expected.log_mean);
    beyond += steps > std::exp(expected.log_99_percent) ? 1 : 0;
  }
  // The spread of the law is 0.68 of its mean: four standard errors of a mean of 400, and of a count of 4.
  EXPECT_NEAR(sum / kNumbers, 1, 0.14);
  EXPECT_LE(beyond, 12);
  EXPECT_NEAR(std::exp(expected_min_sum_steps(big_power(10, 6)).log_mean), 11.83, 0.01);
  EXPECT_NEAR(expected_min_sum_steps(big_power(10, 6000)).log_mean, 1000 * std::log(10.0) + std::log(1.183), 1e-3);
}

TEST(MinSum, StopsCleanlyAndTellsWhatItKnows) {
  const mpz_class n = 3 * big_power(10, 60) + 1234567;
  std::stop_source source;
  MinSumOptions options;
  int reports = 0;
  options.progress.report = [&](std::string_view, std::int64_t done, std::int64_t total) {
    EXPECT_LE(done, total);
    if (++reports == 20) source.request_stop();
  };
  options.progress.stop = source.get_token();
  try {
    min_sum(n, options);
    FAIL() << "not stopped";
  } catch (const MinSumStopped& stopped) {
    EXPECT_EQ(reports, 20);
    EXPECT_GT(stopped.best_s, stopped.next_p);
    EXPECT_GT(stopped.next_p * stopped.next_p, 4 * n);
    EXPECT_EQ(stopped.next_p - sqrt(mpz_class(4 * n)), stopped.steps);
  }
  EXPECT_THROW(min_sum(mpz_class(-1)), std::invalid_argument);
}

TEST(MinSum, KnowsTrueBoundsWhenStoppedAtAnySize) {
  const mpz_class n = 7 * big_power(10, 240) + 12345678901234567890UL;
  std::stop_source source;
  source.request_stop();
  MinSumOptions options;
  options.progress.stop = source.get_token();
  try {
    min_sum(n, options);
    FAIL() << "not stopped";
  } catch (const MinSumStopped& stopped) {
    const mpz_class r = sqrt(mpz_class(4 * n));
    EXPECT_EQ(stopped.best_s, r + n - (r / 2) * (r - r / 2));  // the first sum, which can be had
  }
}

// ---- Contact sheets ----

TEST(ContactSheet, FollowsTheLeastSumWhereTheAspectIsOne) {
  for (std::int64_t n = 4; n <= 5000; ++n) {
    const ContactSheet sheet = contact_sheet(n);
    EXPECT_EQ(sheet.rows * sheet.columns + sheet.left_over, n);
    EXPECT_LE(sheet.rows, sheet.columns);
    EXPECT_EQ(static_cast<std::uint64_t>(sheet.rows + sheet.columns + sheet.left_over),
              min_sum(static_cast<std::uint64_t>(n)).s)
        << n;
  }
}

TEST(ContactSheet, LeansToTheAspectWished) {
  const ContactSheet wide = contact_sheet(64, 4), tall = contact_sheet(64, 0.25);
  EXPECT_EQ(wide.columns, 16);
  EXPECT_EQ(wide.rows, 4);
  EXPECT_EQ(tall.columns, 4);
  EXPECT_EQ(tall.rows, 16);
  EXPECT_EQ(contact_sheet(130).columns, 13);
  for (const std::int64_t n : {1, 2, 3, 5, 7, 11, 13, 17}) {
    for (const double aspect : {1e-6, 0.5, 1.0, 1.78, 1e6}) {
      const ContactSheet sheet = contact_sheet(n, aspect);
      EXPECT_GE(sheet.rows, 1);
      EXPECT_GE(sheet.rows_in_all() * sheet.columns, n);
    }
  }
  EXPECT_EQ(contact_sheet(0).rows_in_all(), 0);
  EXPECT_THROW(contact_sheet(-1), std::invalid_argument);
  EXPECT_THROW(contact_sheet(4, 0), std::invalid_argument);
  EXPECT_THROW(contact_sheet(4, std::nan("")), std::invalid_argument);
}

}  // namespace
}  // namespace tuiqiao
