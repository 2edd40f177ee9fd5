#pragma once

#include <string>
#include <vector>

#include "chart.h"

namespace tuiqiao::cli {

/// Throws: std::invalid_argument unless a file's name ends with .png or .svg, or is empty.
void check_chart_name(const std::string& file);

/// The charts as that file's content: an SVG, or a PNG of twice its pixels in the light scheme.
/// Throws: as check_chart_name; std::runtime_error where it cannot be drawn.
std::string chart_picture(const std::string& file, const std::vector<Chart>& charts);

}  // namespace tuiqiao::cli
