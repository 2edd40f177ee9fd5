#pragma once

#include <span>

#include "tuiqiao/progress.h"

namespace tuiqiao::topk {

/// TopkMethod::softmax_iterated on a row of finite entries. p may not be x. Cost: O(n k); talks to its caller once a
/// stage, of which there are k.
void softmax_iterated(std::span<const double> x, int k, double tau, std::span<double> p, const Progress& progress = {});

/// The gradient of sum v p in x, into out, and in tau. Memory: O(n sqrt k): some of the k stages are kept, the others
/// computed again. Twice k steps of progress.
double softmax_iterated_vjp(std::span<const double> x, int k, double tau, std::span<const double> v,
                            std::span<double> out, const Progress& progress = {});

}  // namespace tuiqiao::topk
