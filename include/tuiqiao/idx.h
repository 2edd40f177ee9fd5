#pragma once

#include <cstdint>
#include <filesystem>
#include <vector>

#include "tuiqiao/error.h"

namespace tuiqiao {

/// An array of bytes in C order, as MNIST and its kin are shipped.
struct IdxArray {
  std::vector<std::int64_t> shape;
  std::vector<std::uint8_t> values;
};

/// Reads an IDX file of unsigned bytes, packed by gzip or not.
/// Throws: tuiqiao::Error, one line that names the file: no IDX, another type, truncated, longer than it says, or more
///         than kMostIdxBytes.
IdxArray read_idx(const std::filesystem::path& file);

inline constexpr std::int64_t kMostIdxBytes = std::int64_t{1} << 32;

}  // namespace tuiqiao
