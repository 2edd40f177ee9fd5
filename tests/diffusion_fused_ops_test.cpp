// clang 14, and so clang-tidy, cannot read libtorch 1.13's headers as C++20.
#ifndef __clang_analyzer__
#include <ATen/ATen.h>
#include <c10/core/GradMode.h>
#include <gtest/gtest.h>
#include <torch/csrc/autograd/autograd.h>

#include <cmath>
#include <limits>
#include <stdexcept>
#include <utility>

#include "diffusion/fused_ops.h"

namespace tuiqiao {
namespace {

using at::Tensor;

/// float64, by libtorch's own operations.
Tensor reference(const Tensor& x, const Tensor& shift, const Tensor& weight, const Tensor& bias,
                 const GroupNormOptions& o) {
  Tensor shifted = x.to(at::kDouble);
  if (shift.defined()) shifted = shifted + shift.to(at::kDouble).unsqueeze(-1).unsqueeze(-1);
  const Tensor y = at::group_norm(shifted, o.groups, weight.to(at::kDouble), bias.to(at::kDouble), o.eps);
  return o.activate ? at::silu(y) : y;
}

double largest(const Tensor& x) { return x.abs().max().item<double>(); }
double difference(const Tensor& a, const Tensor& b) { return largest(a.to(at::kDouble) - b.to(at::kDouble)); }

struct Inputs {
  Tensor x, shift, weight, bias;
};

/// `mean`: of x, whose deviation is 1.
Inputs inputs_of(int channels, int height, int width, double mean = 0.5) {
  at::manual_seed(static_cast<std::uint64_t>(channels * 1000 + height * 10 + width));
  return {at::randn({3, channels, height, width}) + mean, at::randn({3, channels}), 1 + 0.3 * at::randn({channels}),
          0.3 * at::randn({channels})};
}

struct Shape {
  int channels, groups, height, width;
};
constexpr Shape kShapes[] = {{1, 1, 1, 2},   {3, 3, 5, 7},   {7, 1, 3, 3},    {32, 8, 28, 28},
                             {33, 3, 9, 11}, {96, 1, 14, 5}, {40, 40, 40, 40}};

class GroupNormSilu : public testing::Test {
 protected:
  const c10::NoGradGuard no_grad_;
};

TEST_F(GroupNormSilu, IsGroupNormAndSilu) {
  for (const Shape& shape : kShapes) {
    const Inputs in = inputs_of(shape.channels, shape.height, shape.width);
    for (const bool activate : {false, true}) {
      for (const Tensor& shift : {Tensor(), in.shift}) {
        GroupNormOptions options{shape.groups, 1e-5, activate, false};
        const Tensor want = reference(in.x, shift, in.weight, in.bias, options);
        const Tensor got = group_norm_silu(in.x, shift, in.weight, in.bias, options);
        EXPECT_EQ(got.scalar_type(), at::kFloat);
        EXPECT_TRUE(got.is_contiguous(at::MemoryFormat::ChannelsLast));
        EXPECT_LT(difference(got, want), 3e-6) << shape.channels << " channels, " << shape.groups << " groups";
        options.half = true;
        const Tensor halved = group_norm_silu(in.x, shift, in.weight, in.bias, options);
        EXPECT_TRUE(at::equal(halved, got.to(at::kBFloat16)));  // rounded in the same way
      }
    }
  }
}

// With weights of 0 the activation sees the biases.
TEST_F(GroupNormSilu, SiluIsRightToFloat32sLastDigits) {
  const Tensor u = at::linspace(-79, 100, 20011);
  const Tensor x = at::randn({1, u.numel(), 1, 2}), weight = at::zeros_like(u);
  const Tensor got = group_norm_silu(x, {}, weight, u, {1, 1e-5, true, false})[0].select(2, 0).flatten();
  const Tensor want = at::silu(u.to(at::kDouble));
  EXPECT_LT(largest(got.to(at::kDouble) / want - 1), 5e-7);  // relative, far out on the left too
  const Tensor far = at::tensor({-1000.0F, -88.0F, 0.0F, 3e38F});
  const Tensor y = group_norm_silu(at::randn({1, 4, 1, 2}), {}, at::zeros({4}), far, {1, 1e-5, true, false});
  EXPECT_LT(largest(y[0].select(2, 0).flatten() - at::relu(far)), 3e38 * 5e-7);
  EXPECT_LT(largest(y[0].slice(0, 0, 3)), 1e-30);
}

TEST_F(GroupNormSilu, ReadsBfloat16) {
  const Inputs in = inputs_of(24, 6, 5);
  const GroupNormOptions options{4, 1e-5, true, false};
  const Tensor halved = in.x.to(at::kBFloat16);
  EXPECT_TRUE(at::equal(group_norm_silu(halved, in.shift, in.weight, in.bias, options),
                        group_norm_silu(halved.to(at::kFloat), in.shift, in.weight, in.bias, options)));
}

// The variance is not the small difference of two large sums.
TEST_F(GroupNormSilu, LosesNothingToALargeMean) {
  const Inputs in = inputs_of(16, 20, 20, 3000);
  const GroupNormOptions options{2, 1e-5, false, false};
  const Tensor want = reference(in.x, {}, in.weight, in.bias, options);
  EXPECT_LT(difference(group_norm_silu(in.x, {}, in.weight, in.bias, options), want), 3e-4);  // float32's in x itself
}

TEST_F(GroupNormSilu, KeepsNanAndWhatIsFarOut) {
  Inputs in = inputs_of(8, 4, 4);
  in.weight.mul_(1000);
  for (const bool half : {false, true}) {
    const GroupNormOptions options{1, 1e-5, true, half};
    const Tensor far = group_norm_silu(in.x, {}, in.weight, in.bias, options);
    EXPECT_TRUE(far.isfinite().all().item<bool>());
    EXPECT_LT(difference(far, reference(in.x, {}, in.weight, in.bias, options)), half ? 10 : 0.01);
    Tensor bad = in.x.clone();
    bad[1][2][3][3] = std::numeric_limits<float>::quiet_NaN();
    const Tensor got = group_norm_silu(bad, {}, in.weight, in.bias, options);
    EXPECT_TRUE(got[1].isnan().all().item<bool>());
    EXPECT_TRUE(got[0].isfinite().all().item<bool>());
  }
}

TEST_F(GroupNormSilu, HasTheGradientsOfBoth) {
  const c10::AutoGradMode with_gradients(true);
  for (const Shape& shape : kShapes) {
    for (const bool activate : {false, true}) {
      for (const bool shifted : {false, true}) {
        Inputs in = inputs_of(shape.channels, shape.height, shape.width);
        for (Tensor* each : {&in.x, &in.shift, &in.weight, &in.bias}) each->requires_grad_(true);
        std::vector<Tensor> leaves{in.x, in.weight, in.bias};
        if (shifted) leaves.push_back(in.shift);
        const Tensor shift = shifted ? in.shift : Tensor(), up = at::randn(in.x.sizes());
        const GroupNormOptions options{shape.groups, 1e-3, activate, false};
        const auto want =
            torch::autograd::grad({reference(in.x, shift, in.weight, in.bias, options)}, leaves, {up.to(at::kDouble)});
        const auto got =
            torch::autograd::grad({group_norm_silu(in.x, shift, in.weight, in.bias, options)}, leaves, {up});
        for (std::size_t i = 0; i < leaves.size(); ++i)
          EXPECT_LT(difference(got[i], want[i]), 2e-5 * (1 + largest(want[i])))
              << "leaf " << i << ", " << shape.channels << " channels, " << shape.groups << " groups";
      }
    }
  }
}

TEST_F(GroupNormSilu, HasGradientsThroughBfloat16) {
  const c10::AutoGradMode with_gradients(true);
  Inputs in = inputs_of(24, 6, 5);
  const Tensor x = in.x.to(at::kBFloat16).requires_grad_(true), up = at::randn(in.x.sizes()).to(at::kBFloat16);
  const GroupNormOptions options{4, 1e-5, true, true};
  const Tensor want =
      torch::autograd::grad({reference(x, in.shift, in.weight, in.bias, options)}, {x}, {up.to(at::kDouble)})[0];
  const Tensor got = torch::autograd::grad({group_norm_silu(x, in.shift, in.weight, in.bias, options)}, {x}, {up})[0];
  EXPECT_EQ(got.scalar_type(), at::kBFloat16);
  EXPECT_LT(difference(got, want), 0x1p-8 * largest(want));
}

TEST_F(GroupNormSilu, RefusesSecondDerivatives) {
  const c10::AutoGradMode with_gradients(true);
  Inputs in = inputs_of(8, 4, 4);
  in.x.requires_grad_(true);
  const Tensor y = group_norm_silu(in.x, {}, in.weight, in.bias, {});
  EXPECT_THROW(torch::autograd::grad({y.sum()}, {in.x}, {}, true, true), std::logic_error);
}

TEST_F(GroupNormSilu, JoinsChannels) {
  const c10::AutoGradMode with_gradients(true);
  for (const auto& [left, right] : {std::pair{5, 3}, {32, 16}, {1, 40}}) {
    for (const bool left_half : {false, true}) {
      for (const bool half : {false, true}) {
        const Tensor whole = at::randn({2, left, 3, 4}), skip = at::randn({2, right, 3, 4}).requires_grad_(true);
        const Tensor upward = (left_half ? whole.to(at::kBFloat16) : whole).detach().requires_grad_(true);
        const Tensor want = at::cat({upward.to(at::kFloat), skip * 0.7}, 1);
        const Tensor got = joined({upward, skip, 0.7}, half), up = at::randn(got.sizes());
        EXPECT_EQ(got.scalar_type(), half ? at::kBFloat16 : at::kFloat);
        EXPECT_TRUE(got.is_contiguous(at::MemoryFormat::ChannelsLast));
        EXPECT_TRUE(at::equal(got, half ? want.to(at::kBFloat16) : want));
        const Tensor typed = half ? up.to(at::kBFloat16) : up;
        const auto gradients = torch::autograd::grad({got}, {upward, skip}, {typed});
        const auto wanted = torch::autograd::grad({want}, {upward, skip}, {typed.to(at::kFloat)});
        for (std::size_t i = 0; i < 2; ++i) {
          EXPECT_EQ(gradients[i].scalar_type(), wanted[i].scalar_type());
          EXPECT_EQ(difference(gradients[i], wanted[i]), 0);
        }
      }
    }
  }
  EXPECT_THROW(joined({at::zeros({2, 3, 4, 4}), at::zeros({2, 3, 2, 2})}, false), std::invalid_argument);
  const Tensor image = at::zeros({2, 3, 4, 4});
  for (const auto type : {at::kHalf, at::kDouble}) {  // which would be read as if it were float32
    EXPECT_THROW(joined({image, image.to(type)}, false), std::invalid_argument);
    EXPECT_THROW(joined({image.to(type), image}, true), std::invalid_argument);
  }
}

TEST_F(GroupNormSilu, SumIsOneOfFloat32) {
  const c10::AutoGradMode with_gradients(true);
  const Tensor a = at::randn({2, 5, 3, 3}).requires_grad_(true);
  const Tensor b = at::randn({2, 5, 3, 3}).to(at::kBFloat16).requires_grad_(true);
  const Tensor sum = sum_of(a, b), up = at::randn(sum.sizes());
  EXPECT_TRUE(at::equal(sum, a + b.to(at::kFloat)));
  EXPECT_TRUE(at::equal(sum_of(b, a), sum));
  const auto got = torch::autograd::grad({sum}, {a, b}, {up});
  EXPECT_TRUE(at::equal(got[0], up));
  EXPECT_TRUE(at::equal(got[1], up.to(at::kBFloat16)));
}

}  // namespace
}  // namespace tuiqiao
#endif
