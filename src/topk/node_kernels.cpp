#include "topk/node_kernels.h"

#include <algorithm>
#include <cmath>
#include <type_traits>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "topk/node_kernels.cpp"
#include <hwy/foreach_target.h>  // IWYU pragma: keep
#include <hwy/highway.h>
// After highway.h.
#include <hwy/contrib/math/math-inl.h>

#include "vector_loop-inl.h"

HWY_BEFORE_NAMESPACE();
namespace tuiqiao::topk::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;
using tuiqiao::HWY_NAMESPACE::for_each_vector;

using Complex = std::complex<double>;

constexpr std::size_t kBlock = 1024;  // entries that stay in the first cache for all nodes

template <class D>
struct Pair {
  hn::Vec<D> real, imaginary;
};

template <class D>
HWY_INLINE Pair<D> factor(D d, hn::Vec<D> p, Node node) {
  const auto real = hn::MulAdd(p, hn::Set(d, node.cosine - 1), hn::Set(d, 1.0));
  return {real, hn::Mul(p, hn::Set(d, node.sine))};
}

template <class D>
HWY_INLINE Pair<D> tilt(D d, hn::Vec<D> p, Node node) {
  const auto [real, imaginary] = factor(d, p, node);
  const auto size = hn::MulAdd(real, real, hn::Mul(imaginary, imaginary));
  const auto scale = hn::Div(p, size);
  const auto cosine = hn::Set(d, node.cosine), sine = hn::Set(d, node.sine);
  return {hn::Mul(scale, hn::MulAdd(cosine, real, hn::Mul(sine, imaginary))),
          hn::Mul(scale, hn::MulSub(sine, real, hn::Mul(cosine, imaginary)))};
}

template <class D>
HWY_INLINE double sum_of(D d, hn::Vec<D> v) {
  return hn::GetLane(hn::SumOfLanes(d, v));
}

OddsSums odds(const double* x, std::size_t n, Threshold at, double* p) {
  const hn::ScalableTag<double> wide;
  auto means = hn::Zero(wide), variances = hn::Zero(wide), logs = hn::Zero(wide), entries = hn::Zero(wide);
  OddsSums sums;
  for_each_vector<double>(n, [&](auto d, std::size_t i) HWY_ATTR {
    const auto one = hn::Set(d, 1.0);
    const auto distance = hn::Sub(hn::Sub(hn::LoadU(d, x + i), hn::Set(d, at.base)), hn::Set(d, at.offset));
    const auto z = hn::Mul(distance, hn::Set(d, at.inverse_tau)), e = hn::Exp(d, hn::Neg(hn::Abs(z)));
    const auto most = hn::Div(one, hn::Add(one, e)), least = hn::Mul(e, most);
    const auto is_above = hn::Gt(z, hn::Zero(d));
    const auto in = hn::IfThenElse(is_above, most, least), log = hn::Log1p(d, e), variance = hn::Mul(most, least);
    const auto above = hn::IfThenElseZero(is_above, hn::LoadU(d, x + i));
    hn::StoreU(in, d, p + i);
    sums.above += static_cast<std::int64_t>(hn::CountTrue(d, is_above));
    if constexpr (std::is_same_v<decltype(d), hn::ScalableTag<double>>) {
      means = hn::Add(means, in), variances = hn::Add(variances, variance), logs = hn::Add(logs, log);
      entries = hn::Add(entries, above);
    } else {
      sums.mean += hn::GetLane(in), sums.variance += hn::GetLane(variance), sums.logs += hn::GetLane(log);
      sums.entries_above += hn::GetLane(above);
    }
  });
  sums.mean += sum_of(wide, means), sums.variance += sum_of(wide, variances), sums.logs += sum_of(wide, logs);
  sums.entries_above += sum_of(wide, entries);
  return sums;
}

void add_log_factors(const double* p, std::size_t n, const Node* nodes, std::size_t count, double* log_size,
                     double* angle) {
  constexpr std::size_t kRun = 16;  // vectors of factors multiplied before a logarithm
  const hn::ScalableTag<double> d;
  const std::size_t lanes = hn::Lanes(d), run = kRun * lanes;
  HWY_ALIGN double reals[HWY_MAX_BYTES / sizeof(double)], imaginaries[HWY_MAX_BYTES / sizeof(double)];
  const auto add = [&](std::size_t j, double real, double imaginary) {
    log_size[j] += 0.5 * std::log(real * real + imaginary * imaginary);
    angle[j] += std::atan2(imaginary, real);
  };
  std::size_t from = 0;
  for (; from + lanes <= n; from += run) {
    const std::size_t to = std::min(from + run, n - n % lanes);
    for (std::size_t j = 0; j < count; ++j) {
      Pair<decltype(d)> product{hn::Set(d, 1.0), hn::Zero(d)};
      for (std::size_t i = from; i < to; i += lanes) {
        const auto f = factor(d, hn::LoadU(d, p + i), nodes[j]);
        const auto real = hn::MulSub(product.real, f.real, hn::Mul(product.imaginary, f.imaginary));
        product.imaginary = hn::MulAdd(product.real, f.imaginary, hn::Mul(product.imaginary, f.real));
        product.real = real;
      }
      hn::Store(product.real, d, reals);
      hn::Store(product.imaginary, d, imaginaries);
      Complex all = 1;
      for (std::size_t lane = 0; lane < lanes; ++lane) {
        const double real = all.real() * reals[lane] - all.imag() * imaginaries[lane];
        all = {real, all.real() * imaginaries[lane] + all.imag() * reals[lane]};
      }
      add(j, all.real(), all.imag());
    }
  }
  for (std::size_t i = n - n % lanes; i < n; ++i) {
    for (std::size_t j = 0; j < count; ++j) add(j, 1 + p[i] * (nodes[j].cosine - 1), p[i] * nodes[j].sine);
  }
}

void weighted_tilts(const double* p, std::size_t n, const Node* nodes, const Complex* weights, std::size_t count,
                    double* out) {
  for_each_vector<double>(n, [&](auto d, std::size_t i) HWY_ATTR {
    const auto entry = hn::LoadU(d, p + i);
    auto sum = hn::Zero(d);
    for (std::size_t j = 0; j < count; ++j) {
      const auto r = tilt(d, entry, nodes[j]);
      sum = hn::MulAdd(hn::Set(d, weights[j].real()), r.real, sum);
      sum = hn::NegMulAdd(hn::Set(d, weights[j].imag()), r.imaginary, sum);
    }
    hn::StoreU(sum, d, out + i);
  });
}

void add_tilt_sums(const double* p, const double* v, std::size_t n, const Node* nodes, std::size_t count,
                   Complex* sums) {
  for (std::size_t from = 0; from < n; from += kBlock) {
    const double *block = p + from, *block_v = v + from;
    for (std::size_t j = 0; j < count; ++j) {
      const hn::ScalableTag<double> wide;
      auto reals = hn::Zero(wide), imaginaries = hn::Zero(wide);
      double real = 0, imaginary = 0;
      for_each_vector<double>(std::min(kBlock, n - from), [&](auto d, std::size_t i) HWY_ATTR {
        const auto r = tilt(d, hn::LoadU(d, block + i), nodes[j]);
        const auto by = hn::LoadU(d, block_v + i);
        if constexpr (std::is_same_v<decltype(d), hn::ScalableTag<double>>) {
          reals = hn::MulAdd(by, r.real, reals);
          imaginaries = hn::MulAdd(by, r.imaginary, imaginaries);
        } else {
          real += hn::GetLane(hn::Mul(by, r.real));
          imaginary += hn::GetLane(hn::Mul(by, r.imaginary));
        }
      });
      sums[j] += Complex(real + sum_of(wide, reals), imaginary + sum_of(wide, imaginaries));
    }
  }
}

void weighted_pairs(const double* p, const double* v, std::size_t n, const Node* nodes, const Complex* weights,
                    const Complex* sums, std::size_t count, double* out) {
  for_each_vector<double>(n, [&](auto d, std::size_t i) HWY_ATTR {
    const auto entry = hn::LoadU(d, p + i), by = hn::LoadU(d, v + i);
    auto total = hn::Zero(d);
    for (std::size_t j = 0; j < count; ++j) {
      const auto r = tilt(d, entry, nodes[j]);
      // r (sum + v - v r)
      const auto real = hn::Add(hn::NegMulAdd(by, r.real, hn::Set(d, sums[j].real())), by);
      const auto imaginary = hn::NegMulAdd(by, r.imaginary, hn::Set(d, sums[j].imag()));
      const auto whole_real = hn::MulSub(r.real, real, hn::Mul(r.imaginary, imaginary));
      const auto whole_imaginary = hn::MulAdd(r.real, imaginary, hn::Mul(r.imaginary, real));
      total = hn::MulAdd(hn::Set(d, weights[j].real()), whole_real, total);
      total = hn::NegMulAdd(hn::Set(d, weights[j].imag()), whole_imaginary, total);
    }
    hn::StoreU(total, d, out + i);
  });
}

}  // namespace tuiqiao::topk::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace tuiqiao::topk {

HWY_EXPORT(odds);
HWY_EXPORT(add_log_factors);
HWY_EXPORT(weighted_tilts);
HWY_EXPORT(add_tilt_sums);
HWY_EXPORT(weighted_pairs);

OddsSums take_odds(std::span<const double> x, Threshold at, std::span<double> p) {
  return HWY_DYNAMIC_DISPATCH(odds)(x.data(), x.size(), at, p.data());
}
void add_log_factors(std::span<const double> p, std::span<const Node> nodes, std::span<double> log_size,
                     std::span<double> angle) {
  HWY_DYNAMIC_DISPATCH(add_log_factors)
  (p.data(), p.size(), nodes.data(), nodes.size(), log_size.data(), angle.data());
}
void weighted_tilts(std::span<const double> p, std::span<const Node> nodes,
                    std::span<const std::complex<double>> weights, std::span<double> out) {
  HWY_DYNAMIC_DISPATCH(weighted_tilts)(p.data(), p.size(), nodes.data(), weights.data(), nodes.size(), out.data());
}
void add_tilt_sums(std::span<const double> p, std::span<const double> v, std::span<const Node> nodes,
                   std::span<std::complex<double>> sums) {
  HWY_DYNAMIC_DISPATCH(add_tilt_sums)(p.data(), v.data(), p.size(), nodes.data(), nodes.size(), sums.data());
}
void weighted_pairs(std::span<const double> p, std::span<const double> v, std::span<const Node> nodes,
                    std::span<const std::complex<double>> weights, std::span<const std::complex<double>> sums,
                    std::span<double> out) {
  HWY_DYNAMIC_DISPATCH(weighted_pairs)
  (p.data(), v.data(), p.size(), nodes.data(), weights.data(), sums.data(), nodes.size(), out.data());
}

}  // namespace tuiqiao::topk
#endif  // HWY_ONCE
