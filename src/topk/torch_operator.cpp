// clang 14, and so clang-tidy, cannot read libtorch 1.13's headers as C++20.
#ifndef __clang_analyzer__
#include <ATen/ATen.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <c10/core/GradMode.h>
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <torch/csrc/autograd/autograd.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/library.h>

#include <stdexcept>
#include <string>
#include <tuple>
#include <vector>

#include "topk/torch_plain.h"
#include "tuiqiao/topk_torch.h"

namespace tuiqiao {

namespace {

using at::Tensor;

[[noreturn]] void refuse(const std::string& problem) {
  throw std::invalid_argument(fmt::format("[smooth_topk] {}", problem));
}

std::string text(at::IntArrayRef sizes) { return fmt::format("[{}]", fmt::join(sizes, ", ")); }

// One column of the tensor of rows for each number of a SmoothTopkRow.
constexpr std::int64_t kRowNumbers = 5;

Tensor tensor_of(const std::vector<SmoothTopkRow>& rows) {
  Tensor out = at::empty({static_cast<std::int64_t>(rows.size()), kRowNumbers}, at::kDouble);
  double* next = out.data_ptr<double>();
  for (const SmoothTopkRow& row : rows) {
    for (const double value : {row.k, row.tau, row.threshold, row.threshold_rest, row.log_z}) *next++ = value;
  }
  return out;
}

std::vector<SmoothTopkRow> rows_of(const Tensor& tensor) {
  const Tensor numbers = tensor.contiguous();
  const double* next = numbers.data_ptr<double>();
  std::vector<SmoothTopkRow> rows(static_cast<std::size_t>(numbers.size(0)));
  for (SmoothTopkRow& row : rows) {
    for (double* value : {&row.k, &row.tau, &row.threshold, &row.threshold_rest, &row.log_z}) *value = *next++;
  }
  return rows;
}

std::span<const double> values_of(const Tensor& contiguous) {
  return {contiguous.data_ptr<double>(), static_cast<std::size_t>(contiguous.numel())};
}

/// Rows in the memory of a contiguous tensor [B, n].
template <class T>
Batch<T> batch_of(const Tensor& t) {
  return {static_cast<T*>(t.data_ptr()), t.size(0), t.size(1)};
}

/// body(T{}) for the type of a row's entries, as stored() leaves them.
template <class Body>
auto with_type(const Tensor& x, const Body& body) {
  if (x.scalar_type() == at::kFloat) return body(float{});
  if (x.scalar_type() == at::kDouble) return body(double{});
  return body(Bfloat16{});
}

/// As the kernels take it.
Tensor stored(const Tensor& t) { return (t.scalar_type() == at::kHalf ? t.to(at::kFloat) : t).contiguous(); }

std::tuple<Tensor, std::vector<SmoothTopkRow>> solve(const Tensor& x, const Tensor& k,
                                                     const SmoothTopkOptions& options) {
  const Tensor in = stored(x.detach()), each_k = k.detach().contiguous();
  Tensor p = at::empty_like(in);
  auto rows = with_type(in, [&]<class T>(T) {
    return smooth_topk<T>(batch_of<const T>(in), values_of(each_k), options, batch_of<T>(p));
  });
  return {p.to(x.scalar_type()), std::move(rows)};
}

SmoothTopkOptions options_of(const std::string& method, const Tensor& tau) {
  SmoothTopkOptions options;
  options.method = topk_method_from_name(method);
  const Tensor each = tau.detach().contiguous();
  options.tau.assign(values_of(each).begin(), values_of(each).end());
  return options;
}

// The operators behind it take x: [B, n] of such a type, k and tau: [B] in float64, and give p and numbers of each row
// for the gradient: on a CPU those of SmoothTopkRow, else none.

std::tuple<Tensor, Tensor> rows_by_kernels(const Tensor& x, const Tensor& k, const Tensor& tau,
                                           const std::string& method) {
  if (x.size(0) == 0) return {x.clone(), tensor_of({})};
  auto [p, rows] = solve(x, k, options_of(method, tau));
  return {p, tensor_of(rows)};
}

std::tuple<Tensor, Tensor> rows_by_tensors(const Tensor& x, const Tensor& k, const Tensor& tau,
                                           const std::string& method) {
  return {topk::plain_smooth_topk(x, k, tau, topk_method_from_name(method)), at::empty({0}, tau.options())};
}

std::tuple<Tensor, Tensor> rows_without_data(const Tensor& x, const Tensor&, const Tensor& tau,
                                             const std::string& method) {
  topk_method_from_name(method);
  return {at::empty_like(x, at::MemoryFormat::Contiguous), at::empty({x.size(0), kRowNumbers}, tau.options())};
}

std::tuple<Tensor, Tensor, Tensor> vjp_by_kernels(const Tensor& x, const Tensor& rows, const Tensor& v,
                                                  const std::string& method) {
  const Tensor in = stored(x), weights = stored(v.to(x.scalar_type()));
  Tensor out = at::empty_like(in), in_k = at::empty({x.size(0)}, at::kDouble), in_tau = at::empty_like(in_k);
  SmoothTopkOptions options;
  options.method = topk_method_from_name(method);
  const auto found = with_type(in, [&]<class T>(T) {
    return smooth_topk_vjp<T>(batch_of<const T>(in), rows_of(rows), batch_of<const T>(weights), options,
                              batch_of<T>(out));
  });
  for (std::size_t i = 0; i < found.size(); ++i) {
    in_k.data_ptr<double>()[i] = found[i].k;
    in_tau.data_ptr<double>()[i] = found[i].tau;
  }
  return {out.to(x.scalar_type()), in_k, in_tau};
}

std::tuple<Tensor, Tensor, Tensor> vjp_without_data(const Tensor& x, const Tensor& rows, const Tensor&,
                                                    const std::string&) {
  return {at::empty_like(x, at::MemoryFormat::Contiguous), at::empty({x.size(0)}, rows.options()),
          at::empty({x.size(0)}, rows.options())};
}

template <class Signature>
auto operator_named(const char* name) {
  return c10::Dispatcher::singleton().findSchemaOrThrow(name, "").typed<Signature>();
}

std::tuple<Tensor, Tensor> call_rows(const Tensor& x, const Tensor& k, const Tensor& tau, const std::string& method) {
  static const auto op = operator_named<decltype(rows_by_kernels)>("tuiqiao::smooth_topk_rows");
  return op.call(x, k, tau, method);
}

std::tuple<Tensor, Tensor, Tensor> call_vjp(const Tensor& x, const Tensor& rows, const Tensor& v,
                                            const std::string& method) {
  static const auto op = operator_named<decltype(vjp_by_kernels)>("tuiqiao::smooth_topk_vjp");
  return op.call(x, rows, v, method);
}

/// The gradient by way of the plain tensor code, which autograd differentiates, and again where it is to.
std::vector<Tensor> differentiated(const std::vector<Tensor>& inputs, const Tensor& v, TopkMethod method) {
  const bool again = c10::GradMode::is_enabled();
  const c10::AutoGradMode recording(true);
  std::vector<Tensor> here, wanted, gradients(inputs.size());
  for (const Tensor& input : inputs) {
    // A view leaves the hooks of the input alone.
    here.push_back(!input.requires_grad() ? input : again ? input.view_as(input) : input.detach().requires_grad_());
    if (input.requires_grad()) wanted.push_back(here.back());
  }
  const Tensor p = topk::plain_smooth_topk(here[0], here[1], here[2], method);
  if (!p.requires_grad()) return gradients;
  const auto found = torch::autograd::grad({p}, wanted, {v}, again, again, /*allow_unused=*/true);
  for (std::size_t i = 0, next = 0; i < inputs.size(); ++i) {
    if (!inputs[i].requires_grad()) continue;
    gradients[i] = found[next].defined() ? found[next] : at::zeros_like(inputs[i]);
    ++next;
  }
  return gradients;
}

struct SmoothTopkFunction : torch::autograd::Function<SmoothTopkFunction> {
  static std::vector<Tensor> forward(torch::autograd::AutogradContext* context, const Tensor& x, const Tensor& k,
                                     const Tensor& tau, const std::string& method) {
    const at::AutoDispatchBelowAutograd below;
    const auto [p, rows] = call_rows(x, k, tau, method);
    context->save_for_backward({x, k, tau, rows});
    context->mark_non_differentiable({rows});
    context->saved_data["method"] = method;
    return {p, rows};
  }

  static std::vector<Tensor> backward(torch::autograd::AutogradContext* context, const std::vector<Tensor>& outer) {
    const auto saved = context->get_saved_variables();
    const Tensor &x = saved[0], &k = saved[1], &tau = saved[2], &rows = saved[3];
    const std::string method = context->saved_data["method"].toStringRef();
    if (!c10::GradMode::is_enabled() && x.is_cpu()) {
      const auto [in_x, in_k, in_tau] = call_vjp(x, rows, outer[0], method);
      return {in_x, in_k, in_tau, Tensor()};
    }
    auto gradients = differentiated({x, k, tau}, outer[0], topk_method_from_name(method));
    gradients.emplace_back();
    return gradients;
  }
};

std::tuple<Tensor, Tensor> rows_with_gradients(const Tensor& x, const Tensor& k, const Tensor& tau,
                                               const std::string& method) {
  const auto found = SmoothTopkFunction::apply(x, k, tau, method);
  return {found[0], found[1]};
}

at::IntArrayRef batch_sizes(const Tensor& x) {
  if (x.dim() == 0) refuse("x is a number, not rows of entries");
  return x.sizes().slice(0, static_cast<std::size_t>(x.dim()) - 1);
}

/// [B, n], of a type that stored() knows.
Tensor as_rows(const Tensor& x) {
  const at::IntArrayRef batch = batch_sizes(x);
  const auto type = x.scalar_type();
  if (type != at::kFloat && type != at::kDouble && type != at::kBFloat16 && type != at::kHalf)
    refuse(fmt::format("x is of type {}: float32, float64, bfloat16 and float16 are taken", toString(type)));
  return x.reshape({c10::multiply_integers(batch), x.size(-1)});
}

/// k or tau, one for each row of x.
Tensor one_a_row(const Tensor& given, const char* name, const Tensor& x) {
  const at::IntArrayRef wanted = batch_sizes(x);
  if (!at::is_expandable_to(given.sizes(), wanted))
    refuse(fmt::format("{} of shape {} beside x of {}", name, text(given.sizes()), text(x.sizes())));
  return given.to(x.device(), at::kDouble).expand(wanted).reshape({c10::multiply_integers(wanted)});
}

/// Built of operators that autograd knows.
Tensor smooth_topk_operator(const Tensor& x, const Tensor& k, const Tensor& tau, const std::string& method) {
  const auto found = call_rows(as_rows(x), one_a_row(k, "k", x), one_a_row(tau, "tau", x), method);
  return std::get<0>(found).reshape(x.sizes());
}

/// Of the finite entries, [...]; 1 where it is 0. Scaled by the largest distance from the mean, whose square may be no
/// double.
Tensor deviation(const Tensor& x) {
  if (x.size(-1) == 0) return at::ones(batch_sizes(x), x.options().dtype(at::kDouble));
  const Tensor finite = x.isfinite(), number = finite.sum(-1, true).clamp_min(1).to(at::kDouble);
  const Tensor zero = at::zeros({}, number.options()), one = at::ones({}, number.options());
  const Tensor entries = at::where(finite, x.to(at::kDouble), zero);
  const Tensor centred = at::where(finite, entries - (entries / number).sum(-1, true), zero);
  const Tensor most = centred.detach().abs().amax(-1, true), varies = most > 0;
  const Tensor scaled = centred / at::where(varies, most, one);
  const Tensor variance = (scaled * scaled / number).sum(-1, true);
  return at::where(varies, most * at::where(varies, variance, one).sqrt(), one).squeeze(-1);
}

Tensor tau_of_entropy(const Tensor& x, const Tensor& k, const SmoothTopkOptions& options) {
  const Tensor rows = as_rows(x.detach()).cpu(), each_k = one_a_row(k.detach(), "k", rows.reshape(x.sizes()));
  const auto found = std::get<1>(solve(rows, each_k, options));
  std::vector<double> tau;
  for (const SmoothTopkRow& row : found) tau.push_back(row.tau);
  return at::tensor(tau, at::kDouble).reshape(batch_sizes(x)).to(x.device());
}

/// 1 for the first of each row in order, the last of which takes what is left of k.
Tensor hard_choice(const Tensor& x, const Tensor& k) {
  const Tensor order = std::get<1>(x.sort(/*stable=*/true, -1, /*descending=*/true));
  const Tensor place = at::arange(x.size(-1), x.options().dtype(at::kDouble));
  const Tensor values = (k.unsqueeze(-1) - place).clamp(0, 1).to(x.scalar_type());
  return at::zeros_like(x).scatter(-1, order, values);
}

}  // namespace

at::Tensor smooth_topk(const Tensor& x, const Tensor& k, const Tensor& tau, const SmoothTopkOptions& options) {
  Tensor in_units = tau;
  if (options.temperature == TopkTemperature::scale_free) {
    in_units = one_a_row(tau, "tau", x).reshape(batch_sizes(x)) * deviation(x);
  } else if (options.temperature == TopkTemperature::entropy) {
    in_units = tau_of_entropy(x, k, options);
  }
  static const auto op = operator_named<decltype(smooth_topk_operator)>("tuiqiao::smooth_topk");
  Tensor p = op.call(x, k, in_units, std::string(name(options.method)));
  if (!options.hard || x.numel() == 0) return p;
  return hard_choice(x.detach(), one_a_row(k.detach(), "k", x).reshape(batch_sizes(x))) + (p - p.detach());
}

at::Tensor smooth_topk(const Tensor& x, const Tensor& k, const SmoothTopkOptions& options) {
  const std::int64_t rows = c10::multiply_integers(batch_sizes(x));
  const auto given = static_cast<std::int64_t>(options.tau.size());
  if (given != 1 && given != rows) refuse(fmt::format("{} values of tau for {} rows", given, rows));
  const Tensor tau = at::tensor(options.tau, at::kDouble);
  return smooth_topk(x, k, given == 1 ? tau.squeeze(0) : tau.reshape(batch_sizes(x)), options);
}

at::Tensor smooth_topk(const Tensor& x, double k, const SmoothTopkOptions& options) {
  return smooth_topk(x, at::scalar_tensor(k, at::kDouble), options);
}

SmoothTopkChoice smooth_topk_choice(const Tensor& x, std::int64_t k, const SmoothTopkOptions& options) {
  const Tensor p = smooth_topk(x, static_cast<double>(k), options);
  const Tensor order = std::get<1>(x.detach().sort(/*stable=*/true, -1, /*descending=*/true)).narrow(-1, 0, k);
  return {p.gather(-1, order), order};
}

at::Tensor topk_log_partition(const Tensor& x, const Tensor& k, const Tensor& tau) {
  return topk::plain_log_partition(as_rows(x), one_a_row(k, "k", x), one_a_row(tau, "tau", x)).reshape(batch_sizes(x));
}

// Here, where the functions are that users call: a static library keeps what is called only.
TORCH_LIBRARY(tuiqiao, library) {
  library.def("smooth_topk(Tensor x, Tensor k, Tensor tau, str method) -> Tensor", smooth_topk_operator);
  library.def("smooth_topk_rows(Tensor x, Tensor k, Tensor tau, str method) -> (Tensor, Tensor)");
  library.def("smooth_topk_vjp(Tensor x, Tensor rows, Tensor v, str method) -> (Tensor, Tensor, Tensor)");
}

TORCH_LIBRARY_IMPL(tuiqiao, Autograd, library) { library.impl("smooth_topk_rows", rows_with_gradients); }

TORCH_LIBRARY_IMPL(tuiqiao, CPU, library) {
  library.impl("smooth_topk_rows", rows_by_kernels);
  library.impl("smooth_topk_vjp", vjp_by_kernels);
}

TORCH_LIBRARY_IMPL(tuiqiao, CompositeExplicitAutograd, library) { library.impl("smooth_topk_rows", rows_by_tensors); }

TORCH_LIBRARY_IMPL(tuiqiao, Meta, library) {
  library.impl("smooth_topk_rows", rows_without_data);
  library.impl("smooth_topk_vjp", vjp_without_data);
}

}  // namespace tuiqiao
#endif
