#include "diffusion/normal_kernel.h"

#include <cstddef>
#include <numbers>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "diffusion/normal_kernel.cpp"
#include <hwy/foreach_target.h>  // IWYU pragma: keep
#include <hwy/highway.h>
// After highway.h.
#include <hwy/contrib/math/math-inl.h>

#include "vector_loop-inl.h"

HWY_BEFORE_NAMESPACE();
namespace tuiqiao::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

/// Words of 32 bits, each in a lane of 64.
template <class V>
struct Words {
  V of[4];
};

/// Products, of 64 bits, of words and a factor of 32.
template <class D>
HWY_INLINE hn::Vec<D> times(D d, hn::Vec<D> words, std::uint64_t factor) {
#if HWY_TARGET == HWY_SCALAR
  return hn::Set(d, hn::GetLane(words) * factor);
#else
  const hn::Repartition<std::uint32_t, D> half;
  return hn::MulEven(hn::BitCast(half, words), hn::BitCast(half, hn::Set(d, factor)));
#endif
}

/// philox() of a counter in each lane.
template <class D, class V = hn::Vec<D>>
HWY_INLINE Words<V> philox(D d, std::uint64_t seed, Words<V> counter) {
  const auto low = hn::Set(d, 0xFFFFFFFFU);
  auto key0 = static_cast<std::uint32_t>(seed), key1 = static_cast<std::uint32_t>(seed >> 32);
  for (int round = 0; round < 10; ++round) {
    const V a = times(d, counter.of[0], 0xD2511F53), b = times(d, counter.of[2], 0xCD9E8D57);
    counter = {{hn::Xor(hn::Xor(hn::ShiftRight<32>(b), counter.of[1]), hn::Set(d, key0)), hn::And(b, low),
                hn::Xor(hn::Xor(hn::ShiftRight<32>(a), counter.of[3]), hn::Set(d, key1)), hn::And(a, low)}};
    key0 += 0x9E3779B9U;
    key1 += 0xBB67AE85U;
  }
  return counter;
}

/// In (0, 1], of 53 bits.
template <class D, class V>
HWY_INLINE hn::Vec<D> unit(D numbers, V low, V high) {
  const hn::RebindToUnsigned<D> d;
  const hn::RebindToSigned<D> whole;
  const V bits = hn::ShiftRight<11>(hn::Or(hn::ShiftLeft<32>(high), low));
  const auto counted = hn::BitCast(whole, hn::Add(bits, hn::Set(d, 1)));
  return hn::Mul(hn::ConvertTo(numbers, counted), hn::Set(numbers, 0x1p-53));
}

void normal_pairs_of(std::uint64_t seed, std::uint64_t stream, std::uint64_t draw, std::uint64_t first,
                     std::span<double> values) {
  for_each_vector<double>(values.size() / 2, [&](auto numbers, std::size_t i) HWY_ATTR {
    const hn::RebindToUnsigned<decltype(numbers)> d;
    const auto low = hn::Set(d, 0xFFFFFFFFU), block = hn::Iota(d, first + i);
    const auto words = philox(d, seed,
                              Words<hn::Vec<decltype(d)>>{{hn::And(block, low), hn::ShiftRight<32>(block),
                                                           hn::Set(d, draw), hn::Set(d, stream)}});
    const auto log = hn::Log(numbers, unit(numbers, words.of[0], words.of[1]));
    const auto radius = hn::Sqrt(hn::Mul(hn::Set(numbers, -2.0), log));
    const auto angle = hn::Mul(hn::Set(numbers, 2 * std::numbers::pi), unit(numbers, words.of[2], words.of[3]));
    hn::StoreInterleaved2(hn::Mul(radius, hn::Cos(numbers, angle)), hn::Mul(radius, hn::Sin(numbers, angle)), numbers,
                          values.data() + 2 * i);
  });
}

}  // namespace tuiqiao::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace tuiqiao {

HWY_EXPORT(normal_pairs_of);

void normal_pairs(std::uint64_t seed, std::uint64_t stream, std::uint64_t draw, std::uint64_t first,
                  std::span<double> values) {
  HWY_DYNAMIC_DISPATCH(normal_pairs_of)(seed, stream, draw, first, values);
}

}  // namespace tuiqiao
#endif
