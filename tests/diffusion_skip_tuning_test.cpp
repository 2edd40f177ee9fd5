// clang 14, and so clang-tidy, cannot read libtorch 1.13's headers as C++20.
#ifndef __clang_analyzer__
#include <ATen/ATen.h>
#include <c10/core/GradMode.h>
#include <gtest/gtest.h>

#include <cmath>
#include <functional>
#include <numbers>
#include <stdexcept>

#include "tuiqiao/diffusion/noise.h"
#include "tuiqiao/diffusion/skip_tuning.h"

namespace tuiqiao {
namespace {

using at::Tensor;

UNetConfig small(int groups) {
  UNetConfig config;
  config.in_channels = config.out_channels = 1;
  config.sample_size = {8, 8};
  config.block_out_channels = {8, 8, 8};
  config.down_block_types = {"DownBlock2D", "DownBlock2D", "DownBlock2D"};
  config.up_block_types = {"UpBlock2D", "UpBlock2D", "UpBlock2D"};
  config.layers_per_block = 1;
  config.norm_num_groups = groups;
  config.add_attention = false;
  return config;
}

/// With random weights everywhere.
UNet network(int groups = 1) {
  UNet net(small(groups), 1);
  const c10::NoGradGuard no_grad;
  for (std::size_t i = 0; i < net.parameters().size(); ++i) {
    Tensor weight = net.parameters()[i].second;
    std::vector<double> values(static_cast<std::size_t>(weight.numel()));
    fill_normal(2, i, 0, values);
    for (std::size_t j = 0; j < values.size(); ++j) weight.data_ptr<float>()[j] += static_cast<float>(0.2 * values[j]);
  }
  return net;
}

Tensor image(std::uint64_t seed) {
  Tensor x = at::empty({2, 1, 8, 8}, at::kFloat);
  std::vector<double> values(static_cast<std::size_t>(x.numel()));
  fill_normal(seed, 0, 0, values);
  for (std::size_t j = 0; j < values.size(); ++j) x.data_ptr<float>()[j] = static_cast<float>(values[j]);
  return x;
}

Tensor answer(const UNet& net) {
  const c10::NoGradGuard no_grad;
  return net.forward(image(3), at::full({2}, 500.0F, at::kFloat));
}

double gap(const Tensor& a, const Tensor& b) { return (a - b).abs().max().item<double>(); }

TEST(SkipFactors, AreLinearInTheIndex) {
  const std::vector<double> factors = skip_factors({.top = 1, .bottom = 0.8}, 5);
  ASSERT_EQ(factors.size(), 5U);
  for (std::size_t i = 0; i < 5; ++i) EXPECT_NEAR(factors[i], 1 - 0.05 * static_cast<double>(i), 1e-15);
  EXPECT_EQ(skip_factors({.bottom = 0.8}, 1), (std::vector<double>{0.8}));
  EXPECT_EQ(skip_factors({.each = {0.5, 2}}, 2), (std::vector<double>{0.5, 2}));
  EXPECT_THROW(skip_factors({.each = {0.5, 2}}, 3), std::invalid_argument);
  EXPECT_THROW(skip_factors({.bottom = NAN}, 3), std::invalid_argument);
}

TEST(SkipTuning, IsThePlainProductWithEachSkip) {
  UNet net = network();
  const Tensor plain = answer(net);
  tune_skips(net, {});
  EXPECT_TRUE(at::equal(answer(net), plain));  // bit by bit
  const SkipTuning tuning{.top = 1.1, .bottom = 0.7};
  const std::vector<double> factors = skip_factors(tuning, net.skips());
  tune_skips(net, tuning);
  const Tensor tuned = answer(net);
  net.set_join([&](Joint& joint, int index) { joint.skip = factors[static_cast<std::size_t>(index)] * joint.skip; });
  EXPECT_LE(gap(tuned, answer(net)), 1e-6);
  EXPECT_GT(gap(tuned, plain), 1e-3);
  net.set_join({});
  EXPECT_TRUE(at::equal(answer(net), plain));
}

// Where convolutions are done in bfloat16, so are the joints that are edited.
TEST(SkipTuning, AndFreeUAreTheSameInBfloat16) {
  UNet net = network();
  const std::function<void()> edits[] = {[&] { net.set_join({}); }, [&] { tune_skips(net, {.bottom = 0.7}); },
                                         [&] {
                                           set_freeu(net, {1.2, 1.4, 0.9, 0.2});
                                         }};
  for (const auto& edit : edits) {
    edit();
    net.set_half_convolutions(false);
    const Tensor whole = answer(net);
    net.set_half_convolutions(true);
    const Tensor half = answer(net);
    EXPECT_EQ(half.scalar_type(), at::kFloat);
    EXPECT_LT((half - whole).norm().item<double>(), 0.02 * whole.norm().item<double>());
    EXPECT_GT(gap(half, whole), 0);
  }
}

TEST(SkipTuning, MayDependOnSigma) {
  DiffusionModel model{network(), {}, 1, 8, 8};
  std::vector<double> x(64), plain(64), tuned(64);
  fill_normal(5, 0, 0, x);
  const auto strength = [](double sigma) { return sigma > 1 ? 1.0 : 0.0; };
  const auto denoiser = skip_tuned(model, {.bottom = 0.5, .strength = strength});
  const auto at_sigma = [&](double sigma, std::vector<double>& result) {
    model.net.set_join({});
    denoiser_of(model)->denoise(x, sigma, plain);
    denoiser->denoise(x, sigma, result);
  };
  at_sigma(0.5, tuned);
  EXPECT_EQ(tuned, plain);
  at_sigma(2, tuned);
  EXPECT_NE(tuned, plain);
}

/// The four frequencies that FreeU scales, by their sums.
Tensor lowest_scaled(const Tensor& x, double factor) {
  Tensor result = x.clone();
  const std::int64_t h = x.size(2), w = x.size(3);
  for (std::int64_t image = 0; image < x.size(0) * x.size(1); ++image) {
    const float* from = x.data_ptr<float>() + image * h * w;
    float* to = result.data_ptr<float>() + image * h * w;
    for (const std::int64_t u : {std::int64_t{0}, h - 1}) {
      for (const std::int64_t v : {std::int64_t{0}, w - 1}) {
        double re = 0, im = 0;
        const auto angle = [&](std::int64_t i, std::int64_t j) {
          return 2 * std::numbers::pi *
                 (static_cast<double>(u * i) / static_cast<double>(h) +
                  static_cast<double>(v * j) / static_cast<double>(w));
        };
        for (std::int64_t i = 0; i < h; ++i) {
          for (std::int64_t j = 0; j < w; ++j) {
            re += static_cast<double>(from[i * w + j]) * std::cos(angle(i, j));
            im -= static_cast<double>(from[i * w + j]) * std::sin(angle(i, j));
          }
        }
        for (std::int64_t i = 0; i < h; ++i) {
          for (std::int64_t j = 0; j < w; ++j)
            to[i * w + j] += static_cast<float>(
                (factor - 1) * (re * std::cos(angle(i, j)) - im * std::sin(angle(i, j))) / static_cast<double>(h * w));
        }
      }
    }
  }
  return result;
}

TEST(FreeUTest, ScalesHalfTheChannelsAndTheLowestFrequencies) {
  UNet net = network();
  const Tensor plain = answer(net);
  set_freeu(net, {});
  EXPECT_TRUE(at::equal(answer(net), plain));
  const FreeU freeu{1.2, 1.4, 0.9, 0.2};
  set_freeu(net, freeu);
  const Tensor scaled = answer(net);
  // Two skips a level; the deepest level is indices 4 and 5.
  net.set_join([&](Joint& joint, int index) {
    if (index < 2) return;
    joint.upward = joint.upward.clone();
    joint.upward.narrow(1, 0, 4).mul_(index < 4 ? freeu.b2 : freeu.b1);
    joint.skip = lowest_scaled(joint.skip.contiguous(), index < 4 ? freeu.s2 : freeu.s1);
  });
  EXPECT_LE(gap(scaled, answer(net)), 1e-4);
  EXPECT_GT(gap(scaled, plain), 1e-2);
}

/// Without what goes round the norms of joined blocks.
UNet without_shortcuts(int groups) {
  UNet net = network(groups);
  for (const auto& [name, weight] : net.parameters()) {
    if (name.starts_with("up_blocks") && name.ends_with("conv_shortcut.weight")) at::Tensor(weight).zero_();
  }
  return net;
}

// Two groups of eight channels part what comes up from the skip: a norm then takes the factor out again.
TEST(SkipEffects, TellWhereANormCancelsTheFactor) {
  const c10::NoGradGuard no_grad;
  const Tensor t = at::full({2}, 500.0F, at::kFloat);
  const auto of = [&](UNet net) {
    const auto effects = skip_effects(net, image(3), t);
    EXPECT_EQ(effects.size(), 6U);
    return effects;
  };
  for (const double effect : of(network(1))) {
    EXPECT_GT(effect, 0.01);
    EXPECT_LT(effect, 2);
  }
  for (const double effect : of(without_shortcuts(1))) EXPECT_GT(effect, 0.01);
  for (const double effect : of(without_shortcuts(2))) EXPECT_LT(effect, 1e-3);
  for (const double effect : of(network(2))) EXPECT_GT(effect, 0.01);  // round the norm it goes all the same
}

}  // namespace
}  // namespace tuiqiao
#endif
