// clang 14, and so clang-tidy, cannot read libtorch 1.13's headers as C++20.
#ifndef __clang_analyzer__
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <memory>
#include <nlohmann/json.hpp>

#include "chart_picture.h"
#include "diffusion_commands.h"
#include "diffusion_inputs.h"
#include "diffusion_model.h"
#include "file_output.h"
#include "terminal.h"
#include "tuiqiao/diffusion/likelihood.h"
#include "tuiqiao/diffusion/model.h"
#include "tuiqiao/diffusion/noise.h"

namespace tuiqiao::cli {

namespace {

using nlohmann::ordered_json;

constexpr const char* kExamples = R"(Examples:
  tuiqiao diffusion likelihood --model models/fashion-mnist --data /usr/share/datasets/fashion-mnist --part t10k -n 64 --steps 50
  tuiqiao diffusion likelihood --model analytic:mixture.json --x points.npy --steps 200 --probes 0 --json
nats is -log p of one datum in the units that the model sees, [-1, 1]. bits_per_dim = nats / (size log 2) + log2 127.5: of images
of 8 bits, v = 127.5 (x + 1), made continuous by uniform noise in [-1/2, 1/2) added to v (--data; --x is taken as it is).)";

struct Arguments {
  ModelArguments model;
  InputArguments inputs;
  LikelihoodOptions options;
  double sigma_min = 0, sigma_max = 0;
  std::int64_t batch = 32;
  std::string plot;
  bool as_json = false;
  DeviceArguments device;
};

int measure(Arguments a, const std::stop_token& stop) {
  a.device.settle();
  check_chart_name(a.plot);
  check_writable(a.plot);
  const OpenedModel model = open_model(a.model, a.device.device);
  const Inputs data = read_inputs(a.inputs, model);
  if (!std::isfinite(a.sigma_min) || !std::isfinite(a.sigma_max))
    throw std::invalid_argument("--sigma-min and --sigma-max: not finite");
  LikelihoodOptions options = a.options;
  options.sigma_min = a.sigma_min > 0 ? a.sigma_min : model.schedule.sigma(1);
  options.sigma_max = a.sigma_max > 0 ? a.sigma_max : model.schedule.sigma(model.schedule.steps());
  std::unique_ptr<MixtureDenoiser> mixture;
  if (model.mixture) mixture = std::make_unique<MixtureDenoiser>(*model.mixture);
  const std::int64_t size = model.size(), nfe = std::int64_t{options.steps} * (options.fourth_order ? 4 : 2);
  ProgressBar bar;
  std::vector<double> figures;
  double sum = 0, squares = 0;
  for (std::int64_t from = 0; from < data.count; from += a.batch) {
    const std::int64_t rows = std::min(a.batch, data.count - from);
    options.first = static_cast<std::uint64_t>(a.inputs.first + from);
    options.progress = {[&](std::string_view what, std::int64_t done, std::int64_t total) {
                          bar.show(what, from * total + rows * done, data.count * total);
                        },
                        stop};
    const TraceFunction traced =
        mixture ? trace_of(*mixture) : trace_of(*model.network, a.model.classes_of(a.inputs.first + from, rows));
    const auto found = log_likelihoods(
        traced, size, {data.values.data() + from * size, static_cast<std::size_t>(rows * size)}, options);
    bar.clear();
    for (std::int64_t row = 0; row < rows; ++row) {
      const Likelihood& one = found[static_cast<std::size_t>(row)];
      const double bits = bits_per_dimension(one.nats, size), figure = model.is_image() ? bits : one.nats;
      sum += figure;
      squares += figure * figure;
      figures.push_back(figure);
      if (a.as_json) {
        ordered_json line{{"index", a.inputs.first + from + row}, {"nats", one.nats}};
        line["bits_per_dim"] = model.is_image() ? ordered_json(bits) : ordered_json();
        line["stderr_nats"] = options.probes > 1    ? ordered_json(one.error)
                              : options.probes == 0 ? ordered_json(0.0)
                                                    : ordered_json();
        line["nfe"] = nfe;
        print(line.dump() + "\n");
      } else {
        print(model.is_image()
                  ? fmt::format("{:>6} {:>12.3f} nats {:>8.4f} bits/dim\n", a.inputs.first + from + row, one.nats, bits)
                  : fmt::format("{:>6} {:>14.6f} nats\n", a.inputs.first + from + row, one.nats));
      }
    }
  }
  const auto n = static_cast<double>(data.count);
  const double mean = sum / n, deviation = n > 1 ? std::sqrt(std::max(0.0, squares / n - mean * mean) / (n - 1)) : 0;
  tell(fmt::format("{}: {:.4f} +- {:.4f} over {} data, {} evaluations each, peak memory {} MB\n",
                   model.is_image() ? "bits/dim" : "nats", mean, deviation, data.count, nfe, peak_rss_bytes() >> 20));
  if (!a.plot.empty())
    write_file_atomically(a.plot, chart_picture(a.plot, {histogram(figures, model.is_image() ? "bits/dim" : "nats")}));
  return kDone;
}

}  // namespace

Run add_diffusion_likelihood(CLI::App& app) {
  const auto arguments = std::make_shared<Arguments>();
  Arguments& a = *arguments;
  app.footer(kExamples);
  a.model.add_to(app);
  a.inputs.add_to(app);
  app.add_option("--steps", a.options.steps, "Steps of the solver [50]")->type_name("N")->check(CLI::Range(1, 1000000));
  app.add_flag("--fourth-order", a.options.fourth_order,
               "Runge and Kutta's method, 4 evaluations a step, for Heun's, 2");
  app.add_option("--probes", a.options.probes,
                 "Of Hutchinson's estimate of the trace; 0: exact, as many as numbers in a datum [1]")
      ->type_name("N")
      ->check(CLI::Range(0, 1000000));
  app.add_option("--seed", a.options.seed, "Of the probes [0]")->type_name("S");
  app.add_option("--sigma-min", a.sigma_min, "Noise that data are taken to have [the process's first]")
      ->type_name("S")
      ->check(CLI::PositiveNumber);
  app.add_option("--sigma-max", a.sigma_max, "Where all is noise [the process's last]")
      ->type_name("S")
      ->check(CLI::PositiveNumber);
  app.add_option("--batch", a.batch, "Data at once [32]")
      ->type_name("N")
      ->check(CLI::Range(std::int64_t{1}, std::int64_t{1} << 31));
  app.add_option("--plot", a.plot, "Write a histogram here as .png or .svg")->type_name("FILE");
  app.add_flag("--json", a.as_json, "One object a datum: index, nats, bits_per_dim, stderr_nats, nfe");
  a.device.add_to(app);
  return [arguments](const std::stop_token& stop) { return measure(*arguments, stop); };
}

}  // namespace tuiqiao::cli
#endif
