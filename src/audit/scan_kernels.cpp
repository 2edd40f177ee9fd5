#include "audit/scan_kernels.h"

#include <algorithm>
#include <cstring>
#include <limits>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "audit/scan_kernels.cpp"
#include <hwy/foreach_target.h>  // IWYU pragma: keep
#include <hwy/highway.h>

HWY_BEFORE_NAMESPACE();
namespace tuiqiao::auditing::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

using D = hn::CappedTag<float, 16>;
using V = hn::Vec<D>;
using DInt = hn::CappedTag<std::int32_t, 16>;

constexpr std::int32_t kLeast = std::numeric_limits<std::int32_t>::min();

std::size_t block_rows() { return 2 * hn::Lanes(DInt()); }

#if HWY_TARGET == HWY_SCALAR
/// One group of witnesses over one block.
HWY_INLINE void scan_block(const Scan& job, std::size_t block, std::size_t from, std::int32_t* best,
                           std::vector<Survivors>& survivors) {
  const std::size_t width = block_rows();
  const std::int16_t* packed = job.packed + block * job.pairs * 2 * width;
  for (std::size_t w = from; w < from + kWitnessGroup; ++w) {
    const std::int16_t* witness = job.witnesses + w * job.pairs * 2;
    std::uint32_t reached = 0;
    for (std::size_t r = 0; r < width; ++r) {
      std::int32_t sum = 0;
      for (std::size_t t = 0; t < job.pairs; ++t) {
        for (std::size_t e = 0; e < 2; ++e)
          sum += std::int32_t{packed[(t * width + r) * 2 + e]} * std::int32_t{witness[2 * t + e]};
      }
      if (sum < job.thresholds[w]) {
        best[w - from] = std::max(best[w - from], sum);
      } else {
        reached |= std::uint32_t{1} << r;
      }
    }
    if (reached != 0) survivors.push_back({static_cast<std::uint32_t>(block), static_cast<std::uint16_t>(w), reached});
  }
}
#else
using DShort = hn::Repartition<std::int16_t, DInt>;
using VInt = hn::Vec<DInt>;

/// One group of witnesses over one block: two vectors of rows a witness.
HWY_INLINE void scan_block(const Scan& job, std::size_t block, std::size_t from, std::int32_t* HWY_RESTRICT best,
                           std::vector<Survivors>& survivors) {
  const DInt d;
  const DShort ds;
  const std::size_t lanes = hn::Lanes(d);
  VInt low[kWitnessGroup], high[kWitnessGroup], low_odd[kWitnessGroup], high_odd[kWitnessGroup];
#pragma GCC unroll 8
  for (std::size_t w = 0; w < kWitnessGroup; ++w) low[w] = high[w] = low_odd[w] = high_odd[w] = hn::Zero(d);
  const std::int16_t* HWY_RESTRICT packed = job.packed + block * job.pairs * 4 * lanes;
  const std::int16_t* HWY_RESTRICT witness = job.witnesses + from * job.pairs * 2;
  for (std::size_t t = 0; t < job.pairs; ++t) {
    const auto a = hn::LoadU(ds, packed + 4 * t * lanes), b = hn::LoadU(ds, packed + (4 * t + 2) * lanes);
#pragma GCC unroll 8
    for (std::size_t w = 0; w < kWitnessGroup; ++w) {
      std::int32_t pair = 0;
      std::memcpy(&pair, witness + 2 * (w * job.pairs + t), sizeof pair);
      const auto z = hn::BitCast(ds, hn::Set(d, pair));
      low[w] = hn::ReorderWidenMulAccumulate(d, a, z, low[w], low_odd[w]);
      high[w] = hn::ReorderWidenMulAccumulate(d, b, z, high[w], high_odd[w]);
    }
  }
#pragma GCC unroll 8
  for (std::size_t w = 0; w < kWitnessGroup; ++w) {
    const VInt a = hn::RearrangeToOddPlusEven(low[w], low_odd[w]), b = hn::RearrangeToOddPlusEven(high[w], high_odd[w]);
    const VInt threshold = hn::Set(d, job.thresholds[from + w]), most = hn::Max(a, b);
    std::int32_t* kept = best + w * lanes;
    if (HWY_LIKELY(hn::AllTrue(d, hn::Lt(most, threshold)))) {
      hn::StoreU(hn::Max(most, hn::LoadU(d, kept)), d, kept);
      continue;
    }
    const auto below_a = hn::Lt(a, threshold), below_b = hn::Lt(b, threshold);
    const VInt none = hn::Set(d, kLeast);
    const VInt settled = hn::Max(hn::IfThenElse(below_a, a, none), hn::IfThenElse(below_b, b, none));
    hn::StoreU(hn::Max(settled, hn::LoadU(d, kept)), d, kept);
    const auto bits_of = [&](const auto& below) {
      std::uint8_t bytes[8] = {};
      hn::StoreMaskBits(d, hn::Not(below), bytes);
      std::uint32_t bits = 0;
      std::memcpy(&bits, bytes, sizeof bits);
      return bits & ((std::uint32_t{1} << lanes) - 1);
    };
    survivors.push_back({static_cast<std::uint32_t>(block), static_cast<std::uint16_t>(from + w),
                         bits_of(below_a) | bits_of(below_b) << lanes});
  }
}

#endif

void scan(const Scan& job, std::vector<Survivors>& survivors) {
  const std::size_t lanes = hn::Lanes(DInt());
  std::vector<std::int32_t> best(job.count * lanes, kLeast);
  // A block of few terms stays in the first cache while all witnesses pass it; of blocks of many terms, a group of
  // witnesses does while all blocks pass it.
  constexpr std::size_t kManyPairs = 128;
  if (job.pairs < kManyPairs) {
    for (std::size_t block = 0; block < job.blocks; ++block) {
      for (std::size_t from = 0; from < job.count; from += kWitnessGroup)
        scan_block(job, block, from, best.data() + from * lanes, survivors);
    }
  } else {
    for (std::size_t from = 0; from < job.count; from += kWitnessGroup) {
      for (std::size_t block = 0; block < job.blocks; ++block)
        scan_block(job, block, from, best.data() + from * lanes, survivors);
    }
  }
  for (std::size_t w = 0; w < job.count; ++w) {
    for (std::size_t l = 0; l < lanes; ++l) job.best[w] = std::max(job.best[w], best[w * lanes + l]);
  }
}

void quantise(const float* from, std::size_t n, float scale, std::int16_t* to) {
  const D d;
  const hn::Rebind<std::int16_t, D> narrow;
  const std::size_t lanes = hn::Lanes(d);
  const V factor = hn::Set(d, scale);
  std::size_t j = 0;
  for (; j + lanes <= n; j += lanes)
    hn::StoreU(hn::DemoteTo(narrow, hn::NearestInt(hn::Mul(hn::LoadU(d, from + j), factor))), narrow, to + j);
  for (; j < n; ++j) {
    const float x = from[j] * scale;
    to[j] = static_cast<std::int16_t>(static_cast<std::int32_t>(x + (x < 0 ? -0.5F : 0.5F)));
  }
}

float product(const float* a, const float* b, std::size_t n) {
  const D d;
  const std::size_t lanes = hn::Lanes(d);
  V sums[4] = {hn::Zero(d), hn::Zero(d), hn::Zero(d), hn::Zero(d)};
  std::size_t j = 0;
  for (; j + 4 * lanes <= n; j += 4 * lanes) {
#pragma GCC unroll 4
    for (std::size_t s = 0; s < 4; ++s)
      sums[s] = hn::MulAdd(hn::LoadU(d, a + j + s * lanes), hn::LoadU(d, b + j + s * lanes), sums[s]);
  }
  for (; j + lanes <= n; j += lanes) sums[0] = hn::MulAdd(hn::LoadU(d, a + j), hn::LoadU(d, b + j), sums[0]);
  float sum = hn::GetLane(hn::SumOfLanes(d, hn::Add(hn::Add(sums[0], sums[1]), hn::Add(sums[2], sums[3]))));
  for (; j < n; ++j) sum += a[j] * b[j];
  return sum;
}

void shift_row(const float* a, const float* shift, float unit, std::size_t n, float* to) {
  const D d;
  const std::size_t lanes = hn::Lanes(d);
  const V factor = hn::Set(d, unit);
  std::size_t j = 0;
  for (; j + lanes <= n; j += lanes)
    hn::StoreU(hn::Mul(hn::Sub(hn::LoadU(d, a + j), hn::LoadU(d, shift + j)), factor), d, to + j);
  for (; j < n; ++j) to[j] = (a[j] - shift[j]) * unit;
}

}  // namespace tuiqiao::auditing::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace tuiqiao::auditing {

HWY_EXPORT(block_rows);
HWY_EXPORT(scan);
HWY_EXPORT(quantise);
HWY_EXPORT(product);
HWY_EXPORT(shift_row);

std::size_t block_rows() { return HWY_DYNAMIC_DISPATCH(block_rows)(); }
void scan(const Scan& job, std::vector<Survivors>& survivors) { HWY_DYNAMIC_DISPATCH(scan)(job, survivors); }
void quantise(const float* from, std::size_t n, float scale, std::int16_t* to) {
  HWY_DYNAMIC_DISPATCH(quantise)(from, n, scale, to);
}
float product(const float* a, const float* b, std::size_t n) { return HWY_DYNAMIC_DISPATCH(product)(a, b, n); }
void shift_row(const float* a, const float* shift, float unit, std::size_t n, float* to) {
  HWY_DYNAMIC_DISPATCH(shift_row)(a, shift, unit, n, to);
}

void pack_row(const std::int16_t* terms, std::size_t pairs, std::size_t i, std::int16_t* packed) {
  const std::size_t width = block_rows();
  std::int16_t* to = packed + (i / width * pairs * width + i % width) * 2;
  for (std::size_t t = 0; t < pairs; ++t) std::memcpy(to + t * width * 2, terms + 2 * t, 2 * sizeof *terms);
}

std::size_t packed_size(std::size_t rows, std::size_t pairs) {
  const std::size_t width = block_rows();
  return (rows + width - 1) / width * width * pairs * 2;
}

}  // namespace tuiqiao::auditing
#endif
