#include "tuiqiao/diffusion/noise.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <stdexcept>
#include <vector>

#include "diffusion/normal_kernel.h"
#include "parallel.h"

namespace tuiqiao {

namespace {

__extension__ using Wide = unsigned __int128;

std::uint64_t word(std::uint32_t low, std::uint32_t high) { return std::uint64_t{high} << 32 | low; }

std::array<std::uint32_t, 4> numbers_of(std::uint64_t seed, std::uint64_t stream, std::uint64_t draw,
                                        std::uint64_t block) {
  const auto low = [](std::uint64_t v) { return static_cast<std::uint32_t>(v); };
  return philox({low(seed), low(seed >> 32)}, {low(block), low(block >> 32), low(draw), low(stream)});
}

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
  const std::size_t whole = values.size() / 2 * 2;
  normal_pairs(seed, stream, draw, 0, values.first(whole));
  if (whole == values.size()) return;
  std::array<double, 2> last{};
  normal_pairs(seed, stream, draw, whole / 2, last);
  values[whole] = last[0];
}

std::uint64_t random_below(std::uint64_t seed, std::uint64_t stream, std::uint64_t draw, std::uint64_t n) {
  const auto words = numbers_of(seed, stream, draw, ~std::uint64_t{0});  // a block that no row of numbers reaches
  return static_cast<std::uint64_t>(static_cast<Wide>(word(words[0], words[1])) * n >> 64);
}

namespace {

/// body(row, its values), on all threads where it is worth while to wake them.
template <class Body>
void for_rows(const char* function, std::int64_t size, std::span<double> values, const Body& body) {
  const auto width = static_cast<std::size_t>(size);
  if (size < 1 || values.size() % width != 0)
    throw std::invalid_argument(fmt::format("[{}] {} numbers are no rows of {}", function, values.size(), size));
  const auto one = [&](std::int64_t i) {
    const auto row = static_cast<std::size_t>(i);
    body(row, values.subspan(row * width, width));
  };
  const auto rows = static_cast<std::int64_t>(values.size() / width);
  constexpr std::size_t kWorthwhile = 1 << 14;  // numbers, some tens of microseconds
  if (values.size() >= kWorthwhile) return parallel_for(rows, one);
  for (std::int64_t i = 0; i < rows; ++i) one(i);
}

}  // namespace

NoiseSource image_noise(std::uint64_t seed, std::uint64_t first, std::int64_t size) {
  return [=](std::uint64_t draw, std::span<double> values) {
    for_rows("image_noise", size, values,
             [&](std::size_t row, std::span<double> of_row) { fill_normal(seed, first + row, draw, of_row); });
  };
}

namespace {

constexpr int kLevels = 16;

/// W at a place of [0, 1] of one row's path, `stream`; W(0) = 0.
void path_at(std::uint64_t seed, std::uint64_t stream, double place, std::span<double> values) {
  constexpr std::uint64_t kPaths = std::uint64_t{1} << 31;  // apart from the draws of samplers
  std::vector<double> low(values.size(), 0), high(values.size()), middle(values.size());
  bridge({seed, stream, kPaths, 1}, low.data(), low.data(), high);
  double from = 0, to = 1;
  // Nodes of the tree are numbered 1, 2 and 3, 4 to 7, ...; draw 0 is the right end.
  std::uint64_t node = 1;
  for (int level = 0; level < kLevels && place != from && place != to; ++level) {
    const double half = (from + to) / 2;
    bridge({seed, stream, kPaths + node, std::sqrt((to - from) / 4)}, low.data(), high.data(), middle);
    const bool right = place > half;
    (right ? low : high).swap(middle);
    (right ? from : to) = half;
    node = 2 * node + (right ? 1 : 0);
  }
  const double part = (place - from) / (to - from);
  for (std::size_t i = 0; i < values.size(); ++i) values[i] = low[i] + part * (high[i] - low[i]);
}

}  // namespace

NoisePath brownian_path(std::uint64_t seed, std::uint64_t first, std::int64_t size, double sigma_min,
                        double sigma_max) {
  if (!(sigma_min > 0 && sigma_min < sigma_max && std::isfinite(sigma_max)))
    throw std::invalid_argument(fmt::format("[brownian_path] sigmas from {} to {}", sigma_min, sigma_max));
  struct Known {
    double place = -1;
    std::vector<double> values;
  };
  const double low = std::log(sigma_min), range = std::log(sigma_max) - low;
  const auto place_of = [=](double sigma) { return std::clamp((std::log(sigma) - low) / range, 0.0, 1.0); };
  const auto look_up = [=](double place, std::span<double> values) {
    for_rows("brownian_path", size, values,
             [&](std::size_t row, std::span<double> of_row) { path_at(seed, first + row, place, of_row); });
  };
  return [=, last = Known()](double from, double to, std::span<double> values) mutable {
    const double start = place_of(from), end = place_of(to);
    if (last.place != start || last.values.size() != values.size()) {
      last.values.resize(values.size());
      look_up(start, last.values);
    }
    look_up(end, values);
    const double scale = 1 / std::sqrt(std::abs(end - start));
    for (std::size_t i = 0; i < values.size(); ++i) {
      const double here = values[i];
      values[i] = end == start ? 0 : scale * (here - last.values[i]);
      last.values[i] = here;
    }
    last.place = end;
  };
}

}  // namespace tuiqiao
