#pragma once

#include <span>
#include <string_view>
#include <vector>

#include "tuiqiao/text/decoder.h"

namespace tuiqiao {

/// How the rows of n contexts become one. Source: Scientific Spaces 9617, 9632 and the papers named.
enum class Pooling {
  min_entropy,       ///< the row of least entropy (NBCE's reference)
  entropy_weighted,  ///< log-linear, weights softmax(-H_k) (LeEns)
  mean,              ///< mean log-probability: with beta = n - 1 and no top-p exactly naive Bayes
  max,               ///< per token the most probable context, scores added (PCED, arXiv 2601.08670)
  mixture,           ///< mean probability, weighted by softmax(score) (REPLUG, arXiv 2301.12652)
  weights,           ///< log-linear with given weights (context-aware decoding, classifier-free guidance)
};

/// "min_entropy" and so on; the names of the command line. Throws: std::invalid_argument on an unknown name.
Pooling pooling_from_name(std::string_view name);
std::string_view name(Pooling pooling);

struct PoolingOptions {
  Pooling pooling = Pooling::min_entropy;
  /// Weight against the row without context: (1 + beta) P - beta log p_0. At least -1; 0 turns it off.
  double beta = 0.25;
  /// beta = Jensen-Shannon divergence (base 2, so in [0, 1]) between the pooled row and the row without context, anew
  /// at each step; `beta` is then not used. Source: AdaCAD (arXiv 2409.07394), PCED.
  bool beta_auto = false;
  /// Entropy, in nats, taken off the context chosen before, so that the choice changes less often. 0 turns it off.
  /// Only min_entropy and entropy_weighted use it.
  double eta = 0.1;
  /// Nucleus kept of each row before pooling, in (0, 1]: tokens with less than this mass strictly above them; what is
  /// left is not renormalised. 1 turns it off.
  double top_p = 0.95;
  /// Log-weight of a document (log relevance), for max and mixture: one a context, or empty for none.
  std::vector<double> scores;
  /// How much a score counts in max: gamma * score is added. 0 turns scores off.
  double gamma = 1;
  /// For Pooling::weights: one a context, any finite numbers.
  std::vector<double> weights;
};

/// What one step of pooling found.
struct PoolingResult {
  /// 0-based context that decided: the chosen one; for max the one that gave the most probable token; else the one of
  /// most weight, of equals the one of least entropy.
  int context = -1;
  std::vector<double> entropies_nats;  ///< of each context's row after top-p, without eta
  double beta = 0;                     ///< the beta used
  bool fallback = false;               ///< no token lay in the nuclei of all contexts (see Pooler)
};

/// Pools the rows of n contexts against the row without context into one normalised row.
///
/// Where a score is -inf: a token outside a row's nucleus has log-probability -inf there. The empty row is filtered
/// too, and where it is not above -100 the pooled value stands as it is (the reference's rule). For the log-linear
/// poolings a token counts only if it lies in the nucleus of every context of non-zero weight; should no token do, the
/// union of the nuclei is used, with the unfiltered log-probabilities (`fallback`); and should no token be possible in
/// all of them at all, the nucleus of the row of least entropy stands alone.
///
/// Shapes: contexts: n >= 1 rows of V scores; empty: V scores; out: V. out holds normalised log-probabilities.
/// Domain: every row normalised by its log_total; scores finite or -inf.
/// Error:  kPoolingError against exact arithmetic, for entries above -100.
/// Throws: std::invalid_argument on sizes that differ, n = 0 or an option outside its domain.
/// Cost:   O(nV), about two passes over the rows.
/// Threads: calls may be made at once; each uses OpenMP over rows and over blocks of tokens.
/// Source: Scientific Spaces 9617 and 9632.
class Pooler {
 public:
  explicit Pooler(PoolingOptions options);

  /// `previous` is the context that decided the step before, -1 for none.
  PoolingResult pool(std::span<const Row> contexts, const Row& empty, int previous, std::span<float> out) const;

  const PoolingOptions& options() const { return options_; }

 private:
  PoolingOptions options_;
};

/// Largest absolute error of a pooled log-probability above -100; pooling_test.cpp reads it.
inline constexpr double kPoolingError = 1e-5;

/// log(sum(exp(scores))), summed in float64. -inf for a row of -inf. Cost: one pass.
double log_sum_exp(std::span<const float> scores);
/// Entropy of a normalised row in nats. Domain: [0, log V]. Cost: one pass.
double entropy_nats(const Row& row);
/// Jensen-Shannon divergence of two normalised rows, base 2. Domain: [0, 1]. Cost: one pass over both.
double jensen_shannon_bits(const Row& a, const Row& b);
/// The log-probability at or above which tokens lie in the nucleus: those with less than `top_p` mass strictly above
/// them, ties included. -inf for top_p = 1. Error: kNucleusError in the mass. Throws: std::invalid_argument on a top_p
/// outside (0, 1]. Cost: one pass and an expected-linear selection among the likely tokens.
double nucleus_threshold(const Row& row, double top_p);
inline constexpr double kNucleusError = 1e-6;

}  // namespace tuiqiao
