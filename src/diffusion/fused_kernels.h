#pragma once

#include <cstddef>
#include <cstdint>

/// What a network does between convolutions, in one pass over an image whose channels lie side by side (NHWC):
/// GroupNorm (Wu and He, 2018) and the activation after it, with their gradients; sums; what joins. Numbers are float32
/// or bfloat16, sums are float32 within 64 places and float64 beyond, deviations are taken from the mean (a second
/// reading), so a mean far from 0 costs no digits.
namespace tuiqiao {

/// An image [places, channels], whose channels are normed in `groups` of equal size.
struct NormShape {
  std::size_t places = 0, channels = 0, groups = 1;
  bool activate = false;  ///< SiLU, u / (1 + e^-u), follows
};

/// Numbers of an image: float32, or bfloat16 where `half`.
struct ImageNumbers {
  const void* data = nullptr;
  bool half = false;
};
struct ImageOutput {
  void* data = nullptr;
  bool half = false;
};

/// What a channel is normed with: `shift` is added to x first (nullptr: nothing).
struct NormParameters {
  const float *shift = nullptr, *weight = nullptr, *bias = nullptr;
};

/// y = act(weight (x + shift - mean) / sqrt(variance + eps) + bias), with mean and variance of each group.
/// Shapes: mean, rate: [groups], 1 / sqrt(variance + eps) the latter.
void norm_image(const NormShape& shape, const NormParameters& parameters, float eps, ImageNumbers x, ImageOutput y,
                float* mean, float* rate);

/// What the loss's gradient in y is in x and in the parameters, each of those [channels] and written, not added to
/// (shift: nullptr, where there is none).
struct NormGradient {
  ImageOutput x;
  float *shift = nullptr, *weight = nullptr, *bias = nullptr;
};
void norm_image_gradient(const NormShape& shape, const NormParameters& parameters, const float* mean, const float* rate,
                         ImageNumbers x, ImageNumbers y_gradient, const NormGradient& gradient);

/// Channels of an image that lie beside others, each number times a factor.
struct ChannelPart {
  ImageNumbers numbers;
  std::size_t channels = 0;
  float factor = 1;
};

/// The channels of both side by side. Shapes: left, right: [places, channels of each]; y: [places, channels of both].
void join_images(const ChannelPart& left, const ChannelPart& right, std::size_t places, ImageOutput y);

/// sum[i] = a[i] + b[i]
void sum_images(ImageNumbers a, ImageNumbers b, std::size_t count, float* sum);

}  // namespace tuiqiao
