#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace tuiqiao::auditing {

/// Rows of one block whose products with a witness reach its threshold.
struct Survivors {
  std::uint32_t block;
  std::uint16_t witness;
  std::uint32_t rows;  ///< a bit each
};

/// Rows that a block of the packed form has.
std::size_t block_rows();
/// Witnesses are taken in groups of so many; the rest is filled up with zeros.
inline constexpr std::size_t kWitnessGroup = 8;
/// Largest number in rows and witnesses, and largest length of either: sums then stay within int32.
inline constexpr std::int32_t kMostScanned = 32767;

/// Exact products of blocks of rows of int16 with witnesses of int16. Terms come in pairs; a block holds the first pair
/// of each of its rows, then the second, and so on.
struct Scan {
  const std::int16_t* packed = nullptr;  ///< of the first block
  std::size_t blocks = 0, pairs = 0;
  const std::int16_t* witnesses = nullptr;   ///< count x 2 pairs
  const std::int32_t* thresholds = nullptr;  ///< count
  std::size_t count = 0;                     ///< a multiple of kWitnessGroup
  std::int32_t* best = nullptr;              ///< count: raised to the largest product that stayed below the threshold
};
/// Cost: pairs / 16 multiply-adds a product on AVX-512.
void scan(const Scan& job, std::vector<Survivors>& survivors);

/// Writes a row's terms (2 pairs of them) where scan() looks for row `i` of the packed form.
void pack_row(const std::int16_t* terms, std::size_t pairs, std::size_t i, std::int16_t* packed);
/// Numbers of the packed form of so many rows.
std::size_t packed_size(std::size_t rows, std::size_t pairs);

/// from[j] * scale, rounded to nearest but for at most 0.01, of n numbers; the products must be within kMostScanned.
void quantise(const float* from, std::size_t n, float scale, std::int16_t* to);
/// Bound on the distance of a term from what quantise() makes of it, in units.
inline constexpr double kQuantiseError = 0.51;

/// a . b in float32. Error: within (n + 1) 2^-24 of the sum of the absolute values of its terms, relative.
float product(const float* a, const float* b, std::size_t n);
/// (a - shift) * unit in float32; the unit is a power of 2.
void shift_row(const float* a, const float* shift, float unit, std::size_t n, float* to);

}  // namespace tuiqiao::auditing
