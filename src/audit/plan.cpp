#include "audit/plan.h"

#include <fmt/format.h>
#include <omp.h>

#include <algorithm>
#include <stdexcept>

namespace tuiqiao::auditing {

namespace {

constexpr double kPerClass = 160;  // bytes of a class: its group, length, order, verdict slot and the like
constexpr double kPerOpen = 12e3;  // of a class that is being settled: rows taken in and rows near it
constexpr double kSolver = 100;    // of a square of the columns
constexpr double kSample = 60;     // the same
constexpr double kMostSampled = 32768;

double bytes_of(const Problem& problem, const Plan& plan) {
  const auto classes = static_cast<double>(problem.classes()), n = static_cast<double>(problem.columns());
  const double directions = std::min(n / 4 + 16, static_cast<double>(plan.directions));
  double bytes = classes * (kPerClass + 6 * directions);
  if (problem.owns_rows()) bytes += classes * n * 4;
  if (plan.keep_rows) bytes += classes * n * 2;
  bytes += static_cast<double>(plan.batch) * (n * 22 + 16e3);
  bytes += static_cast<double>(plan.block) * kPerOpen;
  bytes += n * n * 20 + std::min(classes, kMostSampled) * n * 4;  // whitening and the rows that it is made from
  // A class deep inside takes matrices of 9/4 n rows, on each thread; those rows and their products are held once.
  return bytes + (kSample + static_cast<double>(omp_get_max_threads()) * kSolver) * n * n + 64e6;
}

}  // namespace

Plan plan_of(const Problem& problem, const AuditOptions& options) {
  Plan plan;
  if (options.memory < 0) throw std::invalid_argument(fmt::format("[audit] memory = {} is negative", options.memory));
  if (options.memory == 0) return plan;
  const auto fits = [&] { return bytes_of(problem, plan) <= static_cast<double>(options.memory); };
  if (!fits()) plan.keep_rows = false;
  while (!fits() && plan.directions > 32) plan.directions /= 2;
  while (!fits() && plan.block > 1024) plan.block /= 2;
  while (!fits() && plan.batch > 256) plan.batch /= 2;
  if (!fits())
    throw std::invalid_argument(fmt::format("[audit] memory = {}: {} x {} needs {:.0f} bytes", options.memory,
                                            problem.classes(), problem.columns(), bytes_of(problem, plan)));
  return plan;
}

}  // namespace tuiqiao::auditing
