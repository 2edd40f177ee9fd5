#pragma once

#include <ATen/core/Tensor.h>

#include "tuiqiao/diffusion/unet.h"

/// What a network does between convolutions, with first derivatives.
namespace tuiqiao {

/// What a norm does beside norming.
struct GroupNormOptions {
  int groups = 1;
  double eps = 1e-5;
  bool activate = false;  ///< SiLU follows
  bool half = false;      ///< the result is bfloat16, for a convolution that is done in it
};

/// GroupNorm of x + shift, then SiLU or nothing, by one pass of each image through the cache.
/// Shapes: x: [B, C, H, W], float32 or bfloat16, on the CPU; shift: [B, C] or undefined; weight, bias: [C]; result as
/// x, channels last, float32 or bfloat16. It has first derivatives; std::logic_error where derivatives of them are
/// asked for.
at::Tensor group_norm_silu(const at::Tensor& x, const at::Tensor& shift, const at::Tensor& weight,
                           const at::Tensor& bias, const GroupNormOptions& options);

/// a + b in float32, each float32 or bfloat16, in one pass.
at::Tensor sum_of(const at::Tensor& a, const at::Tensor& b);

/// The channels of a joint side by side, each float32 or bfloat16: bfloat16 where `half`, or float32.
at::Tensor joined(const Joint& joint, bool half);

}  // namespace tuiqiao
