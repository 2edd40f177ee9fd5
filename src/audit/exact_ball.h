#pragma once

#include "audit/exact.h"

namespace tuiqiao::auditing {

/// What `free`, an answer of decide_exactly that wins or ties, comes to in the ball of a problem that has one: the same
/// with a z inside, or the kind `ball`. Finds the shortest hidden vector y at which nothing beats k. In the ball it is
/// a tie at least, and a little way on towards `free.z` the same as that is; else its multipliers keep k from the top.
/// By the dual method for strictly convex quadratic programs, in rationals, which ends since its value only rises.
/// Source: D. Goldfarb, A. Idnani, A numerically stable dual method, Mathematical Programming 27 (1983).
/// Open where that takes over 2000 steps, or on a stop. Cost: each step solves for as many multipliers as rows touch y,
/// at most the columns, and looks at every row.
ExactAnswer decide_in_ball(const Problem& problem, std::int64_t k, ExactAnswer free, const std::stop_token& stop);

}  // namespace tuiqiao::auditing
