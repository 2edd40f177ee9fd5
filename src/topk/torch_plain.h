#pragma once

#include <ATen/core/Tensor.h>

#include "tuiqiao/topk.h"

/// Smooth top-k written in tensor operations: for any device that has float64, and for derivatives of any order.
namespace tuiqiao::topk {

/// The smooth top-k of each row, which autograd can follow.
///
/// Shapes: x, p: [B, n] of any floating type; k, tau: [B], float64, all on one device.
/// Domain, throws: as tuiqiao::smooth_topk.
/// Error:  kTopkError in float64, in the relative sense of the kernels for the threshold methods; absolute only for
///         `gradient`, whose rows with wide gaps the kernels give to a recursion.
/// Cost:   tensors of float64: about 15 for a threshold method, 10 for each node of `gradient` (15 to 32 for long
/// rows), 5 k for
///         softmax_iterated; kept for autograd where it follows.
at::Tensor plain_smooth_topk(const at::Tensor& x, const at::Tensor& k, const at::Tensor& tau, TopkMethod method);

/// log Z_k of each row: [B], float64. NaN for rows with +inf, and for tau = 0. Its gradient in x is that smooth top-k
/// over tau.
at::Tensor plain_log_partition(const at::Tensor& x, const at::Tensor& k, const at::Tensor& tau);

}  // namespace tuiqiao::topk
