#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace tuiqiao::auditing {

/// Rows of one block whose products with a class's witness may reach its threshold.
struct Survivors {
  std::uint32_t block;
  std::uint16_t witness;
  std::uint32_t rows;  ///< a bit each
};

/// Rows a block of the packed form has.
std::size_t block_rows();
/// Witnesses are taken in groups of so many; the rest is filled up with zeros and infinite thresholds.
inline constexpr std::size_t kWitnessGroup = 8;

/// Products of blocks of rows with witnesses, in float32. A block holds `terms` times block_rows() numbers: the first
/// number of every row, then the second, and so on.
struct Scan {
  const float* packed = nullptr;
  std::size_t first_block = 0, blocks = 0, terms = 0;
  const float* witnesses = nullptr;   ///< count x terms
  const float* thresholds = nullptr;  ///< count
  std::size_t count = 0;              ///< a multiple of kWitnessGroup
  float* best = nullptr;              ///< count: raised to the largest product that stayed below the threshold
};
/// Error: each product within (terms + 1) 2^-24 of the sum of the absolute values of its terms, relative.
/// Cost: terms / 16 fused multiply-adds a pair on AVX-512.
void scan(const Scan& job, std::vector<Survivors>& survivors);

/// a . b in float32. Error: within (n + 1) 2^-24 of the sum of the absolute values of its terms, relative.
float product(const float* a, const float* b, std::size_t n);

}  // namespace tuiqiao::auditing
