#include "audit/difference_product.h"

#include <cmath>

namespace tuiqiao::auditing {

ProductBound difference_product(const double* z, const double* a, const double* b, std::size_t n) {
  constexpr std::size_t kLanes = 8;
  double values[kLanes] = {}, sizes[kLanes] = {};
  std::size_t j = 0;
  for (; j + kLanes <= n; j += kLanes) {
    for (std::size_t l = 0; l < kLanes; ++l) {
      const double term = z[j + l] * (a[j + l] - b[j + l]);
      values[l] += term;
      sizes[l] += std::abs(term);
    }
  }
  for (; j < n; ++j) {
    const double term = z[j] * (a[j] - b[j]);
    values[0] += term;
    sizes[0] += std::abs(term);
  }
  ProductBound sum;
  for (std::size_t l = 0; l < kLanes; ++l) {
    sum.value += values[l];
    sum.size += sizes[l];
  }
  return sum;
}

}  // namespace tuiqiao::auditing
