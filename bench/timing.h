#pragma once

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <exception>
#include <fstream>
#include <functional>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "library_settings.h"

namespace tuiqiao::bench {

inline double seconds_of(const std::function<void()>& work) {
  const auto start = std::chrono::steady_clock::now();
  work();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

/// Median and range of some figures.
struct Spread {
  double median = 0, least = 0, most = 0;

  static Spread of(std::vector<double> values) {
    std::sort(values.begin(), values.end());
    return {values[values.size() / 2], values.front(), values.back()};
  }
  nlohmann::json json() const { return {{"median", median}, {"min", least}, {"max", most}}; }
};

/// Times of a and b in turn, and of the ratio a / b pair by pair, so that a drift of the machine touches both.
struct Comparison {
  Spread a, b, ratio;

  nlohmann::json json() const { return {{"a_seconds", a.json()}, {"b_seconds", b.json()}, {"ratio", ratio.json()}}; }
};

inline Comparison compare(const std::function<void()>& a, const std::function<void()>& b, int pairs = 9) {
  a();
  b();
  std::vector<double> times_a, times_b, ratios;
  for (int i = 0; i < pairs; ++i) {
    times_a.push_back(seconds_of(a));
    times_b.push_back(seconds_of(b));
    ratios.push_back(times_a.back() / times_b.back());
  }
  return {Spread::of(times_a), Spread::of(times_b), Spread::of(ratios)};
}

/// Says so where other work keeps the processors busy.
inline double warn_of_load() {
  double load = 0;
  std::ifstream("/proc/loadavg") >> load;
  if (load > 0.5) fmt::print("note: the machine is under load ({:.1f} processes); absolute times are too long\n", load);
  return load;
}

/// The main function of a benchmark that takes a file for its results and nothing else.
inline int main_of(const char* name, int argc, char** argv, int (*run)(const std::string& out)) try {
  settle_libraries(argv);
  if (argc != 2) {
    fmt::print(stderr, "usage: {} OUT.json\n", argv[0]);
    return 2;
  }
  return run(argv[1]);
} catch (const std::exception& error) {
  fmt::print(stderr, "{}: {}\n", name, error.what());
  return 1;
}

}  // namespace tuiqiao::bench
