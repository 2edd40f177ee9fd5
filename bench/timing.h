#pragma once

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <cstdio>
#include <fstream>
#include <functional>
#include <nlohmann/json.hpp>
#include <vector>

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

/// A line chart with logarithmic axes.
struct Line {
  std::string name;
  std::vector<std::pair<double, double>> points;
};

inline void write_chart(const std::string& file, const std::string& title, const std::string& x_label,
                        const std::string& y_label, const std::vector<Line>& lines) {
  constexpr double kWidth = 720, kHeight = 440, kLeft = 70, kRight = 190, kTop = 40, kBottom = 50;
  constexpr std::array kColours{"#1b6ca8", "#c8553d", "#3a7d44", "#8e5ea2"};
  double x_least = 1e300, x_most = -1e300, y_least = 1e300, y_most = -1e300;
  for (const Line& line : lines) {
    for (const auto& [x, y] : line.points) {
      x_least = std::min(x_least, std::log2(x)), x_most = std::max(x_most, std::log2(x));
      y_least = std::min(y_least, std::floor(std::log10(y))), y_most = std::max(y_most, std::ceil(std::log10(y)));
    }
  }
  const auto px = [&](double x) {
    return kLeft + (std::log2(x) - x_least) / (x_most - x_least) * (kWidth - kLeft - kRight);
  };
  const auto py = [&](double y) {
    return kHeight - kBottom - (std::log10(y) - y_least) / (y_most - y_least) * (kHeight - kTop - kBottom);
  };
  std::string svg = fmt::format(
      "<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 {0} {1}' font-family='sans-serif' font-size='13'>"
      "<rect width='{0}' height='{1}' fill='#fff'/><text x='{2}' y='22' font-size='15'>{3}</text>"
      "<text x='{4}' y='{5}' text-anchor='middle'>{6}</text><text transform='translate(18,{7}) rotate(-90)' "
      "text-anchor='middle'>{8}</text>\n",
      kWidth, kHeight, kLeft, title, (kLeft + kWidth - kRight) / 2, kHeight - 10, x_label, kHeight / 2, y_label);
  for (double e = y_least; e <= y_most; ++e) {
    const double y = py(std::pow(10, e));
    svg += fmt::format("<path d='M{} {}H{}' stroke='#ccc'/><text x='{}' y='{}' text-anchor='end'>{:g}</text>\n", kLeft,
                       y, kWidth - kRight, kLeft - 6, y + 4, std::pow(10, e));
  }
  for (double e = x_least; e <= x_most; ++e) {
    svg += fmt::format("<text x='{}' y='{}' text-anchor='middle'>{:g}</text>\n", px(std::exp2(e)),
                       kHeight - kBottom + 18, std::exp2(e));
  }
  for (std::size_t i = 0; i < lines.size(); ++i) {
    std::string path;
    for (const auto& [x, y] : lines[i].points)
      path += fmt::format("{}{:.1f} {:.1f}", path.empty() ? "M" : "L", px(x), py(y));
    const auto& [last_x, last_y] = lines[i].points.back();
    svg += fmt::format(
        "<path d='{0}' fill='none' stroke='{1}' stroke-width='2'/><text x='{2}' y='{3}' fill='{1}'>{4}</text>\n", path,
        kColours[i % kColours.size()], px(last_x) + 8, py(last_y) + 4, lines[i].name);
  }
  std::ofstream(file) << svg << "</svg>\n";
}

}  // namespace tuiqiao::bench
