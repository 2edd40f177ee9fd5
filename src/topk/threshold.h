#pragma once

#include <functional>
#include <span>

#include "topk/shape_kernels.h"

namespace tuiqiao::topk {

/// The threshold for which sum f((x - t) / tau) = k.
///
/// Where a range of t gives the same p (a gap wider than f's reach), the one at which the tails of both sides balance;
/// for clip, the middle.
/// Domain: contents.infinite < k < contents.infinite + contents.finite; tau > 0; no NaN.
/// Cost: expected O(n): three to five calls of sides_of over the row, more where entries lie many tau apart.
Threshold find_threshold(TopkMethod shape, std::span<const float> x, const Contents& contents, double k, double tau);
Threshold find_threshold(TopkMethod shape, std::span<const double> x, const Contents& contents, double k, double tau);

/// The same for any f that rises from 0 to 1, given with its derivative.
Threshold find_threshold(const std::function<double(double)>& f, const std::function<double(double)>& slope,
                         std::span<const double> x, const Contents& contents, double k, double tau);

}  // namespace tuiqiao::topk
