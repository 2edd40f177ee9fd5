#pragma once

#include <cmath>
#include <cstdint>
#include <optional>
#include <random>
#include <vector>

#include "tuiqiao/audit.h"

namespace tuiqiao::bench {

/// Normal rows around a common centre: a spectrum as flat as can be, or one that falls as 1 / (1 + decay j).
inline OutputHead normal_head(std::int64_t classes, std::int64_t columns, double decay, double spread, unsigned seed) {
  std::mt19937_64 random(seed);
  std::normal_distribution<float> normal;
  OutputHead head;
  head.classes = classes;
  head.columns = columns;
  head.rows.reserve(static_cast<std::size_t>(classes * columns));
  std::vector<float> centre(static_cast<std::size_t>(columns)), strength;
  for (std::size_t j = 0; j < centre.size(); ++j) {
    centre[j] = 0.3F * normal(random);
    strength.push_back(static_cast<float>(1 / (1 + decay * static_cast<double>(j))));
  }
  for (std::int64_t i = 0; i < classes; ++i) {
    const float length = std::exp(static_cast<float>(spread) * normal(random));
    for (std::size_t j = 0; j < centre.size(); ++j)
      head.rows.push_back(centre[j] + length * strength[j] * normal(random));
  }
  return head;
}

/// A head with a flat spectrum whose verdicts are known but for few: trained rows; `inside` rows that are means of
/// 2 x columns trained ones; `reserved` copies of the first of those; `copies` of trained rows, one each. With `near`,
/// of the trained rows 1 in 100 is shrunk to 2/5 and still its own witness from the centre, and 1 in 110 so far, to
/// near the hull of the others, that only a solver tells.
struct FlatHead {
  static constexpr std::int64_t kFirstHard = 60, kHardStep = 110;
  OutputHead head;
  std::int64_t trained = 0, inside = 8, reserved = 600, copies = 84;
  bool near = true;

  FlatHead(std::int64_t classes, std::int64_t columns, std::int64_t deep = 8, bool with_near = true)
      : inside(deep), near(with_near) {
    trained = classes - inside - reserved - copies;
    head = normal_head(trained, columns, 0, 0.08, 3);
    const auto n = static_cast<std::size_t>(columns);
    std::vector<float>& rows = head.rows;
    std::vector<double> centre(n, 0);
    for (std::size_t i = 0; i < rows.size(); ++i)
      centre[i % n] += static_cast<double>(rows[i]) / static_cast<double>(trained);
    const auto shrink = [&](std::int64_t i, double factor) {
      for (std::size_t j = 0; j < n; ++j) {
        float& x = rows[static_cast<std::size_t>(i) * n + j];
        x = static_cast<float>(centre[j] + factor * (static_cast<double>(x) - centre[j]));
      }
    };
    for (std::int64_t i = 50; near && i < trained; i += 100) shrink(i, 0.4);
    for (std::int64_t i = kFirstHard; near && i < trained; i += kHardStep)
      shrink(i, 4.6 / std::sqrt(static_cast<double>(columns)));
    for (std::int64_t p = 0; p < inside; ++p) {
      std::vector<double> mean(n, 0);
      const auto count = 2 * n;
      for (std::size_t s = 0; s < count; ++s) {
        const std::size_t i = (static_cast<std::size_t>(p) * 977 + s * 7) % static_cast<std::size_t>(trained);
        for (std::size_t j = 0; j < n; ++j)
          mean[j] += static_cast<double>(rows[i * n + j]) / static_cast<double>(count);
      }
      for (const double x : mean) rows.push_back(static_cast<float>(x));
    }
    for (std::int64_t p = 0; p < reserved; ++p) append(trained);
    for (std::int64_t p = 0; p < copies; ++p) append(p * 11);
    head.classes = classes;
  }

  /// Nothing where construction does not tell.
  std::optional<Verdict> expected(std::int64_t i) const {
    if (near && i < trained && i % kHardStep == kFirstHard) return std::nullopt;
    if (i >= trained + inside + reserved) return Verdict::tie_only;
    if (i >= trained) return Verdict::unargmaxable;
    return i % 11 == 0 && i / 11 < copies ? Verdict::tie_only : Verdict::argmaxable;
  }

 private:
  void append(std::int64_t row) {
    const auto n = static_cast<std::size_t>(head.columns), from = static_cast<std::size_t>(row) * n;
    for (std::size_t j = 0; j < n; ++j) {
      const float x = head.rows[from + j];
      head.rows.push_back(x);
    }
  }
};

}  // namespace tuiqiao::bench
