#include "serial_blas.h"

// OpenBLAS's own functions; another BLAS has none of them and is left as it is.
extern "C" {
void openblas_set_num_threads(int threads) __attribute__((weak));
int openblas_get_num_threads() __attribute__((weak));
}

namespace tuiqiao {

SerialBlas::SerialBlas() {
  if (!openblas_set_num_threads || !openblas_get_num_threads) return;
  threads_ = openblas_get_num_threads();
  openblas_set_num_threads(1);
}

SerialBlas::~SerialBlas() {
  if (threads_ > 0) openblas_set_num_threads(threads_);
}

}  // namespace tuiqiao
