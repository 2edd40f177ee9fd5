#pragma once

#include <cstddef>
#include <span>

namespace tuiqiao {

/// Loops over rows of scores, in float32 with sums in float64, compiled for each SIMD target and chosen at run time.
/// A token is kept where its score is at least `cut`, which must be finite: so an impossible token (-inf) never is.
/// `log_total` turns scores into log-probabilities: log p = score - log_total.

/// NaN if one of them is.
float largest_of(std::span<const float> scores);

/// Copies the scores of at least `cut` to `kept`, which has room for all and one vector more (kGatherSlack).
/// Returns how many there are.
std::size_t gather_kept(std::span<const float> scores, float cut, float* kept);
inline constexpr std::size_t kGatherSlack = 64;

/// out[i] = exp(scores[i] - log_total).
void exp_scores(std::span<const float> scores, double log_total, std::span<float> out);

/// Sum over kept tokens of -p * max(log p, -100), in nats.
double kept_entropy(std::span<const float> scores, double log_total, float cut);

/// How a row enters a pool.
struct PoolTerm {
  const float* scores = nullptr;
  double log_total = 0;
  double weight = 0;
  float cut = 0;
};

/// pool[t] = 0 where t is kept.
void pool_open(const PoolTerm& term, std::size_t offset, std::span<double> pool);
/// pool[t] += weight * log p(t), and -inf where t is not kept; what is -inf stays so.
void pool_add_log(const PoolTerm& term, std::size_t offset, std::span<double> pool);
/// pool[t] = max(pool[t], weight + log p(t)) where t is kept.
void pool_max(const PoolTerm& term, std::size_t offset, std::span<double> pool);
/// pool[t] += weight * p(t) where t is kept.
void pool_add(const PoolTerm& term, std::size_t offset, std::span<double> pool);
/// pool[t] = log(pool[t]).
void pool_log(std::span<double> pool);
/// out[t] = (1 + beta) pool[t] - beta log p_0(t) - shift where t is kept in the empty row with log p_0 > -100, else
/// pool[t] - shift; -inf where pool[t] is. `empty.weight` is not used.
void contrast(std::span<const double> pool, const PoolTerm& empty, double beta, double shift, std::size_t offset,
              std::span<float> out);

}  // namespace tuiqiao
