#pragma once

#include <cstdint>
#include <span>

namespace tuiqiao {

/// N(0, 1) numbers two by two: pair i from the words that philox() of tuiqiao/diffusion/noise.h has for the key `seed`
/// and the counter (first + i, draw, stream), by Box and Muller; all pairs of a vector at once.
/// Domain: an even number of values; draw and stream below 2^32. Error: 8 units in the last place of a pair's radius.
void normal_pairs(std::uint64_t seed, std::uint64_t stream, std::uint64_t draw, std::uint64_t first,
                  std::span<double> values);

/// What a number of a path between two others is made of.
struct BridgeDraw {
  std::uint64_t seed = 0, stream = 0, draw = 0;
  double deviation = 1;
};
/// middle = (low + high) / 2 + deviation z, with z ~ N(0, 1) of float32, four for each of Philox's counters (i / 4,
/// draw, stream). Shapes: low, high: as middle, below 2^34 numbers. Domain: draw and stream below 2^32. Error: 2e-6 of
/// the radius of a pair, or of 1 where that is less; no z is beyond 6.7.
void bridge(const BridgeDraw& draw, const double* low, const double* high, std::span<double> middle);

}  // namespace tuiqiao
