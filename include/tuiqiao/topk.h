#pragma once

#include <bit>
#include <cstdint>
#include <functional>
#include <span>
#include <string_view>
#include <vector>

#include "tuiqiao/progress.h"

namespace tuiqiao {

/// A smooth top-k: maps a row x of n numbers to p in [0, 1]^n with sum p = k that tends to the 0/1 indicator of the k
/// largest as the temperature tau falls. None changes with x + c, and all but softmax_iterated keep the order.
enum class TopkMethod {
  /// k times p += softmax((1 - p) z), z = (x - min x) / tau. Works in practice, promises little: entries can exceed 1
  /// and break the order (x = (12, 8, 4, 0), k = 2: 0.982, 0.996, ...). Whole k.
  softmax_iterated,
  /// p_i = P(i in S) for a k-subset S of weight exp(sum of x_S / tau): the gradient of log Z_k. Whole k.
  gradient,
  /// The others are p = f((x - t) / tau) with the threshold t that gives the sum k; any real k.
  exponential,  ///< f(z) = min(1, e^z): softmax for k = 1
  sigmoid,      ///< f(z) = 1 / (1 + e^-z)
  laplace,      ///< f(z) = 1 - e^-z / 2 for z >= 0, else e^z / 2
  clip,         ///< f(z) = min(max(z, 0), 1): the projection on the capped simplex, sparsemax for k = 1
};

/// "laplace" and so on, as on the command line. Throws: std::invalid_argument on an unknown name.
TopkMethod topk_method_from_name(std::string_view name);
std::string_view name(TopkMethod method);

/// The upper half of a float32, rounded to nearest even; a quiet NaN stays one.
struct Bfloat16 {
  std::uint16_t bits = 0;

  Bfloat16() = default;
  explicit Bfloat16(float value) {
    const auto whole = std::bit_cast<std::uint32_t>(value);
    const bool is_nan = (whole & 0x7fffffffU) > 0x7f800000U;
    bits = static_cast<std::uint16_t>(is_nan ? whole >> 16 | 0x40U : (whole + 0x7fffU + (whole >> 16 & 1U)) >> 16);
  }
  explicit operator float() const { return std::bit_cast<float>(std::uint32_t{bits} << 16); }
};

/// Rows of n entries, one behind another. T is float, double or Bfloat16.
template <class T>
struct Batch {
  T* data = nullptr;
  std::int64_t rows = 0, columns = 0;

  std::span<T> row(std::int64_t i) const { return {data + i * columns, static_cast<std::size_t>(columns)}; }
};

enum class TopkTemperature {
  given,       ///< tau in units of x
  scale_free,  ///< tau in units of the row's standard deviation (over finite entries), so that s x + c gives the same p
  entropy,     ///< tau is found for which the mean over entries of the entropy of p_i against 1 - p_i is `entropy_bits`
};

struct SmoothTopkOptions {
  TopkMethod method = TopkMethod::laplace;  ///< which of them
  /// One for all rows, or one a row; at least 0, where 0 is the hard top-k: ties at its edge share what is left of k.
  std::vector<double> tau{1};
  TopkTemperature temperature = TopkTemperature::given;
  /// For TopkTemperature::entropy: above 0, below that of p = k / n. A row whose finite entries are all equal has that
  /// p at any tau, and gets tau = 1.
  double entropy_bits = 0.1;
  /// Straight-through: p becomes the hard choice, 1 for the entries of top_indices (the last takes what is left of a k
  /// that is not whole), while smooth_topk_vjp stays the gradient of the smooth p.
  bool hard = false;
  /// Reports stages of softmax_iterated for a single row, rows where they are few and long. A stop is honoured between
  /// stages and rows by throwing Interrupted.
  Progress progress;
};

/// What one row came to.
struct SmoothTopkRow {
  double k = 0;
  double tau = 0;             ///< in units of x
  double threshold = 0;       ///< t, in units of x; NaN where the method has none; infinite for k = 0 and for k = n
  double threshold_rest = 0;  ///< what rounding took from it: more digits where x is large against tau
  double log_z = 0;           ///< log Z_k for `gradient`, right to 1e-14 of the k largest |x| / tau; else NaN
};

/// Smooth top-k of each row.
///
/// Shapes: x, p: [B, n], which may be the same memory; k: one, or one a row. What p holds after a throw is not settled.
/// Domain: entries are numbers or infinite; finite ones lie less than 1e300 tau apart. -inf is a mask: p = 0, and the
///         entry counts for nothing. +inf is above all others: those entries have p = 1, or share k where there are
///         more of them. 0 <= k <= the number of entries that are not masked.
/// Error:  in float64 kTopkError absolute in each p, kTopkError n in their sum; kTopkFloatError with float32. The order
///         is kept within the same. softmax_iterated amplifies rounding from stage to stage: of 31 entries with a
///         standard deviation of 10 tau the worst p is off by 2e-14, of 30 tau 8e-7, of 100 tau 2e-3.
/// Throws: std::invalid_argument with the row on NaN, k outside its domain, tau negative or not finite, and shapes that
///         do not fit; Interrupted on a stop.
/// Cost:   threshold methods: expected O(n), about four passes with an exponential each; gradient: about ten passes,
///         15 to 30 with a division where sum p (1 - p) is small, or O(n k) for rows with wide gaps and n k up to 2e6;
///         softmax_iterated: 2 k passes with an exponential.
/// Threads: any number of calls at once; each uses OpenMP's, over rows, or inside rows where they are long and few.
/// Source: Scientific Spaces 10373; for `gradient` see src/topk/subsets.h.
template <class T>
std::vector<SmoothTopkRow> smooth_topk(Batch<const T> x, std::span<const double> k, const SmoothTopkOptions& options,
                                       Batch<T> p);

inline constexpr double kTopkError = 1e-12;
inline constexpr double kTopkFloatError = 1e-6;

/// Derivatives of sum v p in a row's k and tau; 0 where they do not exist.
struct SmoothTopkGradient {
  double k = 0, tau = 0;
};

/// The gradient of sum v p in x, for each row: the vector-Jacobian product.
///
/// `rows` is what smooth_topk returned for x. Where p has a corner, the derivative is that of the sloping side for
/// exponential and of the flat side for clip. For TopkTemperature::scale_free the standard deviation is differentiated
/// too; for entropy tau counts as a constant. With tau = 0, k = 0 and k = n the gradient is 0; in k also where all f'
/// underflow.
///
/// Shapes, domain, errors, threads: as smooth_topk; v: [B, n]; out: [B, n], not x or v.
/// Cost: threshold methods two passes with an exponential; gradient two to three times what p costs.
template <class T>
std::vector<SmoothTopkGradient> smooth_topk_vjp(Batch<const T> x, std::span<const SmoothTopkRow> rows, Batch<const T> v,
                                                const SmoothTopkOptions& options, Batch<T> out);

/// The same by any f that rises continuously from 0 to 1, with its derivative: p = f((x - t) / tau), sum p = k. Returns
/// t.
///
/// Domain: one row; p may be x; f(-inf) = 0, f(inf) = 1; k between the number of +inf entries and that of unmasked
/// ones,
///         exclusive; tau above 1e-290.
/// Throws: std::invalid_argument, also where the sum does not come to k, which f is to blame for; what f throws.
/// Cost:   expected O(n) calls of f.
/// Threads: as f; none of its own.
double smooth_topk_by(const std::function<double(double)>& f, const std::function<double(double)>& slope,
                      std::span<const double> x, double k, double tau, std::span<double> p);

/// The gradient of sum v p in x for a threshold t of smooth_topk_by. Shapes: x, v, out: [n]; out may be v. 0 where all
/// slopes are. Throws: std::invalid_argument on shapes and tau; what the slope throws. Cost: n calls of the slope.
void smooth_topk_by_vjp(const std::function<double(double)>& slope, std::span<const double> x, double t, double tau,
                        std::span<const double> v, std::span<double> out);

/// log P(i in S) for the law of TopkMethod::gradient, also where the chance itself is no double; returns log Z_k. The
/// log-probability of one subset is the sum of its x / tau less log Z_k.
///
/// Domain: as smooth_topk for one row without +inf, tau above 1e-290; -inf for masked entries, and for k = 0.
/// Error:  in log p as relative error of p: 1e-10 with n k up to 2e6, else 1e-15 (1 + p_tilted / p), see
///         src/topk/subsets.h; in log Z_k 1e-14 times the sum of the k largest |x| / tau.
/// Throws: std::invalid_argument. Cost: as `gradient`. Threads: any number of calls at once.
double subset_log_probabilities(std::span<const double> x, int k, double tau, std::span<double> log_p);

/// Draws k-subsets from the law of TopkMethod::gradient: independent ones, each the indices of its entries, rising.
///
/// Domain: one row, k from the number of +inf entries, which are in, to that of unmasked ones; tau above 1e-290.
///         count >= 0.
/// Error:  each chance is right to about 1e-12 absolute: no test of fewer than 1e12 draws can tell.
/// Throws: std::invalid_argument; Interrupted on a stop, which is honoured between draws.
/// Cost:   O(n log n) for a draw, by exact halving, no rejection: about 10 s for n = 1e6, k = n / 2.
/// Threads: any number of calls at once.
std::vector<std::vector<std::int64_t>> sample_subsets(std::span<const double> x, int k, double tau, std::uint64_t seed,
                                                      int count = 1, const Progress& progress = {});

/// The k largest entries of a row, in falling order of x and rising index among equals: a hard choice beside p.
/// Domain: 0 <= k <= n; no NaN. Throws: std::invalid_argument. Cost: O(n + k log k).
template <class T>
std::vector<std::int64_t> top_indices(std::span<const T> x, std::int64_t k);

}  // namespace tuiqiao
