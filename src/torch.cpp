#include "tuiqiao/torch.h"

#include <ATen/Parallel.h>
#include <ATen/Version.h>
#include <fmt/format.h>
#include <omp.h>
#include <torch/cuda.h>
#include <torch/version.h>

#include <algorithm>
#include <stdexcept>
#include <thread>

namespace tuiqiao {

namespace {

/// The value of KEY=value in libtorch's description of its build; empty where it has none.
std::string build_setting(const std::string& key) {
  const std::string text = at::show_config();
  const std::size_t at = text.find(key + "=");
  if (at == std::string::npos) return {};
  const std::size_t from = at + key.size() + 1;
  return text.substr(from, text.find_first_of(", \n", from) - from);
}

}  // namespace

void set_torch_threads(int threads) {
  if (threads < 0) throw std::invalid_argument(fmt::format("[set_torch_threads] threads = {} is negative", threads));
  if (threads == 0) threads = static_cast<int>(std::max(1U, std::thread::hardware_concurrency()));
  omp_set_num_threads(threads);
  at::set_num_threads(threads);
}

TorchSystem torch_system() {
  TorchSystem system{TORCH_VERSION, at::get_num_threads(), build_setting("BLAS_INFO"), {"cpu"}};
  const auto cuda = torch::cuda::device_count();
  for (decltype(torch::cuda::device_count()) i = 0; i < cuda; ++i) system.devices.push_back(fmt::format("cuda:{}", i));
  return system;
}

}  // namespace tuiqiao
