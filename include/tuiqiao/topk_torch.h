#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

#include "tuiqiao/topk.h"

/// The smooth top-k on tensors, in libtorch's autograd and under the name
/// torch.ops.tuiqiao.smooth_topk(x, k, tau, method).
namespace tuiqiao {

/// Smooth top-k along the last dimension.
///
/// Gradients: in x, tau, and for the threshold methods k; of any order, all of them again with create_graph. On a CPU
/// p and the first gradient are those of smooth_topk and smooth_topk_vjp; what is left is plain tensor code. Forward
/// mode is not there.
/// Shapes: x, p: [..., n]; k, tau: what broadcasts to [...].
/// Domain: x of float32, float64, bfloat16, or float16, which is computed in float32; k and tau of any type, on x's
///         device or the CPU. The device needs float64. Else as smooth_topk of rows.
/// Options: scale_free multiplies tau by the row's standard deviation, through which gradients go; entropy replaces it
///         by one that counts as a constant, found on the CPU; hard takes the values of the hard choice and the
///         gradients of the smooth p. Where there is a tensor tau, options.tau is not read;
///         options.progress is not either.
/// Error:  as smooth_topk; what `gradient` says of small relative errors holds on a CPU only.
/// Throws: std::invalid_argument as smooth_topk, rows counted through all batch dimensions; in Python a ValueError.
/// Cost:   as smooth_topk. Plain tensor code: some 15 to 320 tensors of float64 of x's size, kept for the gradient;
///         5 k for softmax_iterated.
at::Tensor smooth_topk(const at::Tensor& x, const at::Tensor& k, const at::Tensor& tau,
                       const SmoothTopkOptions& options = {});
/// options.tau: one for all rows, or one a row, counted through all batch dimensions.
at::Tensor smooth_topk(const at::Tensor& x, const at::Tensor& k, const SmoothTopkOptions& options = {});
at::Tensor smooth_topk(const at::Tensor& x, double k, const SmoothTopkOptions& options = {});

/// The k largest of each row in falling order of x, rising index among equals, with their smooth values.
struct SmoothTopkChoice {
  at::Tensor values;   ///< [..., k], of x's type; where gradients go through
  at::Tensor indices;  ///< [..., k], int64
};
SmoothTopkChoice smooth_topk_choice(const at::Tensor& x, std::int64_t k, const SmoothTopkOptions& options = {});

/// log Z_k, the logarithm of the sum over k-subsets of exp(sum of x_S / tau). Its gradient in x is `gradient`'s p over
/// tau.
///
/// Shapes, domain, throws: as smooth_topk, with whole k; out: [...], float64. NaN for rows with +inf, and for tau = 0.
/// Gradients: in x and tau, of any order.
/// Error:  1e-12 times 1 + |log Z_k|
/// Cost:   plain tensor code on every device: some 100 to 320 tensors of float64 of x's size.
at::Tensor topk_log_partition(const at::Tensor& x, const at::Tensor& k, const at::Tensor& tau);

}  // namespace tuiqiao
