#pragma once

#include <fmt/format.h>

#include <cmath>
#include <functional>
#include <nlohmann/json.hpp>
#include <string>

#include "needle_ways.h"

// What is found of the needles, from the stages' JSON.

namespace tuiqiao::bench {

using nlohmann::json;

/// Wilson's 95% interval of k out of n, as text.
inline std::string share(int k, int n) {
  constexpr double z = 1.959964;
  const double p = static_cast<double>(k) / n, zz = z * z / n;
  const double middle = (p + zz / 2) / (1 + zz), half = z / (1 + zz) * std::sqrt(p * (1 - p) / n + zz / (4 * n));
  return fmt::format("{:.2f} [{:.2f}, {:.2f}]", p, middle - half, middle + half);
}

/// The divergence below which to abstain: the best difference between answers given where the fact is there and where
/// it is not, over all numbers of documents.
inline double best_threshold(const json& prompt) {
  const auto given = [](const json& questions, double threshold) {
    int count = 0;
    for (const json& question : questions) {
      for (std::size_t at = 0; at < kCounts.size(); ++at) count += question[at][0].get<double>() >= threshold ? 1 : 0;
    }
    return count;
  };
  double best = 0;
  int best_gain = -1;
  for (int i = 0; i <= 100; ++i) {
    const int gain = given(prompt["present"], i / 100.0) - given(prompt["absent"], i / 100.0);
    if (gain > best_gain) best_gain = gain, best = i / 100.0;
  }
  return best;
}

/// Answers given at a threshold for the `at`-th number of documents; of those only the right ones, where `rights` says.
inline int count_given(const json& questions, std::size_t at, double threshold, const json* rights = nullptr) {
  int count = 0;
  for (std::size_t i = 0; i < questions.size(); ++i) {
    if (questions[i][at][0].get<double>() < threshold) continue;
    count += !rights || (*rights)[i][at].get<bool>() ? 1 : 0;
  }
  return count;
}

inline void print_header(const std::string& title) {
  fmt::print("\n{}\n{:24}", title, "");
  for (const int n : kCounts) fmt::print("{:>20}", fmt::format("n = {}", n));
  fmt::print("\n");
}

inline void print_row(const std::string& name, int questions, const std::function<int(std::size_t)>& count) {
  fmt::print("{:24}", name);
  for (std::size_t at = 0; at < kCounts.size(); ++at) fmt::print("{:>20}", share(count(at), questions));
  fmt::print("\n");
}

inline void print_tables(const json& stages, int questions) {
  for (const char* set : {"unique", "lookalike"}) {
    for (const char* prompt : {"primed", "plain"}) {
      const std::string key = fmt::format("{} {}", set, prompt);
      if (!stages.contains(key)) continue;
      const json& stage = stages[key];
      print_header(fmt::format("{}, {}: share of right answers, 95% Wilson intervals", set, prompt));
      for (const Method& method : methods()) {
        print_row(method.name, questions, [&](std::size_t at) { return stage["right"][method.name][at].get<int>(); });
      }
      const std::string concatenated = std::string(set) + " concatenated";
      if (stages.contains(concatenated)) {
        print_row("concatenated", questions,
                  [&](std::size_t at) { return stages[concatenated][prompt][at].get<int>(); });
      }
      if (!stages.contains("calibration signals") || !stages.contains(key + " signals")) continue;
      const json& signals = stages[key + " signals"];
      const double threshold = best_threshold(stages["calibration signals"]);
      fmt::print("min_entropy with --abstain below {:.2f} bits (found on other questions: unique, primed)\n",
                 threshold);
      print_row("absent: wrong, no rule", questions,
                [&](std::size_t at) { return count_given(signals["absent"], at, 0); });
      print_row("absent: wrong", questions,
                [&](std::size_t at) { return count_given(signals["absent"], at, threshold); });
      print_row("present: right", questions,
                [&](std::size_t at) { return count_given(signals["present"], at, threshold, &stage["min_entropy"]); });
    }
  }
}

}  // namespace tuiqiao::bench
