#pragma once

#include <omp.h>

#include <algorithm>
#include <cstdint>
#include <exception>

namespace tuiqiao {

/// Calls body(i) for 0 <= i < n on the threads of OpenMP's pool (the one that llama.cpp and BLAS use too), each index
/// once, in no order. The first exception of a body is thrown here, after all others have run.
template <class Body>
void parallel_for(std::int64_t n, const Body& body) {
  std::exception_ptr error;
  const int threads = static_cast<int>(std::clamp<std::int64_t>(n, 1, omp_get_max_threads()));
#pragma omp parallel for schedule(dynamic, 1) num_threads(threads)
  for (std::int64_t i = 0; i < n; ++i) {
    try {
      body(i);
    } catch (...) {
#pragma omp critical(tuiqiao_parallel_for)
      if (!error) error = std::current_exception();
    }
  }
  if (error) std::rethrow_exception(error);
}

}  // namespace tuiqiao
