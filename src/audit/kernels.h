#pragma once

#include <cstddef>

namespace tuiqiao::auditing {

/// z . (a - b) in float64 and the sum of the absolute values of its terms.
struct ProductBound {
  double value = 0, size = 0;
};
ProductBound difference_product(const double* z, const double* a, const double* b, std::size_t n);

/// Keeps BLAS to one thread while it lives: the callers run on OpenMP's.
class SingleThreadBlas {
 public:
  SingleThreadBlas();
  ~SingleThreadBlas();
  SingleThreadBlas(const SingleThreadBlas&) = delete;
  SingleThreadBlas& operator=(const SingleThreadBlas&) = delete;

 private:
  int threads_ = 0;
};

}  // namespace tuiqiao::auditing
