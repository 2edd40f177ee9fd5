#include <algorithm>
#include <array>
#include <cmath>
#include <stdexcept>

#include "diffusion/samplers/run.h"

namespace tuiqiao::sampling {

namespace {

constexpr std::size_t kStages = 7;
constexpr std::array<double, kStages> kNodes{0, 1.0 / 5, 3.0 / 10, 4.0 / 5, 8.0 / 9, 1, 1};
constexpr std::array<std::array<double, kStages - 1>, kStages> kInner{
    {{},
     {1.0 / 5},
     {3.0 / 40, 9.0 / 40},
     {44.0 / 45, -56.0 / 15, 32.0 / 9},
     {19372.0 / 6561, -25360.0 / 2187, 64448.0 / 6561, -212.0 / 729},
     {9017.0 / 3168, -355.0 / 33, 46732.0 / 5247, 49.0 / 176, -5103.0 / 18656},
     {35.0 / 384, 0, 500.0 / 1113, 125.0 / 192, -2187.0 / 6784, 11.0 / 84}}};
/// The fifth order's weights, which are the last stage's, less the fourth's.
constexpr std::array<double, kStages> kError{71.0 / 57600,      0,          -71.0 / 16695, 71.0 / 1920,
                                             -17253.0 / 339200, 22.0 / 525, -1.0 / 40};
constexpr int kMostSteps = 100000;

}  // namespace

// dx/dlog sigma = x - D by Dormand and Prince's pair. The first stage of a step is the last of the one before it.
void adaptive(Run& run) {
  const int last = run.sigmas.back() > 0 ? run.steps() : run.steps() - 1;  // of the sigmas above 0
  const double start = std::log(run.sigma(0)), end = std::log(run.sigma(last));
  const double direction = end < start ? -1 : 1;
  std::array<Numbers, kStages> slopes;
  Numbers there(run.x.size());
  const auto slope_at = [&](std::span<const double> at, double place, Numbers& slope) {
    const int done = end == start ? 0 : std::clamp(static_cast<int>((place - start) / (end - start) * last), 0, last);
    run.denoise(done, at, std::exp(place), slope);
    for (std::size_t i = 0; i < slope.size(); ++i) slope[i] = at[i] - slope[i];
  };
  double place = start, step = direction * std::min(0.1, std::abs(end - start));
  if (last > 0) slope_at(run.x, place, slopes[0]);
  for (int tries = 0; direction * (end - place) > 0; ++tries) {
    if (tries == kMostSteps) throw Error("[sample] adaptive: no step is short enough for this tolerance");
    const bool ends = direction * (place + step - end) >= -1e-12 * std::abs(end - start);
    if (ends) step = end - place;
    for (std::size_t s = 1; s < kStages; ++s) {
      for (std::size_t i = 0; i < there.size(); ++i) {
        double sum = 0;
        for (std::size_t r = 0; r < s; ++r) sum += kInner[s][r] * slopes[r][i];
        there[i] = run.x[i] + step * sum;
      }
      slope_at(there, place + kNodes[s] * step, slopes[s]);
    }
    double squares = 0;
    for (std::size_t i = 0; i < there.size(); ++i) {
      double error = 0;
      for (std::size_t s = 0; s < kStages; ++s) error += kError[s] * slopes[s][i];
      squares += std::pow(step * error / (1 + std::abs(run.x[i])), 2);
    }
    const double error = std::sqrt(squares / static_cast<double>(there.size())) / run.options.tolerance;
    if (!std::isfinite(error)) throw Error("[sample] adaptive: the model's answer is not finite");
    if (error <= 1) {
      place = ends ? end : place + step;
      std::copy(there.begin(), there.end(), run.x.begin());  // where the last stage was is the new value
      slopes[0].swap(slopes[kStages - 1]);
    }
    step *= std::clamp(0.9 * std::pow(std::max(error, 1e-10), -0.2), 0.2, 5.0);
  }
  if (last == run.steps()) return;
  if (last == 0) slope_at(run.x, start, slopes[0]);
  for (std::size_t i = 0; i < there.size(); ++i) run.x[i] -= slopes[0][i];
}

}  // namespace tuiqiao::sampling
