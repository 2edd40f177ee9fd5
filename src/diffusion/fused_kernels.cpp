#include "diffusion/fused_kernels.h"

#include <algorithm>
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
  const auto number = hn::BitCast(wide, v);
  const auto odd = hn::And(hn::ShiftRight<16>(number), hn::Set(wide, 1));
  const auto rounded = hn::ShiftRight<16>(hn::Add(number, hn::Add(odd, hn::Set(wide, 0x7FFF))));
  const auto kept = hn::IfThenElse(hn::RebindMask(wide, hn::IsNaN(v)), hn::Set(wide, 0x7FC0), rounded);
  hn::StoreU(hn::TruncateTo(bits, kept), bits, to);
}

/// Vectors whose work is interleaved: a single one's dozens of operations each wait for the one before.
constexpr std::size_t kTogether = 4;

/// s = 1 / (1 + e^-u), within 2e-7 of it: e^-u = 2^n e^-r with |r| <= ln(2) / 2, and e^-r by the polynomial of degree 5
/// that is 1 at 0 and whose greatest relative error is least (1e-7).
template <class D, std::size_t N>
HWY_INLINE void sigmoid(D d, const hn::Vec<D> (&u)[N], hn::Vec<D> (&s)[N]) {
  const hn::RebindToSigned<D> whole;
  const auto one = hn::Set(d, 1.0F), to_whole = hn::Set(d, 0x1.8p23F);
  hn::Vec<D> n[N], r[N];
  for (std::size_t i = 0; i < N; ++i) r[i] = hn::Max(hn::Min(u[i], hn::Set(d, 80.0F)), hn::Set(d, -80.0F));
  // Of a float32 near 1.5 * 2^23 the lowest bits are a whole number.
  for (std::size_t i = 0; i < N; ++i) n[i] = hn::MulAdd(r[i], hn::Set(d, -0x1.715476p0F), to_whole);
  for (std::size_t i = 0; i < N; ++i) {
    const auto times = hn::Sub(n[i], to_whole);
    r[i] = hn::MulAdd(times, hn::Set(d, -0x1.05c61p-29F), hn::MulAdd(times, hn::Set(d, 0x1.62e43p-1F), r[i]));
    s[i] = hn::MulAdd(r[i], hn::Set(d, -0x1.0fa82p-7F), hn::Set(d, 0x1.573a6cp-5F));
  }
  for (const float factor : {-0x1.555a6cp-3F, 0x1.fffdc6p-2F, -0x1.fffff6p-1F, 1.0F}) {
    for (std::size_t i = 0; i < N; ++i) s[i] = hn::MulAdd(s[i], r[i], hn::Set(d, factor));
  }
  for (std::size_t i = 0; i < N; ++i) {
    const auto power = hn::ShiftLeft<23>(hn::BitCast(whole, n[i]));
    n[i] = hn::Add(one, hn::BitCast(d, hn::Add(hn::BitCast(whole, s[i]), power)));
  }
#if HWY_ARCH_X86
  // 12 bits or more; a step of Newton's doubles them.
  for (std::size_t i = 0; i < N; ++i) r[i] = hn::ApproximateReciprocal(n[i]);
  for (std::size_t i = 0; i < N; ++i) s[i] = hn::MulAdd(r[i], hn::NegMulAdd(n[i], r[i], one), r[i]);
#else
  for (std::size_t i = 0; i < N; ++i) s[i] = hn::Div(one, n[i]);
#endif
}

/// K sums a channel over all places of body(d, channel, place, sums), which adds to sums[0] to sums[K - 1].
template <std::size_t K>
class PlaceSums {
 public:
  template <class Body>
  PlaceSums(const NormShape& shape, const Body& body) : channels_(shape.channels), sums_(K * channels_) {
    constexpr std::size_t kBlock = 64;  // places that are summed in float32
    std::vector<float> block(sums_.size());
    for (std::size_t first = 0; first < shape.places; first += kBlock) {
      const std::size_t last = HWY_MIN(first + kBlock, shape.places);
      std::fill(block.begin(), block.end(), 0.0F);
      std::size_t place = first;
      for (; place + kTogether <= last; place += kTogether) add<kTogether>(body, place, block.data());
      for (; place < last; ++place) add<1>(body, place, block.data());
      for (std::size_t i = 0; i < block.size(); ++i) sums_[i] += static_cast<double>(block[i]);
    }
  }
  double of(std::size_t channel, std::size_t which = 0) const { return sums_[which * channels_ + channel]; }

 private:
  template <std::size_t N, class Body>
  HWY_INLINE void add(const Body& body, std::size_t place, float* block) {
    for_each_vector<float>(channels_, [&](auto d, std::size_t c) HWY_ATTR {
      hn::Vec<decltype(d)> sums[K];
      for (std::size_t k = 0; k < K; ++k) sums[k] = hn::Zero(d);
      for (std::size_t i = 0; i < N; ++i) body(d, c, place + i, sums);
      for (std::size_t k = 0; k < K; ++k) {
        float* sum = block + k * channels_ + c;
        hn::StoreU(hn::Add(hn::LoadU(d, sum), sums[k]), d, sum);
      }
    });
  }

  std::size_t channels_;
  std::vector<double> sums_;
};

float shift_of(const NormParameters& parameters, std::size_t channel) {
  return parameters.shift == nullptr ? 0 : parameters.shift[channel];
}

/// A channel's `centre` and `scale`: (x - centre) scale + bias is what the activation sees.
struct Channels {
  Channels(const NormShape& shape, const NormParameters& parameters, const float* mean, const float* rate)
      : centre(shape.channels), scale(shape.channels), rates(shape.channels) {
    const std::size_t width = shape.channels / shape.groups;
    for (std::size_t g = 0, c = 0; g < shape.groups; ++g) {
      for (; c < (g + 1) * width; ++c) {
        centre[c] = mean[g] - shift_of(parameters, c);
        rates[c] = rate[g];
        scale[c] = parameters.weight[c] * rate[g];
      }
    }
  }
  std::vector<float> centre, scale, rates;
};

/// The channels of N places as normed, and their SiLU where `activate`.
template <std::size_t N, class In, class Out>
HWY_INLINE void norm_places(const Channels& of, const float* bias, bool activate, std::size_t channels, const In* x,
                            Out* y) {
  for_each_vector<float>(channels, [&](auto d, std::size_t c) HWY_ATTR {
    const auto centre = hn::LoadU(d, &of.centre[c]), scale = hn::LoadU(d, &of.scale[c]), up = hn::LoadU(d, bias + c);
    hn::Vec<decltype(d)> u[N], s[N];
    for (std::size_t i = 0; i < N; ++i) u[i] = hn::MulAdd(hn::Sub(load(d, x + i * channels + c), centre), scale, up);
    if (activate) {
      sigmoid(d, u, s);
      for (std::size_t i = 0; i < N; ++i) u[i] = hn::Mul(u[i], s[i]);
    }
    for (std::size_t i = 0; i < N; ++i) store(d, u[i], y + i * channels + c);
  });
}

template <class In, class Out>
void norm_of(const NormShape& shape, const NormParameters& parameters, float eps, const In* x, Out* y, float* mean,
             float* rate) {
  const std::size_t width = shape.channels / shape.groups, channels = shape.channels;
  const auto count = static_cast<double>(width * shape.places);
  const PlaceSums<1> totals(shape, [&](auto d, std::size_t c, std::size_t place, auto& sums)
                                       HWY_ATTR { sums[0] = hn::Add(sums[0], load(d, x + place * channels + c)); });
  for (std::size_t g = 0; g < shape.groups; ++g) {
    double sum = 0;
    for (std::size_t c = g * width; c < (g + 1) * width; ++c)
      sum += totals.of(c) + static_cast<double>(shape.places) * static_cast<double>(shift_of(parameters, c));
    mean[g] = static_cast<float>(sum / count);
    rate[g] = 1;
  }
  Channels of(shape, parameters, mean, rate);
  const PlaceSums<1> squares(shape, [&](auto d, std::size_t c, std::size_t place, auto& sums) HWY_ATTR {
    const auto from_mean = hn::Sub(load(d, x + place * channels + c), hn::LoadU(d, &of.centre[c]));
    sums[0] = hn::MulAdd(from_mean, from_mean, sums[0]);
  });
  for (std::size_t g = 0; g < shape.groups; ++g) {
    double sum = 0;
    for (std::size_t c = g * width; c < (g + 1) * width; ++c) sum += squares.of(c);
    rate[g] = static_cast<float>(1 / std::sqrt(sum / count + static_cast<double>(eps)));
  }
  of = Channels(shape, parameters, mean, rate);
  std::size_t place = 0;
  for (; place + kTogether <= shape.places; place += kTogether)
    norm_places<kTogether>(of, parameters.bias, shape.activate, channels, x + place * channels, y + place * channels);
  for (; place < shape.places; ++place)
    norm_places<1>(of, parameters.bias, shape.activate, channels, x + place * channels, y + place * channels);
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
    hn::Vec<decltype(d)> s[1];
    sigmoid(d, {u}, s);
    const auto one = hn::Set(d, 1.0F);
    return hn::Mul(above, hn::Mul(s[0], hn::MulAdd(u, hn::Sub(one, s[0]), one)));
  };

  // Of the gradient, of it times x as normed, and of that.
  const PlaceSums<3> sums(shape, [&](auto d, std::size_t c, std::size_t place, auto& three) HWY_ATTR {
    const std::size_t at = place * channels + c;
    const auto z = normed(d, c, at), down = before_activation(d, c, at, z);
    three[0] = hn::Add(three[0], down);
    three[1] = hn::MulAdd(down, z, three[1]);
    three[2] = hn::Add(three[2], z);
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
