#include "tuiqiao/diffusion/grids.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <stdexcept>
#include <utility>

namespace tuiqiao {

namespace {

constexpr std::pair<Grid, std::string_view> kGridNames[] = {
    {Grid::log_sigma, "log_sigma"}, {Grid::karras, "karras"}, {Grid::cosine, "cosine"}, {Grid::time, "time"}};

/// A variable that a grid is uniform in.
struct Variable {
  std::function<double(double)> of_sigma, sigma_of;
};

Variable variable_of(Grid grid, const GridOptions& options) {
  const double rho = options.rho;
  const Schedule* schedule = options.schedule;
  switch (grid) {
    case Grid::log_sigma:
      return {[](double s) { return std::log(s); }, [](double v) { return std::exp(v); }};
    case Grid::karras:
      return {[=](double s) { return std::pow(s, 1 / rho); }, [=](double v) { return std::pow(v, rho); }};
    case Grid::cosine:
      return {[](double s) { return std::atan(s); }, [](double v) { return std::tan(v); }};
    case Grid::time:
      return {[=](double s) { return schedule->step_of(s); }, [=](double v) { return schedule->sigma_at(v); }};
  }
  return {};
}

/// Beyond its first and last step a process has no time.
void check_within(const Schedule& schedule, double min, double max) {
  const double low = schedule.sigma(1), high = schedule.sigma(schedule.steps());
  if (min < low || max > high)
    throw std::invalid_argument(
        fmt::format("[sigma_grid] sigma_min = {}, sigma_max = {}: a grid in time lies within the process's sigmas, "
                    "{:.6g} to {:.6g}",
                    min, max, low, high));
}

}  // namespace

std::string_view name(Grid grid) { return kGridNames[static_cast<std::size_t>(grid)].second; }

Grid grid_from_name(std::string_view text) {
  for (const auto& [grid, known] : kGridNames) {
    if (text == known) return grid;
  }
  throw std::invalid_argument(fmt::format("[grid_from_name] '{}' is none of log_sigma, karras, cosine, time", text));
}

std::vector<double> sigma_grid(Grid grid, int steps, const GridOptions& options) {
  const double max = options.sigma_max, min = options.sigma_min;
  if (steps < 1) throw std::invalid_argument(fmt::format("[sigma_grid] steps = {} is less than 1", steps));
  if (!(min > 0 && min <= max && std::isfinite(max)))
    throw std::invalid_argument(
        fmt::format("[sigma_grid] sigma_min = {}, sigma_max = {}: 0 < sigma_min <= sigma_max", min, max));
  if (!(options.rho > 0))
    throw std::invalid_argument(fmt::format("[sigma_grid] rho = {} is not positive", options.rho));
  if (grid == Grid::time && !options.schedule)
    throw std::invalid_argument("[sigma_grid] a grid in time needs a schedule");
  if (grid == Grid::time) check_within(*options.schedule, min, max);
  const Variable variable = variable_of(grid, options);
  const double from = variable.of_sigma(max), to = variable.of_sigma(min);
  const int intervals = options.to_zero ? steps - 1 : steps;
  std::vector<double> sigmas{max};
  for (int i = 1; i < intervals; ++i) sigmas.push_back(variable.sigma_of(from + (to - from) * i / intervals));
  if (intervals > 0) sigmas.push_back(min);
  if (options.to_zero) sigmas.push_back(0);
  if (!std::all_of(sigmas.begin(), sigmas.end(), [](double sigma) { return std::isfinite(sigma); }))
    throw std::invalid_argument(fmt::format("[sigma_grid] rho = {}: sigmas are not finite", options.rho));
  // What rounding does between equal ends must not make it rise.
  for (std::size_t i = 1; i < sigmas.size(); ++i) sigmas[i] = std::min(sigmas[i], sigmas[i - 1]);
  return sigmas;
}

std::vector<double> sigmas_of(const Schedule& schedule, std::span<const int> steps) {
  std::vector<double> sigmas;
  for (const int t : steps) {
    if (t < 1 || t > schedule.steps())
      throw std::invalid_argument(fmt::format("[sigmas_of] step {} outside [1, {}]", t, schedule.steps()));
    sigmas.push_back(schedule.sigma(t));
  }
  sigmas.push_back(0);
  return sigmas;
}

}  // namespace tuiqiao
