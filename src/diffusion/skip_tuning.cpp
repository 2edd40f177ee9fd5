// clang 14, and so clang-tidy, cannot read libtorch 1.13's headers as C++20.
#ifndef __clang_analyzer__
#include "tuiqiao/diffusion/skip_tuning.h"

#include <ATen/ATen.h>
#include <c10/core/GradMode.h>
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <stdexcept>
#include <utility>

namespace tuiqiao {

namespace {

using at::Tensor;

EditJoint scaled_skips(std::vector<double> factors) {
  return [factors = std::move(factors)](Joint& joint, int index) {
    joint.skip_factor = factors[static_cast<std::size_t>(index)];
  };
}

/// Scales the frequencies -1 and 0 of both sides, as FreeU does with its threshold of 1.
Tensor lowest_scaled(const Tensor& x, double factor) {
  const auto lowest = [&](std::int64_t side) {
    Tensor chosen = at::zeros({side}, x.options());
    chosen[0] = 1;
    chosen[side - 1] = 1;
    return chosen;
  };
  const Tensor mask = 1 + (factor - 1) * lowest(x.size(2)).unsqueeze(1) * lowest(x.size(3)).unsqueeze(0);
  return at::real(at::fft_ifft2(at::fft_fft2(x) * mask)).contiguous();
}

class SkipTunedDenoiser : public Denoiser {
 public:
  SkipTunedDenoiser(DiffusionModel& model, SkipTuning tuning, std::vector<std::int64_t> classes)
      : model_(model),
        tuning_(std::move(tuning)),
        factors_(skip_factors(tuning_, model.net.skips())),
        inner_(denoiser_of(model, std::move(classes))) {}

  std::int64_t size() const override { return inner_->size(); }
  void denoise(std::span<const double> x, double sigma, std::span<double> denoised) const override {
    scale(sigma);
    inner_->denoise(x, sigma, denoised);
  }
  bool predicts_variance() const override { return inner_->predicts_variance(); }
  void denoise_with_variance(std::span<const double> x, double sigma, std::span<double> denoised,
                             std::span<double> fraction) const override {
    scale(sigma);
    inner_->denoise_with_variance(x, sigma, denoised, fraction);
  }

 private:
  void scale(double sigma) const {
    const double strength = tuning_.strength ? tuning_.strength(sigma) : 1;
    std::vector<double> factors = factors_;
    for (double& factor : factors) factor = 1 + strength * (factor - 1);
    model_.net.set_join(scaled_skips(std::move(factors)));
  }

  DiffusionModel& model_;
  SkipTuning tuning_;
  std::vector<double> factors_;
  std::unique_ptr<Denoiser> inner_;
};

}  // namespace

std::vector<double> skip_factors(const SkipTuning& tuning, int skips) {
  if (!tuning.each.empty() && tuning.each.size() != static_cast<std::size_t>(skips))
    throw std::invalid_argument(
        fmt::format("[skip_factors] {} factors for a network of {} skips", tuning.each.size(), skips));
  std::vector<double> factors = tuning.each;
  for (int i = 0; tuning.each.empty() && i < skips; ++i)
    factors.push_back(skips == 1 ? tuning.bottom : tuning.top + (tuning.bottom - tuning.top) * i / (skips - 1));
  for (const double factor : factors) {
    if (!std::isfinite(factor)) throw std::invalid_argument(fmt::format("[skip_factors] rho = {}", factor));
  }
  return factors;
}

void tune_skips(UNet& net, const SkipTuning& tuning) { net.set_join(scaled_skips(skip_factors(tuning, net.skips()))); }

void set_freeu(UNet& net, const FreeU& freeu) {
  for (const double factor : {freeu.b1, freeu.b2, freeu.s1, freeu.s2}) {
    if (!std::isfinite(factor)) throw std::invalid_argument(fmt::format("[set_freeu] a factor of {}", factor));
  }
  const int skips = net.skips(), of_level = net.config().layers_per_block + 1;
  net.set_join([=](Joint& joint, int index) {
    const int level = (skips - 1 - index) / of_level;
    if (level > 1) return;
    const double b = level == 0 ? freeu.b1 : freeu.b2, s = level == 0 ? freeu.s1 : freeu.s2;
    if (s != 1) joint.skip = lowest_scaled(joint.skip.to(at::kFloat), s);
    if (b == 1) return;
    joint.upward = joint.upward.clone();
    joint.upward.narrow(1, 0, joint.upward.size(1) / 2).mul_(b);
  });
}

std::unique_ptr<Denoiser> skip_tuned(DiffusionModel& model, const SkipTuning& tuning,
                                     std::vector<std::int64_t> classes) {
  return std::make_unique<SkipTunedDenoiser>(model, tuning, std::move(classes));
}

std::vector<double> skip_effects(UNet& net, const Tensor& x, const Tensor& t, const Tensor& classes) {
  constexpr double kRho = 0.9;
  const c10::NoGradGuard no_grad;
  const int skips = net.skips();
  struct Plain {  // whatever happens, nothing below stays in the network
    UNet& net;
    ~Plain() { net.set_join({}); }
  } const plain_in_the_end{net};
  // What comes up to the next joint is what the block before it made; behind the last joint is the network's output.
  const auto made = [&](int scaled, double rho) {
    std::vector<Tensor> upward(static_cast<std::size_t>(skips));
    net.set_join([&](Joint& joint, int index) {
      upward[static_cast<std::size_t>(index)] = joint.upward.to(at::kFloat, false, true);
      if (index == scaled) joint.skip_factor = rho;
    });
    upward.push_back(net.forward(x, t, classes));
    return upward;
  };
  const std::vector<Tensor> plain = made(-1, 1);
  std::vector<double> effects;
  for (int i = 0; i < skips; ++i) {
    const auto behind = static_cast<std::size_t>(i == 0 ? skips : i - 1);
    const Tensor& before = plain[behind];
    const double moved = (made(i, kRho)[behind] - before).norm().item<double>(), whole = before.norm().item<double>();
    effects.push_back(whole > 0 ? moved / whole / (1 - kRho) : 0);
  }
  return effects;
}

}  // namespace tuiqiao
#endif
