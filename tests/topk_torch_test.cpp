// clang 14, and so clang-tidy, cannot read libtorch 1.13's headers as C++20.
#ifndef __clang_analyzer__
#include "tuiqiao/topk_torch.h"

#include <ATen/core/dispatch/Dispatcher.h>
#include <gtest/gtest.h>
#include <torch/torch.h>

#include <array>
#include <bit>
#include <cmath>
#include <limits>
#include <random>
#include <stdexcept>

#include "topk/torch_plain.h"

namespace tuiqiao {
namespace {

using torch::Tensor;
using torch::autograd::grad;

constexpr double kInfinity = std::numeric_limits<double>::infinity();
constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();
constexpr std::array kMethods{TopkMethod::softmax_iterated, TopkMethod::gradient, TopkMethod::exponential,
                              TopkMethod::sigmoid,          TopkMethod::laplace,  TopkMethod::clip};

bool is_whole(TopkMethod method) { return method == TopkMethod::softmax_iterated || method == TopkMethod::gradient; }

SmoothTopkOptions options_of(TopkMethod method, std::vector<double> tau = {1}) {
  SmoothTopkOptions options;
  options.method = method;
  options.tau = std::move(tau);
  return options;
}

Tensor numbers(const std::vector<double>& values) { return torch::tensor(values, torch::kFloat64); }

std::vector<double> values_of(const Tensor& t) {
  const Tensor flat = t.detach().to(torch::kFloat64).contiguous();
  return {flat.data_ptr<double>(), flat.data_ptr<double>() + flat.numel()};
}

Tensor normal(std::mt19937_64& random, at::IntArrayRef sizes, double scale = 1) {
  Tensor t = torch::empty(sizes, torch::kFloat64);
  std::normal_distribution<double> draw(0, scale);
  for (std::int64_t i = 0; i < t.numel(); ++i) t.data_ptr<double>()[i] = draw(random);
  return t;
}

double largest_difference(const Tensor& a, const Tensor& b) {
  EXPECT_EQ(a.sizes(), b.sizes());
  return a.numel() == 0 ? 0 : (a - b).abs().max().item<double>();  // NaN stays one
}

/// What the library says of rows [B, n] of T, and of their gradient with v.
struct Expected {
  Tensor p, log_z, in_x, in_k, in_tau;
};

template <class T>
Expected expected_of(const Tensor& x, const Tensor& k, const Tensor& v, const SmoothTopkOptions& options) {
  const auto batch = [](const Tensor& t) { return Batch<T>{static_cast<T*>(t.data_ptr()), t.size(0), t.size(1)}; };
  const auto constant = [](const Tensor& t) {
    return Batch<const T>{static_cast<const T*>(t.data_ptr()), t.size(0), t.size(1)};
  };
  const Tensor in = x.contiguous(), weights = v.contiguous();
  Expected expected{torch::empty_like(in), {}, torch::empty_like(in), {}, {}};
  const auto rows = smooth_topk<T>(constant(in), values_of(k), options, batch(expected.p));
  const auto gradients = smooth_topk_vjp<T>(constant(in), rows, constant(weights), options, batch(expected.in_x));
  std::vector<double> log_z, in_k, in_tau;
  for (const auto& row : rows) log_z.push_back(row.log_z);
  for (const auto& gradient : gradients) in_k.push_back(gradient.k), in_tau.push_back(gradient.tau);
  expected.log_z = numbers(log_z), expected.in_k = numbers(in_k), expected.in_tau = numbers(in_tau);
  return expected;
}

Expected expected_of(const Tensor& x, const Tensor& k, const Tensor& v, const SmoothTopkOptions& options) {
  if (x.scalar_type() == torch::kFloat32) return expected_of<float>(x, k, v, options);
  if (x.scalar_type() == torch::kBFloat16) return expected_of<Bfloat16>(x, k, v, options);
  return expected_of<double>(x, k, v, options);
}

/// Rows made to hurt, each with its k and tau.
struct Problem {
  std::vector<std::vector<double>> x;
  std::vector<double> k, tau;

  void add(std::vector<double> row, double row_k, double row_tau) {
    x.push_back(std::move(row)), k.push_back(row_k), tau.push_back(row_tau);
  }
  Tensor rows() const {
    std::vector<Tensor> each;
    each.reserve(x.size());
    for (const auto& row : x) each.push_back(numbers(row));
    return torch::stack(each);
  }
};

Problem hard_rows(TopkMethod method, std::size_t n, std::uint64_t seed) {
  std::mt19937_64 random(seed);
  std::normal_distribution<double> normal_draw;
  std::cauchy_distribution<double> cauchy;
  std::uniform_real_distribution<double> uniform;
  Problem problem;
  for (int kind = 0; kind < 40; ++kind) {
    std::vector<double> x(n);
    std::size_t masked = 0;
    for (double& v : x) {
      v = kind % 5 == 0   ? normal_draw(random)
          : kind % 5 == 1 ? 30 * normal_draw(random)
          : kind % 5 == 2 ? cauchy(random)
          : kind % 5 == 3 ? std::floor(2 * normal_draw(random)) * (kind % 2 == 0 ? 1 : 1e3)
                          : 1e4 + 5 * normal_draw(random);
    }
    if (kind >= 20) {
      for (std::size_t i = 0; i < n; i += 4) x[i] = -kInfinity, ++masked;
    }
    if (kind >= 30 && n > 2) x[1] = kInfinity;
    const auto present = static_cast<double>(n - masked);
    double k = kind % 7 == 0   ? 0
               : kind % 7 == 1 ? present
               : kind % 7 == 2 ? std::min(present, 1.0)
                               : uniform(random) * present;
    if (is_whole(method)) k = std::floor(k);
    // Rounding grows from step to step: beyond some ten of them nothing is left to compare.
    if (method == TopkMethod::softmax_iterated && n > 5) k = std::min(k, 4.0);
    const double tau = kind % 11 == 0 ? 0 : std::exp(normal_draw(random));
    problem.add(std::move(x), k, tau);
  }
  return problem;
}

TEST(TopkTorch, IsTheLibraryOnACpu) {
  for (const TopkMethod method : kMethods) {
    for (const auto type : {torch::kFloat64, torch::kFloat32, torch::kBFloat16}) {
      const Problem problem = hard_rows(method, 9, 1);
      const Tensor x = problem.rows().to(type).requires_grad_(), k = numbers(problem.k).requires_grad_(),
                   tau = numbers(problem.tau).requires_grad_();
      const Tensor p = smooth_topk(x, k, tau, options_of(method));
      EXPECT_EQ(p.scalar_type(), type);
      std::mt19937_64 random(2);
      const Tensor v = normal(random, x.sizes()).to(type);
      const Expected expected = expected_of(x.detach(), k, v, options_of(method, problem.tau));
      EXPECT_TRUE(torch::equal(p.detach(), expected.p)) << name(method);
      const auto g = grad({p}, {x, k, tau}, {v});
      EXPECT_EQ(g[0].scalar_type(), type);
      EXPECT_TRUE(torch::equal(g[0], expected.in_x)) << name(method);
      EXPECT_TRUE(torch::equal(g[1], expected.in_k)) << name(method);
      EXPECT_TRUE(torch::equal(g[2], expected.in_tau)) << name(method);
    }
  }
}

TEST(TopkTorch, PlainTensorsGiveTheKernelsValues) {
  for (const TopkMethod method : kMethods) {
    for (const std::size_t n : {1U, 2U, 5U, 40U, 333U}) {
      const Problem problem = hard_rows(method, n, n);
      const Tensor x = problem.rows(), k = numbers(problem.k), tau = numbers(problem.tau);
      const Tensor p = topk::plain_smooth_topk(x, k, tau, method);
      const Expected expected = expected_of(x, k, x, options_of(method, problem.tau));
      EXPECT_LE(largest_difference(p, expected.p), kTopkError) << name(method) << " " << n;
      if (!is_whole(method) && method != TopkMethod::clip) {
        const Tensor some = expected.p > 1e-250;
        EXPECT_LE(((p - expected.p) / expected.p).masked_select(some).abs().max().item<double>(), 1e-10)
            << name(method) << " " << n;
      }
    }
  }
}

TEST(TopkTorch, PlainTensorsGiveTheKernelsGradients) {
  for (const TopkMethod method : kMethods) {
    for (const std::size_t n : {1U, 2U, 5U, 40U, 333U}) {
      Problem problem = hard_rows(method, n, 7 + n);
      // At a whole k, p has a corner in k wherever clip finds a gap wider than tau.
      for (double& value : problem.k) value *= method == TopkMethod::clip ? 0.9371 : 1;
      const Tensor x = problem.rows().requires_grad_(), k = numbers(problem.k).requires_grad_(),
                   tau = numbers(problem.tau).requires_grad_();
      std::mt19937_64 random(n);
      const Tensor v = normal(random, x.sizes());
      const Expected expected = expected_of(x.detach(), k, v, options_of(method, problem.tau));
      const Tensor p = topk::plain_smooth_topk(x, k, tau, method);
      const auto g = grad({p}, {x, k, tau}, {v}, {}, false, /*allow_unused=*/true);
      EXPECT_LE(largest_difference(g[0], expected.in_x), is_whole(method) ? 1e-10 : 1e-12) << name(method) << " " << n;
      if (!is_whole(method)) {
        EXPECT_LE(largest_difference(g[1], expected.in_k), 1e-12) << name(method) << " " << n;
      }
      // z, which is large on rows of large spread, is a factor of the derivative in tau.
      const Tensor size = (x.detach().nan_to_num(0, 0, 0).abs().amax(-1) / tau.detach().clamp_min(1e-2)).clamp_min(1);
      EXPECT_LE(largest_difference(g[2] / size, expected.in_tau / size), 1e-11) << name(method) << " " << n;
    }
  }
}

struct Smooth {
  Tensor x, k, tau, v, w;
};

/// Whether an entry lies where the first or second derivative of f jumps.
bool is_at_corner(TopkMethod method, const Smooth& rows) {
  if (is_whole(method) || method == TopkMethod::sigmoid) return false;
  const Tensor x = rows.x;
  Tensor p = torch::empty_like(x);
  const auto found =
      smooth_topk<double>({x.data_ptr<double>(), x.size(0), x.size(1)}, values_of(rows.k),
                          options_of(method, values_of(rows.tau)), {p.data_ptr<double>(), x.size(0), x.size(1)});
  for (std::int64_t row = 0; row < x.size(0); ++row) {
    const Tensor z = (x[row] - found[static_cast<std::size_t>(row)].threshold) / rows.tau[row];
    const Tensor far = method == TopkMethod::clip ? torch::minimum(z.abs(), (z - 1).abs()) : z.abs();
    if (far.min().item<double>() < 0.02) return true;
  }
  return false;
}

/// Rows on which differences show derivatives.
Smooth smooth_rows(TopkMethod method, std::uint64_t seed) {
  std::mt19937_64 random(seed);
  Smooth rows{{}, numbers({2, 3, 5}), numbers({0.7, 1.3, 2.1}), {}, {}};
  if (!is_whole(method)) rows.k = rows.k + numbers({0.3, -0.2, 0.45});
  do rows.x = normal(random, {3, 8}, 2);
  while (is_at_corner(method, rows));
  rows.v = normal(random, {3, 8}), rows.w = normal(random, {3, 8});
  return rows;
}

using Inputs = std::vector<Tensor>;

/// (value(inputs + h direction) - value(inputs - h direction)) / 2 h, with its error of h^2 removed.
template <class Value>
double slope_along(const Value& value, const Inputs& inputs, const Inputs& direction, double h) {
  const auto at = [&](double by) {
    Inputs moved;
    for (std::size_t i = 0; i < inputs.size(); ++i) moved.push_back(inputs[i].detach() + by * direction[i]);
    return value(moved);
  };
  const auto central = [&](double step) { return (at(step) - at(-step)) / (2 * step); };
  return (4 * central(h / 2) - central(h)) / 3;
}

Inputs directions(const Inputs& inputs, TopkMethod method, std::uint64_t seed) {
  std::mt19937_64 random(seed);
  Inputs found;
  for (const Tensor& input : inputs) found.push_back(normal(random, input.sizes()));
  if (is_whole(method)) found[1].zero_();
  return found;
}

double inner(const Inputs& a, const Inputs& b) {
  double sum = 0;
  for (std::size_t i = 0; i < a.size(); ++i) {
    if (a[i].defined()) sum += (a[i] * b[i]).sum().item<double>();
  }
  return sum;
}

Inputs leaves(const Inputs& inputs) {
  Inputs found;
  for (const Tensor& input : inputs) found.push_back(input.detach().clone().requires_grad_());
  return found;
}

constexpr double kStep = 1e-3;

TEST(TopkTorch, GradientsAreDifferences) {
  for (const TopkMethod method : kMethods) {
    for (std::uint64_t seed = 0; seed < 5; ++seed) {
      const Smooth rows = smooth_rows(method, seed);
      const Inputs inputs = leaves({rows.x, rows.k, rows.tau}), along = directions(inputs, method, seed + 100);
      const auto value = [&](const Inputs& at) { return smooth_topk(at[0], at[1], at[2], options_of(method)); };
      const auto g = grad({value(inputs)}, inputs, {rows.v});
      const double expected = slope_along([&](const Inputs& at) { return (value(at) * rows.v).sum().item<double>(); },
                                          inputs, along, kStep);
      EXPECT_NEAR(inner(g, along), expected, 1e-8) << name(method) << " " << seed;
    }
  }
}

/// The gradient of sum w . (gradient of sum v p in x, k and tau), with create_graph.
TEST(TopkTorch, SecondDerivativesAreDifferencesOfTheFirst) {
  for (const TopkMethod method : kMethods) {
    for (std::uint64_t seed = 0; seed < 5; ++seed) {
      const Smooth rows = smooth_rows(method, seed);
      const auto first = [&](const Inputs& at, bool again) {
        const Tensor p = smooth_topk(at[0], at[1], at[2], options_of(method));
        const auto g = grad({p}, {at[0], at[1], at[2]}, {at[3]}, again, again, /*allow_unused=*/true);
        Tensor sum = (g[0] * rows.w).sum() + (g[2] * rows.w.select(1, 0)).sum();
        if (!is_whole(method)) sum = sum + (g[1] * rows.w.select(1, 1)).sum();
        return sum;
      };
      const Inputs inputs = leaves({rows.x, rows.k, rows.tau, rows.v}), along = directions(inputs, method, seed + 200);
      const auto g = grad({first(inputs, true)}, inputs, {}, {}, false, /*allow_unused=*/true);
      const double expected =
          slope_along([&](const Inputs& at) { return first(leaves(at), false).item<double>(); }, inputs, along, kStep);
      EXPECT_NEAR(inner(g, along), expected, 1e-7) << name(method) << " " << seed;
    }
  }
}

TEST(TopkTorch, ThirdDerivativesAreDifferencesOfTheSecond) {
  for (const TopkMethod method : {TopkMethod::sigmoid, TopkMethod::gradient, TopkMethod::softmax_iterated}) {
    const Smooth rows = smooth_rows(method, 9);
    const auto second = [&](const Inputs& at) {
      const Tensor p = smooth_topk(at[0], at[1], at[2], options_of(method));
      const Tensor g = grad({p}, {at[0]}, {rows.v}, true, true)[0];
      const auto h = grad({(g * rows.w).sum()}, {at[0], at[2]}, {}, true, true);
      return (h[0] * rows.v).sum() + h[1].sum();
    };
    const Inputs inputs = leaves({rows.x, rows.k, rows.tau}), along = directions(inputs, method, 300);
    const auto g = grad({second(inputs)}, inputs, {}, {}, false, /*allow_unused=*/true);
    const double expected =
        slope_along([&](const Inputs& at) { return second(leaves(at)).item<double>(); }, inputs, along, kStep);
    EXPECT_NEAR(inner(g, along), expected, 1e-6) << name(method);
  }
}

/// What where() hides would still show as a NaN of a derivative.
TEST(TopkTorch, SecondDerivativesAreFiniteOnHardRows) {
  for (const TopkMethod method : kMethods) {
    for (const std::size_t n : {1U, 2U, 9U}) {
      const Problem problem = hard_rows(method, n, 40 + n);
      const Inputs inputs = leaves({problem.rows(), numbers(problem.k), numbers(problem.tau)});
      std::mt19937_64 random(n);
      const Tensor p = smooth_topk(inputs[0], inputs[1], inputs[2], options_of(method));
      const auto g = grad({p}, inputs, {normal(random, p.sizes())}, true, true, true);
      for (const Tensor& each : g) EXPECT_TRUE(!each.defined() || each.isfinite().all().item<bool>()) << name(method);
      const auto h = grad({(g[0] * normal(random, p.sizes())).sum()}, inputs, {}, {}, false, true);
      for (const Tensor& each : h) EXPECT_TRUE(!each.defined() || each.isfinite().all().item<bool>()) << name(method);
    }
  }
}

/// The article's way to a gradient: x . sg[slope] + sg[threshold - x . slope] has the threshold's value and slope.
TEST(TopkTorch, TheStopGradientFormHasTheSameGradient) {
  for (const TopkMethod method :
       {TopkMethod::exponential, TopkMethod::sigmoid, TopkMethod::laplace, TopkMethod::clip}) {
    for (std::uint64_t seed = 0; seed < 5; ++seed) {
      const Smooth rows = smooth_rows(method, seed);
      const Tensor x = rows.x.requires_grad_(), tau = torch::ones({3}, torch::kFloat64);
      const auto f = [&](const Tensor& z) {
        const Tensor down = -z.abs();
        return method == TopkMethod::exponential ? z.exp().clamp_max(1)
               : method == TopkMethod::sigmoid   ? z.sigmoid()
               : method == TopkMethod::clip      ? z.clamp(0, 1)
                                                 : torch::where(z >= 0, 1 - down.exp() / 2, down.exp() / 2);
      };
      const Tensor p = smooth_topk(x, rows.k, tau, options_of(method));
      // By halving, and its slope f' / sum f'.
      Tensor low = torch::full({3, 1}, -50.0, torch::kFloat64), high = -low;
      for (int i = 0; i < 80; ++i) {
        const Tensor middle = (low + high) / 2;
        const Tensor is_more = f(x.detach() - middle).sum(-1, true) > rows.k.unsqueeze(-1);
        low = torch::where(is_more, middle, low), high = torch::where(is_more, high, middle);
      }
      const Tensor at = (x.detach() - low).requires_grad_();
      const Tensor rise = grad({f(at).sum()}, {at})[0], slope = rise / rise.sum(-1, true);
      const Tensor along = (x * slope).sum(-1, true);
      const Tensor twin = f(x - (along + (low - along).detach()));
      EXPECT_LE(largest_difference(p, twin), 1e-12) << name(method);
      EXPECT_LE(largest_difference(grad({p}, {x}, {rows.v})[0], grad({twin}, {x}, {rows.v})[0]), 1e-12) << name(method);
    }
  }
}

TEST(TopkTorch, TakesBatchesOfAnyShape) {
  std::mt19937_64 random(3);
  const Tensor x = normal(random, {4, 3, 2, 7}), k = numbers({1.5, 2, 3}).unsqueeze(-1);  // broadcasts to [4, 3, 2]
  const Tensor tau = normal(random, {4, 1, 2}).exp();
  const Tensor p = smooth_topk(x, k, tau);
  ASSERT_EQ(p.sizes(), x.sizes());
  for (std::int64_t a = 0; a < 4; ++a) {
    for (std::int64_t b = 0; b < 3; ++b) {
      for (std::int64_t c = 0; c < 2; ++c) {
        const Tensor one = smooth_topk(x[a][b][c], k[b][0].item<double>(),
                                       options_of(TopkMethod::laplace, {tau[a][0][c].item<double>()}));
        EXPECT_TRUE(torch::equal(p[a][b][c], one));
      }
    }
  }
  // Not contiguous, and the gradient arrives expanded.
  const Tensor turned = x.permute({2, 3, 0, 1}).requires_grad_(), straight = x.permute({2, 0, 1, 3}).requires_grad_();
  const Tensor a = smooth_topk(turned.permute({0, 2, 3, 1}), 2.5), b = smooth_topk(straight.contiguous(), 2.5);
  EXPECT_TRUE(torch::equal(a, b));
  EXPECT_TRUE(torch::equal(grad({a.select(-1, 0).sum()}, {turned})[0].permute({0, 2, 3, 1}),
                           grad({b.select(-1, 0).sum()}, {straight})[0]));
  // Gradients of what is shared add up.
  const Tensor shared = torch::tensor(2.5, torch::kFloat64).requires_grad_(),
               each = torch::full({4, 3, 2}, 2.5, torch::kFloat64).requires_grad_();
  const Tensor v = normal(random, x.sizes()), one = torch::ones({}, torch::kFloat64);
  EXPECT_NEAR(grad({smooth_topk(x, shared, one)}, {shared}, {v})[0].item<double>(),
              grad({smooth_topk(x, each, one)}, {each}, {v})[0].sum().item<double>(), 1e-12);
}

TEST(TopkTorch, TakesEmptyBatchesAndRows) {
  for (const TopkMethod method : kMethods) {
    for (const auto& sizes : std::vector<std::vector<std::int64_t>>{{0, 5}, {3, 0}, {0}, {2, 0, 4}}) {
      const Tensor x = torch::empty(sizes, torch::kFloat64).requires_grad_();
      const double k = sizes.back() == 0 ? 0 : 2;
      EXPECT_EQ(smooth_topk(x, k, options_of(method)).sizes(), x.sizes());
      EXPECT_EQ(grad({smooth_topk(x, k, options_of(method)).sum()}, {x})[0].sizes(), x.sizes());
      EXPECT_EQ(grad({grad({smooth_topk(x, k, options_of(method)).sum()}, {x}, {}, true, true)[0].sum()}, {x}, {}, {},
                     false, true)
                    .size(),
                1U);
      EXPECT_EQ(topk_log_partition(x, torch::tensor(k), torch::tensor(1.0)).sizes(),
                x.sizes().slice(0, sizes.size() - 1));
    }
  }
  const Tensor one = numbers({-3.5});
  EXPECT_EQ(smooth_topk(one, 1).item<double>(), 1);
  EXPECT_EQ(smooth_topk(one, 0.25).item<double>(), 0.25);
}

TEST(TopkTorch, HardChoiceKeepsTheGradientOfTheSmooth) {
  std::mt19937_64 random(5);
  for (const TopkMethod method : kMethods) {
    for (const double k : {0.0, 1.0, 3.0, 2.25, 7.0}) {
      if (is_whole(method) && k != std::floor(k)) continue;
      for (const auto type : {torch::kFloat64, torch::kFloat32, torch::kBFloat16, torch::kFloat16}) {
        Tensor x = normal(random, {4, 7}).mul(3).round().to(type);  // with ties
        x.requires_grad_();
        auto options = options_of(method, {0.7, 1, 2, 3});
        const Tensor smooth = smooth_topk(x, k, options);
        options.hard = true;
        const Tensor hard = smooth_topk(x, k, options), v = normal(random, {4, 7}).to(type);
        for (std::int64_t row = 0; row < 4; ++row) {
          const std::vector<double> entries = values_of(x[row]);
          const auto chosen = top_indices(std::span<const double>(entries), static_cast<std::int64_t>(std::ceil(k)));
          Tensor expected = torch::zeros({7}, torch::kFloat64);
          for (const std::int64_t i : chosen) expected[i] = i == chosen.back() ? k - std::ceil(k) + 1 : 1.0;
          EXPECT_TRUE(torch::equal(hard[row], expected.to(type))) << name(method) << k;
        }
        EXPECT_TRUE(torch::equal(grad({hard}, {x}, {v})[0], grad({smooth}, {x}, {v})[0])) << name(method) << k;
      }
    }
  }
}

TEST(TopkTorch, TemperaturesAreThoseOfTheLibrary) {
  std::mt19937_64 random(6);
  for (const TopkMethod method : kMethods) {
    for (const auto temperature : {TopkTemperature::scale_free, TopkTemperature::entropy}) {
      const Tensor x = (normal(random, {3, 9}) * numbers({1, 40, 1e-3}).unsqueeze(-1)).requires_grad_();
      const Tensor v = normal(random, {3, 9}), k = numbers({2, 3, 4});
      auto options = options_of(method, {0.3, 0.5, 0.7});
      options.temperature = temperature, options.entropy_bits = 0.2;
      const Tensor tau = numbers(options.tau).requires_grad_();
      const Expected expected = expected_of(x.detach(), k, v, options);
      const Tensor p = smooth_topk(x, k, tau, options);
      EXPECT_LE(largest_difference(p, expected.p), 1e-12) << name(method);
      EXPECT_TRUE(torch::equal(p, smooth_topk(x, k, options)));
      const auto g = grad({p}, {x, tau}, {v}, {}, false, /*allow_unused=*/true);
      const double size = expected.in_x.abs().max().item<double>();
      EXPECT_LE(largest_difference(g[0], expected.in_x), 1e-11 * size) << name(method);
      EXPECT_EQ(g[1].defined(), temperature == TopkTemperature::scale_free);
      if (g[1].defined()) {
        EXPECT_LE(largest_difference(g[1], expected.in_tau), 1e-11) << name(method);
      }
    }
  }
  // Rows without a deviation, and with masks and the like, give no NaN.
  const Tensor x =
      torch::stack({numbers({2, 2, 2}), numbers({-kInfinity, 1, 5}), numbers({kInfinity, 1, 5})}).requires_grad_();
  SmoothTopkOptions options;
  options.temperature = TopkTemperature::scale_free;
  const Tensor p = smooth_topk(x, 1.5, options);
  EXPECT_TRUE(torch::equal(p.detach(), expected_of(x.detach(), numbers({1.5, 1.5, 1.5}), x, options).p));
  EXPECT_TRUE(grad({p.select(1, 1).sum()}, {x})[0].isfinite().all().item<bool>());
}

TEST(TopkTorch, ChoiceHoldsTheLargestInOrder) {
  const Tensor x = torch::stack({numbers({1, 5, 3, 5, -kInfinity}), numbers({0, 0, 0, 0, 0})}).requires_grad_();
  const auto choice = smooth_topk_choice(x, 3);
  EXPECT_TRUE(torch::equal(choice.indices, torch::tensor({{1, 3, 2}, {0, 1, 2}}, torch::kInt64)));
  const Tensor p = smooth_topk(x, 3);
  EXPECT_TRUE(torch::equal(choice.values, p.gather(-1, choice.indices)));
  const Tensor g = grad({choice.values.select(1, 0).sum()}, {x})[0];
  EXPECT_TRUE(torch::equal(g, grad({p[0][1] + p[1][0]}, {x})[0]));
  EXPECT_EQ(smooth_topk_choice(x, 0).values.size(-1), 0);
  EXPECT_THROW(smooth_topk_choice(x, 5), std::invalid_argument);  // of four that are not masked
}

TEST(TopkTorch, LogPartitionIsTheSumOverSubsets) {
  std::mt19937_64 random(8);
  for (int n = 1; n <= 9; ++n) {
    for (int k = 0; k <= n; ++k) {
      const Tensor x = normal(random, {n}, 3).requires_grad_();
      const double tau = 0.8;
      double sum = 0;
      const std::vector<double> entries = values_of(x);
      for (unsigned subset = 0; subset < 1U << n; ++subset) {
        if (std::popcount(subset) != k) continue;
        double weight = 0;
        for (std::size_t i = 0; i < entries.size(); ++i) weight += (subset >> i & 1U) != 0 ? entries[i] / tau : 0;
        sum += std::exp(weight);
      }
      const Tensor log_z = topk_log_partition(x, torch::tensor(k), torch::tensor(tau, torch::kFloat64));
      EXPECT_NEAR(log_z.item<double>(), std::log(sum), 1e-12 * (1 + std::abs(std::log(sum)))) << n << " " << k;
      const Tensor p = smooth_topk(x.detach(), k, options_of(TopkMethod::gradient, {tau}));
      const Tensor g = k > 0 ? grad({log_z}, {x})[0] : torch::zeros_like(x);
      EXPECT_LE(largest_difference(g * tau, p), 1e-12) << n << " " << k;
    }
  }
}

TEST(TopkTorch, LogPartitionIsThatOfTheKernelsWithItsGradients) {
  const Problem problem = hard_rows(TopkMethod::gradient, 60, 11);
  const Inputs inputs = leaves({problem.rows(), numbers(problem.k), numbers(problem.tau)});
  const Expected expected =
      expected_of(inputs[0].detach(), inputs[1], inputs[0].detach(), options_of(TopkMethod::gradient, problem.tau));
  const Tensor log_z = topk_log_partition(inputs[0], inputs[1], inputs[2]);
  for (std::int64_t row = 0; row < log_z.size(0); ++row) {
    const auto found = log_z[row].item<double>(), wanted = expected.log_z[row].item<double>();
    EXPECT_EQ(std::isnan(found), std::isnan(wanted)) << row;
    if (!std::isnan(wanted)) {
      EXPECT_NEAR(found, wanted, 1e-12 * (1 + std::abs(wanted))) << row;
    }
  }
  // Entries far apart, where y stands still: a large gap in x and in tau.
  const Inputs far = leaves({numbers({1e4, 0.5, 0, -1, -1e5}), numbers({2}).squeeze(0), numbers({1.5}).squeeze(0)});
  const auto value = [](const Inputs& at) { return topk_log_partition(at[0], at[1], at[2]); };
  const auto g = grad({value(far)}, {far[0], far[2]});
  const double rest = std::exp(0.5 / 1.5) + 1 + std::exp(-1 / 1.5);
  EXPECT_NEAR(value(far).item<double>(), 1e4 / 1.5 + std::log(rest), 1e-8);
  EXPECT_NEAR(g[0][0].item<double>(), 1 / 1.5, 1e-15);
  EXPECT_NEAR(g[1].item<double>(), -(1e4 + (0.5 * std::exp(0.5 / 1.5) - std::exp(-1 / 1.5)) / rest) / (1.5 * 1.5),
              1e-8);
  const Smooth rows = smooth_rows(TopkMethod::gradient, 12);
  const Inputs smooth = leaves({rows.x, rows.k, rows.tau}), along = directions(smooth, TopkMethod::gradient, 400);
  const auto first = [&](const Inputs& at) {
    const auto slopes = grad({value(at).sum()}, {at[0], at[2]}, {}, true, true);
    return (slopes[0] * rows.w).sum() + slopes[1].sum();
  };
  EXPECT_NEAR(inner(grad({first(smooth)}, smooth, {}, {}, false, true), along),
              slope_along([&](const Inputs& at) { return first(leaves(at)).item<double>(); }, smooth, along, kStep),
              1e-7);
}

/// clip is made of straight pieces: its second derivative is 0, but it is there.
TEST(TopkTorch, ClipHasASecondDerivativeOfZero) {
  const Tensor x = numbers({0.3, 0.1, -0.2, 0.9, 0.5}).requires_grad_();
  const Tensor p = smooth_topk(x, 2, options_of(TopkMethod::clip));
  const Tensor gradient = torch::autograd::grad({(p * numbers({3, 1, 4, 1, 5})).sum()}, {x}, {}, true, true)[0];
  EXPECT_GT(gradient.abs().max().item<double>(), 0);
  const Tensor second = torch::autograd::grad({gradient.square().sum()}, {x})[0];
  EXPECT_TRUE(second.equal(torch::zeros_like(second))) << second;
}

TEST(TopkTorch, RefusesBadInputOnBothPaths) {
  const auto expect_refusal = [](const std::string& words, const Tensor& x, const Tensor& k, const Tensor& tau,
                                 TopkMethod method) {
    for (const bool is_plain : {false, true}) {
      try {
        if (is_plain) {
          topk::plain_smooth_topk(x, k.expand({x.size(0)}), tau.expand({x.size(0)}), method);
        } else {
          smooth_topk(x, k, tau, options_of(method));
        }
        ADD_FAILURE() << words;
      } catch (const std::invalid_argument& error) {
        EXPECT_EQ(error.what(), words) << is_plain;
      }
    }
  };
  const auto one = [](double value) { return torch::tensor(value, torch::kFloat64); };
  const auto laplace = TopkMethod::laplace;
  Tensor x = torch::zeros({3, 4}, torch::kFloat64);
  expect_refusal("[smooth_topk] row 0: k = 5 outside [0, 4], the number of entries that are not masked", x, one(5),
                 one(1), laplace);
  expect_refusal("[smooth_topk] row 2: k = -1 outside [0, 4], the number of entries that are not masked", x,
                 numbers({0, 1, -1}), one(1), laplace);
  expect_refusal("[smooth_topk] row 1: k = 1.5 is not whole, as gradient needs it", x, numbers({1, 1.5, 1}), one(1),
                 TopkMethod::gradient);
  expect_refusal("[smooth_topk] row 1: tau = -1 is negative or not finite", x, one(1), numbers({1, -1, 1}), laplace);
  expect_refusal("[smooth_topk] row 2: tau = nan is negative or not finite", x, one(1), numbers({1, 1, kNaN}), laplace);
  expect_refusal("[smooth_topk] row 0: k = nan outside [0, 4], the number of entries that are not masked", x, one(kNaN),
                 one(1), laplace);
  x[1][2] = -kInfinity;
  expect_refusal("[smooth_topk] row 1: k = 4 outside [0, 3], the number of entries that are not masked", x, one(4),
                 one(1), laplace);
  x[1][2] = 1e301;
  expect_refusal("[smooth_topk] row 1: finite entries lie more than 1e+300 tau apart", x, one(2), one(1), laplace);
  x[1][2] = kNaN;
  expect_refusal("[smooth_topk] row 1: an entry is NaN", x, one(2), one(1), laplace);

  EXPECT_THROW(smooth_topk(torch::tensor(1.0), 1), std::invalid_argument);
  EXPECT_THROW(smooth_topk(torch::ones({2, 3}, torch::kInt64), 1), std::invalid_argument);
  EXPECT_THROW(smooth_topk(torch::ones({2, 3}), numbers({1, 1, 1})), std::invalid_argument);
  EXPECT_THROW(smooth_topk(torch::ones({2, 3}), 1, options_of(laplace, {1, 1, 1})), std::invalid_argument);
}

Tensor call_by_name(const Tensor& x, const Tensor& k, const Tensor& tau, const std::string& method) {
  const auto op = c10::Dispatcher::singleton().findSchemaOrThrow("tuiqiao::smooth_topk", "");
  std::vector<c10::IValue> stack{x, k, tau, method};
  op.callBoxed(stack);
  return stack.at(0).toTensor();
}

TEST(TopkTorch, IsAnOperatorOfLibtorch) {
  std::mt19937_64 random(10);
  const Tensor x = normal(random, {3, 6}).requires_grad_(), k = numbers({1, 2, 3}), tau = torch::tensor(0.5);
  for (const TopkMethod method : kMethods) {
    const Tensor p = call_by_name(x, k, tau, std::string(name(method)));
    EXPECT_TRUE(torch::equal(p, smooth_topk(x, k, options_of(method, {0.5}))));
    EXPECT_TRUE(p.requires_grad());
  }
  EXPECT_THROW(call_by_name(x, k, tau, "argmax"), std::invalid_argument);
  {
    const torch::InferenceMode inference;
    EXPECT_TRUE(
        torch::equal(call_by_name(x, k, tau, "laplace"), smooth_topk(x, k, options_of(TopkMethod::laplace, {0.5}))));
  }
  // Shapes without data, as tracers ask for them.
  const Tensor shape = call_by_name(torch::empty({2, 3, 6}, torch::device(torch::kMeta)), k, tau, "laplace");
  EXPECT_EQ(shape.sizes(), (std::vector<std::int64_t>{2, 3, 6}));
  EXPECT_TRUE(shape.is_meta());
}

TEST(TopkTorch, OtherDevicesGiveTheSame) {
  if (!torch::cuda::is_available()) GTEST_SKIP() << "no CUDA device";
  for (const TopkMethod method : kMethods) {
    const Smooth rows = smooth_rows(method, 20);
    const Inputs here = leaves({rows.x, rows.k, rows.tau});
    const Inputs there = leaves({rows.x.cuda(), rows.k.cuda(), rows.tau.cuda()});
    const Tensor a = smooth_topk(here[0], here[1], here[2], options_of(method)),
                 b = smooth_topk(there[0], there[1], there[2], options_of(method));
    EXPECT_TRUE(b.is_cuda());
    EXPECT_LE(largest_difference(a, b.cpu()), kTopkError) << name(method);
    const auto g = grad({a}, here, {rows.v}), h = grad({b}, there, {rows.v.cuda()});
    for (std::size_t i = 0; i < g.size(); ++i)
      EXPECT_LE(largest_difference(g[i], h[i].cpu()), 1e-11) << name(method) << " " << i;
  }
}

/// Finds the three entries that a target depends on, by choosing three of ten softly.
TEST(TopkTorch, Learns) {
  torch::manual_seed(1);
  const Tensor inputs = torch::randn({64, 10}), target = inputs.narrow(1, 4, 3).sum(1);
  const Tensor scores = torch::zeros({10}).requires_grad_();
  torch::optim::Adam optimizer({scores}, torch::optim::AdamOptions(0.1));
  const auto loss = [&] { return ((inputs * smooth_topk(scores, 3)).sum(1) - target).square().mean(); };
  const double before = loss().item<double>();
  for (int step = 0; step < 200; ++step) {
    optimizer.zero_grad();
    loss().backward();
    optimizer.step();
  }
  EXPECT_LT(loss().item<double>(), 0.01 * before);
  const auto chosen = std::get<0>(smooth_topk_choice(scores, 3).indices.sort());
  EXPECT_TRUE(torch::equal(chosen, torch::tensor({4, 5, 6}, torch::kInt64)));
}

}  // namespace
}  // namespace tuiqiao
#endif
