#include "tuiqiao/topk.h"

#include <fmt/format.h>
#include <omp.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <functional>
#include <limits>
#include <numeric>
#include <stdexcept>
#include <string>
#include <type_traits>
#include <utility>

#include "parallel.h"
#include "topk/iterated.h"
#include "topk/limits.h"
#include "topk/shape_kernels.h"
#include "topk/subsets.h"
#include "topk/threshold.h"

namespace tuiqiao {

namespace {

using topk::Contents;
using topk::kLeastTau;
using topk::kMostSpread;
using topk::takes_whole_k;
using topk::Threshold;

constexpr double kInfinity = std::numeric_limits<double>::infinity();
constexpr double kNone = std::numeric_limits<double>::quiet_NaN();

constexpr std::array<std::pair<TopkMethod, std::string_view>, 6> kNames{{
    {TopkMethod::softmax_iterated, "softmax_iterated"},
    {TopkMethod::gradient, "gradient"},
    {TopkMethod::exponential, "exponential"},
    {TopkMethod::sigmoid, "sigmoid"},
    {TopkMethod::laplace, "laplace"},
    {TopkMethod::clip, "clip"},
}};

[[noreturn]] void refuse(const char* function, const std::string& problem) {
  throw std::invalid_argument(fmt::format("[{}] {}", function, problem));
}

/// One for all rows, or one a row.
double of_row(std::span<const double> values, std::int64_t row) {
  return values.size() == 1 ? values[0] : values[static_cast<std::size_t>(row)];
}

void check_shapes(const char* function, std::int64_t rows, std::int64_t columns, std::span<const double> k,
                  const SmoothTopkOptions& o) {
  const auto fits = [&](std::size_t size) { return size == 1 || static_cast<std::int64_t>(size) == rows; };
  if (rows < 0 || columns < 0) refuse(function, fmt::format("{} rows of {} entries", rows, columns));
  if (!fits(k.size())) refuse(function, fmt::format("{} values of k for {} rows", k.size(), rows));
  if (!fits(o.tau.size())) refuse(function, fmt::format("{} values of tau for {} rows", o.tau.size(), rows));
  for (std::size_t i = 0; i < o.tau.size(); ++i) {
    if (!(o.tau[i] >= 0 && std::isfinite(o.tau[i])))
      refuse(function, fmt::format("row {}: tau = {} is negative or not finite", i, o.tau[i]));
  }
  if (o.temperature == TopkTemperature::entropy && !(o.entropy_bits > 0 && o.entropy_bits <= 1))
    refuse(function, fmt::format("entropy_bits = {} outside (0, 1]", o.entropy_bits));
}

void check_row(const char* function, std::int64_t row, const Contents& contents, double k, TopkMethod method) {
  const auto say = [&](const std::string& problem) { refuse(function, fmt::format("row {}: {}", row, problem)); };
  if (contents.has_nan) say("an entry is NaN");
  const std::int64_t present = contents.finite + contents.infinite;
  if (!(k >= 0 && k <= static_cast<double>(present)))
    say(fmt::format("k = {} outside [0, {}], the number of entries that are not masked", k, present));
  if (takes_whole_k(method) && k != std::floor(k))
    say(fmt::format("k = {} is not whole, as {} needs it", k, name(method)));
  if (takes_whole_k(method) && k > std::numeric_limits<int>::max())
    say(fmt::format("k = {} above {}, the most for {}", k, std::numeric_limits<int>::max(), name(method)));
}

/// A row as the loops take it: Bfloat16 is widened.
template <class T>
struct Storage {
  using Real = T;
};
template <>
struct Storage<Bfloat16> {
  using Real = float;
};
template <class T>
using Real = typename Storage<T>::Real;

template <class T>
std::span<const Real<T>> widened(std::span<const T> row, std::vector<Real<T>>& buffer) {
  if constexpr (std::is_same_v<T, Bfloat16>) {
    buffer.assign(row.size(), 0);
    for (std::size_t i = 0; i < row.size(); ++i) buffer[i] = static_cast<float>(row[i]);
    return buffer;
  } else {
    return row;
  }
}

template <class R, class T>
void put(const std::vector<R>& from, std::span<T> to) {
  for (std::size_t i = 0; i < to.size(); ++i) to[i] = T(static_cast<Real<T>>(from[i]));
}

/// Ties at the edge share what is left of k. Returns the edge.
template <class R>
double hard(std::span<const R> x, double k, std::span<R> p) {
  std::vector<R> sorted(x.begin(), x.end());
  const auto at = sorted.begin() + static_cast<std::ptrdiff_t>(std::ceil(k)) - 1;
  std::nth_element(sorted.begin(), at, sorted.end(), std::greater<>());
  const R edge = *at;
  double above = 0, equal = 0;
  for (const R v : x) above += v > edge ? 1 : 0, equal += v == edge ? 1 : 0;
  for (std::size_t i = 0; i < x.size(); ++i)
    p[i] = x[i] > edge ? R{1} : x[i] == edge ? static_cast<R>((k - above) / equal) : R{0};
  return static_cast<double>(edge);
}

/// The finite entries in double, for the methods that take nothing else.
struct Finite {
  std::vector<double> x, p;

  template <class R>
  Finite(std::span<const R> row, const Contents& contents)
      : x(of(row, row, contents)), p(x.size()), is_all_(x.size() == row.size()) {}

  /// Of another row, those that belong to finite entries of this one.
  template <class R>
  static std::vector<double> of(std::span<const R> row, std::span<const R> wanted, const Contents& contents) {
    std::vector<double> taken;
    if (contents.finite == static_cast<std::int64_t>(row.size())) {
      taken.assign(wanted.begin(), wanted.end());
    } else {
      taken.reserve(static_cast<std::size_t>(contents.finite));
      for (std::size_t i = 0; i < row.size(); ++i) {
        if (std::isfinite(row[i])) taken.push_back(static_cast<double>(wanted[i]));
      }
    }
    return taken;
  }
  template <class R>
  void put_back(std::span<const R> row, double infinite, std::span<R> out) const {
    if (is_all_) return put(p, out);
    std::size_t next = 0;
    for (std::size_t i = 0; i < row.size(); ++i) {
      const R v = row[i];
      out[i] = std::isfinite(v) ? static_cast<R>(p[next++]) : v > 0 ? static_cast<R>(infinite) : R{0};
    }
  }

 private:
  bool is_all_;
};

/// float32 has no room for tau far from 1.
template <class R>
bool fits(double tau) {
  return std::is_same_v<R, double> || (tau > 1e-30 && tau < 1e30);
}

void keep(SmoothTopkRow& row, Threshold at) {
  row.threshold = at.t();
  row.threshold_rest = (at.base - row.threshold) + at.offset;
}

/// One row, which has a number for messages, at one temperature, in units of x.
template <class R>
SmoothTopkRow solve(std::int64_t number, TopkMethod method, std::span<const R> x, const Contents& contents, double k,
                    double tau, std::span<R> p, const Progress& progress) {
  SmoothTopkRow result{k, tau, kNone, 0, kNone};
  const auto infinite = static_cast<double>(contents.infinite), finite = static_cast<double>(contents.finite);
  const bool has_threshold = !takes_whole_k(method);
  // The iterated softmax stays uneven with k = n.
  const bool takes_all = k == infinite + finite && method != TopkMethod::softmax_iterated;
  if (k <= infinite || takes_all) {
    // Nothing is left to choose among finite entries.
    const double share = k >= infinite ? 1 : k / infinite, rest = k > infinite ? 1 : 0;
    if (has_threshold) result.threshold = k > infinite ? -kInfinity : kInfinity;
    if (method == TopkMethod::gradient && contents.infinite == 0 && tau > kLeastTau) {
      result.log_z = 0;
      for (const R v : x) result.log_z += std::isfinite(v) && k > 0 ? static_cast<double>(v) / tau : 0;
    }
    // Last, since p may be x.
    for (std::size_t i = 0; i < x.size(); ++i) p[i] = static_cast<R>(std::isfinite(x[i]) ? rest : x[i] > 0 ? share : 0);
    return result;
  }
  if (!(tau > kLeastTau)) {
    const double edge = hard(x, k, p);
    if (has_threshold) result.threshold = edge;
    return result;
  }
  if (!((contents.most - contents.least) / tau < kMostSpread))
    refuse("smooth_topk", fmt::format("row {}: finite entries lie more than {:g} tau apart", number, kMostSpread));
  if (has_threshold) {
    if (fits<R>(tau)) {
      const Threshold at = topk::find_threshold(method, x, contents, k, tau);
      keep(result, at);
      topk::shape_values(method, x, at, p);
    } else {
      const std::vector<double> wide(x.begin(), x.end());
      std::vector<double> out(wide.size());
      const Threshold at = topk::find_threshold(method, std::span<const double>(wide), contents, k, tau);
      keep(result, at);
      topk::shape_values(method, std::span<const double>(wide), at, out);
      put(out, p);
    }
    return result;
  }
  Finite row(x, contents);
  const int rest = static_cast<int>(k - infinite);
  if (method == TopkMethod::gradient) {
    const double log_z = topk::subset_marginals(row.x, rest, tau, row.p);
    if (contents.infinite == 0) result.log_z = log_z;
  } else {
    topk::softmax_iterated(row.x, rest, tau, row.p, progress);
  }
  row.put_back(x, 1, p);
  return result;
}

/// Scaled by the largest distance from the mean, whose square may be no double.
double deviation(std::span<const double> x) {
  double mean = 0, most = 0, squares = 0;
  for (const double v : x) mean += v / static_cast<double>(x.size());
  for (const double v : x) most = std::max(most, std::abs(v - mean));
  if (!(most > 0)) return 0;
  for (const double v : x) squares += (v - mean) / most * ((v - mean) / most) / static_cast<double>(x.size());
  return most * std::sqrt(squares);
}

template <class R>
double mean_entropy_bits(std::span<const R> p, std::int64_t present) {
  double sum = 0;
  for (const R v : p) {
    const auto q = std::clamp(static_cast<double>(v), 0.0, 1.0);
    if (q > 0 && q < 1) sum -= q * std::log2(q) + (1 - q) * std::log2(1 - q);
  }
  return sum / static_cast<double>(present);
}

/// The temperature, in units of x, at which p has the wished entropy: by halving its logarithm.
template <class R>
double tau_of_entropy(std::int64_t row, const SmoothTopkOptions& o, std::span<const R> x, const Contents& contents,
                      double k, std::span<R> p, const Progress& progress) {
  const std::int64_t present = contents.finite + contents.infinite;
  const double range = contents.most - contents.least;
  if (!(range > 0) || k <= static_cast<double>(contents.infinite) || k == static_cast<double>(present)) return 1;
  const auto entropy = [&](double log_tau) {
    solve(row, o.method, x, contents, k, std::exp(log_tau), p, progress);
    return mean_entropy_bits(std::span<const R>(p), present);
  };
  const double least = std::max(std::log(range) - 680, std::log(kLeastTau) + 1);
  double low = std::max(std::log(range) - 40, least), high = std::min(std::log(range) + 10, 709.0);
  if (entropy(high) < o.entropy_bits) {
    refuse("smooth_topk", fmt::format("row {}: entropy_bits = {} is above that of p = k / n", row, o.entropy_bits));
  }
  bool is_above = entropy(low) > o.entropy_bits;
  while (is_above && low > least) {  // a far entry makes the range large
    low = std::max(low - 40, least);
    is_above = entropy(low) > o.entropy_bits;
  }
  if (is_above) {
    refuse("smooth_topk",
           fmt::format("row {}: ties at the edge keep the entropy above entropy_bits = {}", row, o.entropy_bits));
  }
  for (int i = 0; i < 60 && high - low > 1e-12; ++i) {
    const double middle = low + (high - low) / 2;
    (entropy(middle) < o.entropy_bits ? low : high) = middle;
  }
  return std::exp(low + (high - low) / 2);
}

/// 1 for the chosen, the last of which takes what is left of k.
template <class R>
void put_hard(const std::vector<std::int64_t>& chosen, double k, std::span<R> p) {
  std::fill(p.begin(), p.end(), R{0});
  for (const std::int64_t i : chosen) p[static_cast<std::size_t>(i)] = R{1};
  if (!chosen.empty()) p[static_cast<std::size_t>(chosen.back())] = static_cast<R>(k - std::ceil(k) + 1);
}

/// Calls body(row, progress) for all rows, on OpenMP's threads; few long rows one by one, since each goes through the
/// threads. A row reports only where it is the only one, so that reports come from the caller's thread.
template <class Body>
void for_each_row(std::int64_t rows, std::int64_t columns, const Progress& progress, const Body& body) {
  constexpr std::int64_t kLong = 1 << 18;
  const Progress silent{{}, progress.stop};
  const auto one = [&](std::int64_t i) {
    silent.step({}, 0, 0);
    body(i, rows == 1 ? progress : silent);
  };
  if (rows == 1 || (columns >= kLong && rows < 4 * std::int64_t{omp_get_max_threads()})) {
    for (std::int64_t i = 0; i < rows; ++i) {
      if (rows > 1) progress.step("rows", i, rows);
      one(i);
    }
  } else {
    parallel_for(rows, one);
  }
}

/// sum of g x / tau for a gradient g whose sum is 0, about the point where g lies: less cancels.
double slope_in_scale(std::span<const double> x, std::span<const double> g, double tau) {
  // transform_reduce adds in several sums at once.
  const auto sum_of = [&](const auto& term) {
    return std::transform_reduce(x.begin(), x.end(), g.begin(), 0.0, std::plus<>(), term);
  };
  const double size = sum_of([](double, double slope) { return std::abs(slope); });
  if (!(size > 0)) return 0;
  const double centre = sum_of([=](double at, double slope) { return std::abs(slope) / size * at; });
  return sum_of([=](double at, double slope) { return slope * ((at - centre) / tau); });
}

/// The gradient of one row where something can still move.
template <class R>
SmoothTopkGradient pull_back(TopkMethod method, std::span<const R> x, const SmoothTopkRow& row, std::span<const R> v,
                             std::span<R> out, const Progress& progress) {
  SmoothTopkGradient gradient;
  const auto nothing_moves = [&] {
    std::fill(out.begin(), out.end(), R{0});
    return SmoothTopkGradient{};
  };
  if (takes_whole_k(method)) {
    const Contents contents = topk::contents_of(x);
    Finite finite(x, contents);
    const std::vector<double> weights = Finite::of(x, v, contents);
    std::vector<double> g(finite.x.size());
    const auto left = static_cast<std::int64_t>(row.k) - contents.infinite;
    if (left <= 0 || left > contents.finite - (method == TopkMethod::gradient ? 1 : 0)) return nothing_moves();
    const int rest = static_cast<int>(left);  // k fits
    if (method == TopkMethod::gradient) {
      topk::subset_vjp(finite.x, rest, row.tau, weights, g);
      gradient.tau = -slope_in_scale(finite.x, g, row.tau);
    } else {
      gradient.tau = topk::softmax_iterated_vjp(finite.x, rest, row.tau, weights, g, progress);
    }
    finite.p = std::move(g);
    finite.put_back(x, 0, out);
    return gradient;
  }
  if (!std::isfinite(row.threshold)) return nothing_moves();
  if (!fits<R>(row.tau)) {
    const std::vector<double> wide(x.begin(), x.end()), wide_v(v.begin(), v.end());
    std::vector<double> wide_out(x.size());
    gradient = pull_back<double>(method, wide, row, wide_v, wide_out, progress);
    put(wide_out, out);
    return gradient;
  }
  const Threshold at{row.threshold, row.threshold_rest, 1 / row.tau};
  const topk::SlopeSums sums = topk::slope_sums(method, x, v, at);
  if (!(sums.slope > 0)) return nothing_moves();
  const double mean = sums.slope_v / sums.slope;
  topk::slope_values(method, x, v, at, mean, 1 / row.tau, out);
  gradient.k = mean;
  gradient.tau = (mean * sums.slope_z - sums.slope_v_z) / row.tau;
  return gradient;
}

}  // namespace

double smooth_topk_by(const std::function<double(double)>& f, const std::function<double(double)>& slope,
                      std::span<const double> x, double k, double tau, std::span<double> p) {
  const Contents contents = topk::contents_of(x);
  if (p.size() != x.size()) refuse("smooth_topk_by", fmt::format("p has {} entries, x {}", p.size(), x.size()));
  check_row("smooth_topk_by", 0, contents, k, TopkMethod::sigmoid);
  const double infinite = static_cast<double>(contents.infinite),
               present = infinite + static_cast<double>(contents.finite);
  if (!(k > infinite && k < present))
    refuse("smooth_topk_by", fmt::format("k = {} outside ({}, {})", k, infinite, present));
  if (!f || !slope) refuse("smooth_topk_by", "f or its derivative is missing");
  if (!(tau > kLeastTau && std::isfinite(tau)))
    refuse("smooth_topk_by", fmt::format("tau = {} is not above {:g} and finite", tau, kLeastTau));
  if (!((contents.most - contents.least) / tau < kMostSpread))
    refuse("smooth_topk_by", fmt::format("finite entries lie more than {:g} tau apart", kMostSpread));
  const Threshold at = topk::find_threshold(f, slope, x, contents, k, tau);
  const std::vector<double> entries(x.begin(), x.end());  // p may be x
  double sum = 0;
  for (std::size_t i = 0; i < x.size(); ++i) sum += p[i] = f((entries[i] - at.base - at.offset) / tau);
  // Of all other functions f is the caller's.
  if (!(std::abs(sum - k) <= 1e-9 * std::max(1.0, k)))
    refuse("smooth_topk_by",
           fmt::format("the sum comes to {} for k = {}: f does not rise continuously from 0 to 1", sum, k));
  return at.t();
}

void smooth_topk_by_vjp(const std::function<double(double)>& slope, std::span<const double> x, double t, double tau,
                        std::span<const double> v, std::span<double> out) {
  const char* function = "smooth_topk_by_vjp";
  if (v.size() != x.size() || out.size() != x.size())
    refuse(function, fmt::format("v has {} entries, out {}, x {}", v.size(), out.size(), x.size()));
  if (!(tau > kLeastTau && std::isfinite(tau)))
    refuse(function, fmt::format("tau = {} is not above {:g} and finite", tau, kLeastTau));
  std::vector<double> slopes(x.size());
  double sum = 0, sum_v = 0;
  for (std::size_t i = 0; i < x.size(); ++i) {
    slopes[i] = std::isfinite(x[i]) ? slope((x[i] - t) / tau) : 0;
    sum += slopes[i];
    sum_v += slopes[i] * v[i];
  }
  const double mean = sum > 0 ? sum_v / sum : 0;
  for (std::size_t i = 0; i < x.size(); ++i) out[i] = slopes[i] * (v[i] - mean) / tau;
}

double subset_log_probabilities(std::span<const double> x, int k, double tau, std::span<double> log_p) {
  const char* function = "subset_log_probabilities";
  if (log_p.size() != x.size()) refuse(function, fmt::format("log_p has {} entries, x {}", log_p.size(), x.size()));
  const Contents contents = topk::contents_of(x);
  check_row(function, 0, contents, k, TopkMethod::gradient);
  if (contents.infinite > 0) refuse(function, "an entry is +inf");
  if (!(tau > kLeastTau && std::isfinite(tau)))
    refuse(function, fmt::format("tau = {} is not above {:g} and finite", tau, kLeastTau));
  if (!((contents.most - contents.least) / tau < kMostSpread))
    refuse(function, fmt::format("finite entries lie more than {:g} tau apart", kMostSpread));
  Finite row(x, contents);
  double log_z = 0;
  if (k == 0 || k == contents.finite) {
    std::fill(row.p.begin(), row.p.end(), k == 0 ? -kInfinity : 0.0);
    for (const double value : row.x) log_z += k == 0 ? 0 : value / tau;
  } else {
    log_z = topk::subset_log_marginals(row.x, k, tau, row.p);
  }
  std::size_t next = 0;
  for (std::size_t i = 0; i < x.size(); ++i) log_p[i] = std::isfinite(x[i]) ? row.p[next++] : -kInfinity;
  return log_z;
}

TopkMethod topk_method_from_name(std::string_view wanted) {
  for (const auto& [method, one] : kNames) {
    if (one == wanted) return method;
  }
  std::string known;
  for (const auto& [method, one] : kNames) known += (known.empty() ? "" : ", ") + std::string(one);
  refuse("topk_method_from_name", fmt::format("no method is called '{}': {}", wanted, known));
}

std::string_view name(TopkMethod method) {
  const auto is_it = [=](const auto& one) { return one.first == method; };
  return std::find_if(kNames.begin(), kNames.end(), is_it)->second;
}

template <class T>
std::vector<SmoothTopkRow> smooth_topk(Batch<const T> x, std::span<const double> k, const SmoothTopkOptions& options,
                                       Batch<T> p) {
  using R = Real<T>;
  check_shapes("smooth_topk", x.rows, x.columns, k, options);
  if (p.rows != x.rows || p.columns != x.columns) {
    refuse("smooth_topk", fmt::format("p has {} rows of {}, x {} of {}", p.rows, p.columns, x.rows, x.columns));
  }
  std::vector<SmoothTopkRow> results(static_cast<std::size_t>(x.rows));
  for_each_row(x.rows, x.columns, options.progress, [&](std::int64_t i, const Progress& progress) {
    std::vector<R> buffer, out_buffer;
    const std::span<const R> row = widened<T>(x.row(i), buffer);
    const Contents contents = topk::contents_of(row);
    const double row_k = of_row(k, i), tau = of_row(options.tau, i);
    check_row("smooth_topk", i, contents, row_k, options.method);
    std::span<R> out;
    if constexpr (std::is_same_v<T, Bfloat16>) {
      out_buffer.resize(row.size());
      out = out_buffer;
    } else {
      out = p.row(i);
      if (out.data() == row.data() && options.temperature == TopkTemperature::entropy)
        out = (out_buffer.resize(row.size()), std::span<R>(out_buffer));  // solved more than once
    }
    double in_units = tau;
    if (options.temperature == TopkTemperature::scale_free) {
      const double spread = deviation(Finite(row, contents).x);
      in_units = tau * (spread > 0 ? spread : 1);
      if (!std::isfinite(in_units)) refuse("smooth_topk", fmt::format("row {}: its deviation is no double", i));
    } else if (options.temperature == TopkTemperature::entropy) {
      in_units = tau_of_entropy(i, options, row, contents, row_k, out, progress);
    }
    std::vector<std::int64_t> chosen;
    if (options.hard) chosen = top_indices(row, static_cast<std::int64_t>(std::ceil(row_k)));
    results[static_cast<std::size_t>(i)] = solve(i, options.method, row, contents, row_k, in_units, out, progress);
    if (options.hard) put_hard<R>(chosen, row_k, out);
    if (!out_buffer.empty()) put(out_buffer, p.row(i));
  });
  return results;
}

template <class T>
std::vector<SmoothTopkGradient> smooth_topk_vjp(Batch<const T> x, std::span<const SmoothTopkRow> rows, Batch<const T> v,
                                                const SmoothTopkOptions& options, Batch<T> out) {
  using R = Real<T>;
  for (const auto& [shape_rows, columns] : {std::pair{v.rows, v.columns}, std::pair{out.rows, out.columns}}) {
    if (shape_rows != x.rows || columns != x.columns) {
      refuse("smooth_topk_vjp",
             fmt::format("{} rows of {} entries beside x with {} of {}", shape_rows, columns, x.rows, x.columns));
    }
  }
  if (static_cast<std::int64_t>(rows.size()) != x.rows)
    refuse("smooth_topk_vjp", fmt::format("results of {} rows for {}", rows.size(), x.rows));
  std::vector<SmoothTopkGradient> gradients(rows.size());
  for_each_row(x.rows, x.columns, options.progress, [&](std::int64_t i, const Progress& progress) {
    const SmoothTopkRow& row = rows[static_cast<std::size_t>(i)];
    std::vector<R> x_buffer, v_buffer, g(std::is_same_v<T, Bfloat16> ? static_cast<std::size_t>(x.columns) : 0);
    const std::span<const R> entries = widened<T>(x.row(i), x_buffer);
    SmoothTopkGradient& gradient = gradients[static_cast<std::size_t>(i)];
    std::span<R> target = g;
    if constexpr (!std::is_same_v<T, Bfloat16>) target = out.row(i);
    if (row.tau > kLeastTau) {
      gradient = pull_back<R>(options.method, entries, row, widened<T>(v.row(i), v_buffer), target, progress);
    } else {
      std::fill(target.begin(), target.end(), R{0});
    }
    if (options.temperature == TopkTemperature::scale_free) {
      // tau in units of x is tau times the deviation, whose gradient is (x - mean) / (n deviation).
      const Finite finite(entries, topk::contents_of(entries));
      const double spread = deviation(finite.x), n = static_cast<double>(finite.x.size());
      if (spread > 0) {
        double mean = 0;
        for (const double value : finite.x) mean += value / n;
        const double by = gradient.tau * (row.tau / spread) / n;
        for (std::size_t j = 0; j < entries.size(); ++j) {
          if (std::isfinite(entries[j]))
            target[j] = static_cast<R>(static_cast<double>(target[j]) +
                                       by * ((static_cast<double>(entries[j]) - mean) / spread));
        }
        gradient.tau *= spread;
      }
    } else if (options.temperature == TopkTemperature::entropy) {
      gradient.tau = 0;
    }
    if constexpr (std::is_same_v<T, Bfloat16>) put(g, out.row(i));
  });
  return gradients;
}

#define TUIQIAO_TOPK_TYPE(T)                                                                                         \
  template std::vector<SmoothTopkRow> smooth_topk(Batch<const T>, std::span<const double>, const SmoothTopkOptions&, \
                                                  Batch<T>);                                                         \
  template std::vector<SmoothTopkGradient> smooth_topk_vjp(Batch<const T>, std::span<const SmoothTopkRow>,           \
                                                           Batch<const T>, const SmoothTopkOptions&, Batch<T>);
TUIQIAO_TOPK_TYPE(float)
TUIQIAO_TOPK_TYPE(double)
TUIQIAO_TOPK_TYPE(Bfloat16)
#undef TUIQIAO_TOPK_TYPE

}  // namespace tuiqiao
