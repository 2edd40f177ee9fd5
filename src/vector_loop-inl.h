// For each of Highway's targets: included after highway.h, within no namespace.
#if defined(TUIQIAO_VECTOR_LOOP_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef TUIQIAO_VECTOR_LOOP_INL_H_
#undef TUIQIAO_VECTOR_LOOP_INL_H_
#else
#define TUIQIAO_VECTOR_LOOP_INL_H_
#endif

#include <hwy/highway.h>

#include <cstddef>

HWY_BEFORE_NAMESPACE();
namespace tuiqiao::HWY_NAMESPACE {

/// body(d, i) for whole vectors of T from 0 to n, then for single lanes.
template <typename T, class Body>
HWY_INLINE void for_each_vector(std::size_t n, const Body& body) {
  namespace hn = hwy::HWY_NAMESPACE;
  const hn::ScalableTag<T> d;
  const hn::CappedTag<T, 1> one;
  std::size_t i = 0;
  for (; i + hn::Lanes(d) <= n; i += hn::Lanes(d)) body(d, i);
  for (; i < n; ++i) body(one, i);
}

}  // namespace tuiqiao::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();
#endif
