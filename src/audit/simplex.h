#pragma once

#include <cstddef>
#include <vector>

#include "audit/min_norm.h"

namespace tuiqiao::auditing {

/// Exchanges vertices of a simplex around the origin for other points until no weight of the origin is so small that
/// rounding might be all there is of it: the active set's last vertices have weights of the length of its last vectors,
/// which are next to nothing. Returns whether `found` is such a simplex now; it changes only for the better.
/// Shapes: points: rows of `columns`; found.support: one more point than the columns that count. `skipped`: a column
/// that follows from the others, or `columns`.
/// Cost: O(n^2 p) an exchange for n vertices among p points; some few exchanges.
bool widen_simplex(const std::vector<double>& points, std::size_t columns, std::size_t skipped, MinNorm& found);

}  // namespace tuiqiao::auditing
