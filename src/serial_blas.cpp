#include "serial_blas.h"

#include <mutex>

// OpenBLAS's own functions; another BLAS has none of them and is left as it is.
extern "C" {
void openblas_set_num_threads(int threads) __attribute__((weak));
int openblas_get_num_threads() __attribute__((weak));
}

namespace tuiqiao {

namespace {

/// The setting is one of the whole process: the first to come changes it, the last to go restores it.
struct Setting {
  std::mutex mutex;
  int alive = 0, threads = 1;
};

Setting& setting() {
  static Setting one;
  return one;
}

bool is_openblas() { return openblas_set_num_threads && openblas_get_num_threads; }

}  // namespace

SerialBlas::SerialBlas() {
  if (!is_openblas()) return;
  Setting& s = setting();
  const std::lock_guard lock(s.mutex);
  if (s.alive++ > 0) return;
  s.threads = openblas_get_num_threads();
  openblas_set_num_threads(1);
}

SerialBlas::~SerialBlas() {
  if (!is_openblas()) return;
  Setting& s = setting();
  const std::lock_guard lock(s.mutex);
  if (--s.alive == 0) openblas_set_num_threads(s.threads);
}

}  // namespace tuiqiao
