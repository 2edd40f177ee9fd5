#pragma once

#include <cstddef>

namespace tuiqiao::auditing {

/// z . (a - b) in float64 and the sum of the absolute values of its terms.
struct ProductBound {
  double value = 0, size = 0;
};
ProductBound difference_product(const double* z, const double* a, const double* b, std::size_t n);

}  // namespace tuiqiao::auditing
