#pragma once

#include <functional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace tuiqiao {

/// The forward process x_t = A_t x_0 + B_t eps at steps 0 to T, with A_0 = 1 and A_t^2 + B_t^2 = 1. One step is
/// x_t = a_t x_{t-1} + b_t eps. Elsewhere beta_t = b_t^2 and alphabar_t = A_t^2, and steps are counted from 0: this
/// step t is diffusers' timestep t - 1.
/// Source: arXiv 2006.11239, section 2.
class Schedule {
 public:
  /// Domain: betas in (0, 1), at least one, that leave some signal: A(T) > 0 in float64. Throws: std::invalid_argument
  /// "[Schedule] ...".
  static Schedule from_betas(std::span<const double> betas);
  /// Steps t = 1 to T of a process in continuous time: A(t / T). Domain: A falls strictly from A(0) = 1, A(1) > 0.
  /// Throws: std::invalid_argument "[Schedule] ...".
  static Schedule from_signal(const std::function<double(double)>& signal, int steps);

  int steps() const { return static_cast<int>(signal_.size()) - 1; }
  /// Signal and noise at step t. Domain: 0 <= t <= T.
  double A(int t) const { return signal_[static_cast<std::size_t>(t)]; }
  double B(int t) const { return noise_[static_cast<std::size_t>(t)]; }
  double sigma(int t) const { return B(t) / A(t); }
  /// From step s to step t > s: a = A_t / A_s, and b^2 = 1 - a^2 without cancellation.
  double a(int s, int t) const { return A(t) / A(s); }
  double b_squared(int s, int t) const;

  /// The step whose sigma this is; between steps linear in log sigma, beyond them the nearest step, 1 or T.
  /// Error: sigma(t) gives t exactly. Domain: sigma >= 0.
  double step_of(double sigma) const;
  /// The other way: sigma at a step or between two. Domain: 1 <= step <= T; beyond, the nearest.
  double sigma_at(double step) const;

 private:
  explicit Schedule(std::vector<double> log_signal_squared);

  std::vector<double> log_signal_squared_, signal_, noise_, log_sigma_;
};

/// How diffusers defines b_t^2, by its names.
enum class BetaSchedule { linear, scaled_linear, squaredcos_cap_v2, sigmoid };
std::string_view name(BetaSchedule schedule);
/// Throws: std::invalid_argument that lists the names.
BetaSchedule beta_schedule_from_name(std::string_view text);

/// `first` and `last` are diffusers' beta_start and beta_end; the cosine schedule takes no notice of them.
/// Domain: 0 < first <= last < 1, steps >= 1. Source: diffusers 0.21.4, scheduling_ddpm.py.
std::vector<double> betas_of(BetaSchedule schedule, int steps, double first = 1e-4, double last = 0.02);

/// diffusers' ways to choose steps: "leading" ends at step 1, "trailing" starts at T, "linspace" does both.
enum class Spacing { leading, trailing, linspace };
/// Steps of a strided run, falling: `count` of 1 to T. `offset`: diffusers' steps_offset, by which leading steps are
/// later, none of them after T (which comes once). Throws: std::invalid_argument where 1 <= count <= T does not hold.
std::vector<int> strided_steps(int steps, int count, Spacing spacing, int offset = 0);
Spacing spacing_from_name(std::string_view text);

}  // namespace tuiqiao
