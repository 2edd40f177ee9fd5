#include "tuiqiao/diffusion/noise.h"

#include <cmath>
#include <numbers>

namespace tuiqiao {

namespace {

__extension__ using Wide = unsigned __int128;

std::uint64_t word(std::uint32_t low, std::uint32_t high) { return std::uint64_t{high} << 32 | low; }

std::array<std::uint32_t, 4> numbers_of(std::uint64_t seed, std::uint64_t stream, std::uint64_t draw,
                                        std::uint64_t block) {
  const auto low = [](std::uint64_t v) { return static_cast<std::uint32_t>(v); };
  return philox({low(seed), low(seed >> 32)}, {low(block), low(block >> 32), low(draw), low(stream)});
}

/// In (0, 1], of 53 bits.
double unit(std::uint64_t bits) { return static_cast<double>((bits >> 11) + 1) * 0x1p-53; }

}  // namespace

std::array<std::uint32_t, 4> philox(std::array<std::uint32_t, 2> key, std::array<std::uint32_t, 4> counter) {
  for (int round = 0; round < 10; ++round) {
    const std::uint64_t a = std::uint64_t{0xD2511F53} * counter[0], b = std::uint64_t{0xCD9E8D57} * counter[2];
    counter = {static_cast<std::uint32_t>(b >> 32) ^ counter[1] ^ key[0], static_cast<std::uint32_t>(b),
               static_cast<std::uint32_t>(a >> 32) ^ counter[3] ^ key[1], static_cast<std::uint32_t>(a)};
    key = {key[0] + 0x9E3779B9U, key[1] + 0xBB67AE85U};
  }
  return counter;
}

void fill_normal(std::uint64_t seed, std::uint64_t stream, std::uint64_t draw, std::span<double> values) {
  for (std::size_t i = 0; i < values.size(); i += 2) {  // Box and Muller: two words make two normal numbers
    const auto words = numbers_of(seed, stream, draw, i / 2);
    const double radius = std::sqrt(-2 * std::log(unit(word(words[0], words[1]))));
    const double angle = 2 * std::numbers::pi * unit(word(words[2], words[3]));
    values[i] = radius * std::cos(angle);
    if (i + 1 < values.size()) values[i + 1] = radius * std::sin(angle);
  }
}

std::uint64_t random_below(std::uint64_t seed, std::uint64_t stream, std::uint64_t draw, std::uint64_t n) {
  const auto words = numbers_of(seed, stream, draw, ~std::uint64_t{0});  // a block that no row of numbers reaches
  return static_cast<std::uint64_t>(static_cast<Wide>(word(words[0], words[1])) * n >> 64);
}

NoiseSource image_noise(std::uint64_t seed, std::uint64_t first, std::int64_t size) {
  return [=](std::uint64_t draw, std::span<double> values) {
    const auto width = static_cast<std::size_t>(size);
    for (std::size_t i = 0; i * width < values.size(); ++i)
      fill_normal(seed, first + i, draw, values.subspan(i * width, width));
  };
}

}  // namespace tuiqiao
