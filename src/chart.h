#pragma once

#include <string>
#include <utility>
#include <vector>

namespace tuiqiao {

enum class Scale { linear, logarithmic };

struct Axis {
  std::string label;
  Scale scale = Scale::linear;
  std::vector<std::string> names = {};  ///< of 0, 1, 2, ...: ways instead of amounts; only on the axis x
};

struct Series {
  std::string name;  ///< in the legend, which is left out where no series has one
  std::vector<std::pair<double, double>>
      points;        ///< those that an axis cannot show (not finite, log of <= 0) are left out
  bool line = true;  ///< else dots
};

struct Chart {
  std::string title;
  Axis x, y;
  std::vector<Series> series;
};

/// Charts one below another as a whole SVG file, which follows the viewer's light or dark scheme.
std::string svg_of(const std::vector<Chart>& charts);

}  // namespace tuiqiao
