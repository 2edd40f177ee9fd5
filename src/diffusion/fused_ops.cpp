// clang 14, and so clang-tidy, cannot read libtorch 1.13's headers as C++20.
#ifndef __clang_analyzer__
#include "diffusion/fused_ops.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <c10/core/GradMode.h>
#include <torch/csrc/autograd/custom_function.h>

#include <stdexcept>

#include "diffusion/fused_kernels.h"

namespace tuiqiao {

using at::Tensor;

namespace {

constexpr auto kLayout = at::MemoryFormat::ChannelsLast;

bool is_half(const Tensor& x) { return x.scalar_type() == at::kBFloat16; }

const float* floats(const Tensor& x) { return x.defined() ? x.data_ptr<float>() : nullptr; }
const float* row(const Tensor& x, std::int64_t b) {
  return x.defined() ? x.data_ptr<float>() + b * x.size(1) : nullptr;
}
float* row(Tensor& x, std::int64_t b) { return x.defined() ? x.data_ptr<float>() + b * x.size(1) : nullptr; }

/// The numbers of an image of a batch that is channels last.
char* image(const Tensor& batch, std::int64_t b) {
  return static_cast<char*>(batch.data_ptr()) + b * (batch.numel() / batch.size(0)) * batch.element_size();
}

NormShape shape_of(const Tensor& x, const GroupNormOptions& options) {
  return {static_cast<std::size_t>(x.size(2) * x.size(3)), static_cast<std::size_t>(x.size(1)),
          static_cast<std::size_t>(options.groups), options.activate};
}

NormParameters parameters_of(const Tensor& shift, const Tensor& weight, const Tensor& bias, std::int64_t b) {
  return {row(shift, b), floats(weight), floats(bias)};
}

class GroupNorm : public torch::autograd::Function<GroupNorm> {
 public:
  using Context = torch::autograd::AutogradContext;

  static Tensor forward(Context* context, const Tensor& given, const c10::optional<Tensor>& shift, const Tensor& weight,
                        const Tensor& bias, const GroupNormOptions& options) {
    const Tensor x = given.contiguous(kLayout), shifts = shift ? shift->contiguous() : Tensor();
    Tensor y = at::empty(x.sizes(), x.options().dtype(options.half ? at::kBFloat16 : at::kFloat), kLayout);
    Tensor mean = at::empty({x.size(0), options.groups}, weight.options()), rate = at::empty_like(mean);
    at::parallel_for(0, x.size(0), 1, [&](std::int64_t first, std::int64_t last) {
      for (std::int64_t b = first; b < last; ++b)
        norm_image(shape_of(x, options), parameters_of(shifts, weight, bias, b), static_cast<float>(options.eps),
                   {image(x, b), is_half(x)}, {image(y, b), is_half(y)}, row(mean, b), row(rate, b));
    });
    context->save_for_backward({x, shifts, weight, bias, mean, rate});
    context->saved_data["groups"] = options.groups;
    context->saved_data["activate"] = options.activate;
    return y;
  }

  static torch::autograd::variable_list backward(Context* context, const torch::autograd::variable_list& upper) {
    if (c10::GradMode::is_enabled()) throw std::logic_error("[group_norm_silu] has no second derivatives");
    const auto saved = context->get_saved_variables();
    const Tensor &x = saved[0], &shift = saved[1], &weight = saved[2], &bias = saved[3];
    const Tensor &mean = saved[4], &rate = saved[5], above = upper[0].contiguous(kLayout);
    GroupNormOptions options;
    options.groups = static_cast<int>(context->saved_data["groups"].toInt());
    options.activate = context->saved_data["activate"].toBool();
    Tensor of_x = at::empty_like(x), of_weight = at::empty({x.size(0), x.size(1)}, weight.options());
    Tensor of_bias = at::empty_like(of_weight), of_shift = shift.defined() ? at::empty_like(of_weight) : Tensor();
    at::parallel_for(0, x.size(0), 1, [&](std::int64_t first, std::int64_t last) {
      for (std::int64_t b = first; b < last; ++b)
        norm_image_gradient(shape_of(x, options), parameters_of(shift, weight, bias, b), row(mean, b), row(rate, b),
                            {image(x, b), is_half(x)}, {image(above, b), is_half(above)},
                            {{image(of_x, b), is_half(of_x)}, row(of_shift, b), row(of_weight, b), row(of_bias, b)});
    });
    return {of_x, of_shift, of_weight.sum(0), of_bias.sum(0), Tensor()};
  }
};

class Sum : public torch::autograd::Function<Sum> {
 public:
  using Context = torch::autograd::AutogradContext;

  static Tensor forward(Context* context, const Tensor& left, const Tensor& right) {
    const Tensor a = left.contiguous(kLayout), b = right.contiguous(kLayout);
    Tensor sum = at::empty(a.sizes(), a.options().dtype(at::kFloat), kLayout);
    const std::int64_t size = a.numel() / a.size(0);
    at::parallel_for(0, a.size(0), 1, [&](std::int64_t first, std::int64_t last) {
      sum_images({image(a, first), is_half(a)}, {image(b, first), is_half(b)},
                 static_cast<std::size_t>((last - first) * size), sum.data_ptr<float>() + first * size);
    });
    context->saved_data["halves"] = c10::List<bool>({is_half(a), is_half(b)});
    return sum;
  }

  static torch::autograd::variable_list backward(Context* context, const torch::autograd::variable_list& upper) {
    const auto halves = context->saved_data["halves"].toBoolList();
    const auto typed = [&](std::size_t side) { return halves[side] ? upper[0].to(at::kBFloat16) : upper[0]; };
    return {typed(0), typed(1)};
  }
};

class Join : public torch::autograd::Function<Join> {
 public:
  using Context = torch::autograd::AutogradContext;

  static Tensor forward(Context* context, const Tensor& upward, const Tensor& skip, double factor, bool half) {
    const Tensor a = upward.contiguous(kLayout), b = skip.contiguous(kLayout);
    const std::int64_t channels[] = {a.size(1), b.size(1)}, places = a.size(2) * a.size(3);
    if (b.size(0) != a.size(0) || b.size(2) != a.size(2) || b.size(3) != a.size(3))
      throw std::invalid_argument("[UNet] what joins has not the same images or sizes");
    for (const Tensor& side : {a, b}) {
      if (!is_half(side) && side.scalar_type() != at::kFloat)
        throw std::invalid_argument("[UNet] what joins is neither float32 nor bfloat16");
    }
    Tensor y = at::empty({a.size(0), channels[0] + channels[1], a.size(2), a.size(3)},
                         a.options().dtype(half ? at::kBFloat16 : at::kFloat), kLayout);
    at::parallel_for(0, a.size(0), 1, [&](std::int64_t first, std::int64_t last) {
      for (std::int64_t i = first; i < last; ++i)
        join_images({{image(a, i), is_half(a)}, static_cast<std::size_t>(channels[0])},
                    {{image(b, i), is_half(b)}, static_cast<std::size_t>(channels[1]), static_cast<float>(factor)},
                    static_cast<std::size_t>(places), {image(y, i), half});
    });
    context->saved_data["channels"] = c10::List<std::int64_t>({channels[0], channels[1]});
    context->saved_data["halves"] = c10::List<bool>({is_half(a), is_half(b)});
    context->saved_data["factor"] = factor;
    return y;
  }

  static torch::autograd::variable_list backward(Context* context, const torch::autograd::variable_list& upper) {
    const auto channels = context->saved_data["channels"].toIntVector();
    const auto halves = context->saved_data["halves"].toBoolList();
    const auto typed = [&](std::int64_t from, std::size_t side) {
      const Tensor part = upper[0].narrow(1, from, channels[side]);
      return part.to(halves[side] ? at::kBFloat16 : at::kFloat);
    };
    return {typed(0, 0), typed(channels[0], 1) * context->saved_data["factor"].toDouble(), Tensor(), Tensor()};
  }
};

}  // namespace

Tensor joined(const Joint& joint, bool half) {
  if (joint.upward.is_cpu()) return Join::apply(joint.upward, joint.skip, joint.skip_factor, half);
  const auto type = half ? at::kBFloat16 : at::kFloat;
  const Tensor skip = joint.skip_factor == 1 ? joint.skip : joint.skip * joint.skip_factor;
  return at::cat({joint.upward.to(type), skip.to(type)}, 1);
}

Tensor sum_of(const Tensor& a, const Tensor& b) {
  if (!a.is_cpu() || (!is_half(a) && !is_half(b))) return a.to(at::kFloat) + b.to(at::kFloat);
  return Sum::apply(a, b);
}

Tensor group_norm_silu(const Tensor& x, const Tensor& shift, const Tensor& weight, const Tensor& bias,
                       const GroupNormOptions& options) {
  return GroupNorm::apply(x, shift.defined() ? c10::optional<Tensor>(shift) : c10::nullopt, weight, bias, options);
}

}  // namespace tuiqiao
#endif
