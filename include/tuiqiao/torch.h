#pragma once

#include <string>
#include <vector>

namespace tuiqiao {

/// Sets how many threads tensor operations, BLAS and OpenMP loops use: one pool for all. 0 for all processors; some
/// builds of libtorch start with one. Throws: std::invalid_argument on a negative number.
/// Threads: call before tensor work starts.
void set_torch_threads(int threads);

/// What tensor operations run on.
struct TorchSystem {
  std::string version;               ///< of libtorch
  int threads = 0;                   ///< in use
  std::string blas;                  ///< that libtorch was built with
  std::vector<std::string> devices;  ///< "cpu", then "cuda:0" and so on
};
TorchSystem torch_system();

}  // namespace tuiqiao
