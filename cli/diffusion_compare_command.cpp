// clang 14, and so clang-tidy, cannot read libtorch 1.13's headers as C++20.
#ifndef __clang_analyzer__
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <set>
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
  tuiqiao diffusion compare --model models/fashion-mnist --samplers euler,dpmpp-2m,unipc --nfe 5,10,20 --schedule karras \
      --out build/few.json --plot build/few.png
  tuiqiao diffusion compare --model models/fashion-mnist --samplers heun,sde --rhos 1,0.9 --seeds 1,2,3 -n 2000 --out few.json
Image i has the same noise in all ways. FD-FMNIST and KID compare with the training images in a classifier's features; `distance`
is the root mean square to a solution of the ODE in many steps from the same noise, for its samplers; with --brownian
`path_distance` is that to one of the SDE along each image's own path. What OUT holds already from the same settings is not done
again.)";

constexpr const char* kDistances[] = {"distance", "path_distance"};

struct Arguments {
  ModelArguments model;
  SamplerArguments sampler;
  MeasureArguments measure;
  std::vector<std::string> samplers{"euler", "heun", "dpmpp-2m", "dpmpp-3m", "unipc", "deis"};
  std::vector<int> nfe{5, 10, 20};
  std::vector<double> rhos{1};
  std::vector<std::uint64_t> seeds{0};
  int solution_steps = 1000;
  std::int64_t solution_images = 100;
  std::string out, plot;
  DeviceArguments device;
};

class Comparison {
 public:
  Comparison(const Arguments& arguments, const std::stop_token& stop) : a_(arguments) {
    progress_ = {[&](std::string_view what, std::int64_t done, std::int64_t total) { bar_.show(what, done, total); },
                 stop};
  }

  int operator()() {
    a_.device.settle();
    check_chart_name(a_.plot);
    check_outputs({{"--out", a_.out}, {"--plot", a_.plot}});
    const OpenedModel opened = open_model(a_.model, a_.device.device);
    plan(opened);
    settings_ = settings_of(a_.measure, a_.model, opened, a_.sampler);
    if (a_.solution_images > 0) settings_["solution_steps"] = a_.solution_steps;
    settings_["solution_images"] = a_.solution_images;
    load();
    tell_of_reach(opened);
    tell_of_distances();
    measure_ = std::make_unique<Measure>(a_.measure, a_.model, opened, progress_);
    bar_.clear();
    tell_cost();
    for (const Measure::Way& way : ways_) {
      for (const std::uint64_t seed : a_.seeds) evaluate(way, seed);
    }
    bar_.clear();
    print_table();
    write_plot();
    return kDone;
  }

 private:
  /// Of the equation that a solution is of: s/g as --s-fraction says it; none for the ODE.
  using Fractions = std::vector<double>;

  static std::string key(const Measure::Way& way, std::uint64_t seed) {
    return fmt::format("{} nfe {} rho {} seed {}", way.sampler.sampler, way.evaluations(), way.rho_bottom, seed);
  }

  template <class T>
  static void drop_repeated(std::vector<T>& values) {
    std::vector<T> kept;
    for (const T& value : values) {
      if (std::find(kept.begin(), kept.end(), value) == kept.end()) kept.push_back(value);
    }
    values = std::move(kept);
  }

  Measure::Way settled(const OpenedModel& opened, const std::string& sampler, int steps, double rho) const {
    Measure::Way way{a_.sampler, {}, rho, 1};
    way.sampler.sampler = sampler;
    way.sampler.steps = steps;
    way.sigmas = way.sampler.sigmas(opened);
    return way;
  }

  void plan(const OpenedModel& opened) {
    drop_repeated(a_.samplers);
    drop_repeated(a_.nfe);
    drop_repeated(a_.rhos);
    drop_repeated(a_.seeds);
    for (const double rho : a_.rhos) {
      if (!std::isfinite(rho)) throw std::invalid_argument(fmt::format("--rhos: {} is not finite", rho));
    }
    a_.solution_images = std::min(a_.solution_images, a_.measure.count);
    a_.sampler.check_belong(a_.samplers, "--samplers");
    if (a_.solution_images > 0) solution_way_ = settled(opened, "dpmpp-2m", a_.solution_steps, 1);
    std::set<std::string> planned;
    for (const std::string& name : a_.samplers) {
      const SamplerInfo& info = sampler_named(name);
      if (info.name == "adaptive") throw std::invalid_argument("--samplers: adaptive chooses its own evaluations");
      for (const int nfe : a_.nfe) {
        for (const double rho : a_.rhos) {
          Measure::Way way = settled(opened, name, steps_of(info, nfe), rho);
          if (planned.insert(key(way, 0)).second) ways_.push_back(std::move(way));
        }
      }
    }
  }

  /// Of the way that begins lowest: with fewest steps.
  void tell_of_reach(const OpenedModel& opened) const {
    const Measure::Way& way = *std::min_element(
        ways_.begin(), ways_.end(), [](const auto& a, const auto& b) { return a.sigmas.front() < b.sigmas.front(); });
    way.sampler.tell_of_reach(opened, way.sigmas);
  }

  void tell_of_distances() const {
    const auto lacks = [&](const Measure::Way& way) {
      return is_along_paths(sampler_named(way.sampler.sampler)) && !begins_with_solution(way);
    };
    if (a_.solution_images > 0 && std::any_of(ways_.begin(), ways_.end(), lacks))
      tell(
          "tuiqiao: no distances along paths where sigmas begin elsewhere than the solution's: --spacing trailing, and "
          "other schedules, begin together\n");
  }

  void load() {
    const json kept = kept_results(a_.out, settings_);
    if (kept.is_null()) return;
    for (const json& row : kept_list(a_.out, kept, "rows")) {
      const auto check = [&](const char* field, auto is) {
        if (!row.contains(field) || !(row.at(field).*is)())
          throw Error(fmt::format("{}: a row has no {}", a_.out, field));
      };
      for (const char* field : {"key", "sampler"}) check(field, &json::is_string);
      for (const char* field : {"nfe", "rho_bottom", "seed", "fd_fmnist", "kid"}) check(field, &json::is_number);
      for (const char* field : kDistances) {
        if (row.contains(field) && !row.at(field).is_null()) check(field, &json::is_number);
      }
      ordered_json& known = rows_.emplace(row.at("key").get<std::string>(), ordered_json(row)).first->second;
      for (const char* field : kDistances) {
        if (!known.contains(field)) known[field] = nullptr;
      }
    }
  }

  /// What is to be done, and about how long it takes by the speed of one batch.
  void tell_cost() {
    std::int64_t evaluations = 0, left = 0;
    std::set<std::pair<Fractions, std::uint64_t>> solved;
    for (const Measure::Way& way : ways_) {
      for (const std::uint64_t seed : a_.seeds) {
        if (is_known(way, seed)) continue;
        evaluations += way.evaluations() * a_.measure.count;
        ++left;
        if (const auto fractions = solved_fractions(way)) solved.emplace(*fractions, seed);
      }
    }
    const std::int64_t solutions = static_cast<std::int64_t>(solved.size()) * a_.solution_images * a_.solution_steps;
    std::string time;
    if (left > 0) {
      const Measure::Speed speed = measure_->speed();
      const std::int64_t looked_at = left * a_.measure.count + measure_->reference_left();
      time = fmt::format(", about {}", duration(speed.evaluation * static_cast<double>(evaluations + solutions) +
                                                speed.features * static_cast<double>(looked_at)));
    }
    tell(fmt::format(
        "tuiqiao: {} measurements, {} of them to do: {} evaluations of the network, and {} for solutions{}\n",
        ways_.size() * a_.seeds.size(), left, evaluations, solutions, time));
  }

  /// With plain skips, from the same noise.
  const std::vector<double>& solution(const Fractions& fractions, std::uint64_t seed) {
    const auto [known, is_new] = solutions_.try_emplace({fractions, seed});
    if (!is_new) return known->second;
    Measure::Way way = solution_way_;
    if (!fractions.empty()) {
      way.sampler.sampler = "sde-dpmpp-2m";
      way.sampler.s_fractions = fractions;
    }
    const std::string what = fmt::format("solution of the {}, seed {}", fractions.empty() ? "ODE" : "SDE", seed);
    return known->second = measure_->samples(way, seed, a_.solution_images, what);
  }

  /// Of the equation whose solution a way goes to with more steps; none where distances are not wanted or mean nothing.
  std::optional<Fractions> solved_fractions(const Measure::Way& way) const {
    const SamplerInfo& info = sampler_named(way.sampler.sampler);
    if (a_.solution_images == 0) return std::nullopt;
    if (a_.sampler.is_deterministic(info)) return Fractions{};
    if (!is_along_paths(info) || !begins_with_solution(way)) return std::nullopt;
    return info.stochastic ? a_.sampler.s_fractions : Fractions{a_.sampler.eta};  // ddim's steps tend to c = eta
  }

  bool is_along_paths(const SamplerInfo& info) const {
    return a_.sampler.brownian && (info.stochastic || info.name == "ddim") && !a_.sampler.is_deterministic(info);
  }

  /// Elsewhere along a path is another start, and where c varies over other sigmas, another SDE.
  bool begins_with_solution(const Measure::Way& way) const {
    const auto ends = [](const Measure::Way& of) { return std::pair{of.sigmas.front(), last_above_zero(of.sigmas)}; };
    const auto own = ends(way), wanted = ends(solution_way_);
    return own.first == wanted.first && (a_.sampler.s_fractions.size() == 1 || own.second == wanted.second);
  }

  static const char* distance_field(const Fractions& fractions) { return kDistances[fractions.empty() ? 0 : 1]; }

  /// One that lacks a distance which it could have, from before there were such, is done again.
  bool is_known(const Measure::Way& way, std::uint64_t seed) const {
    const auto found = rows_.find(key(way, seed));
    if (found == rows_.end()) return false;
    const auto fractions = solved_fractions(way);
    return !fractions || !found->second.at(distance_field(*fractions)).is_null();
  }

  void evaluate(const Measure::Way& way, std::uint64_t seed) {
    const std::string name = key(way, seed);
    if (is_known(way, seed)) return;
    const SamplerInfo& info = sampler_named(way.sampler.sampler);
    const std::vector<double> x = measure_->samples(way, seed, a_.measure.count, name);
    const std::vector<float> features = measure_->features(x);
    const double fd = measure_->frechet(features);
    ordered_json row{{"key", name},
                     {"sampler", info.name},
                     {"nfe", way.evaluations()},
                     {"rho_bottom", way.rho_bottom},
                     {"seed", seed},
                     {"fd_fmnist", fd},
                     {"kid", measure_->kernel(features).value},
                     {"distance", nullptr},
                     {"path_distance", nullptr}};
    if (const auto fractions = solved_fractions(way)) {
      const std::vector<double>& exact = solution(*fractions, seed);
      const std::size_t numbers = std::min(exact.size(), x.size());
      double sum = 0;
      for (std::size_t i = 0; i < numbers; ++i) sum += (x[i] - exact[i]) * (x[i] - exact[i]);
      row[distance_field(*fractions)] = std::sqrt(sum / static_cast<double>(numbers));
    }
    bar_.clear();
    tell(fmt::format("{}: FD-FMNIST {:.3f}\n", name, fd));
    rows_[name] = row;
    save();
  }

  /// With what another run may have written there since.
  void save() {
    load();
    ordered_json rows = ordered_json::array();
    for (const auto& [name, row] : rows_) rows.push_back(row);
    write_file_atomically(
        a_.out,
        ordered_json{{"settings", settings_}, {"rows", rows}, {"peak_rss_bytes", peak_rss_bytes()}}.dump(1) + "\n");
  }

  struct Figures {
    double mean = 0, least = HUGE_VAL, most = -HUGE_VAL;
  };
  /// Over seeds; none where a figure is missing.
  std::optional<Figures> figures(const Measure::Way& way, const char* field) const {
    Figures found;
    for (const std::uint64_t seed : a_.seeds) {
      const ordered_json& value = rows_.at(key(way, seed)).at(field);
      if (value.is_null()) return std::nullopt;
      found.mean += value.get<double>() / static_cast<double>(a_.seeds.size());
      found.least = std::min(found.least, value.get<double>());
      found.most = std::max(found.most, value.get<double>());
    }
    return found;
  }

  void print_table() const {
    std::string text = fmt::format(
        "| sampler | NFE | rho | FD-FMNIST [{} seeds] | KID | distance | path distance "
        "|\n|---|---|---|---|---|---|---|\n",
        a_.seeds.size());
    for (const Measure::Way& way : ways_) {
      const Figures fd = *figures(way, "fd_fmnist"), kid = *figures(way, "kid");
      text += fmt::format("| {} | {} | {} | {:.3f} [{:.3f}, {:.3f}] | {:.4f} |", way.sampler.sampler, way.evaluations(),
                          way.rho_bottom, fd.mean, fd.least, fd.most, kid.mean);
      for (const char* field : kDistances) {
        const auto distance = figures(way, field);
        text += distance ? fmt::format(" {:.4f} |", distance->mean) : "  |";
      }
      text += "\n";
    }
    print(text);
  }

  void write_plot() const {
    if (a_.plot.empty()) return;
    Chart quality{"FD-FMNIST against evaluations", {"NFE", Scale::logarithmic}, {"FD-FMNIST", Scale::logarithmic}, {}};
    Chart distance{"Distance to the solution", {"NFE", Scale::logarithmic}, {"RMS", Scale::logarithmic}, {}};
    Chart along{"Distance to the solution along each path", distance.x, distance.y, {}};
    for (const Measure::Way& way : ways_) {
      const std::string name =
          way.rho_bottom == 1 ? way.sampler.sampler : fmt::format("{} rho {}", way.sampler.sampler, way.rho_bottom);
      const auto add = [&](Chart& chart, const std::optional<Figures>& found) {
        if (!found) return;
        const auto known =
            std::find_if(chart.series.begin(), chart.series.end(), [&](const Series& s) { return s.name == name; });
        Series& series = known == chart.series.end() ? chart.series.emplace_back(Series{name, {}}) : *known;
        series.points.emplace_back(static_cast<double>(way.evaluations()), found->mean);
      };
      add(quality, figures(way, "fd_fmnist"));
      add(distance, figures(way, kDistances[0]));
      add(along, figures(way, kDistances[1]));
    }
    std::vector<Chart> charts{quality};
    for (const Chart& chart : {distance, along}) {
      if (!chart.series.empty()) charts.push_back(chart);
    }
    write_file_atomically(a_.plot, chart_picture(a_.plot, charts));
  }

  Arguments a_;
  Progress progress_;
  ProgressBar bar_;
  std::vector<Measure::Way> ways_;
  std::unique_ptr<Measure> measure_;
  Measure::Way solution_way_;  ///< of the ODE
  std::map<std::pair<Fractions, std::uint64_t>, std::vector<double>> solutions_;
  ordered_json settings_;
  std::map<std::string, ordered_json> rows_;
};

}  // namespace

Run add_diffusion_compare(CLI::App& app) {
  const auto arguments = std::make_shared<Arguments>();
  Arguments& a = *arguments;
  app.footer(kExamples);
  a.model.add_to(app);
  ModelArguments::keep_network(app);
  a.sampler.add_to(app);
  app.remove_option(app.get_option("--steps"));
  app.remove_option(app.get_option("--sampler"));
  a.measure.add_to(app);
  app.add_option("--samplers", a.samplers, "Of --list-samplers [euler,heun,dpmpp-2m,dpmpp-3m,unipc,deis]")
      ->type_name("NAME,...")
      ->delimiter(',');
  app.add_option("--nfe", a.nfe, "Evaluations of the network for each image, in about [5,10,20]")
      ->type_name("N,...")
      ->delimiter(',')
      ->check(CLI::Range(1, 100000));
  app.add_option("--rhos", a.rhos, "Factors of the deepest skip [1]")->type_name("R,...")->delimiter(',');
  app.add_option("--seeds", a.seeds, "Of the noise, one measurement each [0]")
      ->type_name("S,...")
      ->delimiter(',')
      ->check(whole_number(kMostSeed));
  app.add_option("--solution-steps", a.solution_steps,
                 "Of the solution that distances are to (dpmpp-2m, sde-dpmpp-2m) [1000]")
      ->type_name("N")
      ->check(CLI::Range(1, 1000000));
  app.add_option("--solution-images", a.solution_images, "For how many images; 0 for none [100]")
      ->type_name("N")
      ->check(number_from_zero());
  app.add_option("--out", a.out, "Write values here as JSON, after each")->type_name("FILE")->required();
  app.add_option("--plot", a.plot, "Write quality and distance against evaluations here as .png or .svg")
      ->type_name("FILE");
  a.device.add_to(app);
  return [arguments](const std::stop_token& stop) { return Comparison(*arguments, stop)(); };
}

}  // namespace tuiqiao::cli
#endif
