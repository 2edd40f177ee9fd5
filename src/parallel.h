#pragma once

#include <cstdint>

namespace tuiqiao {

/// As parallel_for, for a body behind a pointer.
void run_parallel(std::int64_t n, void (*call)(const void* body, std::int64_t i), const void* body);

/// Calls body(i) for 0 <= i < n on the threads of OpenMP's pool (the one that llama.cpp and BLAS use too), each index
/// once, in no order. After all have run, what the body of the least index threw is thrown here.
template <class Body>
void parallel_for(std::int64_t n, const Body& body) {
  run_parallel(
      n, [](const void* self, std::int64_t i) { (*static_cast<const Body*>(self))(i); }, &body);
}

}  // namespace tuiqiao
