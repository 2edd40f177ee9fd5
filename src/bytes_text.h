#pragma once

#include <fmt/format.h>

#include <array>
#include <cstdint>
#include <string>

namespace tuiqiao {

/// "12.3 MiB" and such, for people; whole numbers below a KiB.
inline std::string bytes_text(std::int64_t bytes) {
  constexpr std::array<const char*, 5> kUnits{"B", "KiB", "MiB", "GiB", "TiB"};
  auto value = static_cast<double>(bytes);
  std::size_t unit = 0;
  for (; value >= 1024 && unit + 1 < kUnits.size(); ++unit) value /= 1024;
  return fmt::format("{:.{}f} {}", value, unit == 0 ? 0 : 1, kUnits[unit]);
}

}  // namespace tuiqiao
