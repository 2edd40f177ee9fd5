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

std::size_t block_rows() { return 2 * hn::Lanes(D()); }

/// One group of witnesses over one block: two vectors of rows a witness.
HWY_INLINE void scan_block(const Scan& job, std::size_t block, std::size_t from, const float* packed,
                           float* HWY_RESTRICT best, std::vector<Survivors>& survivors) {
  const D d;
  const std::size_t lanes = hn::Lanes(d);
  V low[kWitnessGroup], high[kWitnessGroup];
  for (std::size_t w = 0; w < kWitnessGroup; ++w) low[w] = high[w] = hn::Zero(d);
  const float* witness = job.witnesses + from * job.terms;
  for (std::size_t t = 0; t < job.terms; ++t) {
    const V a = hn::LoadU(d, packed + 2 * t * lanes), b = hn::LoadU(d, packed + (2 * t + 1) * lanes);
#pragma GCC unroll 8
    for (std::size_t w = 0; w < kWitnessGroup; ++w) {
      const V z = hn::Set(d, witness[w * job.terms + t]);
      low[w] = hn::MulAdd(a, z, low[w]);
      high[w] = hn::MulAdd(b, z, high[w]);
    }
  }
#pragma GCC unroll 8
  for (std::size_t w = 0; w < kWitnessGroup; ++w) {
    const V threshold = hn::Set(d, job.thresholds[from + w]);
    const auto below_low = hn::Lt(low[w], threshold), below_high = hn::Lt(high[w], threshold);
    const V none = hn::Set(d, -std::numeric_limits<float>::infinity());
    const V most = hn::Max(hn::IfThenElse(below_low, low[w], none), hn::IfThenElse(below_high, high[w], none));
    float* kept = best + w * lanes;
    hn::StoreU(hn::Max(most, hn::LoadU(d, kept)), d, kept);
    if (HWY_LIKELY(hn::AllTrue(d, hn::And(below_low, below_high)))) continue;
    std::uint8_t bits[8] = {};
    std::uint32_t rows_low = 0, rows_high = 0;
    hn::StoreMaskBits(d, hn::Not(below_low), bits);
    std::memcpy(&rows_low, bits, sizeof rows_low);
    std::fill(bits, bits + 8, std::uint8_t{0});
    hn::StoreMaskBits(d, hn::Not(below_high), bits);
    std::memcpy(&rows_high, bits, sizeof rows_high);
    const std::uint32_t whole = (std::uint32_t{1} << lanes) - 1;
    survivors.push_back({static_cast<std::uint32_t>(block), static_cast<std::uint16_t>(from + w),
                         (rows_low & whole) | (rows_high & whole) << lanes});
  }
}

void scan(const Scan& job, std::vector<Survivors>& survivors) {
  const D d;
  const std::size_t lanes = hn::Lanes(d);
  std::vector<float> best(job.count * lanes, -std::numeric_limits<float>::infinity());
  for (std::size_t b = 0; b < job.blocks; ++b) {
    const std::size_t block = job.first_block + b;
    const float* packed = job.packed + block * job.terms * 2 * lanes;
    for (std::size_t from = 0; from < job.count; from += kWitnessGroup)
      scan_block(job, block, from, packed, best.data() + from * lanes, survivors);
  }
  for (std::size_t w = 0; w < job.count; ++w) {
    for (std::size_t l = 0; l < lanes; ++l) job.best[w] = std::max(job.best[w], best[w * lanes + l]);
  }
}

float product(const float* a, const float* b, std::size_t n) {
  const D d;
  const std::size_t lanes = hn::Lanes(d);
  V sums[4] = {hn::Zero(d), hn::Zero(d), hn::Zero(d), hn::Zero(d)};
  std::size_t j = 0;
  for (; j + 4 * lanes <= n; j += 4 * lanes) {
    for (std::size_t s = 0; s < 4; ++s)
      sums[s] = hn::MulAdd(hn::LoadU(d, a + j + s * lanes), hn::LoadU(d, b + j + s * lanes), sums[s]);
  }
  for (; j + lanes <= n; j += lanes) sums[0] = hn::MulAdd(hn::LoadU(d, a + j), hn::LoadU(d, b + j), sums[0]);
  float sum = hn::GetLane(hn::SumOfLanes(d, hn::Add(hn::Add(sums[0], sums[1]), hn::Add(sums[2], sums[3]))));
  for (; j < n; ++j) sum += a[j] * b[j];
  return sum;
}

}  // namespace tuiqiao::auditing::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace tuiqiao::auditing {

HWY_EXPORT(block_rows);
HWY_EXPORT(scan);
HWY_EXPORT(product);

std::size_t block_rows() { return HWY_DYNAMIC_DISPATCH(block_rows)(); }
void scan(const Scan& job, std::vector<Survivors>& survivors) { HWY_DYNAMIC_DISPATCH(scan)(job, survivors); }
float product(const float* a, const float* b, std::size_t n) { return HWY_DYNAMIC_DISPATCH(product)(a, b, n); }

}  // namespace tuiqiao::auditing
#endif
