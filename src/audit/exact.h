#pragma once

#include <cstdint>
#include <stop_token>
#include <vector>

#include "audit/problem.h"

namespace tuiqiao::auditing {

/// Stands for the condition z_n > 0 among rows.
inline constexpr std::int64_t kBiasGenerator = -1;

/// A verdict in rational arithmetic on z of the free domain (with z_n > 0 where biases count).
struct ExactAnswer {
  enum class Kind : std::uint8_t {
    wins,    ///< z . (x_k - x_i) > 0 for every i
    ties,    ///< z: >= 0 for every i and > 0 for one; the weights forbid more
    inside,  ///< the weights put x_k inside the hull: where it reaches the top, all rows do
    below,   ///< the weights reproduce x_k with a larger bias: it never reaches the top
    ball,    ///< R |sum w (a_k - a_i)| <= sum w (c_i - c_k), and that is positive: it never reaches the top in the ball
    open,    ///< not settled within the limits
  };
  Kind kind = Kind::open;
  RationalVector z;
  std::vector<std::int64_t> rows;  ///< and kBiasGenerator for what `below` leaves over
  RationalVector weights;          ///< positive, sum 1
};

/// Of the proof that the weights make: "inside", "below", "ball", or "face" for what ties.
const char* proof_name(ExactAnswer::Kind kind);

/// Decides class k by the simplex method over the rationals, with rows taken in as they are found to be violated.
/// `seeds`: rows to start from. A stop leaves it open. Cost: grows quickly with the columns; meant for some 50 at most.
ExactAnswer decide_exactly(const Problem& problem, std::int64_t k, const std::vector<std::int64_t>& seeds,
                           const std::stop_token& stop);

/// Sign of z . (x_k - x_i) for every row i, 0 for k's own group; exact.
std::vector<int> exact_signs(const Problem& problem, std::int64_t k, const RationalVector& z);

}  // namespace tuiqiao::auditing
