#pragma once

#include <ATen/ATen.h>

#include <cmath>
#include <cstdint>
#include <vector>

namespace tuiqiao {

/// Adam with decoupled weight decay (arXiv 1711.05101), which only tensors of more than one side have.
class AdamW {
 public:
  /// One more parameter, with moments of 0.
  void add(const at::Tensor& parameter) {
    means_.push_back(at::zeros_like(parameter));
    squares_.push_back(at::zeros_like(parameter));
  }
  const at::Tensor& mean(std::size_t i) const { return means_[i]; }
  const at::Tensor& square(std::size_t i) const { return squares_[i]; }

  struct Rates {
    double learning = 0, beta1 = 0.9, beta2 = 0.999, weight_decay = 0;
  };
  /// Step `step`, from 1, of parameter i. Threads: parameters may be updated at once.
  void update(std::size_t i, const at::Tensor& weight, const at::Tensor& gradient, std::int64_t step,
              const Rates& rates) {
    const double bias1 = 1 - std::pow(rates.beta1, static_cast<double>(step));
    const double bias2 = 1 - std::pow(rates.beta2, static_cast<double>(step));
    means_[i].mul_(rates.beta1).add_(gradient, 1 - rates.beta1);
    squares_[i].mul_(rates.beta2).addcmul_(gradient, gradient, 1 - rates.beta2);
    if (weight.dim() > 1) weight.mul_(1 - rates.learning * rates.weight_decay);
    constexpr double kEpsilon = 1e-8;
    weight.addcdiv_(means_[i], (squares_[i] / bias2).sqrt_().add_(kEpsilon), -rates.learning / bias1);
  }

 private:
  std::vector<at::Tensor> means_, squares_;
};

}  // namespace tuiqiao
