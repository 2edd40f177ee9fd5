#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace tuiqiao::topk {

/// P(i in S) for a k-subset S of weight exp(sum of x_S / tau), and log Z_k, the logarithm of all weights together.
///
/// The entries are tilted to independent ones that are in with probability p_i = sigmoid((x_i - t) / tau), sum p = k: S
/// is those, given that they are k. Their number's distribution, and that without entry i, are coefficients of
/// prod (1 - p_i + p_i z), which the trapezoid rule on the unit circle gives with N nodes but for P(|number - k| >= N).
/// With V = sum p (1 - p): that is at most 2 exp(-N^2 / (2 (V + N / 3))), the product at angle w without two factors,
/// as pairs of entries need it, at most exp(-(V - 1/2)(1 - cos w)), and P(number = k) at least 0.75 / (4 sqrt V + 1). N
/// and the nodes that count follow.
///
/// Domain: finite entries; 0 < k < n. out may be x.
/// Error:  1e-12 absolute in each probability; relative error 1e-15 (1 + p_i / out_i), so that an entry whose chance
///         is far below its tilted one keeps the absolute error only, unless n k <= kMostRecursion: such rows are left
///         to the recursion, which has relative error 1e-10 everywhere.
/// Cost:   O(n): two passes over a series in T_m(2 p - 1) where V is large, else one for each node that counts, 15 to
///         32 of them for long rows.
double subset_marginals(std::span<const double> x, int k, double tau, std::span<double> out);

/// The gradient of sum v p in x, into out: the covariances of each entry with sum v over S, over tau. out: not v.
void subset_vjp(std::span<const double> x, int k, double tau, std::span<const double> v, std::span<double> out);

/// Of the number of entries that are in, each with its own chance p and independent of the others: the probabilities of
/// least, least + 1, ..., least + out.size() - 1, right to 1e-16
/// (1 + the number of entries) absolute.
void count_distribution(std::span<const double> p, std::int64_t least, std::span<double> out);

/// The chances p of independent entries of which the subset is those that are in, given that they are k.
std::vector<double> tilted_chances(std::span<const double> x, int k, double tau);

/// The same probabilities by the recursion over entries and the number of those that are in, which adds positive terms
/// only: relative error 1e-10 everywhere. Cost: O(n k) time and memory.
double subset_marginals_by_recursion(std::span<const double> x, int k, double tau, std::span<double> out);

/// log P(i in S), also where the chance itself is no double; -inf nowhere. Error: that of the chances, in the relative
/// sense. Returns log Z_k.
double subset_log_marginals(std::span<const double> x, int k, double tau, std::span<double> out);

inline constexpr double kMostRecursion = 2e6;

}  // namespace tuiqiao::topk
