#include "parallel.h"

#include <omp.h>

#include <algorithm>
#include <exception>

// Debian's OpenMP is not built for ThreadSanitizer, which therefore sees neither its fork nor its join: they are told
// here, and the function that hands variables to OpenMP's threads is left out.
#ifdef __SANITIZE_THREAD__
#include <sanitizer/tsan_interface.h>
#define TUIQIAO_FORKED_BY_OPENMP __attribute__((no_sanitize("thread")))
#else
#define TUIQIAO_FORKED_BY_OPENMP
#endif

namespace tuiqiao {

namespace {

void acquire([[maybe_unused]] void* edge) {
#ifdef __SANITIZE_THREAD__
  __tsan_acquire(edge);
#endif
}

void release([[maybe_unused]] void* edge) {
#ifdef __SANITIZE_THREAD__
  __tsan_release(edge);
#endif
}

/// What the body of the least index threw: the same whatever thread came first.
struct FirstError {
  std::exception_ptr error;
  std::int64_t index = 0;

  void keep(const std::exception_ptr& other, std::int64_t of) {
#pragma omp critical(tuiqiao_run_parallel)
    if (!error || of < index) error = other, index = of;
  }
};

}  // namespace

TUIQIAO_FORKED_BY_OPENMP void run_parallel(std::int64_t n, void (*call)(const void* body, std::int64_t i),
                                           const void* body) {
  FirstError first;
  char fork = 0, join = 0;  // only their addresses count
  const int threads = static_cast<int>(std::clamp<std::int64_t>(n, 1, omp_get_max_threads()));
  release(&fork);
#pragma omp parallel num_threads(threads)
  {
    acquire(&fork);
#pragma omp for schedule(dynamic, 1)
    for (std::int64_t i = 0; i < n; ++i) {
      try {
        call(body, i);
      } catch (...) {
        first.keep(std::current_exception(), i);
      }
    }
    release(&join);
  }
  acquire(&join);
  if (first.error) std::rethrow_exception(first.error);
}

}  // namespace tuiqiao
