#include "tuiqiao/torch.h"

#include <gtest/gtest.h>
#include <torch/torch.h>

#include <stdexcept>

namespace tuiqiao {
namespace {

TEST(Torch, SetsItsThreadsAndSaysWhatItRunsOn) {
  set_torch_threads(2);
  const TorchSystem system = torch_system();
  EXPECT_EQ(system.threads, 2);
  EXPECT_EQ(system.version, TORCH_VERSION);
  ASSERT_FALSE(system.devices.empty());
  EXPECT_EQ(system.devices[0], "cpu");
  EXPECT_THROW(set_torch_threads(-1), std::invalid_argument);
}

TEST(Torch, MultipliesAndDifferentiates) {
  const torch::Tensor x = torch::tensor({1.0, 2.0, 3.0}, torch::dtype(torch::kFloat64).requires_grad(true));
  (x * x).sum().backward();
  EXPECT_TRUE(torch::equal(x.grad(), torch::tensor({2.0, 4.0, 6.0}, torch::kFloat64)));
}

}  // namespace
}  // namespace tuiqiao
