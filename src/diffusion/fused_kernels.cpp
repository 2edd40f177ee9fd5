#include "diffusion/fused_kernels.h"

#include <cmath>
#include <vector>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "diffusion/fused_kernels.cpp"
#include <hwy/foreach_target.h>  // IWYU pragma: keep
#include <hwy/highway.h>
// After highway.h.
#include "vector_loop-inl.h"

HWY_BEFORE_NAMESPACE();
namespace tuiqiao::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

template <class D>
HWY_INLINE hn::Vec<D> load(D d, const float* from) {
  return hn::LoadU(d, from);
}
template <class D>
HWY_INLINE hn::Vec<D> load(D d, const std::uint16_t* from) {
  const hn::Rebind<std::uint16_t, D> bits;
  const hn::Rebind<std::uint32_t, D> wide;
  return hn::BitCast(d, hn::ShiftLeft<16>(hn::PromoteTo(wide, hn::LoadU(bits, from))));
}

template <class D>
HWY_INLINE void store(D d, hn::Vec<D> v, float* to) {
  hn::StoreU(v, d, to);
}
/// The nearest bfloat16, ties to even.
template <class D>
HWY_INLINE void store(D, hn::Vec<D> v, std::uint16_t* to) {
  const hn::Rebind<std::uint16_t, D> bits;
  const hn::Rebind<std::uint32_t, D> wide;
  const hn::Rebind<std::int32_t, D> whole;
  const auto number = hn::BitCast(wide, v);
  const auto odd = hn::And(hn::ShiftRight<16>(number), hn::Set(wide, 1));
  const auto rounded = hn::ShiftRight<16>(hn::Add(number, hn::Add(odd, hn::Set(wide, 0x7FFF))));
  const auto kept = hn::IfThenElse(hn::RebindMask(wide, hn::IsNaN(v)), hn::Set(wide, 0x7FC0), rounded);
  hn::StoreU(hn::DemoteTo(bits, hn::BitCast(whole, kept)), bits, to);
}

/// 1 / (1 + e^-u), within 2e-7 of it: e^-u = 2^n e^r with |r| <= ln(2) / 2, and e^r by its Taylor polynomial of
/// degree 7.
template <class D>
HWY_INLINE hn::Vec<D> sigmoid(D d, hn::Vec<D> u) {
  const hn::RebindToSigned<D> whole;
  const auto one = hn::Set(d, 1.0F);
  const auto z = hn::Max(hn::Min(hn::Neg(u), hn::Set(d, 80.0F)), hn::Set(d, -80.0F));
  // Of a float32 near 1.5 * 2^23 the lowest bits are a whole number.
  const auto to_whole = hn::Set(d, 0x1.8p23F), shifted = hn::MulAdd(z, hn::Set(d, 0x1.715476p0F), to_whole);
  const auto n = hn::Sub(shifted, to_whole);
  const auto r = hn::NegMulAdd(n, hn::Set(d, -0x1.05c61p-29F), hn::NegMulAdd(n, hn::Set(d, 0x1.62e43p-1F), z));
  auto e = hn::MulAdd(r, hn::Set(d, 1.0F / 5040), hn::Set(d, 1.0F / 720));
  for (const float factor : {1.0F / 120, 1.0F / 24, 1.0F / 6, 0.5F, 1.0F, 1.0F})
    e = hn::MulAdd(e, r, hn::Set(d, factor));
  e = hn::BitCast(d, hn::Add(hn::BitCast(whole, e), hn::ShiftLeft<23>(hn::BitCast(whole, shifted))));
  const auto below = hn::Add(one, e);
#if HWY_ARCH_X86
  const auto near = hn::ApproximateReciprocal(below);  // 12 bits or more; a step of Newton's doubles them
  return hn::MulAdd(near, hn::NegMulAdd(below, near, one), near);
#else
  return hn::Div(one, below);
#endif
}

/// Three sums a channel over all places of body(d, channel, place, sums...), which adds to them.
class PlaceSums {
 public:
  explicit PlaceSums(const NormShape& shape) : shape_(shape) {
    for (auto& sums : sums_) sums.assign(shape.channels, 0);
  }

  template <class Body>
  HWY_INLINE void add(const Body& body) {
    constexpr std::size_t kTogether = 256;
    for (std::size_t first = 0; first < shape_.places; first += kTogether) {
      const std::size_t last = HWY_MIN(first + kTogether, shape_.places);
      for_each_vector<float>(shape_.channels, [&](auto d, std::size_t c) HWY_ATTR {
        auto a0 = hn::Zero(d), a1 = a0, a2 = a0, b0 = a0, b1 = a0, b2 = a0;
        std::size_t place = first;
        for (; place + 2 <= last; place += 2) {
          body(d, c, place, a0, a1, a2);
          body(d, c, place + 1, b0, b1, b2);
        }
        if (place < last) body(d, c, place, a0, a1, a2);
        keep(d, c, hn::Add(a0, b0), 0), keep(d, c, hn::Add(a1, b1), 1), keep(d, c, hn::Add(a2, b2), 2);
      });
    }
  }
  double of(std::size_t channel, int which) const { return sums_[which][channel]; }

 private:
  template <class D>
  HWY_INLINE void keep(D d, std::size_t channel, hn::Vec<D> v, int which) {
    HWY_ALIGN float lanes[HWY_MAX_BYTES / sizeof(float)];
    hn::StoreU(v, d, lanes);
    for (std::size_t i = 0; i < hn::Lanes(d); ++i) sums_[which][channel + i] += static_cast<double>(lanes[i]);
  }

  const NormShape& shape_;
  std::vector<double> sums_[3];
};

float shift_of(const NormParameters& parameters, std::size_t channel) {
  return parameters.shift == nullptr ? 0 : parameters.shift[channel];
}

/// A channel's `centre` and `scale`: (x - centre) scale + bias is what the activation sees.
struct Channels {
  Channels(const NormShape& shape, const NormParameters& parameters, const float* mean, const float* rate)
      : centre(shape.channels), scale(shape.channels), rates(shape.channels) {
    const std::size_t width = shape.channels / shape.groups;
    for (std::size_t c = 0; c < shape.channels; ++c) {
      centre[c] = mean[c / width] - shift_of(parameters, c);
      rates[c] = rate[c / width];
      scale[c] = parameters.weight[c] * rates[c];
    }
  }
  std::vector<float> centre, scale, rates;
};

template <class In, class Out>
void norm_of(const NormShape& shape, const NormParameters& parameters, float eps, const In* x, Out* y, float* mean,
             float* rate) {
  const std::size_t width = shape.channels / shape.groups, channels = shape.channels;
  const auto count = static_cast<double>(width * shape.places);
  PlaceSums totals(shape);
  totals.add([&](auto d, std::size_t c, std::size_t place, auto& sum, auto&, auto&)
                 HWY_ATTR { sum = hn::Add(sum, load(d, x + place * channels + c)); });
  for (std::size_t g = 0; g < shape.groups; ++g) {
    double sum = 0;
    for (std::size_t c = g * width; c < (g + 1) * width; ++c)
      sum += totals.of(c, 0) + static_cast<double>(shape.places) * static_cast<double>(shift_of(parameters, c));
    mean[g] = static_cast<float>(sum / count);
    rate[g] = 1;
  }
  Channels of(shape, parameters, mean, rate);
  PlaceSums squares(shape);
  squares.add([&](auto d, std::size_t c, std::size_t place, auto& sum, auto&, auto&) HWY_ATTR {
    const auto from_mean = hn::Sub(load(d, x + place * channels + c), hn::LoadU(d, &of.centre[c]));
    sum = hn::MulAdd(from_mean, from_mean, sum);
  });
  for (std::size_t g = 0; g < shape.groups; ++g) {
    double sum = 0;
    for (std::size_t c = g * width; c < (g + 1) * width; ++c) sum += squares.of(c, 0);
    rate[g] = static_cast<float>(1 / std::sqrt(sum / count + static_cast<double>(eps)));
  }
  of = Channels(shape, parameters, mean, rate);
  for (std::size_t place = 0; place < shape.places; ++place) {
    for_each_vector<float>(channels, [&](auto d, std::size_t c) HWY_ATTR {
      const std::size_t at = place * channels + c;
      auto u = hn::Sub(load(d, x + at), hn::LoadU(d, &of.centre[c]));
      u = hn::MulAdd(u, hn::LoadU(d, &of.scale[c]), hn::LoadU(d, parameters.bias + c));
      store(d, shape.activate ? hn::Mul(u, sigmoid(d, u)) : u, y + at);
    });
  }
}

template <class In, class Up>
void gradient_of(const NormShape& shape, const NormParameters& parameters, const float* mean, const float* rate,
                 const In* x, const Up* upper, const NormGradient& gradient) {
  const std::size_t width = shape.channels / shape.groups, channels = shape.channels;
  const auto count = static_cast<double>(width * shape.places);
  const Channels of(shape, parameters, mean, rate);
  // x as normed, and the gradient of what the activation sees.
  const auto normed = [&](auto d, std::size_t c, std::size_t at) HWY_ATTR {
    return hn::Mul(hn::Sub(load(d, x + at), hn::LoadU(d, &of.centre[c])), hn::LoadU(d, &of.rates[c]));
  };
  const auto before_activation = [&](auto d, std::size_t c, std::size_t at, auto z) HWY_ATTR {
    const auto above = load(d, upper + at);
    if (!shape.activate) return above;
    const auto u = hn::MulAdd(z, hn::LoadU(d, parameters.weight + c), hn::LoadU(d, parameters.bias + c));
    const auto s = sigmoid(d, u), one = hn::Set(d, 1.0F);
    return hn::Mul(above, hn::Mul(s, hn::MulAdd(u, hn::Sub(one, s), one)));
  };

  PlaceSums sums(shape);
  sums.add([&](auto d, std::size_t c, std::size_t place, auto& plain, auto& weighted, auto& of_normed) HWY_ATTR {
    const std::size_t at = place * channels + c;
    const auto z = normed(d, c, at), down = before_activation(d, c, at, z);
    plain = hn::Add(plain, down);
    weighted = hn::MulAdd(down, z, weighted);
    of_normed = hn::Add(of_normed, z);
  });
  std::vector<float> first(channels), second(channels);
  for (std::size_t g = 0; g < shape.groups; ++g) {
    double plain = 0, weighted = 0;
    for (std::size_t c = g * width; c < (g + 1) * width; ++c) {
      plain += static_cast<double>(parameters.weight[c]) * sums.of(c, 0) / count;
      weighted += static_cast<double>(parameters.weight[c]) * sums.of(c, 1) / count;
    }
    for (std::size_t c = g * width; c < (g + 1) * width; ++c) {
      first[c] = static_cast<float>(plain);
      second[c] = static_cast<float>(weighted);
      gradient.bias[c] = static_cast<float>(sums.of(c, 0));
      gradient.weight[c] = static_cast<float>(sums.of(c, 1));
      if (gradient.shift != nullptr)
        gradient.shift[c] = static_cast<float>(static_cast<double>(of.rates[c]) *
                                               (static_cast<double>(parameters.weight[c]) * sums.of(c, 0) -
                                                static_cast<double>(shape.places) * plain - weighted * sums.of(c, 2)));
    }
  }
  for (std::size_t place = 0; place < shape.places; ++place) {
    for_each_vector<float>(channels, [&](auto d, std::size_t c) HWY_ATTR {
      const std::size_t at = place * channels + c;
      const auto z = normed(d, c, at), down = before_activation(d, c, at, z);
      auto value = hn::MulSub(down, hn::LoadU(d, parameters.weight + c), hn::LoadU(d, &first[c]));
      value = hn::Mul(hn::NegMulAdd(z, hn::LoadU(d, &second[c]), value), hn::LoadU(d, &of.rates[c]));
      if constexpr (sizeof(In) == 4) {
        store(d, value, static_cast<float*>(gradient.x.data) + at);
      } else {
        store(d, value, static_cast<std::uint16_t*>(gradient.x.data) + at);
      }
    });
  }
}

/// Calls with the numbers in their own type.
template <class Call>
void with_type(ImageNumbers numbers, const Call& call) {
  if (numbers.half) {
    call(static_cast<const std::uint16_t*>(numbers.data));
  } else {
    call(static_cast<const float*>(numbers.data));
  }
}

template <class Call>
void with_type(ImageOutput numbers, const Call& call) {
  if (numbers.half) {
    call(static_cast<std::uint16_t*>(numbers.data));
  } else {
    call(static_cast<float*>(numbers.data));
  }
}

void norm_image(const NormShape& shape, const NormParameters& parameters, float eps, ImageNumbers x, ImageOutput y,
                float* mean, float* rate) {
  with_type(x, [&](const auto* in) {
    with_type(y, [&](auto* out) { norm_of(shape, parameters, eps, in, out, mean, rate); });
  });
}

void norm_image_gradient(const NormShape& shape, const NormParameters& parameters, const float* mean, const float* rate,
                         ImageNumbers x, ImageNumbers y_gradient, const NormGradient& gradient) {
  with_type(x, [&](const auto* in) {
    with_type(y_gradient, [&](const auto* above) { gradient_of(shape, parameters, mean, rate, in, above, gradient); });
  });
}

/// Each place's channels, to where those of a place lie `stride` apart.
template <class In, class Out>
void spread(const In* from, std::size_t channels, float factor, std::size_t places, Out* to, std::size_t stride) {
  for (std::size_t place = 0; place < places; ++place, from += channels, to += stride)
    for_each_vector<float>(channels, [&](auto d, std::size_t c) HWY_ATTR {
      store(d, hn::Mul(load(d, from + c), hn::Set(d, factor)), to + c);
    });
}

void join_images(const ChannelPart& left, const ChannelPart& right, std::size_t places, ImageOutput y) {
  const std::size_t stride = left.channels + right.channels;
  const auto place_at = [&](const ChannelPart& part, std::size_t first) {
    with_type(part.numbers, [&](const auto* from) {
      with_type(y, [&](auto* to) { spread(from, part.channels, part.factor, places, to + first, stride); });
    });
  };
  place_at(left, 0);
  place_at(right, left.channels);
}

void sum_images(ImageNumbers a, ImageNumbers b, std::size_t count, float* sum) {
  with_type(a, [&](const auto* left) {
    with_type(b, [&](const auto* right) {
      for_each_vector<float>(count, [&](auto d, std::size_t i) HWY_ATTR {
        store(d, hn::Add(load(d, left + i), load(d, right + i)), sum + i);
      });
    });
  });
}

}  // namespace tuiqiao::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace tuiqiao {

HWY_EXPORT(norm_image);
HWY_EXPORT(norm_image_gradient);
HWY_EXPORT(join_images);
HWY_EXPORT(sum_images);

void norm_image(const NormShape& shape, const NormParameters& parameters, float eps, ImageNumbers x, ImageOutput y,
                float* mean, float* rate) {
  HWY_DYNAMIC_DISPATCH(norm_image)(shape, parameters, eps, x, y, mean, rate);
}

void norm_image_gradient(const NormShape& shape, const NormParameters& parameters, const float* mean, const float* rate,
                         ImageNumbers x, ImageNumbers y_gradient, const NormGradient& gradient) {
  HWY_DYNAMIC_DISPATCH(norm_image_gradient)(shape, parameters, mean, rate, x, y_gradient, gradient);
}

void join_images(const ChannelPart& left, const ChannelPart& right, std::size_t places, ImageOutput y) {
  HWY_DYNAMIC_DISPATCH(join_images)(left, right, places, y);
}

void sum_images(ImageNumbers a, ImageNumbers b, std::size_t count, float* sum) {
  HWY_DYNAMIC_DISPATCH(sum_images)(a, b, count, sum);
}

}  // namespace tuiqiao
#endif
