// clang 14, and so clang-tidy, cannot read libtorch 1.13's headers as C++20.
#ifndef __clang_analyzer__
#include "diffusion/unet_layers.h"

#include <ATen/ATen.h>
#include <ATen/CPUGeneratorImpl.h>

#include <cmath>

#include "diffusion/fused_ops.h"

namespace tuiqiao {

using at::Tensor;

namespace {
constexpr auto kLayout = at::MemoryFormat::ChannelsLast;
}

ParameterMaker::ParameterMaker(std::vector<std::pair<std::string, Tensor>>& named, const HalfConvolutions& half,
                               std::uint64_t seed)
    : named_(named), half_(half), random_(at::detail::createCPUGenerator(seed)) {}

Tensor ParameterMaker::keep(const std::string& name, const Tensor& values) {
  named_.emplace_back(name, values);
  return values;
}

Tensor ParameterMaker::uniform(const std::string& name, at::IntArrayRef shape, double bound) {
  const Tensor values = at::empty(shape, at::kFloat).uniform_(-bound, bound, random_);
  // Convolutions read their weights as they read images, the channels side by side.
  return keep(name, shape.size() == 4 ? values.contiguous(kLayout) : values);
}

Tensor ParameterMaker::normal(const std::string& name, at::IntArrayRef shape, double deviation) {
  return keep(name, at::empty(shape, at::kFloat).normal_(0, deviation, random_));
}

Tensor ParameterMaker::constant(const std::string& name, at::IntArrayRef shape, double value) {
  return keep(name, at::full(shape, value, at::kFloat));
}

Linear::Linear(ParameterMaker& make, const std::string& name, int in, int out) {
  const double bound = 1 / std::sqrt(in);
  weight = make.uniform(name + ".weight", {out, in}, bound);
  bias = make.uniform(name + ".bias", {out}, bound);
}

Tensor Linear::operator()(const Tensor& x) const { return at::linear(x, weight, bias); }

Conv::Conv(ParameterMaker& make, const std::string& name, int in, int out, int kernel, bool zero)
    : padding(kernel / 2), half(&make.half()), index(make.index()) {
  const double bound = zero ? 0 : 1 / std::sqrt(in * kernel * kernel);
  weight = make.uniform(name + ".weight", {out, in, kernel, kernel}, bound);
  bias = make.uniform(name + ".bias", {out}, bound);
}

Tensor Conv::operator()(const Tensor& x) const {
  const auto type = half->on ? at::kBFloat16 : at::kFloat;
  const bool ready = !half->rounded.empty();
  return at::conv2d(x.to(type), ready ? half->rounded[index] : weight.to(type),
                    ready ? half->rounded[index + 1] : bias.to(type), stride, padding);
}

Norm::Norm(ParameterMaker& make, const std::string& name, int channels, int groups_, double eps_)
    : groups(groups_), eps(eps_) {
  weight = make.constant(name + ".weight", {channels}, 1);
  bias = make.constant(name + ".bias", {channels}, 0);
}

Tensor Norm::operator()(const Tensor& x) const { return at::group_norm(x, groups, weight, bias, eps); }

Tensor Norm::activated(const Tensor& x, Activation activation, bool half, const Tensor& shift) const {
  const bool silu = activation == Activation::silu;
  if (x.is_cpu()) {
    const Tensor y = group_norm_silu(x, shift, weight, bias, {groups, eps, silu, half && silu});
    return silu ? y : tuiqiao::activated(y, activation);
  }
  const Tensor shifted = shift.defined() ? x + shift.unsqueeze(-1).unsqueeze(-1) : x.to(at::kFloat);
  return tuiqiao::activated((*this)(shifted), activation);
}

Tensor activated(const Tensor& x, Activation activation) {
  switch (activation) {
    case Activation::silu:
      return at::silu(x);
    case Activation::mish:
      return at::mish(x);
    case Activation::gelu:
      return at::gelu(x);
    case Activation::relu:
      return at::relu(x);
  }
  return x;
}

Tensor upsampled(const Tensor& x) {
  return at::upsample_nearest2d(x, c10::optional<at::IntArrayRef>{}, c10::ArrayRef<double>{2.0, 2.0});
}

Resnet::Resnet(ParameterMaker& make, const std::string& name, int in, int out, const BlockOptions& options_,
               Resample resample_)
    : resample(resample_), options(options_) {
  norm1 = Norm(make, name + ".norm1", in, options.groups, options.eps);
  conv1 = Conv(make, name + ".conv1", in, out, 3);
  time = Linear(make, name + ".time_emb_proj", options.time_channels, options.scale_shift ? 2 * out : out);
  norm2 = Norm(make, name + ".norm2", out, options.groups, options.eps);
  conv2 = Conv(make, name + ".conv2", out, out, 3, true);
  if (in != out) shortcut = Conv(make, name + ".conv_shortcut", in, out, 1);
}

Tensor Resnet::operator()(const Tensor& x, const Tensor& embedding, bool training) const {
  const auto resampled = [&](const Tensor& in) {
    if (resample == Resample::none) return in;
    return resample == Resample::up ? upsampled(in) : at::avg_pool2d(in, 2, 2);
  };
  const bool half = conv1.half->on;
  Tensor h = conv1(resampled(norm1.activated(x, options.activation, half)));
  const Tensor shift = time(embedding);
  if (options.scale_shift) {
    const auto parts = shift.unsqueeze(-1).unsqueeze(-1).chunk(2, 1);
    h = activated(norm2(h.to(at::kFloat)) * (1 + parts[0]) + parts[1], options.activation);
  } else {
    h = norm2.activated(h, options.activation, half, shift);
  }
  if (options.dropout > 0) h = at::dropout(h, options.dropout, training);
  const Tensor around = resampled(x);
  h = sum_of(shortcut ? (*shortcut)(around) : around, conv2(h));
  return options.output_scale == 1 ? h : h / options.output_scale;
}

Attention::Attention(ParameterMaker& make, const std::string& name, int channels, const BlockOptions& options)
    : output_scale(options.output_scale) {
  const int head_dim = options.head_dim.value_or(channels);
  heads = channels / head_dim;
  const int inner = heads * head_dim;
  if (options.attention_groups)
    norm = Norm(make, name + ".group_norm", channels, *options.attention_groups, options.eps);
  query = Linear(make, name + ".to_q", channels, inner);
  key = Linear(make, name + ".to_k", channels, inner);
  value = Linear(make, name + ".to_v", channels, inner);
  out = Linear(make, name + ".to_out.0", inner, channels);
}

Tensor Attention::operator()(const Tensor& x) const {
  const auto batch = x.size(0), channels = x.size(1);
  Tensor places = x.reshape({batch, channels, -1});
  if (norm) places = (*norm)(places);
  places = places.transpose(1, 2);
  const auto by_head = [&](const Tensor& of) { return of.reshape({batch, of.size(1), heads, -1}).transpose(1, 2); };
  const Tensor q = by_head(query(places)), k = by_head(key(places)), v = by_head(value(places));
  const double scale = 1 / std::sqrt(static_cast<double>(q.size(-1)));
  const Tensor weights = at::softmax(at::matmul(q, k.transpose(-1, -2)) * scale, -1);
  const Tensor mixed = at::matmul(weights, v).transpose(1, 2).reshape({batch, places.size(1), -1});
  const Tensor result = out(mixed).transpose(1, 2).reshape(x.sizes()) + x;
  return output_scale == 1 ? result : result / output_scale;
}

TimeEmbedding::TimeEmbedding(ParameterMaker& make, const std::string& name, int in, int out)
    : first(make, name + ".linear_1", in, out), second(make, name + ".linear_2", out, out) {}

Tensor TimeEmbedding::operator()(const Tensor& x) const { return second(at::silu(first(x))); }

}  // namespace tuiqiao
#endif
