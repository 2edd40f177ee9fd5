#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "tuiqiao/diffusion/unet.h"

namespace tuiqiao {

/// Whether a network's convolutions are done in bfloat16, and if so its parameters in that type, where they are
/// rounded once for all.
struct HalfConvolutions {
  bool on = false;
  std::vector<at::Tensor> rounded;
};

/// Makes parameters, names them, and draws their first values.
class ParameterMaker {
 public:
  /// `half` is the network's switch, which its convolutions look at.
  ParameterMaker(std::vector<std::pair<std::string, at::Tensor>>& named, const HalfConvolutions& half,
                 std::uint64_t seed);

  const HalfConvolutions& half() const { return half_; }
  /// Of the parameter that is made next.
  std::size_t index() const { return named_.size(); }

  /// Uniform in [-bound, bound].
  at::Tensor uniform(const std::string& name, at::IntArrayRef shape, double bound);
  at::Tensor normal(const std::string& name, at::IntArrayRef shape, double deviation);
  at::Tensor constant(const std::string& name, at::IntArrayRef shape, double value);

 private:
  at::Tensor keep(const std::string& name, const at::Tensor& values);

  std::vector<std::pair<std::string, at::Tensor>>& named_;
  const HalfConvolutions& half_;
  at::Generator random_;
};

enum class Activation { silu, mish, gelu, relu };

struct Linear {
  at::Tensor weight, bias;

  Linear() = default;
  Linear(ParameterMaker& make, const std::string& name, int in, int out);
  at::Tensor operator()(const at::Tensor& x) const;
};

struct Conv {
  at::Tensor weight, bias;
  int stride = 1, padding = 1;
  const HalfConvolutions* half = nullptr;
  std::size_t index = 0;  ///< of weight among the network's parameters; bias is next

  Conv() = default;
  /// `zero`: starts as 0.
  Conv(ParameterMaker& make, const std::string& name, int in, int out, int kernel, bool zero = false);
  /// In the type it is done in.
  at::Tensor operator()(const at::Tensor& x) const;
};

struct Norm {
  at::Tensor weight, bias;
  int groups = 1;
  double eps = 1e-5;

  Norm() = default;
  Norm(ParameterMaker& make, const std::string& name, int channels, int groups, double eps);
  at::Tensor operator()(const at::Tensor& x) const;
  /// The norm of x + shift, [B, C] or nothing, then the activation: bfloat16 where `half`, or float32.
  at::Tensor activated(const at::Tensor& x, Activation activation, bool half, const at::Tensor& shift = {}) const;
};

at::Tensor activated(const at::Tensor& x, Activation activation);

/// What all blocks of a network have in common.
struct BlockOptions {
  int time_channels = 0, groups = 1;
  std::optional<int> attention_groups = {};  ///< nothing: no norm before attention
  double eps = 1e-5, dropout = 0, output_scale = 1;
  bool scale_shift = false;
  Activation activation = Activation::silu;
  std::optional<int> head_dim = {};
};

enum class Resample { none, up, down };

/// diffusers' ResnetBlock2D.
struct Resnet {
  Norm norm1, norm2;
  Conv conv1, conv2;
  Linear time;
  std::optional<Conv> shortcut;
  Resample resample = Resample::none;
  BlockOptions options;

  Resnet(ParameterMaker& make, const std::string& name, int in, int out, const BlockOptions& options,
         Resample resample = Resample::none);
  /// Shapes: time: the activation of the embedding, [B, time_channels].
  at::Tensor operator()(const at::Tensor& x, const at::Tensor& time, bool training) const;
};

/// diffusers' Attention over the places of an image.
struct Attention {
  std::optional<Norm> norm;
  Linear query, key, value, out;
  int heads = 1;
  double output_scale = 1;

  Attention(ParameterMaker& make, const std::string& name, int channels, const BlockOptions& options);
  at::Tensor operator()(const at::Tensor& x) const;
};

/// Two linear layers with an activation between: SiLU in diffusers, whatever the network's own.
struct TimeEmbedding {
  Linear first, second;

  TimeEmbedding() = default;
  TimeEmbedding(ParameterMaker& make, const std::string& name, int in, int out);
  at::Tensor operator()(const at::Tensor& x) const;
};

/// Twice as high and wide, each place four times.
at::Tensor upsampled(const at::Tensor& x);

}  // namespace tuiqiao
