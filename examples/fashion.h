#pragma once

#include <torch/torch.h>

#include <cstdio>
#include <cstdlib>
#include <exception>
#include <string>
#include <vector>

#include "tuiqiao/idx.h"

inline constexpr const char* kFashion = "/usr/share/datasets/fashion-mnist";

/// Fashion-MNIST as Debian's dataset-fashion-mnist installs it.
struct Fashion {
  torch::Tensor images;  ///< [N, 1, 28, 28] in [0, 1]
  torch::Tensor labels;  ///< [N], 0 to 9
};

inline Fashion read_fashion(const std::string& folder, const std::string& part) {
  auto images = tuiqiao::read_idx(folder + "/" + part + "-images-idx3-ubyte.gz");
  auto labels = tuiqiao::read_idx(folder + "/" + part + "-labels-idx1-ubyte.gz");
  const auto n = static_cast<std::int64_t>(labels.values.size());
  if (labels.shape.size() != 1 || images.shape != std::vector<std::int64_t>{n, 28, 28})
    throw tuiqiao::Error(folder + ": no images of 28 x 28 with a label each");
  const auto of = [](tuiqiao::IdxArray& array, at::IntArrayRef shape) {
    return torch::from_blob(array.values.data(), shape, torch::kUInt8);
  };
  return {of(images, {n, 1, 28, 28}).to(torch::kFloat32) / 255, of(labels, {n}).to(torch::kInt64)};
}

/// Runs an example as PROGRAM [FOLDER [STEPS [RUNS]]]; returns its exit code.
template <class Body>
int run_example(int argc, char** argv, int steps, int runs, const Body& body) {
  const std::string usage = std::string("usage: ") + argv[0] + " [FOLDER [STEPS [RUNS]]]  (a folder like " + kFashion +
                            ", " + std::to_string(steps) + " steps, " + std::to_string(runs) + " runs)\n";
  if (argc > 2) steps = std::atoi(argv[2]);
  if (argc > 3) runs = std::atoi(argv[3]);
  if (argc > 4 || steps < 1 || runs < 1 || (argc > 1 && argv[1][0] == '-')) {
    std::fputs(usage.c_str(), stderr);
    return 2;
  }
  try {
    return body(argc > 1 ? argv[1] : kFashion, steps, runs);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
  }
}
