#include <fmt/format.h>
#include <omp.h>
#include <unistd.h>

#include <chrono>
#include <cmath>
#include <nlohmann/json.hpp>
#include <numbers>
#include <stdexcept>
#include <vector>

#include "chart.h"
#include "commands.h"
#include "file_output.h"
#include "terminal.h"
#include "tuiqiao/minsum.h"

namespace tuiqiao::cli {

namespace {

using nlohmann::ordered_json;

constexpr std::size_t kMostInput = std::size_t{64} << 20;
constexpr unsigned long kMostPlotted = 100000;
constexpr double kLongScan = 1e8;  // steps from which on an estimate is worth a line

constexpr const char* kExamples = R"(Examples:
  tuiqiao minsum 130
  tuiqiao minsum --all --json 1..100
  echo 123456789012345678901234567890 | tuiqiao minsum
  tuiqiao minsum --plot sums.svg 1000..3000)";

struct Arguments {
  std::vector<std::string> numbers;
  std::string plot;
  int threads = 0;
  bool all = false, json = false;
};

/// Numbers from first to last, both included.
struct Range {
  mpz_class first, last;
};

/// Throws: std::invalid_argument.
mpz_class natural(std::string_view digits, std::string_view whole) {
  if (digits.empty() || digits.find_first_not_of("0123456789") != std::string_view::npos) {
    throw std::invalid_argument(
        fmt::format("'{}' is no natural number (digits only) and no range A..B", shortened(whole)));
  }
  return mpz_class(std::string(digits));
}

Range range_of(std::string_view text) {
  const std::size_t dots = text.find("..");
  if (dots == std::string_view::npos) {
    const mpz_class n = natural(text, text);
    return {n, n};
  }
  Range range{natural(text.substr(0, dots), text), natural(text.substr(dots + 2), text)};
  if (range.last < range.first)
    throw std::invalid_argument(fmt::format("the range '{}' ends before it begins", shortened(text)));
  return range;
}

std::vector<Range> ranges_of(const Arguments& arguments, const std::stop_token& stop) {
  std::vector<Range> ranges;
  const auto read = [&] {
    const std::string text = read_standard_input(kMostInput, stop);
    constexpr const char* kSpace = " \t\r\n\f\v";
    for (std::size_t at = text.find_first_not_of(kSpace); at != std::string::npos;) {
      const std::size_t end = std::min(text.find_first_of(kSpace, at), text.size());
      try {
        ranges.push_back(range_of(std::string_view(text).substr(at, end - at)));
      } catch (const std::invalid_argument& error) {
        throw Error(fmt::format("standard input: {}", error.what()));
      }
      at = text.find_first_not_of(kSpace, end);
    }
  };
  if (arguments.numbers.empty() && isatty(STDIN_FILENO) == 1) throw std::invalid_argument("no number given");
  if (arguments.numbers.empty()) read();
  for (const std::string& text : arguments.numbers) {
    if (text == "-") {
      read();
    } else {
      ranges.push_back(range_of(text));
    }
  }
  if (ranges.empty()) throw Error("standard input: no number");
  return ranges;
}

std::string text_of(const mpz_class& n) { return n.get_str(); }
std::string text_of(std::uint64_t n) { return std::to_string(n); }

template <class Integer>
std::string as_json(const Integer& n, const MinSum<Integer>& found) {
  ordered_json json = {{"n", text_of(n)},
                       {"a", text_of(found.a)},
                       {"b", text_of(found.b)},
                       {"c", text_of(found.c)},
                       {"s", text_of(found.s)},
                       {"steps", text_of(found.steps)},
                       {"last_p", text_of(found.last_p)}};
  for (const Split<Integer>& split : found.optima)
    json["optima"].push_back({{"a", text_of(split.a)}, {"b", text_of(split.b)}, {"c", text_of(split.c)}});
  return json.dump() + "\n";
}

template <class Integer>
std::string as_text(const Integer& n, const MinSum<Integer>& found, bool with_proof) {
  std::string text;
  for (const Split<Integer>& split : found.optima) {
    text += fmt::format("{} = {} * {} + {}    sum {}\n", text_of(n), text_of(split.a), text_of(split.b),
                        text_of(split.c), text_of(found.s));
  }
  if (!with_proof) return text;
  if (n < 4) return text + "    below 4 nothing is less than c alone\n";
  const Integer first = found.last_p - Integer(static_cast<unsigned long>(found.steps - 1));
  const Integer next = found.last_p + Integer(1UL);
  return text +
         fmt::format(
             "    looked at a + b = {} to {} ({} step{}); from {} on a + b alone is {} {}, and below {} no sum is "
             "less\n",
             text_of(first), text_of(found.last_p), found.steps, found.steps == 1 ? "" : "s", text_of(next),
             next > found.s ? "more than" : "at least", text_of(found.s), text_of(first));
}

std::string power_text(double log) {
  return log < std::log(1e15) ? fmt::format("{:.2g}", std::exp(log))
                              : fmt::format("10^{:.1f}", log / std::numbers::ln10);
}

void tell_what_to_expect(const mpz_class& n) {
  const MinSumSteps steps = expected_min_sum_steps(n);
  if (steps.log_mean < std::log(kLongScan)) return;
  tell(fmt::format(
      "tuiqiao: a number of this size needs about {} steps, one in a hundred more than {}; Ctrl-C tells what is known "
      "by then\n",
      power_text(steps.log_mean), power_text(steps.log_99_percent)));
}

/// Progress of one scan with the time that is left at most.
class ScanProgress {
 public:
  void operator()(std::string_view what, std::int64_t done, std::int64_t total) {
    const auto now = std::chrono::steady_clock::now();
    if (now - shown_ < std::chrono::milliseconds(200)) return;
    shown_ = now;
    const double seconds = std::chrono::duration<double>(now - start_).count();
    const double left = seconds * (static_cast<double>(total) / static_cast<double>(done) - 1);
    bar_.show(fmt::format("{}, at most {:.0f} s more", what, left), done, total);
  }

 private:
  std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now(), shown_ = start_;
  ProgressBar bar_;
};

/// What a stopped scan knows.
int tell_stopped(const mpz_class& n, const MinSumStopped& stopped, bool json) {
  if (json) {
    print(ordered_json{{"n", text_of(n)},
                       {"stopped", true},
                       {"s_at_least", text_of(stopped.next_p)},
                       {"s_at_most", text_of(stopped.best_s)},
                       {"steps", text_of(stopped.steps)}}
              .dump() +
          "\n");
  }
  tell(fmt::format("tuiqiao: interrupted after {} steps: the least sum lies between {} and {}\n", stopped.steps,
                   text_of(stopped.next_p), text_of(stopped.best_s)));
  return kInterrupted;
}

MinSum<mpz_class> solve(const mpz_class& n, MinSumOptions options) {
  ScanProgress progress;
  if (is_terminal_stderr()) options.progress.report = std::ref(progress);
  return min_sum(n, options);
}

int plot(const Arguments& arguments, const Range& range, const std::stop_token& stop) {
  if (range.last - range.first >= kMostPlotted)
    throw std::invalid_argument(fmt::format("--plot shows at most {} numbers", kMostPlotted));
  check_outputs({{"--plot", arguments.plot}});
  Series c{"", {}, false}, difference{"", {}, false}, steps{"", {}, false};
  ProgressBar bar;
  const mpz_class count = range.last - range.first + 1;
  MinSumOptions options;
  options.progress.stop = stop;
  // Large numbers are shown by their distance from the first: a chart tells apart no more than doubles do.
  const mpz_class origin = range.first < 1000000000 ? mpz_class(0) : range.first;
  const Axis axis{origin == 0 ? "N" : fmt::format("N - {}", shortened(text_of(origin)))};
  for (mpz_class n = range.first; n <= range.last; ++n) {
    const MinSum<mpz_class> found = min_sum(n, options);
    const double x = mpz_class(n - origin).get_d();
    c.points.emplace_back(x, found.c.get_d());
    difference.points.emplace_back(x, mpz_class(found.b - found.a).get_d());
    steps.points.emplace_back(x, static_cast<double>(found.steps));
    const mpz_class done = n - range.first + 1;
    if (done % 256 == 0) bar.show("numbers", done.get_si(), count.get_si());
    if (stop.stop_requested()) throw Interrupted();
  }
  bar.clear();
  const auto chart = [&](const char* title, const char* label, const Series& series) {
    Chart made;
    made.title = title;
    made.x = axis;
    made.y.label = label;
    made.series.push_back(series);
    return made;
  };
  write_file_atomically(arguments.plot, svg_of({chart("Left over: c", "c", c),
                                                chart("Difference of the factors: b - a", "b - a", difference),
                                                chart("Values of a + b looked at", "steps", steps)}));
  return kDone;
}

int run(const Arguments& arguments, const std::stop_token& stop) {
  if (arguments.threads > 0) omp_set_num_threads(arguments.threads);
  const std::vector<Range> ranges = ranges_of(arguments, stop);
  if (!arguments.plot.empty()) {
    if (ranges.size() != 1) throw std::invalid_argument("--plot shows one range");
    return plot(arguments, ranges[0], stop);
  }
  MinSumOptions options;
  options.all = arguments.all;
  options.progress.stop = stop;
  const mpz_class most_word = mpz_class(1) << 64;
  std::string out;
  const auto add = [&](const std::string& text) {
    constexpr std::size_t kMostHeld = 1 << 16;  // of a range of small numbers
    out += text;
    if (out.size() > kMostHeld) print(std::exchange(out, {}));
  };
  for (const Range& range : ranges) {
    const bool alone = range.first == range.last;
    for (mpz_class n = range.first; n <= range.last; ++n) {
      if (stop.stop_requested()) {
        print(out);
        throw Interrupted();
      }
      if (n < most_word) {
        const std::uint64_t word = n.get_ui();
        try {
          const MinSum<std::uint64_t> found = min_sum(word, options);
          add(arguments.json ? as_json(word, found) : as_text(word, found, alone));
        } catch (const MinSumStopped&) {
          print(out);
          throw Interrupted();
        }
        continue;
      }
      print(std::exchange(out, {}));
      tell_what_to_expect(n);
      try {
        const MinSum<mpz_class> found = solve(n, options);
        add(arguments.json ? as_json(n, found) : as_text(n, found, alone));
      } catch (const MinSumStopped& stopped) {
        return tell_stopped(n, stopped, arguments.json);
      }
    }
  }
  print(out);
  return kDone;
}

}  // namespace

Run add_minsum(CLI::App& app) {
  const auto arguments = std::make_shared<Arguments>();
  Arguments& a = *arguments;
  app.footer(kExamples);
  app.add_option("numbers", a.numbers,
                 "Natural numbers of any length, or ranges; '-' or none reads them from standard input")
      ->type_name("N");
  app.add_flag("--all", a.all, "List every optimum, by a + b");
  app.add_flag("--json", a.json, "One JSON object a number, with integers as strings");
  app.add_option("--threads", a.threads, "Processor threads, at most 512; 0 for all [0]")
      ->type_name("N")
      ->check(CLI::Range(0, 512));
  app.add_option("--plot", a.plot, "Draw c, b - a and the steps of a range against N, as SVG")->type_name("FILE");
  return [arguments](const std::stop_token& stop) { return run(*arguments, stop); };
}

}  // namespace tuiqiao::cli
