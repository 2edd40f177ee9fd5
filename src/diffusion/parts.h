#pragma once

#include <ATen/Parallel.h>
#include <omp.h>

#include <algorithm>
#include <atomic>
#include <cstdint>

#include "serial_blas.h"

namespace tuiqiao {

/// Calls work(part, from, count) for parts of a batch: on the CPU 16 rows each (whose activations then stay in a
/// processor's cache), or 32 of 512 and more (weights are made ready for every part anew), side by side, a thread each,
/// in which operations of tensors have no further threads; elsewhere all rows at once. `ordered`: one after another.
/// Threads have their own settings of gradients.
template <class Work>
void for_parts(std::int64_t rows, bool on_cpu, const Work& work, bool ordered = false) {
  const std::int64_t together = !on_cpu ? rows : rows < 512 ? 16 : 32;
  const std::int64_t parts = (rows + together - 1) / together;
  const SerialBlas serial;
  std::atomic<std::int64_t> next{0};  // processors of unlike speed take as many parts as they can do
  const auto do_parts = [&](std::int64_t, std::int64_t) {
    // oneDNN's gradients of convolutions wait for threads that a region within a region does not get.
    at::internal::lazy_init_num_threads();  // which else would set them later
    if (omp_in_parallel() != 0) omp_set_num_threads(1);
    for (std::int64_t part = next++; part < parts; part = next++)
      work(part, part * together, std::min(together, rows - part * together));
  };
  if (ordered) {
    do_parts(0, parts);
  } else {
    at::parallel_for(0, parts, 1, do_parts);
  }
}

}  // namespace tuiqiao
