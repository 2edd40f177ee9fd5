#pragma once

#include <torch/torch.h>

#include <string>

#include "tuiqiao/idx.h"

/// Fashion-MNIST as Debian's dataset-fashion-mnist installs it.
struct Fashion {
  torch::Tensor images;  ///< [N, 1, 28, 28] in [0, 1]
  torch::Tensor labels;  ///< [N], 0 to 9
};

inline Fashion read_fashion(const std::string& folder, const std::string& part) {
  auto images = tuiqiao::read_idx(folder + "/" + part + "-images-idx3-ubyte.gz");
  auto labels = tuiqiao::read_idx(folder + "/" + part + "-labels-idx1-ubyte.gz");
  const auto of = [](tuiqiao::IdxArray& array, at::IntArrayRef shape) {
    return torch::from_blob(array.values.data(), shape, torch::kUInt8);
  };
  const auto n = static_cast<std::int64_t>(labels.values.size());
  return {of(images, {n, 1, 28, 28}).to(torch::kFloat32) / 255, of(labels, {n}).to(torch::kInt64)};
}
