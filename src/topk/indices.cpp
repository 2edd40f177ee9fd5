#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <stdexcept>
#include <type_traits>

#include "tuiqiao/topk.h"

namespace tuiqiao {

template <class T>
std::vector<std::int64_t> top_indices(std::span<const T> x, std::int64_t k) {
  const auto n = static_cast<std::int64_t>(x.size());
  if (k < 0 || k > n) throw std::invalid_argument(fmt::format("[top_indices] k = {} outside [0, {}]", k, n));
  const auto value = [&](std::int64_t i) {
    if constexpr (std::is_same_v<T, Bfloat16>) {
      return static_cast<float>(x[static_cast<std::size_t>(i)]);
    } else {
      return x[static_cast<std::size_t>(i)];
    }
  };
  std::vector<std::int64_t> order(x.size());
  for (std::int64_t i = 0; i < n; ++i) {
    if (std::isnan(value(i))) throw std::invalid_argument(fmt::format("[top_indices] entry {} is NaN", i));
    order[static_cast<std::size_t>(i)] = i;
  }
  const auto before = [&](std::int64_t a, std::int64_t b) {
    return value(a) > value(b) || (value(a) == value(b) && a < b);
  };
  const auto end = order.begin() + k;
  if (k < n) std::nth_element(order.begin(), end, order.end(), before);
  std::sort(order.begin(), end, before);
  order.resize(static_cast<std::size_t>(k));
  return order;
}

template std::vector<std::int64_t> top_indices(std::span<const float>, std::int64_t);
template std::vector<std::int64_t> top_indices(std::span<const double>, std::int64_t);
template std::vector<std::int64_t> top_indices(std::span<const Bfloat16>, std::int64_t);

}  // namespace tuiqiao
