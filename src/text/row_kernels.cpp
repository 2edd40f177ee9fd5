#include "row_kernels.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numbers>

#include "tuiqiao/text/pooling.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "text/row_kernels.cpp"
#include <hwy/foreach_target.h>  // IWYU pragma: keep
#include <hwy/highway.h>
// After highway.h.
#include <hwy/contrib/math/math-inl.h>

#include "vector_loop-inl.h"

HWY_BEFORE_NAMESPACE();
namespace tuiqiao::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

constexpr double kLeastLog = -100;  // where the reference clips log-probabilities
constexpr double kImpossible = -std::numeric_limits<double>::infinity();

/// The scores at `from` as doubles, one a lane of D.
template <class D>
HWY_INLINE hn::Vec<D> load_wide(D d, const float* from) {
  return hn::PromoteTo(d, hn::LoadU(hn::Rebind<float, D>(), from));
}

/// The sum of a vector of floats, in double.
template <class D>
HWY_INLINE double wide_sum(D d, hn::Vec<D> v) {
  HWY_ALIGN float lanes[HWY_MAX_BYTES / sizeof(float)];
  hn::Store(v, d, lanes);
  double sum = 0;
  for (std::size_t i = 0; i < hn::Lanes(d); ++i) sum += static_cast<double>(lanes[i]);
  return sum;
}

float largest_of(const float* scores, std::size_t n) {
  const hn::ScalableTag<float> d;
  auto largest = hn::Set(d, -std::numeric_limits<float>::infinity());
  auto broken = hn::Zero(d);  // becomes NaN with the first NaN; of infinities only the sign bit is kept
  std::size_t i = 0;
  for (; i + hn::Lanes(d) <= n; i += hn::Lanes(d)) {
    const auto x = hn::LoadU(d, scores + i);
    largest = hn::Max(largest, x);
    broken = hn::IfThenElse(hn::IsNaN(x), x, broken);
  }
  float result = hn::GetLane(hn::MaxOfLanes(d, largest));
  bool has_nan = !hn::AllFalse(d, hn::IsNaN(broken));
  for (; i < n; ++i) {
    result = std::max(result, scores[i]);
    has_nan = has_nan || std::isnan(scores[i]);
  }
  return has_nan ? std::numeric_limits<float>::quiet_NaN() : result;
}

/// Sum of exp(score - shift), the exponentials in float, four vectors of them added before they are widened.
double sum_exp(const float* scores, std::size_t n, float shift) {
  const hn::ScalableTag<float> d;
  const hn::Repartition<double, decltype(d)> wide;
  const std::size_t lanes = hn::Lanes(d);
  const auto by = hn::Set(d, shift);
  const auto term = [&](std::size_t i) HWY_ATTR { return hn::Exp(d, hn::Sub(hn::LoadU(d, scores + i), by)); };
  auto low = hn::Zero(wide), high = hn::Zero(wide);
  std::size_t i = 0;
  for (; i + 4 * lanes <= n; i += 4 * lanes) {
    const auto four = hn::Add(hn::Add(term(i), term(i + lanes)), hn::Add(term(i + 2 * lanes), term(i + 3 * lanes)));
#if HWY_TARGET == HWY_SCALAR
    low = hn::Add(low, hn::PromoteTo(wide, four));
#else
    low = hn::Add(low, hn::PromoteTo(wide, hn::LowerHalf(four)));
    high = hn::Add(high, hn::PromoteTo(wide, hn::UpperHalf(hn::Half<decltype(d)>(), four)));
#endif
  }
  double sum = hn::GetLane(hn::SumOfLanes(wide, hn::Add(low, high)));
  for (; i < n; ++i) sum += std::exp(static_cast<double>(scores[i]) - static_cast<double>(shift));
  return sum;
}

double log_sum_exp(const float* scores, std::size_t n) {
  // One pass over memory: the largest score of a block is found while the block is in the first cache.
  constexpr std::size_t kBlock = 4096;
  float largest = -std::numeric_limits<float>::infinity();
  double sum = 0;
  for (std::size_t i = 0; i < n; i += kBlock) {
    const std::size_t size = std::min(kBlock, n - i);
    const float here = largest_of(scores + i, size);
    if (std::isnan(here) || here == std::numeric_limits<float>::infinity()) return static_cast<double>(here);
    if (here > largest) {
      sum *= std::exp(static_cast<double>(largest) - static_cast<double>(here));
      largest = here;
    }
    if (std::isfinite(largest)) sum += sum_exp(scores + i, size, largest);
  }
  return sum > 0 ? static_cast<double>(largest) + std::log(sum) : kImpossible;
}

std::size_t gather_kept(const float* scores, std::size_t n, float cut, float* kept) {
  std::size_t count = 0;
  for_each_vector<float>(n, [&](auto d, std::size_t i) HWY_ATTR {
    const auto x = hn::LoadU(d, scores + i);
    const auto keep = hn::Ge(x, hn::Set(d, cut));
    if (hn::AllFalse(d, keep)) return;
    hn::StoreU(hn::Compress(x, keep), d, kept + count);
    count += hn::CountTrue(d, keep);
  });
  return count;
}

void exp_scores(const float* scores, std::size_t n, double log_total, float* out) {
  for_each_vector<float>(n, [&](auto d, std::size_t i) HWY_ATTR {
    hn::StoreU(hn::Exp(d, hn::Sub(hn::LoadU(d, scores + i), hn::Set(d, static_cast<float>(log_total)))), d, out + i);
  });
}

double kept_entropy(const float* scores, std::size_t n, double log_total, float cut) {
  double sum = 0;
  // Blocks keep the sums of floats short.
  constexpr std::size_t kBlock = 1024;
  for (std::size_t from = 0; from < n; from += kBlock) {
    const std::size_t size = std::min(kBlock, n - from);
    const hn::ScalableTag<float> d;
    auto vector_sum = hn::Zero(d);
    for_each_vector<float>(size, [&](auto tag, std::size_t i) HWY_ATTR {
      const auto score = hn::LoadU(tag, scores + from + i);
      const auto log_p = hn::Max(hn::Sub(score, hn::Set(tag, static_cast<float>(log_total))),
                                 hn::Set(tag, static_cast<float>(kLeastLog)));
      const auto term = hn::IfThenElseZero(hn::Ge(score, hn::Set(tag, cut)), hn::Mul(hn::Exp(tag, log_p), log_p));
      if constexpr (hn::MaxLanes(decltype(tag)()) == hn::MaxLanes(decltype(d)())) {
        vector_sum = hn::Add(vector_sum, term);
      } else {
        sum -= static_cast<double>(hn::GetLane(term));
      }
    });
    sum -= wide_sum(d, vector_sum);
  }
  return sum;
}

double jensen_shannon_nats(const float* a, double log_a, const float* b, double log_b, std::size_t n) {
  double sum = 0;
  for_each_vector<double>(n, [&](auto d, std::size_t i) HWY_ATTR {
    const auto x = hn::Sub(load_wide(d, a + i), hn::Set(d, log_a)), y = hn::Sub(load_wide(d, b + i), hn::Set(d, log_b));
    const auto least = hn::Set(d, -700.0);  // below it p log p counts as 0
    const auto p = hn::IfThenElseZero(hn::Gt(x, least), hn::Exp(d, hn::Max(x, least)));
    const auto q = hn::IfThenElseZero(hn::Gt(y, least), hn::Exp(d, hn::Max(y, least)));
    const auto middle = hn::Log(d, hn::Max(hn::Mul(hn::Add(p, q), hn::Set(d, 0.5)), hn::Set(d, 1e-307)));
    const auto of_p = hn::IfThenElseZero(hn::Gt(p, hn::Zero(d)), hn::Mul(p, hn::Sub(x, middle)));
    const auto of_q = hn::IfThenElseZero(hn::Gt(q, hn::Zero(d)), hn::Mul(q, hn::Sub(y, middle)));
    sum += hn::GetLane(hn::SumOfLanes(d, hn::Add(of_p, of_q)));
  });
  return sum / 2;
}

/// body(d, i, scores, kept) for the vectors of doubles from 0 to n that keep a token. Vectors of floats are looked at
/// first, so that most of a row costs a load and a comparison.
template <class Body>
HWY_INLINE void for_each_kept(const PoolTerm& term, std::size_t offset, std::size_t n, const Body& body) {
  const float* scores = term.scores + offset;
  const hn::ScalableTag<float> d;
  const hn::ScalableTag<double> wide;
  const auto visit = [&](auto tag, std::size_t i) HWY_ATTR {
    const auto score = load_wide(tag, scores + i);
    body(tag, i, score, hn::Ge(score, hn::Set(tag, static_cast<double>(term.cut))));
  };
  std::size_t i = 0;
  for (; i + hn::Lanes(d) <= n; i += hn::Lanes(d)) {
    if (hn::AllFalse(d, hn::Ge(hn::LoadU(d, scores + i), hn::Set(d, term.cut)))) continue;
    for (std::size_t j = i; j < i + hn::Lanes(d); j += hn::Lanes(wide)) visit(wide, j);
  }
  for (; i < n; ++i) visit(hn::CappedTag<double, 1>(), i);
}

void pool_open(const PoolTerm& term, std::size_t offset, double* pool, std::size_t n) {
  for_each_kept(term, offset, n, [&](auto d, std::size_t i, auto, auto kept) HWY_ATTR {
    hn::StoreU(hn::IfThenZeroElse(kept, hn::LoadU(d, pool + i)), d, pool + i);
  });
}

void pool_add_log(const PoolTerm& term, std::size_t offset, double* pool, std::size_t n) {
  for_each_vector<double>(n, [&](auto d, std::size_t i) HWY_ATTR {
    const auto before = hn::LoadU(d, pool + i), impossible = hn::Set(d, kImpossible);
    const auto possible = hn::Gt(before, impossible);
    if (hn::AllFalse(d, possible)) return;
    const auto score = load_wide(d, term.scores + offset + i);
    const auto sum = hn::MulAdd(hn::Set(d, term.weight), hn::Sub(score, hn::Set(d, term.log_total)), before);
    const auto kept = hn::And(hn::Ge(score, hn::Set(d, static_cast<double>(term.cut))), possible);
    hn::StoreU(hn::IfThenElse(kept, sum, impossible), d, pool + i);
  });
}

void pool_max(const PoolTerm& term, std::size_t offset, double* pool, std::size_t n) {
  for_each_kept(term, offset, n, [&](auto d, std::size_t i, auto score, auto kept) HWY_ATTR {
    const auto value = hn::Add(hn::Sub(score, hn::Set(d, term.log_total)), hn::Set(d, term.weight));
    const auto before = hn::LoadU(d, pool + i);
    hn::StoreU(hn::IfThenElse(kept, hn::Max(before, value), before), d, pool + i);
  });
}

void pool_add(const PoolTerm& term, std::size_t offset, double* pool, std::size_t n) {
  for_each_kept(term, offset, n, [&](auto d, std::size_t i, auto score, auto kept) HWY_ATTR {
    const auto p = hn::IfThenElseZero(kept, hn::Exp(d, hn::Sub(score, hn::Set(d, term.log_total))));
    hn::StoreU(hn::MulAdd(hn::Set(d, term.weight), p, hn::LoadU(d, pool + i)), d, pool + i);
  });
}

void pool_log(double* pool, std::size_t n) {
  for_each_vector<double>(n, [&](auto d, std::size_t i) HWY_ATTR {
    const auto p = hn::LoadU(d, pool + i);
    const auto positive = hn::Gt(p, hn::Zero(d));
    const auto impossible = hn::Set(d, kImpossible);
    if (hn::AllFalse(d, positive)) return hn::StoreU(impossible, d, pool + i);
    hn::StoreU(hn::IfThenElse(positive, hn::Log(d, hn::IfThenElse(positive, p, hn::Set(d, 1.0))), impossible), d,
               pool + i);
  });
}

void contrast(const double* pool, const PoolTerm& empty, double beta, double shift, std::size_t offset, float* out,
              std::size_t n) {
  for_each_vector<double>(n, [&](auto d, std::size_t i) HWY_ATTR {
    const auto pooled = hn::LoadU(d, pool + i);
    const auto score = load_wide(d, empty.scores + offset + i);
    const auto log_p = hn::Sub(score, hn::Set(d, empty.log_total));
    const auto possible = hn::Gt(pooled, hn::Set(d, kImpossible));
    const auto known =
        hn::And(hn::Ge(score, hn::Set(d, static_cast<double>(empty.cut))), hn::Gt(log_p, hn::Set(d, kLeastLog)));
    const auto value = hn::MulAdd(hn::Set(d, 1 + beta), pooled, hn::Mul(hn::Set(d, -beta), log_p));
    const auto result = hn::Sub(hn::IfThenElse(hn::And(possible, known), value, pooled), hn::Set(d, shift));
    hn::StoreU(hn::DemoteTo(hn::Rebind<float, decltype(d)>(), result), hn::Rebind<float, decltype(d)>(), out + i);
  });
}

}  // namespace tuiqiao::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace tuiqiao {

HWY_EXPORT(largest_of);
HWY_EXPORT(log_sum_exp);
HWY_EXPORT(gather_kept);
HWY_EXPORT(exp_scores);
HWY_EXPORT(kept_entropy);
HWY_EXPORT(jensen_shannon_nats);
HWY_EXPORT(pool_open);
HWY_EXPORT(pool_add_log);
HWY_EXPORT(pool_max);
HWY_EXPORT(pool_add);
HWY_EXPORT(pool_log);
HWY_EXPORT(contrast);

float largest_of(std::span<const float> scores) {
  return HWY_DYNAMIC_DISPATCH(largest_of)(scores.data(), scores.size());
}

double log_sum_exp(std::span<const float> scores) {
  return HWY_DYNAMIC_DISPATCH(log_sum_exp)(scores.data(), scores.size());
}

std::size_t gather_kept(std::span<const float> scores, float cut, float* kept) {
  return HWY_DYNAMIC_DISPATCH(gather_kept)(scores.data(), scores.size(), cut, kept);
}

void exp_scores(std::span<const float> scores, double log_total, std::span<float> out) {
  HWY_DYNAMIC_DISPATCH(exp_scores)(scores.data(), scores.size(), log_total, out.data());
}

double kept_entropy(std::span<const float> scores, double log_total, float cut) {
  return HWY_DYNAMIC_DISPATCH(kept_entropy)(scores.data(), scores.size(), log_total, cut);
}

double jensen_shannon_bits(const Row& a, const Row& b) {
  const double nats = HWY_DYNAMIC_DISPATCH(jensen_shannon_nats)(a.scores.data(), a.log_total, b.scores.data(),
                                                                b.log_total, a.scores.size());
  return std::clamp(nats / std::numbers::ln2, 0.0, 1.0);
}

void pool_open(const PoolTerm& term, std::size_t offset, std::span<double> pool) {
  HWY_DYNAMIC_DISPATCH(pool_open)(term, offset, pool.data(), pool.size());
}

void pool_add_log(const PoolTerm& term, std::size_t offset, std::span<double> pool) {
  HWY_DYNAMIC_DISPATCH(pool_add_log)(term, offset, pool.data(), pool.size());
}

void pool_max(const PoolTerm& term, std::size_t offset, std::span<double> pool) {
  HWY_DYNAMIC_DISPATCH(pool_max)(term, offset, pool.data(), pool.size());
}

void pool_add(const PoolTerm& term, std::size_t offset, std::span<double> pool) {
  HWY_DYNAMIC_DISPATCH(pool_add)(term, offset, pool.data(), pool.size());
}

void pool_log(std::span<double> pool) { HWY_DYNAMIC_DISPATCH(pool_log)(pool.data(), pool.size()); }

void contrast(std::span<const double> pool, const PoolTerm& empty, double beta, double shift, std::size_t offset,
              std::span<float> out) {
  HWY_DYNAMIC_DISPATCH(contrast)(pool.data(), empty, beta, shift, offset, out.data(), pool.size());
}

}  // namespace tuiqiao
#endif  // HWY_ONCE
