#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <vector>

#include "minsum/integers.h"
#include "tuiqiao/minsum.h"

/// Plain ways to the same sums, for tests and the benchmark.
namespace tuiqiao::test {

struct Optima {
  UInt128 s = 0;
  std::vector<Split<UInt128>> splits;  ///< by a + b

  void add(UInt128 a, UInt128 b, UInt128 c) {
    const UInt128 sum = a + b + c;
    if (!splits.empty() && sum > s) return;
    if (sum < s) splits.clear();
    s = sum;
    splits.push_back({a, b, c});
  }
  void sort() {
    std::sort(splits.begin(), splits.end(), [](const auto& x, const auto& y) { return x.a + x.b < y.a + y.b; });
  }
};

/// Over all a up to sqrt n. For a > 1 the sum falls as b rises; for a = 0 and 1 all of it lies in b = 0 and in c.
/// (a = 1 gives n + 1 for every b, which is never the least.) Cost: O(sqrt n).
inline Optima min_sum_over_a(std::uint64_t n) {
  Optima best;
  best.add(0, 0, n);
  for (std::uint64_t a = 2; a <= n / a; ++a) best.add(a, n / a, n % a);
  best.sort();
  return best;
}

/// Over p = a + b up to the article's bound 2 sqrt n + 2 + sqrt(1 + 4 sqrt n), the root of each p^2 - 4 n taken anew.
/// Domain: 4 <= n < 2^100. Cost: O(n^(1/4)).
inline Optima min_sum_over_p(UInt128 n) {
  const UInt128 r = minsum::root(4 * n), x = r / 2;
  Optima best;
  best.add(x, r - x, n - x * (r - x));
  const double root = std::sqrt(static_cast<double>(n));
  const UInt128 last = r + 4 + static_cast<UInt128>(std::sqrt(1 + 4 * root));
  for (UInt128 p = r + 1; p <= last; ++p) {
    const UInt128 d = p * p - 4 * n;
    UInt128 q = minsum::root(d);
    if (q * q < d) ++q;
    if ((p - q) % 2 != 0) ++q;
    best.add((p - q) / 2, (p + q) / 2, (q * q - d) / 4);
  }
  if (best.s == n) best.splits.insert(best.splits.begin(), {0, 0, n});
  return best;
}

}  // namespace tuiqiao::test
