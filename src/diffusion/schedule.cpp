#include "tuiqiao/diffusion/schedule.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <numbers>
#include <stdexcept>
#include <utility>

namespace tuiqiao {

Schedule::Schedule(std::vector<double> log_signal_squared) : log_signal_squared_(std::move(log_signal_squared)) {
  for (const double log : log_signal_squared_) {
    signal_.push_back(std::exp(log / 2));
    noise_.push_back(std::sqrt(-std::expm1(log)));
    log_sigma_.push_back(std::log(noise_.back()) - log / 2);
  }
}

Schedule Schedule::from_betas(std::span<const double> betas) {
  if (betas.empty()) throw std::invalid_argument("[Schedule] no betas");
  std::vector<double> log_signal_squared{0};
  for (const double beta : betas) {
    if (!(beta > 0 && beta < 1))
      throw std::invalid_argument(
          fmt::format("[Schedule] beta = {} of step {} is not within (0, 1)", beta, log_signal_squared.size()));
    log_signal_squared.push_back(log_signal_squared.back() + std::log1p(-beta));
  }
  if (!(std::exp(log_signal_squared.back() / 2) > 0))
    throw std::invalid_argument(fmt::format("[Schedule] nothing is left of the signal after {} steps", betas.size()));
  return Schedule(std::move(log_signal_squared));
}

Schedule Schedule::from_signal(const std::function<double(double)>& signal, int steps) {
  if (steps < 1) throw std::invalid_argument(fmt::format("[Schedule] steps = {} is less than 1", steps));
  if (std::abs(signal(0) - 1) > 1e-12) throw std::invalid_argument(fmt::format("[Schedule] A(0) = {}", signal(0)));
  std::vector<double> log_signal_squared{0};
  for (int t = 1; t <= steps; ++t) {
    const double A = signal(static_cast<double>(t) / steps), log = 2 * std::log(A);
    if (!(A > 0 && log < log_signal_squared.back()))
      throw std::invalid_argument(fmt::format("[Schedule] A = {} at step {} does not fall, or not above 0", A, t));
    log_signal_squared.push_back(log);
  }
  return Schedule(std::move(log_signal_squared));
}

double Schedule::b_squared(int s, int t) const {
  return -std::expm1(log_signal_squared_[static_cast<std::size_t>(t)] -
                     log_signal_squared_[static_cast<std::size_t>(s)]);
}

double Schedule::step_of(double sigma) const {
  const double log = std::log(sigma);
  if (!(log > log_sigma_[1])) return 1;  // log_sigma_[0] is -infinity
  if (log >= log_sigma_.back()) return steps();
  const auto above = std::upper_bound(log_sigma_.begin() + 1, log_sigma_.end(), log);
  const double low = *(above - 1), high = *above;
  const double step = static_cast<double>(above - 1 - log_sigma_.begin()) + (log - low) / (high - low);
  const double nearest = std::round(step);
  return std::abs(step - nearest) < 1e-9 ? nearest : step;
}

double Schedule::sigma_at(double step) const {
  step = std::clamp(step, 1.0, static_cast<double>(steps()));
  const auto below = std::min(static_cast<std::size_t>(step), log_sigma_.size() - 1);
  const double part = step - static_cast<double>(below);
  if (part == 0) return sigma(static_cast<int>(below));
  return std::exp(log_sigma_[below] + part * (log_sigma_[below + 1] - log_sigma_[below]));
}

namespace {

constexpr std::pair<BetaSchedule, std::string_view> kBetaNames[] = {
    {BetaSchedule::linear, "linear"},
    {BetaSchedule::scaled_linear, "scaled_linear"},
    {BetaSchedule::squaredcos_cap_v2, "squaredcos_cap_v2"},
    {BetaSchedule::sigmoid, "sigmoid"}};

}  // namespace

std::string_view name(BetaSchedule schedule) { return kBetaNames[static_cast<std::size_t>(schedule)].second; }

BetaSchedule beta_schedule_from_name(std::string_view text) {
  for (const auto& [schedule, known] : kBetaNames) {
    if (text == known) return schedule;
  }
  throw std::invalid_argument(
      fmt::format("[beta_schedule_from_name] '{}' is none of linear, scaled_linear, squaredcos_cap_v2, sigmoid", text));
}

std::vector<double> betas_of(BetaSchedule schedule, int steps, double first, double last) {
  if (steps < 1) throw std::invalid_argument(fmt::format("[betas_of] steps = {} is less than 1", steps));
  if (!(first > 0 && first <= last && last < 1))
    throw std::invalid_argument(fmt::format("[betas_of] first = {}, last = {}: 0 < first <= last < 1", first, last));
  const auto along = [&](int i, double from, double to) {
    return steps == 1 ? from : from + (to - from) * i / (steps - 1);
  };
  const auto cosine = [](double t) {
    const double c = std::cos((t + 0.008) / 1.008 * std::numbers::pi / 2);
    return c * c;
  };
  std::vector<double> betas;
  for (int i = 0; i < steps; ++i) {
    double beta = along(i, first, last);
    if (schedule == BetaSchedule::scaled_linear) {
      const double root = along(i, std::sqrt(first), std::sqrt(last));
      beta = root * root;
    } else if (schedule == BetaSchedule::sigmoid) {
      beta = first + (last - first) / (1 + std::exp(-along(i, -6, 6)));
    } else if (schedule == BetaSchedule::squaredcos_cap_v2) {
      beta = std::min(0.999, 1 - cosine((i + 1.0) / steps) / cosine(static_cast<double>(i) / steps));
    }
    betas.push_back(beta);
  }
  return betas;
}

std::vector<int> strided_steps(int steps, int count, Spacing spacing, int offset) {
  if (count < 1 || count > steps)
    throw std::invalid_argument(fmt::format("[strided_steps] {} steps of {}", count, steps));
  std::vector<int> chosen;
  const int stride = steps / count;
  for (int i = 0; i < count; ++i) {
    // As numpy does: rint rounds halves to even.
    double t = std::min(static_cast<double>(i) * stride + offset, steps - 1.0);
    if (spacing == Spacing::linspace) t = count == 1 ? 0 : std::rint(i * (steps - 1.0) / (count - 1));
    if (spacing == Spacing::trailing) t = std::rint(steps - (count - 1.0 - i) * steps / count) - 1;
    chosen.push_back(static_cast<int>(t) + 1);
  }
  chosen.erase(std::unique(chosen.begin(), chosen.end()), chosen.end());
  std::reverse(chosen.begin(), chosen.end());
  return chosen;
}

Spacing spacing_from_name(std::string_view text) {
  if (text == "leading") return Spacing::leading;
  if (text == "trailing") return Spacing::trailing;
  if (text == "linspace") return Spacing::linspace;
  throw std::invalid_argument(fmt::format("[spacing_from_name] '{}' is none of leading, trailing, linspace", text));
}

}  // namespace tuiqiao
