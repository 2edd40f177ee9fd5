#include "blas_kernels.h"

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

}  // namespace

void choose_blas_kernels(char** argv) {
  constexpr const char* kVariable = "OPENBLAS_CORETYPE";
  if (std::getenv(kVariable)) return;
  const char* kernels = better_kernels();
  if (!kernels || ::setenv(kVariable, kernels, 1) != 0) return;
  ::execv("/proc/self/exe", argv);  // returns where it fails: then as it is
}

}  // namespace tuiqiao
