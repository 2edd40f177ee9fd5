// clang 14, and so clang-tidy, cannot read libtorch 1.13's headers as C++20.
#ifndef __clang_analyzer__
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <utility>

#include "chart_picture.h"
#include "diffusion_commands.h"
#include "diffusion_measure.h"
#include "file_output.h"
#include "program.h"
#include "terminal.h"
#include "tuiqiao/error.h"

namespace tuiqiao::cli {

namespace {

using nlohmann::json;
using nlohmann::ordered_json;

constexpr const char* kExamples = R"(Examples:
  tuiqiao diffusion tune-skips --model models/fashion-mnist --nfe 8 --sampler dpmpp-2m --schedule karras --out build/rho.json
  tuiqiao diffusion tune-skips --model models/fashion-mnist --nfe 5 --sampler euler --count 2000 --seeds 1,2,3 --out rho5.json \
      --plot rho5.png
Every rho is tried on the same noise: rho_bottom of the deepest skip, linear up to rho_top = 1 at the one nearest the input. First
the grid, then golden sections beside its best. What OUT holds already from the same settings is not done again.)";

struct Arguments {
  ModelArguments model;
  SamplerArguments sampler;
  MeasureArguments measure;
  int nfe = 8, refine = 4;
  std::vector<double> grid{0.7, 0.75, 0.8, 0.85, 0.9, 0.95, 1, 1.05, 1.1, 1.15};
  std::vector<std::uint64_t> seeds{0};
  double rho_top = 1;
  std::string out, plot;
  DeviceArguments device;
};

class Tuning {
 public:
  Tuning(const Arguments& arguments, const std::stop_token& stop) : a_(arguments) {
    progress_.stop = stop;
    progress_.report = [&](std::string_view what, std::int64_t done, std::int64_t total) {
      bar_.show(what, done, total);
    };
  }

  int operator()() {
    a_.device.settle();
    for (const double rho : a_.grid) {
      if (!std::isfinite(rho)) throw std::invalid_argument(fmt::format("--grid: {} is not finite", rho));
    }
    if (!std::isfinite(a_.rho_top)) throw std::invalid_argument("--tune-top: not finite");
    check_chart_name(a_.plot);
    check_outputs({{"--out", a_.out}, {"--plot", a_.plot}});
    const OpenedModel opened = open_model(a_.model, a_.device.device);
    a_.sampler.check_belong();
    if (a_.sampler.is_adaptive()) throw std::invalid_argument("--sampler: adaptive chooses its own evaluations");
    a_.sampler.steps = steps_of(sampler_named(a_.sampler.sampler), a_.nfe);
    way_ = {a_.sampler, a_.sampler.sigmas(opened), 1, a_.rho_top};
    settings_ = settings_of(a_.measure, a_.model, opened, a_.sampler);
    settings_["sampler"] = a_.sampler.sampler;
    settings_["sigmas"] = way_.sigmas;
    settings_["seeds"] = a_.seeds;
    settings_["rho_top"] = a_.rho_top;
    load();
    a_.sampler.tell_of_reach(opened, way_.sigmas);
    measure_ = std::make_unique<Measure>(a_.measure, a_.model, opened, progress_);
    effects_ = measure_->skip_effects();
    bar_.clear();
    tell(fmt::format(
        "tuiqiao: what a block makes moves with rho of its skip by {:.2f} of its own size, input side first\n",
        fmt::join(effects_, ", ")));
    for (const double rho : a_.grid) value_of(rho);
    const Values untuned = value_of(1);
    refine();
    save();  // the best of this search, which may have been known before
    write_plot();
    const auto best = best_of();
    print(fmt::format("best rho_bottom {:.3f}: FD-FMNIST {:.3f} ({:+.3f} of 1: {:.3f})\n", best->first,
                      mean(best->second), mean(best->second) - mean(untuned), mean(untuned)));
    if (is_at_edge(best))
      tell("tuiqiao: the best lies at the end of what was tried; a wider --grid may hold a better one\n");
    return kDone;
  }

 private:
  using Values = std::vector<double>;  // one a seed

  static double mean(const Values& values) {
    double sum = 0;
    for (const double value : values) sum += value / static_cast<double>(values.size());
    return sum;
  }

  std::map<double, Values>::const_iterator best_of() const {
    return std::min_element(used_.begin(), used_.end(),
                            [](const auto& a, const auto& b) { return mean(a.second) < mean(b.second); });
  }

  /// Whether a better one may lie beyond what was tried.
  bool is_at_edge(std::map<double, Values>::const_iterator one) const {
    return one == used_.begin() || std::next(one) == used_.end();
  }

  void load() {
    const json kept = kept_results(a_.out, settings_);
    if (kept.is_null()) return;
    for (const json& point : kept_list(a_.out, kept, "points")) {
      const json rho = point.value("rho_bottom", json()), values = point.value("fd_fmnist", json());
      const auto is_number = [](const json& value) { return value.is_number(); };
      if (!rho.is_number() || !values.is_array() || values.size() != a_.seeds.size() ||
          !std::all_of(values.begin(), values.end(), is_number))
        throw Error(fmt::format("{}: a point has no rho_bottom or no fd_fmnist of {} seeds", a_.out, a_.seeds.size()));
      known_.emplace(rho, values.get<Values>());
    }
  }

  /// With what another run may have written there since.
  void save() {
    load();
    ordered_json points = ordered_json::array();
    for (const auto& [rho, values] : known_)
      points.push_back({{"rho_bottom", rho}, {"fd_fmnist", values}, {"mean", mean(values)}});
    const auto best = best_of();
    write_file_atomically(
        a_.out,
        ordered_json{
            {"settings", settings_},
            {"nfe", way_.evaluations()},
            {"best", {{"rho_bottom", best->first}, {"fd_fmnist", best->second}, {"at_edge", is_at_edge(best)}}},
            {"points", points},
            {"skip_effects", effects_},
            {"peak_rss_bytes", peak_rss_bytes()}}
                .dump(1) +
            "\n");
  }

  /// Before the first measurement: where all is known, not even one batch is to be timed.
  void tell_cost() {
    if (std::exchange(cost_told_, true)) return;
    const std::int64_t images = a_.measure.count * static_cast<std::int64_t>(a_.seeds.size());
    const std::int64_t each = images * way_.evaluations();
    const Measure::Speed speed = measure_->speed();
    const auto seconds = [&](double evaluations, double looked_at) {
      return duration(speed.evaluation * evaluations + speed.features * looked_at);
    };
    tell(fmt::format(
        "tuiqiao: {} evaluations for each rho, about {}, and {} once for the reference: {} images, {} seeds, "
        "{} steps of {}\n",
        each, seconds(static_cast<double>(each), static_cast<double>(images)),
        seconds(0, static_cast<double>(measure_->reference_left())), a_.measure.count, a_.seeds.size(),
        way_.sigmas.size() - 1, a_.sampler.sampler));
  }

  const Values& value_of(double rho) {
    rho = std::round(rho * 1e4) / 1e4;
    if (const auto found = known_.find(rho); found != known_.end()) return used_[rho] = found->second;
    tell_cost();
    way_.rho_bottom = rho;
    Values values;
    for (const std::uint64_t seed : a_.seeds) {
      const std::string what = fmt::format("rho {:.3f}, seed {}", rho, seed);
      values.push_back(measure_->frechet(measure_->features(measure_->samples(way_, seed, a_.measure.count, what))));
    }
    bar_.clear();
    std::string each;
    for (const double value : values) each += fmt::format(" {:.3f}", value);
    tell(fmt::format("rho_bottom {:.3f}: FD-FMNIST{}\n", rho, each));
    known_[rho] = used_[rho] = values;
    save();
    return used_[rho];
  }

  /// Golden sections between the neighbours of the best so far.
  void refine() {
    constexpr double kGolden = 0.381966;
    for (int step = 0; step < a_.refine; ++step) {
      const auto best = best_of();
      const double low = best == used_.begin() ? best->first : std::prev(best)->first;
      const double high = std::next(best) == used_.end() ? best->first : std::next(best)->first;
      const bool up = high - best->first > best->first - low;
      const double next = best->first + kGolden * (up ? high - best->first : low - best->first);
      if (std::abs(next - best->first) < 0.002) return;
      value_of(next);
    }
  }

  void write_plot() const {
    if (a_.plot.empty()) return;
    Chart chart{fmt::format("{} at {} evaluations", a_.sampler.sampler, way_.evaluations()),
                {"rho of the deepest skip"},
                {"FD-FMNIST"},
                {}};
    for (std::size_t s = 0; s < a_.seeds.size(); ++s) {
      Series series{fmt::format("seed {}", a_.seeds[s]), {}};
      for (const auto& [rho, values] : used_) series.points.emplace_back(rho, values[s]);
      chart.series.push_back(std::move(series));
    }
    write_file_atomically(a_.plot, chart_picture(a_.plot, {chart}));
  }

  Arguments a_;
  Progress progress_;
  ProgressBar bar_;
  Measure::Way way_;
  std::unique_ptr<Measure> measure_;
  ordered_json settings_;
  std::vector<double> effects_;     ///< of each skip, the one nearest the input first
  std::map<double, Values> known_;  ///< by rho_bottom: all that OUT holds
  std::map<double, Values> used_;   ///< those of this search
  bool cost_told_ = false;
};

}  // namespace

Run add_diffusion_tune(CLI::App& app) {
  const auto arguments = std::make_shared<Arguments>();
  Arguments& a = *arguments;
  app.footer(kExamples);
  a.model.add_to(app);
  ModelArguments::keep_network(app);
  a.sampler.sampler = "dpmpp-2m";
  a.sampler.add_to(app);
  app.remove_option(app.get_option("--steps"));
  a.measure.add_to(app);
  app.add_option("--nfe", a.nfe, "Evaluations of the network for each image, in about [8]")
      ->type_name("N")
      ->check(CLI::Range(1, 100000));
  app.add_option("--seeds", a.seeds, "Of the noise, one measurement each [0]")
      ->type_name("S,...")
      ->delimiter(',')
      ->check(whole_number(kMostSeed));
  app.add_option("--grid", a.grid, "Values of rho_bottom to begin with [0.7,0.75,...,1.15]")
      ->type_name("R,...")
      ->delimiter(',');
  app.add_option("--refine", a.refine, "Golden sections after them [4]")->type_name("N")->check(CLI::Range(0, 100));
  app.add_option("--tune-top", a.rho_top, "rho of the skip nearest the input [1]")->type_name("R");
  app.add_option("--out", a.out, "Write values here as JSON, after each")->type_name("FILE")->required();
  app.add_option("--plot", a.plot, "Write the curve here as .png or .svg")->type_name("FILE");
  a.device.add_to(app);
  return [arguments](const std::stop_token& stop) { return Tuning(*arguments, stop)(); };
}

}  // namespace tuiqiao::cli
#endif
