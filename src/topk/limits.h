#pragma once

#include "tuiqiao/topk.h"

/// What the kernels and the plain tensor code must agree on.
namespace tuiqiao::topk {

constexpr double kLeastTau = 1e-290;   ///< below, tau counts as 0: its inverse is no double
constexpr double kMostSpread = 1e300;  ///< of finite entries in units of tau: beyond, their distances are no doubles
constexpr double kNodeError = 1e-17;   ///< of aliasing, and of the nodes left out

constexpr bool takes_whole_k(TopkMethod method) {
  return method == TopkMethod::softmax_iterated || method == TopkMethod::gradient;
}

}  // namespace tuiqiao::topk
