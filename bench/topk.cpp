// Smooth top-k beside a plain softmax of the same rows, and beside a full sort, the recursion of O(n k), and libtorch's
// softmax, topk and sort where it is built.
#include <fmt/format.h>
#include <omp.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <numeric>
#include <random>

// clang 14, and so clang-tidy, cannot read libtorch 1.13's headers as C++20.
#if defined(TUIQIAO_HAS_TORCH) && !defined(__clang_analyzer__)
#define TUIQIAO_BENCH_TORCH
#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#endif

#include "chart.h"
#include "file_output.h"
#include "parallel.h"
#include "text/row_kernels.h"
#include "timing.h"
#include "topk/subsets.h"
#include "tuiqiao/text/pooling.h"
#include "tuiqiao/topk.h"

namespace {

using namespace tuiqiao;
using bench::Comparison;
using nlohmann::json;

constexpr std::array kMethods{TopkMethod::exponential, TopkMethod::sigmoid, TopkMethod::laplace, TopkMethod::clip,
                              TopkMethod::gradient};

/// Rows of float32 of standard deviation 1, with a place for p, v and the gradient.
struct Problem {
  std::int64_t rows, columns;
  std::vector<float> x, p, v, gradient;

  Problem(std::int64_t b, std::int64_t n) : rows(b), columns(n) {
    std::mt19937_64 random(1);
    std::normal_distribution<float> normal;
    for (auto* row : {&x, &v}) {
      row->resize(static_cast<std::size_t>(b * n));
      for (float& value : *row) value = normal(random);
    }
    p.resize(x.size());
    gradient.resize(x.size());
  }
  Batch<const float> in(const std::vector<float>& of) const { return {of.data(), rows, columns}; }
  Batch<float> out(std::vector<float>& of) const { return {of.data(), rows, columns}; }
};

/// The baseline: two passes, log-sum-exp and exp, in parts over OpenMP's threads as the methods are.
void softmax(Problem& problem) {
  constexpr std::size_t kPart = std::size_t{1} << 16;
  const auto n = static_cast<std::size_t>(problem.columns), parts = (n + kPart - 1) / kPart;
  const auto for_parts = [&](const auto& body) {
    parallel_for(problem.rows * static_cast<std::int64_t>(parts), [&](std::int64_t i) {
      const auto row = static_cast<std::size_t>(i) / parts, part = static_cast<std::size_t>(i) % parts;
      body(row, static_cast<std::size_t>(i), row * n + part * kPart, std::min(kPart, n - part * kPart));
    });
  };
  std::vector<double> logs(static_cast<std::size_t>(problem.rows) * parts),
      totals(static_cast<std::size_t>(problem.rows));
  for_parts([&](std::size_t, std::size_t at, std::size_t from, std::size_t size) {
    logs[at] = log_sum_exp(std::span(problem.x).subspan(from, size));
  });
  for (std::size_t row = 0; row < totals.size(); ++row) {
    const auto mine = std::span(logs).subspan(row * parts, parts);
    const double most = *std::max_element(mine.begin(), mine.end());
    double sum = 0;
    for (const double log : mine) sum += std::exp(log - most);
    totals[row] = most + std::log(sum);
  }
  for_parts([&](std::size_t row, std::size_t, std::size_t from, std::size_t size) {
    exp_scores(std::span(problem.x).subspan(from, size), totals[row], std::span(problem.p).subspan(from, size));
  });
}

/// By how much the sums of rows differ from k at most.
double sum_error(const Problem& problem, const std::vector<float>& of, double k) {
  double worst = 0;
  for (std::int64_t i = 0; i < problem.rows; ++i) {
    const auto row = problem.in(of).row(i);
    worst = std::max(worst, std::abs(std::accumulate(row.begin(), row.end(), 0.0) - k));
  }
  return worst;
}

json bench_size(std::int64_t rows, std::int64_t columns) {
  Problem problem(rows, columns);
  json results = json::array();
  const int pairs = columns * rows > 4000000 ? 3 : 9;
  fmt::print("\nB = {}, n = {}\n{:>12}{:>10}{:>13}{:>13}{:>10}{:>13}{:>10}{:>12}\n", rows, columns, "method", "k",
             "softmax", "forward", "ratio", "vjp", "ratio", "|sum - k|");
  for (const std::int64_t k : {std::int64_t{1}, std::int64_t{32}, columns / 10, columns / 2}) {
    for (const TopkMethod method : kMethods) {
      SmoothTopkOptions options;
      options.method = method;
      const std::array ks{static_cast<double>(k)};
      std::vector<SmoothTopkRow> solved;
      const auto forward = [&] {
        solved = smooth_topk<float>(problem.in(problem.x), ks, options, problem.out(problem.p));
      };
      const auto pull_back = [&] {
        smooth_topk_vjp<float>(problem.in(problem.x), solved, problem.in(problem.v), options,
                               problem.out(problem.gradient));
      };
      forward();
      const double most = kTopkFloatError * static_cast<double>(columns);
      const double error = sum_error(problem, problem.p, static_cast<double>(k));
      if (!(error <= most)) throw std::runtime_error("a sum is off");
      pull_back();  // a shift of x changes nothing
      if (!(sum_error(problem, problem.gradient, 0) <= most)) throw std::runtime_error("a gradient's sum is off");
      const Comparison one = bench::compare(
          forward, [&] { softmax(problem); }, pairs);
      const Comparison two = bench::compare(
          pull_back, [&] { softmax(problem); }, pairs);
      fmt::print("{:>12}{:>10}{:>10.3f} ms{:>10.3f} ms{:>10.2f}{:>10.3f} ms{:>10.2f}{:>12.1e}\n", name(method), k,
                 one.b.median * 1e3, one.a.median * 1e3, one.ratio.median, two.a.median * 1e3, two.ratio.median, error);
      std::fflush(stdout);
      results.push_back({{"rows", rows},
                         {"columns", columns},
                         {"k", k},
                         {"method", std::string(name(method))},
                         {"forward", one.json()},
                         {"vjp", two.json()},
                         {"sum_error", error}});
    }
  }
  return results;
}

/// What others do, on one row: as ratios to the same softmax.
json bench_others(std::int64_t columns) {
  Problem problem(1, columns);
  json results = json::array();
  const auto add = [&](const char* what, const std::function<void()>& work, int pairs = 5) {
    const Comparison times = bench::compare(
        work, [&] { softmax(problem); }, pairs);
    fmt::print("{:>10}  {:34}{:12.3f} ms{:12.2f} softmaxes\n", columns, what, times.a.median * 1e3, times.ratio.median);
    std::fflush(stdout);
    results.push_back({{"columns", columns}, {"what", what}, {"times", times.json()}});
  };
  add("std::sort of the row", [&] {
    std::vector<float> sorted = problem.x;
    std::sort(sorted.begin(), sorted.end(), std::greater<>());
  });
  if (columns <= 100000) {
    const std::vector<double> x(problem.x.begin(), problem.x.end());
    std::vector<double> p(x.size());
    add("subsets by recursion, k = 32", [&] { topk::subset_marginals_by_recursion(x, 32, 1, p); });
    SmoothTopkOptions iterated;
    iterated.method = TopkMethod::softmax_iterated;
    add("softmax_iterated, k = 32",
        [&] { smooth_topk<float>(problem.in(problem.x), std::array{32.0}, iterated, problem.out(problem.p)); });
  }
#ifdef TUIQIAO_BENCH_TORCH
  at::set_num_threads(omp_get_max_threads());
  const at::Tensor x = at::from_blob(problem.x.data(), {columns});
  add("torch::softmax", [&] { at::softmax(x, 0); });
  add("torch::topk, k = 32", [&] { at::topk(x, 32); });
  add("torch::topk, k = n / 2", [&] { at::topk(x, columns / 2); });
  add("torch::sort", [&] { at::sort(x); });
#endif
  return results;
}

/// One thread over all, at n = 10^6.
json bench_threads() {
  const int most = omp_get_max_threads();
  Problem problem(1, 1000000);
  json results = json::array();
  fmt::print("\nOne thread over {}, n = 10^6, k = n / 10\n", most);
  for (const TopkMethod method : kMethods) {
    SmoothTopkOptions options;
    options.method = method;
    const auto forward = [&](int threads) {
      omp_set_num_threads(threads);
      smooth_topk<float>(problem.in(problem.x), std::array{1e5}, options, problem.out(problem.p));
    };
    const Comparison times = bench::compare([&] { forward(1); }, [&] { forward(most); });
    fmt::print("{:>12}{:10.2f}\n", name(method), times.ratio.median);
    results.push_back({{"method", std::string(name(method))}, {"times", times.json()}});
  }
  omp_set_num_threads(most);
  return results;
}

void plot(const json& sizes, const std::string& file) {
  std::vector<Chart> charts;
  for (const char* part : {"forward", "vjp"}) {
    Chart chart{
        fmt::format("{}, B = 1, k = n / 10", part), {"n", Scale::logarithmic}, {"seconds", Scale::logarithmic}, {}};
    Series baseline{"softmax", {}};
    for (const TopkMethod method : kMethods) {
      Series series{std::string(name(method)), {}};
      for (const json& r : sizes) {
        if (r["rows"] != 1 || r["method"] != series.name || r["k"].get<std::int64_t>() * 10 != r["columns"]) continue;
        series.points.emplace_back(r["columns"], r[part]["a_seconds"]["median"]);
        if (method == kMethods[0]) baseline.points.emplace_back(r["columns"], r[part]["b_seconds"]["median"]);
      }
      chart.series.push_back(series);
    }
    chart.series.push_back(baseline);
    charts.push_back(chart);
  }
  write_file_atomically(file, svg_of(charts));
}

int run(const std::string& out) {
  json results = {{"threads", omp_get_max_threads()}, {"load", bench::warn_of_load()}, {"sizes", json::array()}};
  for (const std::int64_t rows : {1, 32}) {
    for (const std::int64_t columns : {1000, 10000, 100000, 1000000, 10000000}) {
      if (rows * columns > 40000000) continue;  // 32 rows of 10^7 do not fit beside their copies
      for (const json& one : bench_size(rows, columns)) results["sizes"].push_back(one);
    }
  }
  fmt::print("\n");
  results["others"] = json::array();
  for (const std::int64_t columns : {1000, 10000, 100000, 1000000}) {
    for (const json& one : bench_others(columns)) results["others"].push_back(one);
  }
  results["two_threads"] = bench_threads();
  write_file_atomically(out, results.dump(1) + "\n");
  const std::string chart = std::filesystem::path(out).replace_extension(".svg").string();
  plot(results["sizes"], chart);
  fmt::print("\n{} and {}\n", out, chart);
  return 0;
}

}  // namespace

int main(int argc, char** argv) { return tuiqiao::bench::main_of("topk", argc, argv, run); }
