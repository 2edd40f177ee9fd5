#include "audit/shifted_rows.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "audit/scan_kernels.h"
#include "audit/spread.h"

namespace tuiqiao::auditing {

double float_gamma(std::size_t n) {
  const double nu = static_cast<double>(n) * kFloatUnit;
  return nu < 0.5 ? nu / (1 - nu) * kOutward : std::numeric_limits<double>::infinity();
}

ShiftedRows::ShiftedRows(const Problem& problem, const std::vector<std::int64_t>& groups, std::vector<float> shift,
                         std::size_t columns)
    : problem_(problem), columns_(columns), shift_(std::move(shift)), names_(groups) {
  shift_.resize(columns_, 0);
  lengths_.resize(names_.size());
  spread(static_cast<std::int64_t>(names_.size()), static_cast<double>(names_.size() * columns_), [&](std::int64_t at) {
    const auto i = static_cast<std::size_t>(at);
    const float* row = problem_.approximate(names_[i]);
    double sum = 0;
    for (std::size_t j = 0; j < columns_; ++j) {
      const double y = static_cast<double>(row[j]) - static_cast<double>(shift_[j]);
      sum += y * y;
    }
    lengths_[i] = (std::sqrt(sum) + problem_.approximate_error(names_[i])) * kOutward;
  });
  if (names_.empty()) return;
  double error = 0;
  for (const std::int64_t i : names_) error = std::max(error, problem_.approximate_error(i));
  longest_ = *std::max_element(lengths_.begin(), lengths_.end());
  if (!(longest_ > 0x1p-100 && longest_ < 0x1p100)) return;
  usable_ = true;
  const double unit = std::exp2(-std::ilogb(longest_));
  unit_ = static_cast<float>(unit);
  plain_ = unit > 0x1p-32 && unit < 0x1p32 &&
           std::all_of(shift_.begin(), shift_.end(), [](float entry) { return entry == 0; });
  for (double& length : lengths_) length *= unit;
  longest_ *= unit;
  blur_ = (error * unit + longest_ * kFloatUnit) * kOutward + 1e-37;
  std::vector<std::size_t> order(names_.size());
  std::iota(order.begin(), order.end(), 0);
  std::sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) {
    return lengths_[a] != lengths_[b] ? lengths_[a] > lengths_[b] : names_[a] < names_[b];
  });
  sort(order);
}

void ShiftedRows::sort(const std::vector<std::size_t>& order) {
  std::vector<std::int64_t> names(names_.size());
  std::vector<double> lengths(names_.size());
  for (std::size_t i = 0; i < order.size(); ++i) {
    names[i] = names_[order[i]];
    lengths[i] = lengths_[order[i]];
  }
  names_ = std::move(names);
  lengths_ = std::move(lengths);
}

void ShiftedRows::write(std::size_t at, float* to) const {
  shift_row(problem_.approximate(names_[at]), shift_.data(), unit_, columns_, to);
}

}  // namespace tuiqiao::auditing
