#include "topk/shape_kernels.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "parallel.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "topk/shape_kernels.cpp"
#include <hwy/foreach_target.h>  // IWYU pragma: keep
#include <hwy/highway.h>
// After highway.h.
#include <hwy/contrib/math/math-inl.h>

HWY_BEFORE_NAMESPACE();
namespace tuiqiao::topk::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

/// The smaller of f and 1 - f, and f', of |z|; the sign of z tells which of the two it is.
template <class D>
struct Tail {
  hn::Vec<D> tail, slope;
};

struct Laplace {
  template <class D>
  static HWY_INLINE Tail<D> tail(D d, hn::Vec<D> z) {
    const auto half = hn::Mul(hn::Exp(d, hn::Neg(hn::Abs(z))), hn::Set(d, static_cast<hn::TFromD<D>>(0.5)));
    return {half, half};
  }
};

struct Sigmoid {
  template <class D>
  static HWY_INLINE Tail<D> tail(D d, hn::Vec<D> z) {
    const auto e = hn::Exp(d, hn::Neg(hn::Abs(z)));
    const auto one = hn::Set(d, static_cast<hn::TFromD<D>>(1));
    const auto most = hn::Div(one, hn::Add(one, e)), least = hn::Mul(e, most);
    return {least, hn::Mul(least, most)};
  }
};

struct Exponential {
  template <class D>
  static HWY_INLINE Tail<D> tail(D d, hn::Vec<D> z) {
    const auto e = hn::IfThenZeroElse(hn::Gt(z, hn::Zero(d)), hn::Exp(d, hn::Neg(hn::Abs(z))));
    return {e, e};
  }
};

struct Clip {
  template <class D>
  static HWY_INLINE Tail<D> tail(D d, hn::Vec<D> z) {
    const auto one = hn::Set(d, static_cast<hn::TFromD<D>>(1)), zero = hn::Zero(d);
    const auto inside = hn::And(hn::Gt(z, zero), hn::Lt(z, one));
    return {hn::IfThenElseZero(inside, hn::Sub(one, z)), hn::IfThenElseZero(inside, one)};
  }
};

/// t in two parts, so that x - t keeps the precision of z in float32 too.
template <class D>
struct Distance {
  using T = hn::TFromD<D>;
  hn::Vec<D> high, low, inverse;

  HWY_INLINE Distance(D d, Threshold at)
      : high(hn::Set(d, static_cast<T>(at.base))),
        low(hn::Set(d, static_cast<T>(at.base - static_cast<double>(static_cast<T>(at.base)) + at.offset))),
        inverse(hn::Set(d, static_cast<T>(at.inverse_tau))) {}

  HWY_INLINE hn::Vec<D> operator()(hn::Vec<D> x) const { return hn::Mul(hn::Sub(hn::Sub(x, high), low), inverse); }
};

/// A sum of vectors of T, widened after every few.
template <class T>
class WideSum {
 public:
  using D = hn::ScalableTag<T>;
  HWY_INLINE WideSum() : sum_(hn::Zero(D())) {}
  HWY_INLINE void add(hn::Vec<D> v) { sum_ = hn::Add(sum_, v); }
  HWY_INLINE void widen() {
    HWY_ALIGN T lanes[HWY_MAX_BYTES / sizeof(T)];
    hn::Store(sum_, D(), lanes);
    for (std::size_t i = 0; i < hn::Lanes(D()); ++i) total_ += static_cast<double>(lanes[i]);
    sum_ = hn::Zero(D());
  }
  double total() const { return total_; }

 private:
  hn::Vec<D> sum_;
  double total_ = 0;
};

/// body(i, count): whole vectors from 0 to n, of the last only the first `count` lanes; widen() after each block of 32.
template <class T, class Body, class Widen>
HWY_INLINE void for_each_vector_widening(std::size_t n, const Body& body, const Widen& widen) {
  const hn::ScalableTag<T> d;
  const std::size_t lanes = hn::Lanes(d), whole = n - n % lanes, block = 32 * lanes;
  for (std::size_t from = 0; from < whole; from += block) {
    const std::size_t to = std::min(whole, from + block);
    for (std::size_t i = from; i < to; i += lanes) body(i, lanes);
    widen();
  }
  if (whole < n) {
    body(whole, n - whole);
    widen();
  }
}

template <class D, class T>
HWY_INLINE hn::Vec<D> load(D d, const T* from, std::size_t count) {
  if (HWY_LIKELY(count == hn::Lanes(d))) return hn::LoadU(d, from);
  HWY_ALIGN T lanes[HWY_MAX_BYTES / sizeof(T)] = {};
  for (std::size_t i = 0; i < count; ++i) lanes[i] = from[i];
  return hn::Load(d, lanes);
}

template <class D, class T>
HWY_INLINE void store(D d, hn::Vec<D> v, T* to, std::size_t count) {
  if (HWY_LIKELY(count == hn::Lanes(d))) return hn::StoreU(v, d, to);
  HWY_ALIGN T lanes[HWY_MAX_BYTES / sizeof(T)];
  hn::Store(v, d, lanes);
  for (std::size_t i = 0; i < count; ++i) to[i] = lanes[i];
}

template <class Shape, class T>
Sides sides(const T* x, std::size_t n, Threshold at) {
  const hn::ScalableTag<T> d;
  const Distance<decltype(d)> distance(d, at);
  WideSum<T> tail_above, slope_above, tail_below, slope_below;
  Sides result;
  for_each_vector_widening<T>(
      n,
      [&](std::size_t i, std::size_t count) HWY_ATTR {
        const auto valid = hn::FirstN(d, count);
        const auto z = distance(load(d, x + i, count));
        const auto above = hn::And(hn::Gt(z, hn::Zero(d)), valid);
        const auto tail = Shape::tail(d, z);
        const auto below = hn::AndNot(above, valid);
        tail_above.add(hn::IfThenElseZero(above, tail.tail));
        slope_above.add(hn::IfThenElseZero(above, tail.slope));
        tail_below.add(hn::IfThenElseZero(below, tail.tail));
        slope_below.add(hn::IfThenElseZero(below, tail.slope));
        result.above += static_cast<std::int64_t>(hn::CountTrue(d, above));
      },
      [&]() HWY_ATTR { tail_above.widen(), slope_above.widen(), tail_below.widen(), slope_below.widen(); });
  result.tail_above = tail_above.total(), result.slope_above = slope_above.total();
  result.tail_below = tail_below.total(), result.slope_below = slope_below.total();
  return result;
}

template <class Shape, class T>
void values(const T* x, std::size_t n, Threshold at, T* p) {
  const hn::ScalableTag<T> d;
  const Distance<decltype(d)> distance(d, at);
  for_each_vector_widening<T>(
      n,
      [&](std::size_t i, std::size_t count) HWY_ATTR {
        const auto z = distance(load(d, x + i, count));
        const auto tail = Shape::tail(d, z).tail;
        const auto f = hn::IfThenElse(hn::Gt(z, hn::Zero(d)), hn::Sub(hn::Set(d, T{1}), tail), tail);
        store(d, f, p + i, count);
      },
      [] {});
}

template <class Shape, class T>
SlopeSums sums(const T* x, const T* v, std::size_t n, Threshold at) {
  const hn::ScalableTag<T> d;
  const Distance<decltype(d)> distance(d, at);
  WideSum<T> slope, slope_v, slope_z, slope_v_z;
  for_each_vector_widening<T>(
      n,
      [&](std::size_t i, std::size_t count) HWY_ATTR {
        const auto valid = hn::FirstN(d, count);
        const auto far = distance(load(d, x + i, count));
        const auto f = hn::IfThenElseZero(valid, Shape::tail(d, far).slope);
        const auto some = hn::Gt(f, hn::Zero(d));  // where f' is 0, z may be infinite
        const auto z = hn::IfThenElseZero(some, far);
        const auto with_v = hn::IfThenElseZero(some, hn::Mul(f, load(d, v + i, count)));
        slope.add(f);
        slope_v.add(with_v);
        slope_z.add(hn::Mul(f, z));
        slope_v_z.add(hn::Mul(with_v, z));
      },
      [&]() HWY_ATTR { slope.widen(), slope_v.widen(), slope_z.widen(), slope_v_z.widen(); });
  return {slope.total(), slope_v.total(), slope_z.total(), slope_v_z.total()};
}

template <class Shape, class T>
void slopes(const T* x, const T* v, std::size_t n, Threshold at, double centre, double scale, T* out) {
  const hn::ScalableTag<T> d;
  const Distance<decltype(d)> distance(d, at);
  const auto middle = hn::Set(d, static_cast<T>(centre)), by = hn::Set(d, static_cast<T>(scale));
  for_each_vector_widening<T>(
      n,
      [&](std::size_t i, std::size_t count) HWY_ATTR {
        const auto f = Shape::tail(d, distance(load(d, x + i, count))).slope;
        const auto moved = hn::Mul(hn::Mul(f, by), hn::Sub(load(d, v + i, count), middle));
        store(d, hn::IfThenElseZero(hn::Gt(f, hn::Zero(d)), moved), out + i, count);
      },
      [] {});
}

template <class T>
Contents contents(const T* x, std::size_t n) {
  const hn::ScalableTag<T> d;
  const T infinity = std::numeric_limits<T>::infinity();
  const auto top = hn::Set(d, infinity), bottom = hn::Set(d, -infinity);
  auto least = top, most = bottom;
  Contents result;
  for_each_vector_widening<T>(
      n,
      [&](std::size_t i, std::size_t count) HWY_ATTR {
        const auto v = load(d, x + i, count);
        const auto valid = hn::FirstN(d, count);
        const auto finite = hn::And(hn::Lt(hn::Abs(v), top), valid);
        least = hn::Min(least, hn::IfThenElse(finite, v, top));
        most = hn::Max(most, hn::IfThenElse(finite, v, bottom));
        const std::size_t here = hn::CountTrue(d, finite);
        result.finite += static_cast<std::int64_t>(here);
        if (HWY_LIKELY(here == count)) return;
        result.masked += static_cast<std::int64_t>(hn::CountTrue(d, hn::And(hn::Eq(v, bottom), valid)));
        result.infinite += static_cast<std::int64_t>(hn::CountTrue(d, hn::And(hn::Eq(v, top), valid)));
      },
      [] {});
  result.has_nan = result.finite + result.masked + result.infinite < static_cast<std::int64_t>(n);
  result.least = static_cast<double>(hn::GetLane(hn::MinOfLanes(d, least)));
  result.most = static_cast<double>(hn::GetLane(hn::MaxOfLanes(d, most)));
  return result;
}

#define TUIQIAO_TOPK_SHAPES(CALL) \
  switch (shape) {                \
    case TopkMethod::exponential: \
      return CALL(Exponential);   \
    case TopkMethod::sigmoid:     \
      return CALL(Sigmoid);       \
    case TopkMethod::clip:        \
      return CALL(Clip);          \
    default:                      \
      return CALL(Laplace);       \
  }

template <class T>
Sides any_sides(TopkMethod shape, const T* x, std::size_t n, Threshold at) {
#define CALL(S) sides<S>(x, n, at)
  TUIQIAO_TOPK_SHAPES(CALL)
#undef CALL
}
template <class T>
void any_values(TopkMethod shape, const T* x, std::size_t n, Threshold at, T* p) {
#define CALL(S) values<S>(x, n, at, p)
  TUIQIAO_TOPK_SHAPES(CALL)
#undef CALL
}
template <class T>
SlopeSums any_sums(TopkMethod shape, const T* x, const T* v, std::size_t n, Threshold at) {
#define CALL(S) sums<S>(x, v, n, at)
  TUIQIAO_TOPK_SHAPES(CALL)
#undef CALL
}
template <class T>
void any_slopes(TopkMethod shape, const T* x, const T* v, std::size_t n, Threshold at, double centre, double scale,
                T* out){
#define CALL(S) slopes<S>(x, v, n, at, centre, scale, out)
    TUIQIAO_TOPK_SHAPES(CALL)
#undef CALL
}

Sides sides_float(TopkMethod s, const float* x, std::size_t n, Threshold at) {
  return any_sides(s, x, n, at);
}
Sides sides_double(TopkMethod s, const double* x, std::size_t n, Threshold at) { return any_sides(s, x, n, at); }
void values_float(TopkMethod s, const float* x, std::size_t n, Threshold at, float* p) { any_values(s, x, n, at, p); }
void values_double(TopkMethod s, const double* x, std::size_t n, Threshold at, double* p) {
  any_values(s, x, n, at, p);
}
SlopeSums sums_float(TopkMethod s, const float* x, const float* v, std::size_t n, Threshold at) {
  return any_sums(s, x, v, n, at);
}
SlopeSums sums_double(TopkMethod s, const double* x, const double* v, std::size_t n, Threshold at) {
  return any_sums(s, x, v, n, at);
}
void slopes_float(TopkMethod s, const float* x, const float* v, std::size_t n, Threshold at, double centre, double by,
                  float* out) {
  any_slopes(s, x, v, n, at, centre, by, out);
}
void slopes_double(TopkMethod s, const double* x, const double* v, std::size_t n, Threshold at, double centre,
                   double by, double* out) {
  any_slopes(s, x, v, n, at, centre, by, out);
}
Contents contents_float(const float* x, std::size_t n) { return contents(x, n); }
Contents contents_double(const double* x, std::size_t n) { return contents(x, n); }

}  // namespace tuiqiao::topk::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace tuiqiao::topk {

HWY_EXPORT(sides_float);
HWY_EXPORT(sides_double);
HWY_EXPORT(values_float);
HWY_EXPORT(values_double);
HWY_EXPORT(sums_float);
HWY_EXPORT(sums_double);
HWY_EXPORT(slopes_float);
HWY_EXPORT(slopes_double);
HWY_EXPORT(contents_float);
HWY_EXPORT(contents_double);

namespace {

/// Long rows go through OpenMP's threads in parts whose size does not depend on how many there are, and neither do the
/// sums.
constexpr std::size_t kPart = std::size_t{1} << 16;

/// body(part, from, size)
template <class Body>
void for_each_part(std::size_t n, const Body& body) {
  if (n <= kPart) return body(0, 0, n);
  parallel_for(static_cast<std::int64_t>((n + kPart - 1) / kPart), [&](std::int64_t i) {
    const std::size_t part = static_cast<std::size_t>(i), from = part * kPart;
    body(part, from, std::min(kPart, n - from));
  });
}

/// What `of(from, size)` gives for the parts, in their order.
template <class Result, class Of>
std::vector<Result> parts_of(std::size_t n, const Of& of) {
  std::vector<Result> results(std::max<std::size_t>(1, (n + kPart - 1) / kPart));
  for_each_part(n, [&](std::size_t part, std::size_t from, std::size_t size) { results[part] = of(from, size); });
  return results;
}

template <class T, class Kernel>
Sides sides(const Kernel& kernel, TopkMethod shape, std::span<const T> x, Threshold at) {
  Sides all;
  for (const Sides& s : parts_of<Sides>(
           x.size(), [&](std::size_t from, std::size_t size) { return kernel(shape, x.data() + from, size, at); })) {
    all.above += s.above;
    all.tail_above += s.tail_above, all.slope_above += s.slope_above;
    all.tail_below += s.tail_below, all.slope_below += s.slope_below;
  }
  return all;
}

template <class T, class Kernel>
SlopeSums sums(const Kernel& kernel, TopkMethod shape, std::span<const T> x, std::span<const T> v, Threshold at) {
  SlopeSums all;
  for (const SlopeSums& s : parts_of<SlopeSums>(x.size(), [&](std::size_t from, std::size_t size) {
         return kernel(shape, x.data() + from, v.data() + from, size, at);
       })) {
    all.slope += s.slope, all.slope_v += s.slope_v;
    all.slope_z += s.slope_z, all.slope_v_z += s.slope_v_z;
  }
  return all;
}

template <class T, class Kernel>
Contents contents(const Kernel& kernel, std::span<const T> x) {
  Contents all{std::numeric_limits<double>::infinity(), -std::numeric_limits<double>::infinity()};
  for (const Contents& c : parts_of<Contents>(
           x.size(), [&](std::size_t from, std::size_t size) { return kernel(x.data() + from, size); })) {
    all.least = std::min(all.least, c.least), all.most = std::max(all.most, c.most);
    all.finite += c.finite, all.masked += c.masked, all.infinite += c.infinite;
    all.has_nan = all.has_nan || c.has_nan;
  }
  return all;
}

}  // namespace

Sides sides_of(TopkMethod shape, std::span<const float> x, Threshold at) {
  return sides(HWY_DYNAMIC_DISPATCH(sides_float), shape, x, at);
}
Sides sides_of(TopkMethod shape, std::span<const double> x, Threshold at) {
  return sides(HWY_DYNAMIC_DISPATCH(sides_double), shape, x, at);
}
void shape_values(TopkMethod shape, std::span<const float> x, Threshold at, std::span<float> p) {
  for_each_part(x.size(), [&](std::size_t, std::size_t from, std::size_t size) {
    HWY_DYNAMIC_DISPATCH(values_float)(shape, x.data() + from, size, at, p.data() + from);
  });
}
void shape_values(TopkMethod shape, std::span<const double> x, Threshold at, std::span<double> p) {
  for_each_part(x.size(), [&](std::size_t, std::size_t from, std::size_t size) {
    HWY_DYNAMIC_DISPATCH(values_double)(shape, x.data() + from, size, at, p.data() + from);
  });
}
SlopeSums slope_sums(TopkMethod shape, std::span<const float> x, std::span<const float> v, Threshold at) {
  return sums(HWY_DYNAMIC_DISPATCH(sums_float), shape, x, v, at);
}
SlopeSums slope_sums(TopkMethod shape, std::span<const double> x, std::span<const double> v, Threshold at) {
  return sums(HWY_DYNAMIC_DISPATCH(sums_double), shape, x, v, at);
}
void slope_values(TopkMethod shape, std::span<const float> x, std::span<const float> v, Threshold at, double centre,
                  double scale, std::span<float> out) {
  for_each_part(x.size(), [&](std::size_t, std::size_t from, std::size_t size) {
    HWY_DYNAMIC_DISPATCH(slopes_float)
    (shape, x.data() + from, v.data() + from, size, at, centre, scale, out.data() + from);
  });
}
void slope_values(TopkMethod shape, std::span<const double> x, std::span<const double> v, Threshold at, double centre,
                  double scale, std::span<double> out) {
  for_each_part(x.size(), [&](std::size_t, std::size_t from, std::size_t size) {
    HWY_DYNAMIC_DISPATCH(slopes_double)
    (shape, x.data() + from, v.data() + from, size, at, centre, scale, out.data() + from);
  });
}
Contents contents_of(std::span<const float> x) { return contents(HWY_DYNAMIC_DISPATCH(contents_float), x); }
Contents contents_of(std::span<const double> x) { return contents(HWY_DYNAMIC_DISPATCH(contents_double), x); }

}  // namespace tuiqiao::topk
#endif  // HWY_ONCE
