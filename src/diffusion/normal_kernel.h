#pragma once

#include <cstdint>
#include <span>

namespace tuiqiao {

/// N(0, 1) numbers two by two: pair i from the words that philox() of tuiqiao/diffusion/noise.h has for the key `seed`
/// and the counter (first + i, draw, stream), by Box and Muller; all pairs of a vector at once.
/// Domain: an even number of values; draw and stream below 2^32. Error: 8 units in the last place of a pair's radius.
void normal_pairs(std::uint64_t seed, std::uint64_t stream, std::uint64_t draw, std::uint64_t first,
                  std::span<double> values);

}  // namespace tuiqiao
