#include "library_settings.h"

#include <unistd.h>

#include <cstdlib>
#include <string_view>

// OpenBLAS's own function; another BLAS has none.
extern "C" char* openblas_get_corename() __attribute__((weak));

namespace tuiqiao {

namespace {

/// The best kernels that OpenBLAS has for processors like this one; none where its own choice stands.
const char* better_kernels() {
#ifdef __x86_64__
  if (!openblas_get_corename || std::string_view(openblas_get_corename()) != "Prescott") return nullptr;
  __builtin_cpu_init();
  const bool avx512 = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl") &&
                      __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq");
  if (avx512) return "SKYLAKEX";
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) return "HASWELL";
#endif
  return nullptr;
}

/// Whether it was not set and now is.
bool set_first(const char* variable, const char* value) {
  return !std::getenv(variable) && ::setenv(variable, value, 1) == 0;
}

}  // namespace

void settle_libraries(char** argv) {
  const char* kernels = better_kernels();
  const bool chosen = kernels && set_first("OPENBLAS_CORETYPE", kernels);
  // Two programs of two threads on two processors: at 1000 each has half the speed, at 10,000 a tenth; alone they lose
  // from 100 down.
  const bool patient = !std::getenv("OMP_WAIT_POLICY") && set_first("GOMP_SPINCOUNT", "1000");
  if (chosen || patient) ::execv("/proc/self/exe", argv);  // returns where it fails: then as it is
}

}  // namespace tuiqiao
