// How many steps the least a + b + c takes, beside the law that is expected; what a step costs, beside a square root;
// and the time beside both plain ways.
#include "tuiqiao/minsum.h"

#include <fmt/format.h>
#include <omp.h>

#include <cmath>
#include <filesystem>
#include <random>

#include "chart.h"
#include "file_output.h"
#include "minsum_twins.h"
#include "timing.h"

namespace {

using namespace tuiqiao;
using nlohmann::json;

constexpr int kNumbers = 1000;

/// Uniform in [10^exponent, 10^(exponent + 1)).
mpz_class random_number(unsigned long exponent, std::mt19937_64& random) {
  mpz_class low, digits = 0;
  mpz_ui_pow_ui(low.get_mpz_t(), 10, exponent);
  while (digits < low) digits = (digits << 64) + static_cast<unsigned long>(random());
  return low + digits % (9 * low);
}

std::vector<mpz_class> random_numbers(unsigned long exponent, int count, std::uint64_t seed) {
  std::mt19937_64 random(seed);
  std::vector<mpz_class> numbers;
  for (int i = 0; i < count; ++i) numbers.push_back(random_number(exponent, random));
  return numbers;
}

double sixth_root(const mpz_class& n) { return std::exp(std::log(n.get_d()) / 6); }

json bench_steps(json& cumulative) {
  fmt::print("\nSteps over N^(1/6), {} random numbers a size (expected: mean 1.18, median 1.03, 99% 3.63)\n", kNumbers);
  fmt::print("{:>8}{:>8}{:>8}{:>8}{:>8}{:>12}\n", "N from", "mean", "median", "99%", "most", "ns a step");
  json results = json::array();
  for (const unsigned long exponent : {6UL, 12UL, 18UL, 24UL, 30UL, 36UL}) {
    std::vector<double> ratios;
    double steps = 0, sum = 0;
    const std::vector<mpz_class> numbers = random_numbers(exponent, kNumbers, exponent);
    const double seconds = bench::seconds_of([&] {
      for (const mpz_class& n : numbers) ratios.push_back(static_cast<double>(min_sum(n).steps));
    });
    for (std::size_t i = 0; i < ratios.size(); ++i) {
      steps += ratios[i];
      sum += ratios[i] /= sixth_root(numbers[i]);
    }
    std::sort(ratios.begin(), ratios.end());
    fmt::print("{:>8}{:8.2f}{:8.2f}{:8.2f}{:8.2f}{:12.2f}\n", fmt::format("10^{}", exponent), sum / kNumbers,
               ratios[kNumbers / 2], ratios[kNumbers * 99 / 100], ratios.back(), seconds * 1e9 / steps);
    std::fflush(stdout);
    results.push_back({{"exponent", exponent},
                       {"mean", sum / kNumbers},
                       {"median", ratios[kNumbers / 2]},
                       {"percent_99", ratios[kNumbers * 99 / 100]},
                       {"most", ratios.back()},
                       {"ns_a_step", seconds * 1e9 / steps}});
    cumulative.push_back(ratios);
  }
  return results;
}

/// Seconds of one scalar double square root: independent ones, as many as the processor overlaps.
double square_root_seconds() {
  std::vector<double> values(1 << 14);
  for (std::size_t i = 0; i < values.size(); ++i) values[i] = 1e13 + static_cast<double>(i);
  std::vector<double> times;
  for (int round = 0; round < 21; ++round) {
    double sum = 0;
    times.push_back(bench::seconds_of([&] {
      for (const double value : values) sum += std::sqrt(value);
    }));
    volatile double sink = sum;
    static_cast<void>(sink);
  }
  return bench::Spread::of(times).median / static_cast<double>(values.size());
}

json bench_time() {
  const double root = square_root_seconds();
  fmt::print("\nOne scalar square root: {:.2f} ns\n{:>8}{:>8}{:>14}{:>14}{:>14}{:>12}{:>16}\n", root * 1e9, "N from",
             "threads", "median", "least", "most", "ns a step", "square roots");
  json results = {{"square_root_seconds", root}, {"sizes", json::array()}};
  const int most_threads = omp_get_max_threads();
  for (const unsigned long exponent : {38UL, 48UL, 51UL}) {
    const std::vector<mpz_class> numbers = random_numbers(exponent, exponent > 48 ? 5 : 21, exponent);
    for (const int threads : {1, most_threads}) {
      omp_set_num_threads(threads);
      std::vector<double> times, per_step;
      for (const mpz_class& n : numbers) {
        std::uint64_t steps = 0;
        times.push_back(bench::seconds_of([&] { steps = min_sum(n).steps; }));
        per_step.push_back(times.back() / static_cast<double>(steps));
      }
      const bench::Spread time = bench::Spread::of(times), step = bench::Spread::of(per_step);
      fmt::print("{:>8}{:8}{:11.4g} ms{:11.4g} ms{:11.4g} ms{:12.2f}{:16.2f}\n", fmt::format("10^{}", exponent),
                 threads, time.median * 1e3, time.least * 1e3, time.most * 1e3, step.median * 1e9, step.median / root);
      std::fflush(stdout);
      results["sizes"].push_back(
          {{"exponent", exponent}, {"threads", threads}, {"seconds", time.json()}, {"step_seconds", step.json()}});
    }
  }
  omp_set_num_threads(most_threads);
  return results;
}

/// Against a plain way, on the same numbers, which must give the same sums.
template <class Twin>
json bench_twin(const char* name, unsigned long exponent, int count, const Twin& twin) {
  const std::vector<mpz_class> numbers = random_numbers(exponent, count, 7 * exponent);
  mpz_class ours = 0, theirs = 0;
  const bench::Comparison times = bench::compare(
      [&] {
        ours = 0;
        for (const mpz_class& n : numbers) ours += min_sum(n).s;
      },
      [&] {
        theirs = 0;
        for (const mpz_class& n : numbers) theirs += twin(n);
      },
      5);
  if (ours != theirs) throw std::runtime_error("the sums differ");
  fmt::print("{:>8}  {:28}{:14.3g} us{:14.3g} us{:12.1f} times [{:.1f}, {:.1f}]\n", fmt::format("10^{}", exponent),
             name, times.a.median / count * 1e6, times.b.median / count * 1e6, 1 / times.ratio.median,
             1 / times.ratio.most, 1 / times.ratio.least);
  std::fflush(stdout);
  return {{"exponent", exponent}, {"twin", name}, {"numbers", count}, {"times", times.json()}};
}

json bench_twins() {
  fmt::print("\n{:>8}  {:28}{:>17}{:>17}{:>12}\n", "N from", "beside", "min_sum", "plain", "ratio");
  const auto over_a = [](const mpz_class& n) { return minsum::to_mpz(test::min_sum_over_a(n.get_ui()).s); };
  const auto over_p = [](const mpz_class& n) { return minsum::to_mpz(test::min_sum_over_p(minsum::low_words(n)).s); };
  json results = json::array();
  for (const unsigned long exponent : {6UL, 9UL, 12UL, 14UL})
    results.push_back(bench_twin("all a up to sqrt N", exponent, 20, over_a));
  for (const unsigned long exponent : {6UL, 12UL, 18UL, 24UL})
    results.push_back(bench_twin("all a + b up to the bound", exponent, 20, over_p));
  return results;
}

/// Shares of numbers that need more steps, by size, beside the law.
void plot(const json& cumulative, const json& steps, const std::string& file) {
  Chart chart{"Numbers that need more than u N^(1/6) steps", {"u"}, {"share", Scale::logarithmic}, {}};
  for (std::size_t i = 0; i < cumulative.size(); ++i) {
    Series series{fmt::format("10^{}", steps[i]["exponent"].get<int>()), {}};
    for (std::size_t k = 0; k < cumulative[i].size(); k += 4)
      series.points.emplace_back(cumulative[i][k].get<double>(), 1 - static_cast<double>(k) / kNumbers);
    if (i % 2 == 1) chart.series.push_back(series);
  }
  Series law{"exp(-2/3 u^1.5)", {}};
  for (double u = 0; u < 4.8; u += 0.05) law.points.emplace_back(u, std::exp(-2.0 / 3 * std::pow(u, 1.5)));
  chart.series.push_back(law);
  write_file_atomically(file, svg_of({chart}));
}

int run(const std::string& out) {
  json results = {{"threads", omp_get_max_threads()}, {"load", bench::warn_of_load()}}, cumulative = json::array();
  results["steps"] = bench_steps(cumulative);
  results["time"] = bench_time();
  results["twins"] = bench_twins();
  write_file_atomically(out, results.dump(1) + "\n");
  const std::string chart = std::filesystem::path(out).replace_extension(".svg").string();
  plot(cumulative, results["steps"], chart);
  fmt::print("\n{} and {}\n", out, chart);
  return 0;
}

}  // namespace

int main(int argc, char** argv) { return tuiqiao::bench::main_of("minsum", argc, argv, run); }
