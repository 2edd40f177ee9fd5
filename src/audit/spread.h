#pragma once

#include <cstdint>

#include "parallel.h"

namespace tuiqiao::auditing {

/// Calls body(i) for 0 <= i < n, on all threads where the work (in multiplications, all of it) is worth waking them.
template <class Body>
void spread(std::int64_t n, double work, const Body& body) {
  constexpr double kWorthThreads = 1e6;
  if (work >= kWorthThreads) return parallel_for(n, body);
  for (std::int64_t i = 0; i < n; ++i) body(i);
}

}  // namespace tuiqiao::auditing
