#include "run_kernel.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "minsum/run_kernel.cpp"
#include <hwy/foreach_target.h>  // IWYU pragma: keep
#include <hwy/highway.h>

HWY_BEFORE_NAMESPACE();
namespace tuiqiao::minsum::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

/// For a vector of values of k: those for which c may be at most the limit.
///
/// With Y, a whole number near the root, C = Y (Y + h) - F and the slope M = 2 Y + h, the right y = Y + d has
/// c = C + d M + d^2. So c / M is the fractional part of C / M, but for d^2 / M and rounding.
template <class D>
HWY_INLINE hn::Mask<D> may_hit(D d, const Run& run, hn::Vec<D> k, hn::Vec<hn::Repartition<std::uint64_t, D>> f_low,
                               hn::Vec<D> limit) {
  const hn::Repartition<std::int64_t, D> whole;
  const hn::Repartition<std::uint64_t, D> modular;
  const auto h = hn::Set(d, static_cast<double>(run.h)), half = hn::Set(d, 0.5);
  const auto f = hn::MulAdd(k, hn::Add(hn::Set(d, run.p), k), hn::Set(d, run.f));
  const auto root = hn::Sqrt(hn::Max(hn::MulAdd(hn::Mul(h, half), half, f), hn::Zero(d)));
  const auto y = hn::ConvertTo(whole, hn::Max(hn::NegMulAdd(h, half, root), hn::Zero(d)));
  const auto y_low = hn::BitCast(modular, y);
  const auto c = hn::Sub(hn::Mul(y_low, hn::Add(y_low, hn::Set(modular, std::uint64_t{run.h}))), f_low);
  const auto y_real = hn::ConvertTo(d, y);
  const auto slope = hn::Max(hn::Add(hn::Add(y_real, y_real), h), hn::Set(d, 1.0));
  const auto inverse = hn::Div(hn::Set(d, 1.0), slope);
  const auto part = hn::Mul(hn::ConvertTo(d, hn::BitCast(whole, c)), inverse);
  const auto fraction = hn::Sub(part, hn::Floor(part));
  // d is at most the root's relative error, below 2^-51, times y, with 1 for cutting the root and 1 for the ceiling.
  const auto most_d = hn::MulAdd(y_real, hn::Set(d, 0x1p-51), hn::Set(d, 2.0));
  const auto slack = hn::MulAdd(hn::Mul(most_d, most_d), inverse, hn::Set(d, 0x1p-40));
  return hn::Or(hn::Le(fraction, hn::MulAdd(limit, inverse, slack)), hn::Ge(fraction, hn::Sub(hn::Set(d, 1.0), slack)));
}

std::size_t possible_hits(const Run& run, std::size_t count, std::uint64_t limit, std::uint32_t* hits) {
  const hn::ScalableTag<double> d;
  const hn::Repartition<std::uint64_t, decltype(d)> modular;
  const std::uint64_t lanes = hn::Lanes(d);
  const auto bound = hn::Set(d, static_cast<double>(limit));
  // F_k = F_0 + k (p + k), and from one vector to the next F_{k + L} - F_k = L (p + 2 k + L), which grows by 2 L^2.
  const auto first = hn::Iota(modular, 0), p = hn::Set(modular, run.p_low);
  auto f_low = hn::Add(hn::Set(modular, run.f_low), hn::Mul(first, hn::Add(p, first)));
  auto move = hn::Mul(hn::Set(modular, lanes), hn::Add(p, hn::Add(hn::Add(first, first), hn::Set(modular, lanes))));
  const auto bend = hn::Set(modular, 2 * lanes * lanes);
  auto k = hn::Iota(d, 0);
  std::size_t found = 0;
  for (std::size_t i = 0; i < count; i += hn::Lanes(d)) {
    const auto hit = may_hit(d, run, k, f_low, bound);
    if (HWY_UNLIKELY(!hn::AllFalse(d, hit))) {
      HWY_ALIGN double at[HWY_MAX_BYTES / sizeof(double)];
      const std::size_t here = hn::CountTrue(d, hit);
      hn::Store(hn::Compress(k, hit), d, at);
      for (std::size_t j = 0; j < here; ++j) {
        if (at[j] < static_cast<double>(count)) hits[found++] = static_cast<std::uint32_t>(at[j]);
      }
    }
    k = hn::Add(k, hn::Set(d, static_cast<double>(lanes)));
    f_low = hn::Add(f_low, move);
    move = hn::Add(move, bend);
  }
  return found;
}

}  // namespace tuiqiao::minsum::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace tuiqiao::minsum {

HWY_EXPORT(possible_hits);

std::size_t possible_hits(const Run& run, std::size_t count, std::uint64_t limit, std::uint32_t* hits) {
  return HWY_DYNAMIC_DISPATCH(possible_hits)(run, count, limit, hits);
}

}  // namespace tuiqiao::minsum
#endif  // HWY_ONCE
