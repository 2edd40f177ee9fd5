#include "diffusion/disturbed.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <numeric>
#include <stdexcept>

#include "tuiqiao/diffusion/noise.h"

namespace tuiqiao {

namespace {

constexpr std::uint64_t kSeed = 0x0D15;  // of permutation and noise: no other numbers

std::vector<std::size_t> permutation_of(std::size_t pixels) {
  std::vector<std::size_t> order(pixels);
  std::iota(order.begin(), order.end(), 0);
  for (std::size_t i = 0; i + 1 < pixels; ++i) std::swap(order[i], order[i + random_below(kSeed, 0, i, pixels - i)]);
  return order;
}

/// Where each pixel of the disturbed image comes from.
std::vector<std::size_t> source_of(std::string_view name, std::size_t height, std::size_t width) {
  if (name == "shuffled") return permutation_of(height * width);
  std::vector<std::size_t> from(height * width);
  for (std::size_t p = 0; p < from.size(); ++p)
    from[p] = name == "upside-down" ? (height - 1 - p / width) * width + p % width : p;
  return from;
}

/// Uniform over what 8 bits made continuous can be: v = 127.5 (x + 1) in [-1/2, 255.5).
double uniform_number(std::uint64_t row, std::uint64_t entry) {
  constexpr std::uint64_t kParts = std::uint64_t{1} << 32;
  const auto part = static_cast<double>(random_below(kSeed, 1 + row, entry, kParts));
  return (part / static_cast<double>(kParts) * 256 - 0.5) / 127.5 - 1;
}

}  // namespace

bool is_disturbance(std::string_view name) {
  return std::find(kDisturbances.begin(), kDisturbances.end(), name) != kDisturbances.end();
}

std::vector<double> disturbed(std::string_view name, std::span<const double> images,
                              const std::vector<std::int64_t>& shape, std::int64_t first) {
  if (!is_disturbance(name))
    throw std::invalid_argument(fmt::format("'{}' is none of {}", name, fmt::join(kDisturbances, ", ")));
  if (shape.size() != 3) throw std::invalid_argument(fmt::format("{}: needs a model of images", name));
  const auto channels = static_cast<std::size_t>(shape[0]), pixels = static_cast<std::size_t>(shape[1] * shape[2]);
  const std::vector<std::size_t> from =
      source_of(name, static_cast<std::size_t>(shape[1]), static_cast<std::size_t>(shape[2]));
  std::vector<double> made(images.size());
  for (std::size_t plane = 0; plane < images.size() / pixels; ++plane) {
    const std::uint64_t row = static_cast<std::uint64_t>(first) + plane / channels;
    for (std::size_t p = 0; p < pixels; ++p) {
      const double value = images[plane * pixels + from[p]];
      double& to = made[plane * pixels + p];
      if (name == "noise") {
        to = uniform_number(row, plane % channels * pixels + p);
      } else {
        to = name == "inverted" ? -value : value;
      }
    }
  }
  return made;
}

}  // namespace tuiqiao
