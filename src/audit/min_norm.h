#pragma once

#include <cstddef>
#include <vector>

namespace tuiqiao::auditing {

/// The shortest vector of a convex hull, by its weights.
struct MinNorm {
  std::vector<double> weights;  ///< of all points, >= 0 with sum 1
  std::vector<int> support;     ///< points of positive weight, affinely independent
  double squared = 0;           ///< of its length
  bool is_zero = false;         ///< to rounding: the hull holds the origin
};

/// Wolfe's active-set method over n points of some columns and their Gram matrix (both row after row). Near the origin
/// products are taken from the points, since the Gram matrix holds no digits of such short vectors.
/// Cost: O(n s + s^2) a step for a support of s, about as many steps as the support has points.
/// Source: P. Wolfe, Finding the nearest point in a polytope, Mathematical Programming 11 (1976).
/// `rank`: columns that do not follow from the others; a simplex of one point more holds the origin.
/// `start`: what was found for the first of the points, if anything; only its support and their weights count.
MinNorm min_norm_point(const std::vector<double>& gram, int n, const double* points, std::size_t columns,
                       std::size_t rank, const MinNorm& start = {});

/// The same by Frank-Wolfe with exact line search, as the article solves it: slow to converge, cheap a step.
/// Stops after `steps`, or as soon as the vector has a positive product with every point.
MinNorm frank_wolfe(const std::vector<double>& gram, int n, int steps = 20000);

}  // namespace tuiqiao::auditing
