#include "tuiqiao/diffusion/samplers.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <vector>

#include "timing.h"
#include "tuiqiao/diffusion/grids.h"

// What each sampler's error is on a mixture whose flow is known, and how fast it falls: no times, the same everywhere.

namespace tuiqiao::bench {
namespace {

using nlohmann::json;

constexpr double kMax = 5, kMin = 0.1, kMinInSigma = 0.5;

const MixtureDenoiser& mixture() {
  static const MixtureDenoiser denoiser({{1, 2, 1}, {{-1, 0.5}, {0.7, 0}, {0.2, -1}}, {0.3, 0.5, 0.4}});
  return denoiser;
}

const std::vector<double>& start() {
  static const std::vector<double> x{3, -2, 1, 4, -5, 0.5, 0, 0, -1, -3};
  return x;
}

void no_noise(std::uint64_t, std::span<double> values) { std::ranges::fill(values, 0); }

const std::vector<double>& flow(double to) {
  static std::map<double, std::vector<double>> known{{kMax, start()}};
  if (!known.contains(to)) {
    SamplerOptions options;
    options.tolerance = 1e-13;
    std::vector<double> x = start();
    sample("adaptive", mixture(), std::vector<double>{kMax, to}, no_noise, options, x);
    known[to] = x;
  }
  return known[to];
}

struct Row {
  std::string_view name;
  int order = 0;  ///< the option
};

/// Largest error after so many steps of a grid; iPNDM's is uniform in sigma, Karras's of exponent 1.
double error_of(const Row& row, int steps, bool exactly, Grid grid = Grid::log_sigma) {
  GridOptions range{.sigma_max = kMax, .sigma_min = kMin, .to_zero = false};
  if (row.name == "ipndm") {
    grid = Grid::karras;
    range.rho = 1;
    range.sigma_min = kMinInSigma;
  }
  const std::vector<double> sigmas = sigma_grid(grid, steps, range);
  SamplerOptions options;
  options.order = row.order;
  options.s_fraction = 0;
  if (exactly)
    options.exact_start = [](double sigma, std::span<double> x) { std::ranges::copy(flow(sigma), x.begin()); };
  std::vector<double> x = start();
  sample(row.name, mixture(), sigmas, no_noise, options, x);
  double most = 0;
  for (std::size_t i = 0; i < x.size(); ++i) most = std::max(most, std::abs(x[i] - flow(sigmas.back())[i]));
  return most;
}

/// The slopes of the last two halvings above rounding.
std::vector<double> orders_of(const Row& row, bool exactly, Grid grid = Grid::log_sigma) {
  std::vector<double> errors;
  for (int steps = 40; steps <= 1280; steps *= 2) errors.push_back(error_of(row, steps, exactly, grid));
  std::vector<double> slopes;
  for (std::size_t i = 1; i < errors.size() && errors[i] > 2e-11; ++i)
    slopes.push_back(std::log2(errors[i - 1] / errors[i]));
  return {slopes[slopes.size() - 2], slopes.back()};
}

int run(const std::string& out) {
  std::vector<Row> rows;
  for (const SamplerInfo& info : samplers()) {
    const bool has_orders = info.name == "unipc" || info.name == "deis" || info.name == "ipndm";
    if (info.name == "adaptive" || (info.stochastic && info.name != "sde-heun")) continue;
    for (int order = has_orders ? 1 : 0; order <= (has_orders ? info.name == "unipc" ? 3 : 4 : 0); ++order)
      rows.push_back({info.name, order});
  }
  fmt::print(
      "A mixture of three Gaussians in two dimensions, sigma from {} to {}, equal steps of log sigma; iPNDM to {}, "
      "equal steps of sigma.\n\n",
      kMax, kMin, kMinInSigma);
  fmt::print(
      "| sampler | order | from exact values | along Karras's grid | from its own | error at 10 evaluations | at 20 "
      "| at 40 |\n|---|---|---|---|---|---|---|---|\n");
  json results = json::array();
  for (const Row& row : rows) {
    const SamplerInfo& info = sampler_named(row.name);
    const int claimed = row.order == 0 ? info.order : row.order + (row.name == "unipc" ? 1 : 0);
    const std::vector<double> exact = orders_of(row, true), own = orders_of(row, false),
                              karras = orders_of(row, true, Grid::karras);
    const std::string along = row.name == "ipndm" ? "" : fmt::format("{:.2f}, {:.2f}", karras[0], karras[1]);
    std::vector<double> errors;
    for (const int evaluations : {10, 20, 40}) errors.push_back(error_of(row, evaluations / info.evaluations, false));
    const std::string name = row.order == 0 ? std::string(row.name) : fmt::format("{} --order {}", row.name, row.order);
    fmt::print("| `{}` | {} | {:.2f}, {:.2f} | {} | {:.2f}, {:.2f} | {:.1e} | {:.1e} | {:.1e} |\n", name, claimed,
               exact[0], exact[1], along, own[0], own[1], errors[0], errors[1], errors[2]);
    results.push_back({{"sampler", row.name},
                       {"order_option", row.order},
                       {"claimed", claimed},
                       {"slopes_exact_start", exact},
                       {"slopes_exact_start_karras", karras},
                       {"slopes_own_start", own},
                       {"errors_at_10_20_40", errors}});
  }
  std::ofstream(out) << results.dump(1) << "\n";
  return 0;
}

}  // namespace
}  // namespace tuiqiao::bench

int main(int argc, char** argv) { return tuiqiao::bench::main_of("bench_samplers", argc, argv, tuiqiao::bench::run); }
