#pragma once

#include <gmpxx.h>

#include <cstdint>
#include <vector>

#include "tuiqiao/error.h"
#include "tuiqiao/progress.h"

namespace tuiqiao {

__extension__ using UInt128 = unsigned __int128;

/// N = a b + c with a <= b.
template <class Integer>
struct Split {
  Integer a{}, b{}, c{};

  friend bool operator==(const Split&, const Split&) = default;
};

/// The least a + b + c, and what proves it.
template <class Integer>
struct MinSum {
  Integer a{}, b{}, c{};  ///< of the optima the one of least a + b that is at least floor(2 sqrt N), where N >= 4
  Integer s{};            ///< a + b + c
  /// Values p of a + b that had to be looked at: floor(2 sqrt N) and on, without a gap.
  std::uint64_t steps = 0;
  /// The last of them. What was not looked at cannot do better: every larger p has s <= p already, and every smaller
  /// one leaves a larger c (see min_sum).
  Integer last_p{};
  /// By a + b; the first one only, unless all were asked for.
  std::vector<Split<Integer>> optima;
};

struct MinSumOptions {
  /// List every optimum: the scan then includes a + b equal to s.
  bool all = false;
  /// Reports steps done, of what the best sum so far leaves at most (it shrinks as better sums are found). A stop is
  /// thrown as MinSumStopped.
  Progress progress;
};

/// A scan was stopped: what it knew by then.
class MinSumStopped : public Interrupted {
 public:
  MinSumStopped(mpz_class best, mpz_class next, std::uint64_t looked_at)
      : best_s(std::move(best)), next_p(std::move(next)), steps(looked_at) {}

  mpz_class best_s;     ///< a sum that can be had; the least is at most this
  mpz_class next_p;     ///< the least a + b not looked at; a smaller sum than best_s is at least this
  std::uint64_t steps;  ///< values of a + b looked at
};

/// Least a + b + c over natural numbers (0 is one) with n = a b + c.
///
/// With p = a + b and q = b - a of the same parity, 4 c = 4 n - p^2 + q^2. While p^2 <= 4 n the best q is 0 or 1, and
/// from p = 4 on the sum p + c falls as p rises, from that of p = 0 on: for n >= 4, p = floor(2 sqrt n) is the best of
/// those. Beyond, the best q is the
/// least with q^2 >= p^2 - 4 n, and since p + c >= p the scan ends where p reaches the best sum so far: exact, wherever
/// it ends.
///
/// Domain: any n; steps must stay below 2^62.
/// Throws: MinSumStopped; std::invalid_argument on a negative n.
/// Cost:   about 1.18 n^(1/6) steps on average (expected_min_sum_steps), 1.4 ns each while n < 1e49. Blocks of
///         steps run on OpenMP's threads from some 30,000 steps on; the result does not depend on them.
/// Source: Scientific Spaces, "least a + b + c with N = ab + c"; the stop and the predicted q are added here.
MinSum<std::uint64_t> min_sum(std::uint64_t n, const MinSumOptions& options = {});
MinSum<UInt128> min_sum(UInt128 n, const MinSumOptions& options = {});
MinSum<mpz_class> min_sum(const mpz_class& n, const MinSumOptions& options = {});

/// How many steps numbers of the size of n need, as natural logarithms since n may be of any length.
///
/// Taking c for a uniform number below q, the steps m follow P(m > u n^(1/6)) = exp(-2/3 u^(3/2)), Weibull's law of
/// shape 3/2: mean 1.183 n^(1/6), 99 of 100 below 3.63 n^(1/6). A heuristic that `bench minsum` measures.
struct MinSumSteps {
  double log_mean = 0, log_99_percent = 0;
};
MinSumSteps expected_min_sum_steps(const mpz_class& n);

/// A grid for n pictures.
struct ContactSheet {
  std::int64_t rows = 0, columns = 0;
  std::int64_t left_over = 0;  ///< pictures in one more row: n = rows * columns + left_over

  /// Rows with that of the left-over pictures (with several where they are more than the columns).
  std::int64_t rows_in_all() const { return columns > 0 ? rows + (left_over + columns - 1) / columns : 0; }
};

/// The grid of least rows * sqrt(aspect) + columns / sqrt(aspect) + left_over: by min_sum's rule for aspect = 1, with
/// rows <= columns then. `aspect` is the wished ratio of columns to rows. At least one row for n > 0.
/// Domain: n >= 0, aspect in [1e-6, 1e6]. Throws: std::invalid_argument. Cost: O(sqrt n).
ContactSheet contact_sheet(std::int64_t n, double aspect = 1);

}  // namespace tuiqiao
