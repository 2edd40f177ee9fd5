// clang 14, and so clang-tidy, cannot read libtorch 1.13's headers as C++20.
#ifndef __clang_analyzer__
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <memory>
#include <nlohmann/json.hpp>

#include "chart_picture.h"
#include "diffusion/disturbed.h"
#include "diffusion_commands.h"
#include "diffusion_inputs.h"
#include "diffusion_model.h"
#include "file_output.h"
#include "program.h"
#include "terminal.h"
#include "text/utf8.h"
#include "tuiqiao/diffusion/likelihood.h"
#include "tuiqiao/diffusion/metrics.h"
#include "tuiqiao/diffusion/model.h"
#include "tuiqiao/diffusion/noise.h"

namespace tuiqiao::cli {

namespace {

using nlohmann::ordered_json;

constexpr const char* kExamples = R"(Examples:
  tuiqiao diffusion likelihood --model models/fashion-mnist --data /usr/share/datasets/fashion-mnist --part t10k -n 64
  tuiqiao diffusion likelihood --model analytic:mixture.json --x points.npy --steps 200 --probes 0 --json
  tuiqiao diffusion likelihood --model models/fashion-mnist --data /usr/share/datasets/fashion-mnist --part t10k -n 64 \
      --against upside-down --plot build/apart.png
nats is -log p of one datum in the units that the model sees, [-1, 1]. bits_per_dim = nats / (size log 2) + log2 127.5: of images
of 8 bits, v = 127.5 (x + 1), made continuous by uniform noise in [-1/2, 1/2) added to v (--data; --x is taken as it is).
The density is that of data with noise of --sigma-min. Double --steps to see how far the solver is from its limit. The start,
N(0, 1 + sigma^2) at --sigma-max, errs by some |mean of the data| / sigma nats: a larger --sigma-max makes it less.)";

struct Arguments {
  ModelArguments model;
  InputArguments inputs;
  LikelihoodOptions options;
  double sigma_min = 0, sigma_max = 0;
  std::int64_t batch = 32;
  std::string against, plot;
  bool as_json = false;
  DeviceArguments device;
};

/// What an option that names other data brings: those data disturbed, or others, read as they are.
Inputs read_others(const Arguments& a, const OpenedModel& model, const Inputs& data) {
  if (is_disturbance(a.against))
    return {data.count, data.count, disturbed(a.against, data.values, model.shape, a.inputs.first)};
  InputArguments inputs = a.inputs;
  (inputs.x.empty() ? inputs.data : inputs.x) = a.against;
  if (!std::filesystem::exists(a.against))
    throw Error(fmt::format("--against {}: neither a file nor one of {}", a.against, fmt::join(kDisturbances, ", ")));
  return read_inputs(inputs, model);
}

class Measurement {
 public:
  Measurement(const Arguments& a, const OpenedModel& model, const std::stop_token& stop)
      : a_(a), model_(model), stop_(stop), options_(a.options) {
    options_.sigma_min = a.sigma_min > 0 ? a.sigma_min : model.schedule.sigma(1);
    options_.sigma_max = a.sigma_max > 0 ? a.sigma_max : model.schedule.sigma(model.schedule.steps());
    if (options_.sigma_min > options_.sigma_max)
      throw std::invalid_argument(
          fmt::format("--sigma-min {}: above --sigma-max {}", options_.sigma_min, options_.sigma_max));
    tell_of_range(model, options_.sigma_max, options_.sigma_min);
    if (model.mixture) mixture_ = std::make_unique<MixtureDenoiser>(*model.mixture);
  }

  std::int64_t evaluations() const { return std::int64_t{4} * options_.steps; }
  const char* unit() const { return model_.is_image() ? "bits/dim" : "nats"; }

  /// Prints the likelihood of each datum and returns it, in unit(). `of`: what they are, where that is to be told.
  std::vector<double> figures_of(const Inputs& data, const std::string& of) {
    const std::int64_t size = model_.size();
    std::vector<double> figures;
    ProgressBar bar;
    for (std::int64_t from = 0; from < data.count; from += a_.batch) {
      const std::int64_t rows = std::min(a_.batch, data.count - from), first = a_.inputs.first + from;
      options_.first = static_cast<std::uint64_t>(first);
      options_.progress = {[&](std::string_view what, std::int64_t done, std::int64_t total) {
                             bar.show(what, from * total + rows * done, data.count * total);
                           },
                           stop_};
      const TraceFunction traced =
          mixture_ ? trace_of(*mixture_) : trace_of(*model_.network, a_.model.classes_of(first, rows));
      const auto found = log_likelihoods(
          traced, size, {data.values.data() + from * size, static_cast<std::size_t>(rows * size)}, options_);
      bar.clear();
      for (std::int64_t row = 0; row < rows; ++row) {
        const Likelihood& one = found[static_cast<std::size_t>(row)];
        figures.push_back(model_.is_image() ? bits_per_dimension(one.nats, size) : one.nats);
        print_datum(first + row, one, figures.back(), of);
      }
    }
    return figures;
  }

 private:
  void print_datum(std::int64_t index, const Likelihood& one, double figure, const std::string& of) const {
    if (!a_.as_json) {
      const bool is_image = model_.is_image();
      std::string text = fmt::format("{:>6} {:>{}.{}f}", index, one.nats, is_image ? 12 : 14, is_image ? 3 : 6);
      if (options_.probes > 1) text += fmt::format(" +- {:.{}f}", one.error, is_image ? 3 : 6);
      text += is_image ? fmt::format(" nats {:>8.4f} bits/dim", figure) : " nats";
      if (!of.empty()) text += "  " + of;
      return print(text + "\n");
    }
    ordered_json line{{"index", index}, {"nats", one.nats}};
    line["bits_per_dim"] = model_.is_image() ? ordered_json(figure) : ordered_json();
    line["stderr_nats"] = options_.probes > 1    ? ordered_json(one.error)
                          : options_.probes == 0 ? ordered_json(0.0)
                                                 : ordered_json();
    line["nfe"] = evaluations();
    if (!of.empty()) line["against"] = of;
    print(line.dump() + "\n");
  }

  const Arguments& a_;
  const OpenedModel& model_;
  std::stop_token stop_;
  LikelihoodOptions options_;
  std::unique_ptr<MixtureDenoiser> mixture_;
};

std::string summary_of(const std::vector<double>& figures, const char* unit) {
  double sum = 0, squares = 0;
  for (const double figure : figures) sum += figure;
  const auto n = static_cast<double>(figures.size());
  for (const double figure : figures) squares += (figure - sum / n) * (figure - sum / n);
  const std::string error = n > 1 ? fmt::format(" +- {:.4f}", std::sqrt(squares / (n - 1) / n)) : "";
  return fmt::format("{}: {:.4f}{} over {} data", unit, sum / n, error, figures.size());
}

/// How well the figures tell others from data: by being larger, and by being further from the median of data.
void tell_apart(const Sample& data, const Sample& strange, const char* unit, bool as_json) {
  const std::vector<double>& own = data.values;
  const std::vector<double>& others = strange.values;
  std::vector<double> sorted = own;
  std::sort(sorted.begin(), sorted.end());
  const double median = (sorted[(sorted.size() - 1) / 2] + sorted[sorted.size() / 2]) / 2;
  const auto distances = [&](std::vector<double> figures) {
    for (double& figure : figures) figure = std::abs(figure - median);
    return figures;
  };
  const double larger = area_under_curve(own, others), further = area_under_curve(distances(own), distances(others));
  tell(fmt::format(
      "{}: {}\n  told apart by a smaller likelihood: AUROC {:.3f}; by its distance from the median: {:.3f}\n",
      strange.name, summary_of(others, unit), larger, further));
  if (as_json)
    print(ordered_json{{"against", strange.name}, {"auroc", larger}, {"auroc_of_distance", further}}.dump() + "\n");
}

int measure(const Arguments& a, const std::stop_token& stop) {
  a.device.settle();
  check_chart_name(a.plot);
  check_outputs({{"--plot", a.plot}});
  const OpenedModel model = open_model(a.model, a.device.device);
  const Inputs data = read_inputs(a.inputs, model);
  const Inputs others = a.against.empty() ? Inputs{} : read_others(a, model, data);
  Measurement measurement(a, model, stop);
  std::vector<Sample> samples{{"data", measurement.figures_of(data, "")}};
  tell(summary_of(samples[0].values, measurement.unit()) + "\n");
  if (!a.against.empty()) {
    const std::string name = one_line(valid_utf8(a.against));
    samples.push_back({name, measurement.figures_of(others, name)});
    tell_apart(samples[0], samples[1], measurement.unit(), a.as_json);
  }
  tell(fmt::format("{} evaluations each, peak memory {} MB\n", measurement.evaluations(), peak_rss_bytes() >> 20));
  if (!a.plot.empty()) write_file_atomically(a.plot, chart_picture(a.plot, {histogram(samples, measurement.unit())}));
  return kDone;
}

}  // namespace

Run add_diffusion_likelihood(CLI::App& app) {
  const auto arguments = std::make_shared<Arguments>();
  Arguments& a = *arguments;
  app.footer(kExamples);
  a.model.add_to(app);
  a.inputs.add_to(app);
  app.add_option("--steps", a.options.steps, "Steps of the solver, of order 4, 4 evaluations each [20]")
      ->type_name("N")
      ->check(CLI::Range(1, 1000000));
  app.add_option("--probes", a.options.probes,
                 "Of Hutchinson's estimate of the trace; 0: exact, as many as numbers in a datum [1]")
      ->type_name("N")
      ->check(CLI::Range(0, 1000000));
  app.add_option("--seed", a.options.seed, "Of the probes [0]")->type_name("S")->check(whole_number());
  app.add_option("--sigma-min", a.sigma_min, "Noise that data are taken to have [the process's first]")
      ->type_name("S")
      ->check(positive_number());
  app.add_option("--sigma-max", a.sigma_max, "Where all is noise [the process's last]")
      ->type_name("S")
      ->check(positive_number());
  app.add_option("--batch", a.batch, "Data at once [32]")
      ->type_name("N")
      ->check(CLI::Range(std::int64_t{1}, std::int64_t{1} << 31));
  app.add_option(
         "--against", a.against,
         fmt::format("Data of another kind, to tell how well the likelihood knows them apart: the same images ({}), or "
                     "a path, read as --x or --data is",
                     fmt::join(kDisturbances, ", ")))
      ->type_name("NAME|PATH");
  app.add_option("--plot", a.plot, "Write a histogram here as .png or .svg")->type_name("FILE");
  app.add_flag(
      "--json", a.as_json,
      "One object a datum: index, nats, bits_per_dim, stderr_nats, nfe; with --against also against, and a last object "
      "with auroc and auroc_of_distance");
  a.device.add_to(app);
  return [arguments](const std::stop_token& stop) { return measure(*arguments, stop); };
}

}  // namespace tuiqiao::cli
#endif
