#pragma once

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <nlohmann/json.hpp>
#include <numbers>
#include <random>
#include <string>
#include <vector>

#include "chart.h"

// What the cuts' scores say: means, paired differences and their intervals.

namespace tuiqiao::bench {

using nlohmann::json;

inline const std::vector<std::string>& healing_modes() {
  static const std::vector<std::string> kModes{"off", "one", "back=2", "back=4", "exact"};
  return kModes;
}

/// Bits of one score, stored as nats between two bounds (null where a bound is infinite).
struct Bits {
  double least = 0, most = 0;
};
inline Bits bits_of(const json& score) {
  const auto bits = [](const json& nats) {
    return nats.is_null() ? std::numeric_limits<double>::infinity() : -nats.get<double>() / std::numbers::ln2;
  };
  return {bits(score["upper"]), bits(score["lower"])};
}

/// A mean and the interval that holds 95 % of the means of as many values drawn from these.
struct Mean {
  double value = 0, low = 0, high = 0;
};
inline Mean bootstrap(const std::vector<double>& values) {
  constexpr int kDraws = 10000;
  std::mt19937_64 random(1);
  const auto mean_of = [&](auto&& at) {
    double sum = 0;
    for (std::size_t i = 0; i < values.size(); ++i) sum += values[at(i)];
    return sum / static_cast<double>(values.size());
  };
  std::vector<double> means;
  for (int i = 0; i < kDraws; ++i) means.push_back(mean_of([&](std::size_t) { return random() % values.size(); }));
  std::sort(means.begin(), means.end());
  return {mean_of([](std::size_t i) { return i; }), means[kDraws / 40], means[kDraws - 1 - kDraws / 40]};
}

/// Results of some cuts: those of one language, or all.
class Results {
 public:
  Results(std::string name, std::vector<json> cuts) : name_(std::move(name)), cuts_(std::move(cuts)) {}
  const std::string& name() const { return name_; }
  std::size_t size() const { return cuts_.size(); }

  /// Bits by `get(cut)`, at least and at most.
  Bits mean(const char* where, const std::string& mode) const {
    Bits sum;
    for (const json& cut : cuts_) {
      const Bits bits = bits_of(cut[where][mode]);
      sum.least += bits.least / static_cast<double>(size());
      sum.most += bits.most / static_cast<double>(size());
    }
    return sum;
  }
  /// Bits that `mode` needs more than `exact` at the same cut: at least, since of what lies between bounds the less is
  /// taken for it, and the more for `exact`.
  Mean more_than_exact(const std::string& mode) const {
    std::vector<double> differences;
    for (const json& cut : cuts_)
      differences.push_back(bits_of(cut["anywhere"][mode]).least - bits_of(cut["anywhere"]["exact"]).most);
    return bootstrap(differences);
  }
  /// Bits of `exact` at a random byte less those of `off` at the token's end before it.
  Mean above_token_ends() const {
    std::vector<double> differences;
    for (const json& cut : cuts_)
      differences.push_back(bits_of(cut["anywhere"]["exact"]).most - bits_of(cut["token_end"]["off"]).least);
    return bootstrap(differences);
  }
  /// A count of HealStatistics: mean and most.
  std::pair<double, double> count(const char* what) const {
    double sum = 0, most = 0;
    for (const json& cut : cuts_) {
      sum += cut["healing"][what].get<double>() / static_cast<double>(size());
      most = std::max(most, cut["healing"][what].get<double>());
    }
    return {sum, most};
  }

 private:
  std::string name_;
  std::vector<json> cuts_;
};

/// By language, and all together.
inline std::vector<Results> results_of(const std::vector<std::string>& languages, const json& cuts) {
  std::vector<Results> all;
  std::vector<json> together;
  for (const std::string& language : languages) {
    std::vector<json> mine;
    for (const json& cut : cuts) {
      if (cut["language"] == language) mine.push_back(cut);
    }
    together.insert(together.end(), mine.begin(), mine.end());
    if (!mine.empty()) all.emplace_back(language, mine);
  }
  all.emplace_back("all", together);
  return all;
}

/// Returns whether the targets are met.
inline bool print_healing_tables(const std::vector<Results>& all) {
  const auto shown = [](const Bits& bits) {
    return bits.most - bits.least < 0.05 ? fmt::format("{:.2f}", (bits.least + bits.most) / 2)
                                         : fmt::format("{:.2f} to {:.2f}", bits.least, bits.most);
  };
  fmt::print(
      "\nBits of the next characters, cut at random bytes; where bounds differ by 0.05 or more, both\n{:10}{:>6}", "",
      "cuts");
  for (const std::string& mode : healing_modes()) fmt::print("{:>18}", mode);
  fmt::print("{:>18}\n", "off at token ends");
  for (const Results& r : all) {
    fmt::print("{:10}{:>6}", r.name(), r.size());
    for (const std::string& mode : healing_modes()) fmt::print("{:>18}", shown(r.mean("anywhere", mode)));
    fmt::print("{:>18}\n", shown(r.mean("token_end", "off")));
  }
  bool met = true;
  fmt::print("\nBits more than exact at the same cut, at least [95 % interval]\n");
  for (const Results& r : all) {
    fmt::print("{:10}", r.name());
    for (const std::string& mode : healing_modes()) {
      if (mode == "exact") continue;
      const Mean more = r.more_than_exact(mode);
      fmt::print("  {} {:.2f} [{:.2f}, {:.2f}]", mode, more.value, more.low, more.high);
      if (mode == "off") met = met && more.low > 2;
      if (mode == "one") met = met && more.high >= 0;
    }
    const Mean above = r.above_token_ends();
    fmt::print("; exact above off at token ends {:.2f} [{:.2f}, {:.2f}]\n", above.value, above.low, above.high);
  }
  fmt::print("\nOf a healed prompt, mean (most)\n");
  for (const Results& r : all) {
    fmt::print("{:10}", r.name());
    for (const char* what : {"tokenisations", "branches", "batches", "tokens_removed", "characters_gained"}) {
      const auto [mean, most] = r.count(what);
      fmt::print("  {} {:.1f} ({:.0f})", what, mean, most);
    }
    fmt::print("\n");
  }
  return met;
}

/// Bits of the ways whose bounds meet, one series a language.
inline std::string healing_chart(const std::vector<Results>& all) {
  Chart chart{"bits of the next 10 characters after a cut at a random byte",
              {"", Scale::linear, {"off", "one", "exact", "off, at token ends"}},
              {"bits"},
              {}};
  for (const Results& r : all) {
    const double ends = r.mean("token_end", "off").least;
    chart.series.push_back({r.name(),
                            {{0, r.mean("anywhere", "off").least},
                             {1, r.mean("anywhere", "one").least},
                             {2, r.mean("anywhere", "exact").most},
                             {3, ends}}});
  }
  return svg_of({chart});
}

}  // namespace tuiqiao::bench
