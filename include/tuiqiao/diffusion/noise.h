#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <span>

namespace tuiqiao {

/// Four random words for a key and a counter: no state, so that any number of any stream can be had at any time.
/// Source: Salmon et al. 2011, Philox4x32 with 10 rounds; the test has the authors' known answers.
std::array<std::uint32_t, 4> philox(std::array<std::uint32_t, 2> key, std::array<std::uint32_t, 4> counter);

/// N(0, 1) numbers of draw `draw` of stream `stream` (an image, say) under `seed`: the same on every machine but for
/// the last digits, whatever else was drawn. Domain: stream < 2^32, draw < 2^32. Error: 8 units in the last place of
/// the radius of a pair. Source: Box and Muller 1958.
void fill_normal(std::uint64_t seed, std::uint64_t stream, std::uint64_t draw, std::span<double> values);

/// One number in [0, n). Domain: as above, n >= 1.
std::uint64_t random_below(std::uint64_t seed, std::uint64_t stream, std::uint64_t draw, std::uint64_t n);

/// Fills a batch with N(0, 1) numbers, the `draw`th that each of its rows gets.
using NoiseSource = std::function<void(std::uint64_t draw, std::span<double> values)>;

/// A stream for each row: row i of the batch is image first + i, so that no result depends on the size of batches.
/// Shapes: the values are rows of `size`. Domain: first and all rows below 2^32. The source throws:
/// std::invalid_argument
/// "[image_noise] ..." where the values are no such rows.
NoiseSource image_noise(std::uint64_t seed, std::uint64_t first, std::int64_t size);

/// Fills a batch with the increments of its rows' Brownian paths between two sigmas, over their standard deviation.
using NoisePath = std::function<void(double from, double to, std::span<double> values)>;

/// A Brownian path in log sigma for each row, the same on every grid: halves of [sigma_min, sigma_max] by Levy's
/// construction, straight lines below 2^-16 of it; what it adds there is rounded to float32. One that goes along a grid
/// looks each sigma up once.
/// Domain: 0 < sigma_min < sigma_max; sigmas outside are taken for the nearest end.
/// Throws: std::invalid_argument "[brownian_path] ...". Cost: up to 17 numbers a number, on all threads.
NoisePath brownian_path(std::uint64_t seed, std::uint64_t first, std::int64_t size, double sigma_min, double sigma_max);

}  // namespace tuiqiao
