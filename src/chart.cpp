#include "chart.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <string_view>

namespace tuiqiao {

namespace {

constexpr double kWidth = 760, kHeight = 320, kLeft = 76, kRight = 20, kTop = 56, kBottom = 52;
constexpr std::array kColours{"#1b6ca8", "#c8553d", "#3a7d44", "#8e5ea2", "#b8860b", "#5f6b76",
                              "#d81b60", "#0097a7", "#6d4c41", "#7cb342", "#f06292", "#9e9d24"};
constexpr int kMostTicks = 7;

std::string escaped(std::string_view text) {
  std::string result;
  for (const char c : text) {
    if (c == '&' || c == '<') {
      result += c == '&' ? "&amp;" : "&lt;";
    } else {
      result += c;
    }
  }
  return result;
}

/// An axis with the range that it shows, in its own scale.
struct Span {
  Scale scale;
  double least = std::numeric_limits<double>::infinity(), most = -std::numeric_limits<double>::infinity();

  double scaled(double value) const { return scale == Scale::logarithmic ? std::log10(value) : value; }
  bool shows(double value) const { return std::isfinite(scaled(value)); }
  void include(double value) {
    least = std::min(least, scaled(value));
    most = std::max(most, scaled(value));
  }
  /// 0 to 1.
  double place(double value) const { return most > least ? (scaled(value) - least) / (most - least) : 0.5; }
};

double round_step(double range) {
  const double rough = range / kMostTicks, power = std::pow(10, std::floor(std::log10(rough)));
  for (const double step : {1.0, 2.0, 5.0}) {
    if (step * power >= rough) return step * power;
  }
  return 10 * power;
}

/// Round values of a span: multiples of 1, 2 or 5 times a power of ten, or powers of ten.
std::vector<double> ticks(const Span& span) {
  std::vector<double> values;
  // A range that is all rounding is one value.
  const double size = std::max(std::abs(span.least), std::abs(span.most));
  if (!(span.most - span.least > 1e-12 * size))
    return {span.scale == Scale::logarithmic ? std::pow(10, span.least) : span.least};
  const double range = span.most - span.least;
  if (span.scale == Scale::logarithmic) {
    const double step = std::ceil(range / kMostTicks);
    const bool few = range < 2.2;  // then 2 and 5 as well
    for (double e = std::floor(span.least); e <= span.most; e += step) {
      for (const double by : few ? std::vector<double>{1, 2, 5} : std::vector<double>{1}) {
        const double value = by * std::pow(10, e);
        if (span.scaled(value) >= span.least - 1e-9 && span.scaled(value) <= span.most + 1e-9) values.push_back(value);
      }
    }
    return values;
  }
  const double step = round_step(range), first = std::ceil(span.least / step - 1e-9);
  for (int i = 0; i <= 2 * kMostTicks; ++i) {
    const double value = (first + i) * step + 0.0;  // no -0
    if (value > span.most + 1e-9 * range) break;
    values.push_back(value);
  }
  return values;
}

/// With as many digits as tell it from its neighbours; whole numbers in full.
std::string label_of(double value, const std::vector<double>& all, Scale scale) {
  const double size = std::max(std::abs(all.front()), std::abs(all.back()));
  const double step = all.size() > 1 ? std::abs(all[1] - all[0]) : 0;
  if (scale == Scale::logarithmic || !(step > 0)) return fmt::format("{:g}", value);
  const double digits = step >= 1 && size < 1e10 ? 10 : std::ceil(std::log10(size / step)) + 1;
  return fmt::format("{:.{}g}", value, static_cast<int>(std::clamp(digits, 6.0, 15.0)));
}

/// Where one chart lies: its title at the top, its legend, its field.
struct Frame {
  Span x, y;
  double top, field;

  double bottom() const { return field + kHeight - kTop - kBottom; }
  double px(double value) const { return kLeft + x.place(value) * (kWidth - kLeft - kRight); }
  double py(double value) const { return bottom() - y.place(value) * (bottom() - field); }
};

/// Colours repeat after all were used, dashed then.
std::string stroke_of(std::size_t series) {
  constexpr std::array kDashes{"", " stroke-dasharray='7 5'", " stroke-dasharray='2 5'"};
  return fmt::format("stroke='{}'{}", kColours[series % kColours.size()],
                     kDashes[series / kColours.size() % kDashes.size()]);
}

std::string axes_of(const Chart& chart, const Frame& frame) {
  const double bottom = frame.bottom(), right = kWidth - kRight;
  std::string svg =
      fmt::format("<text class='title' x='{}' y='{}'>{}</text>\n", kLeft, frame.top + 20, escaped(chart.title));
  const std::vector<double> y_ticks = ticks(frame.y);
  std::vector<double> x_ticks = ticks(frame.x);
  if (!chart.x.names.empty()) {
    x_ticks.clear();
    for (std::size_t i = 0; i < chart.x.names.size(); ++i) {
      const auto x = static_cast<double>(i);
      if (x >= frame.x.least && x <= frame.x.most) x_ticks.push_back(x);
    }
  }
  for (const double value : y_ticks) {
    const double y = frame.py(value);
    svg += fmt::format("<path class='grid' d='M{} {:.1f}H{}'/><text x='{}' y='{:.1f}' text-anchor='end'>{}</text>\n",
                       kLeft, y, right, kLeft - 6, y + 4, label_of(value, y_ticks, frame.y.scale));
  }
  for (const double value : x_ticks) {
    const double x = frame.px(value);
    const std::string label = chart.x.names.empty() ? label_of(value, x_ticks, frame.x.scale)
                                                    : escaped(chart.x.names[static_cast<std::size_t>(value)]);
    svg += fmt::format("<path class='grid' d='M{:.1f} {}v5'/><text x='{:.1f}' y='{}' text-anchor='middle'>{}</text>\n",
                       x, bottom, x, bottom + 19, label);
  }
  svg += fmt::format("<path class='axis' d='M{} {}V{}H{}'/>\n", kLeft, frame.field, bottom, right);
  svg += fmt::format("<text x='{}' y='{}' text-anchor='middle'>{}</text>\n", (kLeft + right) / 2, bottom + 40,
                     escaped(chart.x.label));
  svg += fmt::format("<text transform='translate(16,{}) rotate(-90)' text-anchor='middle'>{}</text>\n",
                     (frame.field + bottom) / 2, escaped(chart.y.label));
  return svg;
}

std::string series_of(const Series& series, const std::string& stroke, const Frame& frame) {
  std::string path;
  for (const auto& [x, y] : series.points) {
    if (!frame.x.shows(x) || !frame.y.shows(y)) continue;
    path += series.line ? fmt::format("{}{:.1f} {:.1f}", path.empty() ? "M" : "L", frame.px(x), frame.py(y))
                        : fmt::format("M{:.1f} {:.1f}h0", frame.px(x), frame.py(y));
  }
  return fmt::format("<path fill='none' {} stroke-width='{}' stroke-linecap='round' stroke-linejoin='round' d='{}'/>\n",
                     stroke, series.line ? 2 : 3, path);
}

struct Legend {
  std::string svg;
  double height = 0;  ///< of the lines after the first
};

Legend legend_of(const Chart& chart, double top) {
  constexpr double kMark = 14, kGap = 6, kBetween = 14, kCharacter = 9, kLine = 20;
  Legend legend;
  double x = kLeft;
  for (std::size_t i = 0; i < chart.series.size(); ++i) {
    const std::string& name = chart.series[i].name;
    if (name.empty()) continue;
    const double width = kMark + kGap + kCharacter * static_cast<double>(name.size());
    if (x > kLeft && x + width > kWidth) {
      x = kLeft;
      legend.height += kLine;
    }
    const double y = top + 37 + legend.height;
    legend.svg += fmt::format("<path {} stroke-width='10' d='M{:.0f} {}h{}'/><text x='{:.0f}' y='{}'>{}</text>\n",
                              stroke_of(i), x, y, kMark, x + kMark + kGap, y + 4, escaped(name));
    x += width + kBetween;
  }
  return legend;
}

struct Part {
  std::string svg;
  double height;
};

Part part_of(const Chart& chart, double top) {
  const Legend legend = legend_of(chart, top);
  Frame frame{{chart.x.scale}, {chart.y.scale}, top, top + kTop + legend.height};
  for (const Series& series : chart.series) {
    for (const auto& [x, y] : series.points) {
      if (frame.x.shows(x) && frame.y.shows(y)) frame.x.include(x), frame.y.include(y);
    }
  }
  if (frame.x.most < frame.x.least) frame.x.least = frame.x.most = frame.y.least = frame.y.most = 0;  // nothing to show
  std::string svg = axes_of(chart, frame) + legend.svg;
  for (std::size_t i = 0; i < chart.series.size(); ++i) svg += series_of(chart.series[i], stroke_of(i), frame);
  return {svg, kHeight + legend.height};
}

}  // namespace

std::string svg_of(const std::vector<Chart>& charts) {
  std::string parts;
  double height = 0;
  for (const Chart& chart : charts) {
    const Part part = part_of(chart, height);
    parts += part.svg;
    height += part.height;
  }
  return fmt::format(
      "<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 {0} {1}' width='{0}' height='{1}' font-family='sans-serif' "
      "font-size='13'>\n<style>text{{fill:#222}}.title{{font-size:15px;font-weight:600}}.grid{{stroke:#ddd}}"
      ".axis{{stroke:#888;fill:none}}.back{{fill:#fff}}@media(prefers-color-scheme:dark){{text{{fill:#ddd}}"
      ".grid{{stroke:#333}}.back{{fill:#16181c}}}}</style>\n<rect class='back' width='{0}' height='{1}'/>\n{2}"
      "</svg>\n",
      kWidth, height, parts);
}

}  // namespace tuiqiao
