#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "audit/problem.h"

namespace tuiqiao::auditing {

/// Proves that x_k lies inside a simplex: the origin is a positive combination of as many differences x_k - x_i (and
/// the bias generator, see exact.h) as the dimension + 1, which are affinely independent. Then some difference has a
/// negative product with any z of the domain. By a verified solve: with R near the inverse of M and |I - R M| < 1, the
/// exact solution lies within |R (M v - b)| / (1 - |I - R M|) of v.
/// Source: S. M. Rump, Verification methods, Acta Numerica 19 (2010), section 10.
bool is_inside_simplex(const Problem& problem, std::int64_t k, std::span<const std::int64_t> rows);

/// Proves that k is never on top in the ball: R |sum w (a_k - a_i)| + sum w (c_k - c_i) < 0 for the given w >= 0.
bool is_below_in_ball(const Problem& problem, std::int64_t k, std::span<const std::int64_t> rows,
                      std::span<const double> weights);

}  // namespace tuiqiao::auditing
