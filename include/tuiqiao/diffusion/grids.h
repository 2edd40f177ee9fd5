#pragma once

#include <span>
#include <string_view>
#include <vector>

#include "tuiqiao/diffusion/schedule.h"

namespace tuiqiao {

/// In what a grid of noise levels is uniform.
enum class Grid {
  log_sigma,  ///< lambda = -log sigma
  karras,     ///< sigma^(1/rho), rho = 7: arXiv 2206.00364, equation 5
  cosine,     ///< the angle atan sigma, of a process with A = cos, B = sin
  time        ///< t of a discrete process, between its steps where need be
};
std::string_view name(Grid grid);
/// Throws: std::invalid_argument that lists the names.
Grid grid_from_name(std::string_view text);

struct GridOptions {
  double sigma_max = 0;  ///< first
  double sigma_min = 0;  ///< last above 0
  /// Whether a step to sigma = 0 ends it; it is one of the steps then, and `sigma_min` is where it starts.
  bool to_zero = true;
  double rho = 7;                      ///< of Grid::karras
  const Schedule* schedule = nullptr;  ///< of Grid::time
};

/// Noise levels of a run of `steps` steps, falling: steps + 1 of them. One step to zero is {sigma_max, 0}, whatever
/// sigma_min is.
/// Domain: steps >= 1, 0 < sigma_min <= sigma_max, of Grid::time both within the process's sigmas. Throws:
/// std::invalid_argument "[sigma_grid] ...".
std::vector<double> sigma_grid(Grid grid, int steps, const GridOptions& options);

/// Those of a discrete process at its own steps (strided_steps), then 0. Throws: std::invalid_argument.
std::vector<double> sigmas_of(const Schedule& schedule, std::span<const int> steps);

}  // namespace tuiqiao
