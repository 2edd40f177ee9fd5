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

/// Vectors whose work is interleaved: each of a single one's rounds waits for the one before.
constexpr std::size_t kTogether = 4;

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

/// What a counter holds beside the number of its block.
struct Stream {
  std::uint64_t seed, stream, draw;
};

/// philox() of blocks first, first + 1, ..., one in each lane.
template <std::size_t N, class D, class V = hn::Vec<D>>
HWY_INLINE void philox(D d, const Stream& of, std::uint64_t first, Words<V> (&counters)[N]) {
  const auto low = hn::Set(d, 0xFFFFFFFFU);
  for (std::size_t i = 0; i < N; ++i) {
    const V block = hn::Iota(d, first + i * hn::Lanes(d));
    counters[i] = {{hn::And(block, low), hn::ShiftRight<32>(block), hn::Set(d, of.draw), hn::Set(d, of.stream)}};
  }
  auto key0 = static_cast<std::uint32_t>(of.seed), key1 = static_cast<std::uint32_t>(of.seed >> 32);
  for (int round = 0; round < 10; ++round) {
    for (Words<V>& counter : counters) {
      const V a = times(d, counter.of[0], 0xD2511F53), b = times(d, counter.of[2], 0xCD9E8D57);
      counter = {{hn::Xor(hn::Xor(hn::ShiftRight<32>(b), counter.of[1]), hn::Set(d, key0)), hn::And(b, low),
                  hn::Xor(hn::Xor(hn::ShiftRight<32>(a), counter.of[3]), hn::Set(d, key1)), hn::And(a, low)}};
    }
    key0 += 0x9E3779B9U;
    key1 += 0xBB67AE85U;
  }
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

/// Pairs from `first` on, a lane each.
template <std::size_t N, class D>
HWY_INLINE void write_pairs(D numbers, const Stream& of, std::uint64_t first, double* out) {
  const hn::RebindToUnsigned<D> d;
  Words<hn::Vec<decltype(d)>> words[N];
  philox(d, of, first, words);
  for (std::size_t n = 0; n < N; ++n) {
    const auto& word = words[n].of;
    const auto log = hn::Log(numbers, unit(numbers, word[0], word[1]));
    const auto radius = hn::Sqrt(hn::Mul(hn::Set(numbers, -2.0), log));
    const auto angle = hn::Mul(hn::Set(numbers, 2 * std::numbers::pi), unit(numbers, word[2], word[3]));
    hn::StoreInterleaved2(hn::Mul(radius, hn::Cos(numbers, angle)), hn::Mul(radius, hn::Sin(numbers, angle)), numbers,
                          out + 2 * n * hn::Lanes(numbers));
  }
}

void normal_pairs_of(std::uint64_t seed, std::uint64_t stream, std::uint64_t draw, std::uint64_t first,
                     std::span<double> values) {
  const Stream of{seed, stream, draw};
  const hn::ScalableTag<double> whole;
  const std::size_t pairs = values.size() / 2, together = kTogether * hn::Lanes(whole);
  std::size_t done = 0;
  for (; done + together <= pairs; done += together)
    write_pairs<kTogether>(whole, of, first + done, values.data() + 2 * done);
  for_each_vector<double>(pairs - done, [&](auto numbers, std::size_t i) HWY_ATTR {
    write_pairs<1>(numbers, of, first + done + i, values.data() + 2 * (done + i));
  });
}

/// A pair of each two words, by Box and Muller: words[i] makes out[2 i] and out[2 i + 1].
template <class D, class V>
HWY_INLINE void rough_pairs(D d, V radius_words, V angle_words, float* out) {
  const hn::RebindToSigned<D> whole;
  const auto count = [&](V words) HWY_ATTR { return hn::ConvertTo(d, hn::BitCast(whole, hn::ShiftRight<1>(words))); };
  const auto unit = hn::Mul(hn::Add(count(radius_words), hn::Set(d, 0.5F)), hn::Set(d, 0x1p-31F));
  const auto radius = hn::Sqrt(hn::Mul(hn::Set(d, -2.0F), hn::Log(d, unit)));
  const auto angle = hn::Mul(count(angle_words), hn::Set(d, 2 * std::numbers::pi_v<float> * 0x1p-31F));
  hn::StoreInterleaved2(hn::Mul(radius, hn::Cos(d, angle)), hn::Mul(radius, hn::Sin(d, angle)), d, out);
}

/// Four numbers of each counter, two pairs.
template <class V>
HWY_INLINE void rough_numbers(const Words<V>& words, float* out) {
#if HWY_TARGET == HWY_SCALAR
  const hn::ScalableTag<std::uint32_t> d;
  const auto word = [&](int i) { return hn::Set(d, static_cast<std::uint32_t>(hn::GetLane(words.of[i]))); };
  for (int i = 0; i < 2; ++i) rough_pairs(hn::ScalableTag<float>(), word(i), word(2 + i), out + 2 * i);
#else
  const hn::ScalableTag<std::uint32_t> d;
  const auto both = [&](int i)
                        HWY_ATTR { return hn::BitCast(d, hn::Or(words.of[i], hn::ShiftLeft<32>(words.of[i + 1]))); };
  rough_pairs(hn::ScalableTag<float>(), both(0), both(2), out);
#endif
}

void bridge_of(const BridgeDraw& draw, const double* low, const double* high, std::span<double> middle) {
  const hn::ScalableTag<std::uint64_t> d;
  HWY_ALIGN float numbers[kTogether * 4 * hn::MaxLanes(d)];
  const std::size_t each = 4 * hn::Lanes(d), together = kTogether * each;
  for (std::size_t from = 0; from < middle.size(); from += together) {
    Words<hn::Vec<decltype(d)>> words[kTogether];
    philox(d, {draw.seed, draw.stream, draw.draw}, from / 4, words);
    for (std::size_t n = 0; n < kTogether; ++n) rough_numbers(words[n], numbers + n * each);
    const std::size_t count = HWY_MIN(together, middle.size() - from);
    for (std::size_t i = 0; i < count; ++i)
      middle[from + i] = (low[from + i] + high[from + i]) / 2 + draw.deviation * static_cast<double>(numbers[i]);
  }
}

}  // namespace tuiqiao::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace tuiqiao {

HWY_EXPORT(normal_pairs_of);
HWY_EXPORT(bridge_of);

void normal_pairs(std::uint64_t seed, std::uint64_t stream, std::uint64_t draw, std::uint64_t first,
                  std::span<double> values) {
  HWY_DYNAMIC_DISPATCH(normal_pairs_of)(seed, stream, draw, first, values);
}

void bridge(const BridgeDraw& draw, const double* low, const double* high, std::span<double> middle) {
  HWY_DYNAMIC_DISPATCH(bridge_of)(draw, low, high, middle);
}

}  // namespace tuiqiao
#endif
