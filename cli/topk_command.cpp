#include <fmt/format.h>
#include <omp.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdlib>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <numeric>
#include <stdexcept>

#include "chart.h"
#include "commands.h"
#include "file_output.h"
#include "npy.h"
#include "terminal.h"
#include "tuiqiao/error.h"
#include "tuiqiao/topk.h"

namespace tuiqiao::cli {

namespace {

using nlohmann::ordered_json;

constexpr std::size_t kMostInput = std::size_t{1} << 30;
constexpr std::int64_t kMostPlotted = 20000;

constexpr const char* kExamples = R"(Examples:
  echo 3 1 4 1.5 5 9 2 6 | tuiqiao topk --k 3
  tuiqiao topk --k 10 --method gradient --tau 0.5 --json scores.npy
  tuiqiao topk --k 2.5 --entropy 0.2 --out p.npy scores.npy
  tuiqiao topk --k 3 --plot p.svg --taus 2,0.5,0.1 scores.npy)";

struct Arguments {
  std::string input, out, plot;
  std::string method = "laplace";
  double k = 0, tau = 1, entropy_bits = 0;
  std::vector<double> taus;
  int threads = 0;
  bool json = false, scale_free = false, hard = false, has_entropy = false;
};

/// Numbers apart from each other by white space, or by a comma or semicolon. Throws: tuiqiao::Error.
NpyArray numbers_of(const std::string& text, const std::string& name) {
  NpyArray array;
  constexpr const char* kSpace = " \t\r\n\f\v";
  constexpr const char* kApart = " \t\r\n\f\v,;";
  bool after_number = false;
  for (std::size_t at = 0; (at = text.find_first_not_of(kSpace, at)) != std::string::npos;) {
    const auto fail = [&](const std::string& what) {
      throw Error(fmt::format("{}: entry {}: {}", name, array.values.size(), what));
    };
    if (text[at] == ',' || text[at] == ';') {
      if (!after_number) fail(fmt::format("no number before '{}'", text[at]));
      after_number = false;
      ++at;
      continue;
    }
    const std::size_t end = std::min(text.find_first_of(kApart, at), text.size());
    const std::string word = text.substr(at, end - at);
    char* rest = nullptr;
    const double value = std::strtod(word.c_str(), &rest);
    if (rest != word.c_str() + word.size()) fail(fmt::format("'{}' is no number", shortened(word)));
    array.values.push_back(value);
    after_number = true;
    at = end;
  }
  array.shape = {static_cast<std::int64_t>(array.values.size())};
  return array;
}

NpyArray input_of(const Arguments& arguments, const std::stop_token& stop) {
  if (!arguments.input.empty() && arguments.input != "-") return read_npy(arguments.input);
  if (arguments.input.empty() && isatty(STDIN_FILENO) == 1)
    throw std::invalid_argument("no input: name a .npy file or write numbers to standard input");
  const std::string text = read_standard_input(kMostInput, stop);
  return is_npy(text) ? parse_npy(text, "standard input") : numbers_of(text, "standard input");
}

/// null where there is none, since JSON has no NaN and no infinity.
ordered_json number(double value) { return std::isfinite(value) ? ordered_json(value) : ordered_json(); }

std::string as_json(const SmoothTopkRow& row, const SmoothTopkOptions& options, std::span<const double> x,
                    std::span<const double> p) {
  return ordered_json{{"method", std::string(name(options.method))},
                      {"k", row.k},
                      {"tau", row.tau},
                      {"threshold", number(row.threshold)},
                      {"log_z", number(row.log_z)},
                      {"indices", top_indices(x, static_cast<std::int64_t>(std::ceil(row.k)))},
                      {"p", std::vector<double>(p.begin(), p.end())}}
             .dump() +
         "\n";
}

std::string as_text(const SmoothTopkRow& row, const SmoothTopkOptions& options, std::span<const double> p) {
  std::string text = fmt::format("# {}, k = {}, tau = {:.6g}", name(options.method), row.k, row.tau);
  if (!std::isnan(row.threshold)) text += fmt::format(", threshold {:.10g}", row.threshold);
  if (!std::isnan(row.log_z)) text += fmt::format(", log Z_k {:.10g}", row.log_z);
  text += "\n";
  for (const double value : p) text += fmt::format("{:.10g}\n", value);
  return text;
}

/// p against x, and how an entry moves what is chosen: the derivative of the sum of p over the k largest; a curve for
/// each temperature. `row`: what was found for the row, whose temperature is drawn where `taus` names none.
std::string plot_of(Batch<const double> x, const SmoothTopkRow& row, SmoothTopkOptions options,
                    std::vector<double> taus) {
  const std::span<const double> entries = x.row(0);
  const std::int64_t n = x.columns;
  std::vector<std::size_t> order(entries.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::stable_sort(order.begin(), order.end(), [&](std::size_t i, std::size_t j) { return entries[i] < entries[j]; });
  std::vector<double> v(entries.size(), 0), p(entries.size()), gradient(entries.size());
  for (const std::int64_t i : top_indices(entries, static_cast<std::int64_t>(std::ceil(row.k))))
    v[static_cast<std::size_t>(i)] = 1;
  Chart chances{fmt::format("{}, k = {}", name(options.method), row.k), {"x"}, {"p"}, {}};
  Chart slopes{"Gradient of the sum of p over the k largest", {"x"}, {"d sum / d x"}, {}};
  if (taus.empty()) {
    taus = {row.tau};
    chances.title += fmt::format(", tau = {:.4g}", row.tau);
    options.temperature = TopkTemperature::given;  // as it was found
  }
  for (const double tau : taus) {
    options.tau = {tau};
    const auto found = smooth_topk<double>(x, std::array{row.k}, options, {p.data(), 1, n});
    smooth_topk_vjp<double>(x, found, {v.data(), 1, n}, options, {gradient.data(), 1, n});
    const std::string label = taus.size() > 1 ? fmt::format("tau {:.4g}", tau) : "";
    Series& chance = chances.series.emplace_back(Series{label, {}});
    Series& slope = slopes.series.emplace_back(Series{label, {}});
    for (const std::size_t i : order) {
      chance.points.emplace_back(entries[i], p[i]);
      slope.points.emplace_back(entries[i], gradient[i]);
    }
  }
  return svg_of({chances, slopes});
}

int run(const Arguments& arguments, const std::stop_token& stop) {
  if (arguments.threads > 0) omp_set_num_threads(arguments.threads);
  SmoothTopkOptions options;
  options.method = topk_method_from_name(arguments.method);
  options.tau = {arguments.tau};
  options.hard = arguments.hard;
  if (arguments.scale_free) options.temperature = TopkTemperature::scale_free;
  if (arguments.has_entropy) {
    options.temperature = TopkTemperature::entropy;
    options.entropy_bits = arguments.entropy_bits;
  }
  ProgressBar bar;
  options.progress = {
      [&](std::string_view what, std::int64_t done, std::int64_t total) { bar.show(what, done, total); }, stop};
  if (!arguments.plot.empty() && !arguments.plot.ends_with(".svg"))
    throw std::invalid_argument(fmt::format("--plot {}: plots are written as .svg", arguments.plot));
  check_outputs({{"--out", arguments.out != "-" ? arguments.out : ""}, {"--plot", arguments.plot}});
  const NpyArray input = input_of(arguments, stop);
  const std::string source = arguments.input.empty() || arguments.input == "-" ? "standard input" : arguments.input;
  if (input.shape.size() > 2)
    throw Error(fmt::format("{}: {} sides; a row or rows of numbers are wanted", source, input.shape.size()));
  if (input.values.empty()) throw Error(source + ": no number");
  for (std::size_t i = 0; i < input.values.size(); ++i) {
    if (std::isnan(input.values[i])) throw Error(fmt::format("{}: entry {} is NaN", source, i));
  }
  const std::int64_t rows = input.shape.size() == 2 ? input.shape[0] : 1;
  const std::int64_t columns = input.shape.empty() ? 1 : input.shape.back();
  if (!arguments.plot.empty() && rows != 1)
    throw std::invalid_argument(fmt::format("--plot shows one row, not {}", rows));
  if (!arguments.plot.empty() && columns > kMostPlotted)
    throw std::invalid_argument(fmt::format("--plot shows at most {} entries", kMostPlotted));
  const Batch<const double> x{input.values.data(), rows, columns};
  std::vector<double> p(input.values.size());
  const auto results = smooth_topk<double>(x, std::array{arguments.k}, options, {p.data(), rows, columns});
  bar.clear();
  if (!arguments.plot.empty()) {
    write_file_atomically(arguments.plot, plot_of(x, results[0], options, arguments.taus));
  }
  if (!arguments.out.empty()) {
    const std::string npy = npy_of(p, input.shape);
    arguments.out == "-" ? print(npy) : write_file_atomically(arguments.out, npy);
    return kDone;
  }
  for (std::int64_t i = 0; i < rows; ++i) {
    const std::span<const double> row(p.data() + i * columns, static_cast<std::size_t>(columns));
    const SmoothTopkRow& result = results[static_cast<std::size_t>(i)];
    print(arguments.json ? as_json(result, options, x.row(i), row) : as_text(result, options, row));
  }
  return kDone;
}

}  // namespace

Run add_topk(CLI::App& app) {
  const auto arguments = std::make_shared<Arguments>();
  Arguments& a = *arguments;
  app.footer(kExamples);
  app.add_option("input", a.input,
                 "A .npy file with a row or rows of numbers; '-' or none reads one row of numbers (or .npy) from "
                 "standard input")
      ->type_name("FILE");
  app.add_option("-k,--k", a.k, "How many to choose; any real number for the threshold methods")
      ->type_name("K")
      ->required();
  app.add_option("--method", a.method, "softmax_iterated, gradient, exponential, sigmoid, laplace or clip [laplace]")
      ->type_name("NAME");
  auto* tau = app.add_option("--tau", a.tau, "Temperature; 0 is the hard top-k [1]")->type_name("T");
  auto* scale = app.add_flag("--scale-free", a.scale_free, "Take --tau in units of each row's standard deviation");
  auto* entropy =
      app.add_option("--entropy", a.entropy_bits, "Find the temperature at which an entry has so many bits on average")
          ->type_name("BITS")
          ->excludes(tau)
          ->excludes(scale);
  app.add_flag("--hard", a.hard, "Print the hard choice, 1 for the k largest; --plot still shows the smooth gradient");
  app.add_flag("--json", a.json,
               "One JSON object a row: method, k, tau, threshold, log_z, indices (of the k largest), p");
  app.add_option("--out", a.out,
                 "Write p here as .npy of float64 instead, '-' for output; text shows ten digits, --json and this all")
      ->type_name("FILE");
  auto* plot = app.add_option("--plot", a.plot, "Draw p and a gradient of one row of at most 20000 entries, as .svg")
                   ->type_name("FILE");
  app.add_option("--taus", a.taus, "With --plot: a curve for each of these temperatures [--tau]")
      ->type_name("T,...")
      ->delimiter(',')
      ->allow_extra_args(false)
      ->needs(plot)
      ->excludes(entropy);
  app.add_option("--threads", a.threads, "Processor threads, at most 512; 0 for all [0]")
      ->type_name("N")
      ->check(CLI::Range(0, 512));
  return [arguments, entropy](const std::stop_token& stop) {
    arguments->has_entropy = entropy->count() > 0;
    return run(*arguments, stop);
  };
}

}  // namespace tuiqiao::cli
