#include "topk/series_kernels.h"

#include <vector>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "topk/series_kernels.cpp"
#include <hwy/foreach_target.h>  // IWYU pragma: keep
#include <hwy/highway.h>
// After highway.h.
#include "vector_loop-inl.h"

HWY_BEFORE_NAMESPACE();
namespace tuiqiao::topk::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;
using tuiqiao::HWY_NAMESPACE::for_each_vector;

/// One sum a moment, a vector each.
class Sums {
 public:
  explicit Sums(std::size_t count) : lanes_(hn::Lanes(hn::ScalableTag<double>())), sums_(count * lanes_, 0) {}

  template <class D>
  HWY_INLINE void add(D d, std::size_t m, hn::Vec<D> v) {
    double* at = &sums_[m * lanes_];
    hn::StoreU(hn::Add(hn::LoadU(d, at), v), d, at);
  }
  void add_to(std::span<double> totals) const {
    for (std::size_t i = 0; i < sums_.size(); ++i) totals[i / lanes_] += sums_[i];
  }

 private:
  std::size_t lanes_;
  std::vector<double> sums_;
};

void product_moments(const double* p, std::size_t n, std::span<double> moments) {
  Sums sums(moments.size());
  for_each_vector<double>(n, [&](auto d, std::size_t i) HWY_ATTR {
    // (1 - u^2) R_m with R_0 = R_1 = 0 and R_{m+1} = 2 u R_m - R_{m-1}, less 2 for even m + 1.
    const auto in = hn::LoadU(d, p + i), one = hn::Set(d, 1.0);
    const auto twice_u = hn::Mul(hn::Set(d, 4.0), hn::Sub(in, hn::Set(d, 0.5)));
    const auto twice_weight = hn::Mul(hn::Set(d, 8.0), hn::Mul(in, hn::Sub(one, in)));
    auto before = hn::Zero(d), now = hn::Zero(d);
    for (std::size_t m = 2; m < moments.size(); ++m) {
      auto next = hn::MulSub(twice_u, now, before);
      if (m % 2 == 0) next = hn::Sub(next, twice_weight);
      before = now, now = next;
      sums.add(d, m, now);
    }
  });
  sums.add_to(moments);
}

void tilt_moments(const double* p, const double* v, std::size_t n, std::span<double> moments) {
  Sums sums(moments.size());
  for_each_vector<double>(n, [&](auto d, std::size_t i) HWY_ATTR {
    const auto in = hn::LoadU(d, p + i);
    const auto twice_u = hn::Mul(hn::Set(d, 4.0), hn::Sub(in, hn::Set(d, 0.5)));
    auto now = hn::Mul(in, hn::LoadU(d, v + i));
    auto before = hn::Mul(hn::Set(d, 0.5), hn::Mul(twice_u, now));  // T_{-1} = T_1
    for (std::size_t m = 0; m < moments.size(); ++m) {
      sums.add(d, m, now);
      const auto next = hn::MulSub(twice_u, now, before);
      before = now, now = next;
    }
  });
  sums.add_to(moments);
}

/// sum of series[m] T_m(u) by Clenshaw's recurrence.
template <class D>
HWY_INLINE hn::Vec<D> value_of(D d, std::span<const double> series, hn::Vec<D> twice_u) {
  auto now = hn::Zero(d), before = hn::Zero(d);
  for (std::size_t m = series.size() - 1; m > 0; --m) {
    const auto next = hn::MulAdd(twice_u, now, hn::Sub(hn::Set(d, series[m]), before));
    before = now, now = next;
  }
  const auto u = hn::Mul(hn::Set(d, 0.5), twice_u);
  return hn::MulAdd(u, now, hn::Sub(hn::Set(d, series[0]), before));
}

void tilts(const double* p, std::size_t n, std::span<const double> series, double* out) {
  for_each_vector<double>(n, [&](auto d, std::size_t i) HWY_ATTR {
    const auto in = hn::LoadU(d, p + i);
    const auto twice_u = hn::Mul(hn::Set(d, 4.0), hn::Sub(in, hn::Set(d, 0.5)));
    hn::StoreU(hn::Mul(in, value_of(d, series, twice_u)), d, out + i);
  });
}

void pairs(const double* p, const double* v, std::size_t n, std::span<const double> a, std::span<const double> b,
           std::span<const double> c, double* out) {
  for_each_vector<double>(n, [&](auto d, std::size_t i) HWY_ATTR {
    const auto in = hn::LoadU(d, p + i);
    const auto twice_u = hn::Mul(hn::Set(d, 4.0), hn::Sub(in, hn::Set(d, 0.5)));
    const auto own = hn::NegMulAdd(in, value_of(d, c, twice_u), value_of(d, b, twice_u));
    const auto sum = hn::MulAdd(hn::LoadU(d, v + i), own, value_of(d, a, twice_u));
    hn::StoreU(hn::Mul(in, sum), d, out + i);
  });
}

}  // namespace tuiqiao::topk::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace tuiqiao::topk {

HWY_EXPORT(product_moments);
HWY_EXPORT(tilt_moments);
HWY_EXPORT(tilts);
HWY_EXPORT(pairs);

void add_product_moments(std::span<const double> p, std::span<double> moments) {
  HWY_DYNAMIC_DISPATCH(product_moments)(p.data(), p.size(), moments);
}
void add_tilt_moments(std::span<const double> p, std::span<const double> v, std::span<double> moments) {
  HWY_DYNAMIC_DISPATCH(tilt_moments)(p.data(), v.data(), p.size(), moments);
}
void series_tilts(std::span<const double> p, std::span<const double> series, std::span<double> out) {
  HWY_DYNAMIC_DISPATCH(tilts)(p.data(), p.size(), series, out.data());
}
void series_pairs(std::span<const double> p, std::span<const double> v, std::span<const double> a,
                  std::span<const double> b, std::span<const double> c, std::span<double> out) {
  HWY_DYNAMIC_DISPATCH(pairs)(p.data(), v.data(), p.size(), a, b, c, out.data());
}

}  // namespace tuiqiao::topk
#endif  // HWY_ONCE
