#include "tuiqiao/minsum.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <numbers>
#include <stdexcept>
#include <type_traits>

#include "integers.h"
#include "parallel.h"
#include "run_kernel.h"

namespace tuiqiao {

namespace {

using namespace minsum;

__extension__ using Int128 = __int128;

/// A value of p by its distance j from floor(2 sqrt N), and how much its sum exceeds that.
struct Hit {
  std::uint64_t j = 0, excess = 0;
};

/// Excesses from here on are not told apart: a scan that finds nothing below would not end anyway.
constexpr std::uint64_t kNoLimit = std::uint64_t{1} << 62;

constexpr std::uint64_t kBlock = 1 << 14;  // values of p that one thread looks at without asking for others' finds
constexpr std::uint64_t kWave = 1 << 23;   // values between reports: some 20 ms

/// The scan's fixed numbers.
template <class Integer>
struct Scan {
  Integer n, r;  ///< r = floor(2 sqrt n)

  Integer p(std::uint64_t j) const { return r + from_word<Integer>(j); }
};

/// x (x + h) - n for p = 2 x + h; not negative beyond r. Modulo 2^128 in UInt128, where it is exact.
template <class Integer>
Integer f_of(const Scan<Integer>& scan, const Integer& p) {
  const Integer x = p >> 1;
  return Integer(x * (p - x) - scan.n);
}

/// The least y with y (y + h) >= f.
template <class Integer>
Integer least_root(const Integer& f, bool h) {
  Integer y = root(f);
  const Integer odd = h ? 1 : 0, one = 1;
  while (y * (y + odd) < f) y += one;
  while (y > 0 && (y - one) * (y - one + odd) >= f) y -= one;
  return y;
}

template <class Integer>
Split<Integer> split_at(const Scan<Integer>& scan, std::uint64_t j) {
  const Integer p = scan.p(j), x = p >> 1, odd = p - 2 * x;
  if (j == 0) return {x, x + odd, scan.n - x * (x + odd)};
  const Integer f = f_of(scan, p), y = least_root(f, is_odd(p));
  return {x - y, x + y + odd, y * (y + odd) - f};
}

/// The least c of one p, by words: f real, and f modulo Word's size, which also holds c and the error of the root.
template <class Word>
Word least_c(double f, Word f_low, unsigned h) {
  using Signed = std::conditional_t<std::is_same_v<Word, std::uint64_t>, std::int64_t, Int128>;
  const auto near = std::sqrt(f + 0.25 * h) - 0.5 * h;
  Word y = near > 0 ? static_cast<Word>(near) : 0;
  auto c = static_cast<Signed>(y * (y + h) - f_low);
  if (y > 0) {  // Newton's step, exact but for a unit
    const Word slope = 2 * y + h;
    const double steps = std::floor(static_cast<double>(c) / static_cast<double>(slope));
    const auto d = static_cast<Word>(static_cast<std::int64_t>(steps));
    y -= d;
    c += static_cast<Signed>(d * d - d * slope);
  }
  while (c < 0) c += static_cast<Signed>(2 * y++ + h + 1);
  while (y > 0 && c >= static_cast<Signed>(2 * y + h - 1)) c -= static_cast<Signed>(2 * y-- + h - 1);
  return static_cast<Word>(c);
}

/// Keeps the hits of least excess, in the order in which they come.
struct Best {
  std::uint64_t excess = kNoLimit;
  std::vector<Hit> hits;

  void add(Hit hit) {
    if (hit.excess > excess) return;
    if (hit.excess < excess) hits.clear();
    excess = hit.excess;
    hits.push_back(hit);
  }
};

/// Looks at `count` values of p of one parity from j on.
template <class Integer>
void look_at(const Scan<Integer>& scan, std::uint64_t j, std::size_t count, Best& best) {
  const Integer p = scan.p(j), f = f_of(scan, p);
  const unsigned h = is_odd(p) ? 1 : 0;
  const Run run{real(f), real(p), low_word(f), low_word(p), h};
  const auto f_at = [&](std::size_t k) { return run.f + static_cast<double>(k) * (run.p + static_cast<double>(k)); };
  const auto add = [&](std::size_t k, auto c) {
    const std::uint64_t at = j + 2 * k;
    if (c <= kNoLimit) best.add({at, at + static_cast<std::uint64_t>(c)});
  };
  const double most_root = std::sqrt(f_at(count)) + 1;
  if (most_root < kMostRoot) {
    thread_local std::vector<std::uint32_t> hits;
    hits.resize(count);
    hits.resize(possible_hits(run, count, best.excess > j ? best.excess - j : 0, hits.data()));
    for (const std::uint32_t k : hits) add(k, least_c<std::uint64_t>(f_at(k), run.f_low + k * (run.p_low + k), h));
  } else if (most_root < kMostWideRoot) {
    const UInt128 f_low = low_words(f), p_low = low_words(p);
    for (std::size_t k = 0; k < count; ++k) add(k, least_c<UInt128>(f_at(k), f_low + k * (p_low + k), h));
  } else {
    for (std::size_t k = 0; k < count; ++k) {
      const Split<Integer> split = split_at(scan, j + 2 * k);
      add(k, capped(split.c, kNoLimit + 1));
    }
  }
}

/// Looks at all p of [from, to) as offsets from r, in blocks on OpenMP's threads where there are several.
template <class Integer>
void look_at_all(const Scan<Integer>& scan, std::uint64_t from, std::uint64_t to, Best& best) {
  const std::uint64_t blocks = (to - from + kBlock - 1) / kBlock;
  std::vector<Best> found(blocks);
  const auto look = [&](std::int64_t i) {
    const std::uint64_t first = from + static_cast<std::uint64_t>(i) * kBlock, count = std::min(kBlock, to - first);
    Best& mine = found[static_cast<std::size_t>(i)];
    mine.excess = best.excess;
    look_at(scan, first, (count + 1) / 2, mine);
    if (count > 1) look_at(scan, first + 1, count / 2, mine);
    std::sort(mine.hits.begin(), mine.hits.end(), [](const Hit& a, const Hit& b) { return a.j < b.j; });
  };
  if (blocks < 2) {
    look(0);
  } else {
    parallel_for(static_cast<std::int64_t>(blocks), look);
  }
  for (const Best& one : found) {
    for (const Hit& hit : one.hits) best.add(hit);
  }
}

template <class Integer>
MinSum<Integer> scan_all(const Integer& n, const MinSumOptions& options) {
  const Integer half = root(n);
  const Scan<Integer> scan{n, Integer(2 * half + (n - half * half > half ? 1 : 0))};
  Best best;
  const Integer c_of_first = split_at(scan, 0).c;
  best.add({0, capped(c_of_first, kNoLimit)});
  std::uint64_t next = 1;
  // All p below the end must be looked at; with all optima, the one at the end too.
  const auto end = [&] { return best.excess + (options.all ? 1 : 0); };
  // A step is work for big integers where y exceeds kMostWideRoot, and may take seconds.
  const std::uint64_t largest = real(n) < 1e77 ? kWave : 64;
  while (next < end()) {
    // As much again by half as was done, so that little is done in vain where a better sum turns up.
    const std::uint64_t most = std::clamp<std::uint64_t>(next / 2, 64, largest);
    const std::uint64_t to = next + std::min(most, end() - next);
    look_at_all(scan, next, to, best);
    next = to;
    if (options.progress.report) {
      options.progress.report("looking at a + b", static_cast<std::int64_t>(next),
                              static_cast<std::int64_t>(std::max(next, end())));
    }
    if (options.progress.stop.stop_requested() && next < end()) {
      const mpz_class first = to_mpz(scan.r);
      const mpz_class excess = best.excess < kNoLimit ? mpz_class(best.excess) : to_mpz(c_of_first);
      throw MinSumStopped(first + excess, first + static_cast<unsigned long>(next), next);
    }
  }
  MinSum<Integer> result;
  // One after another, the scan would have ended at the first j that is not below the best excess before it.
  const std::uint64_t first = best.hits.front().j;
  result.steps = best.excess + (options.all || first == best.excess ? 1 : 0);
  result.last_p = scan.p(result.steps - 1);
  result.s = scan.p(best.excess);
  for (const Hit& hit : best.hits) {
    if (options.all || hit.j == first) result.optima.push_back(split_at(scan, hit.j));
  }
  result.a = result.optima[0].a, result.b = result.optima[0].b, result.c = result.optima[0].c;
  return result;
}

template <class Integer>
MinSum<Integer> solve(const Integer& n, const MinSumOptions& options) {
  const Integer zero = 0;
  if (n < 4) return {zero, zero, n, n, 1, zero, {{zero, zero, n}}};
  MinSum<Integer> result = scan_all(n, options);
  if (options.all && result.s == n) result.optima.insert(result.optima.begin(), {zero, zero, n});  // n is 4 or 5
  return result;
}

}  // namespace

MinSum<UInt128> min_sum(UInt128 n, const MinSumOptions& options) { return solve(n, options); }

MinSum<mpz_class> min_sum(const mpz_class& n, const MinSumOptions& options) {
  if (n < 0) throw std::invalid_argument(fmt::format("[min_sum] n = {} is negative", n.get_str()));
  return solve(n, options);
}

MinSum<std::uint64_t> min_sum(std::uint64_t n, const MinSumOptions& options) {
  const MinSum<UInt128> wide = solve(UInt128{n}, options);
  MinSum<std::uint64_t> result{
      low_word(wide.a), low_word(wide.b), low_word(wide.c), low_word(wide.s), wide.steps, low_word(wide.last_p), {}};
  for (const auto& split : wide.optima)
    result.optima.push_back({low_word(split.a), low_word(split.b), low_word(split.c)});
  return result;
}

MinSumSteps expected_min_sum_steps(const mpz_class& n) {
  if (n < 4) return {};
  long exponent = 0;
  const double mantissa = mpz_get_d_2exp(&exponent, n.get_mpz_t());
  const double sixth = (std::log(mantissa) + static_cast<double>(exponent) * std::numbers::ln2) / 6;
  // The scale (3/2)^(2/3), times Gamma(5/3) for the mean and (log 100)^(2/3) for the quantile.
  const double scale = 2.0 / 3 * std::log(1.5);
  return {sixth + scale + std::lgamma(5.0 / 3), sixth + scale + 2.0 / 3 * std::log(std::log(100.0))};
}

}  // namespace tuiqiao
