#pragma once

#include <cstddef>
#include <cstdint>

namespace tuiqiao::minsum {

/// Every second value of p = a + b from one on: p_k = p + 2 k, all of parity h.
///
/// With x = floor(p / 2), F_k = (x + k)(x + k + h) - N moves by p_k + 1, and the least y with y (y + h) >= F_k gives
/// c = y (y + h) - F_k and q = 2 y + h.
///
/// F and y may be far larger than a word. c and the error of y as the square root in double are not, so that y's own
/// low bits, F's low bits and F as a double determine them: all integers here are modulo 2^64.
struct Run {
  double f = 0, p = 0;                 ///< F_0 and p, with a relative error of at most 2^-52
  std::uint64_t f_low = 0, p_low = 0;  ///< the same modulo 2^64
  unsigned h = 0;
};

/// As long as y stays below this, its root in double is off by at most y 2^-51 + 2 = 34, and with it c comes to at most
/// 34 (2 y + 1) < 2^63, which fits in a signed word.
inline constexpr double kMostRoot = 0x1p56;
/// The same for words of 128 bits.
inline constexpr double kMostWideRoot = 0x1p88;

/// Writes those k < count to `hits` (room for all of them) for which c may be at most `limit`: all for which it is, and
/// few others. Returns how many. Cost: a square root and a division a value, vectorised.
std::size_t possible_hits(const Run& run, std::size_t count, std::uint64_t limit, std::uint32_t* hits);

}  // namespace tuiqiao::minsum
