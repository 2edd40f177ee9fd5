#pragma once

#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace tuiqiao {

/// An array of numbers in C order.
struct NpyArray {
  std::vector<std::int64_t> shape;
  std::vector<double> values;
};

/// An array from the bytes of a .npy file (formats 1 to 3): float16, float32, float64 or integers of up to 64 bits,
/// little-endian, C order or Fortran order. Integers beyond 2^53 are rounded.
/// Throws: tuiqiao::Error, one line that begins with `name`; nothing that the header claims is believed unchecked.
NpyArray parse_npy(std::string_view bytes, const std::string& name);

/// Whether bytes begin as a .npy file does.
bool is_npy(std::string_view bytes);

/// Reads a whole file. Throws: tuiqiao::Error.
NpyArray read_npy(const std::filesystem::path& file);

/// The bytes of a .npy file of float64, or of float32, in C order.
std::string npy_of(std::span<const double> values, std::span<const std::int64_t> shape);
std::string npy_of(std::span<const float> values, std::span<const std::int64_t> shape);

}  // namespace tuiqiao
