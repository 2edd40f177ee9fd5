#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

namespace tuiqiao::cli {

/// What disturbed() can do to images, in a help text.
inline constexpr const char* kDisturbances = "upside-down, inverted, shuffled or noise";

/// Whether disturbed() knows this name.
bool is_disturbance(const std::string& name);

/// Images of other things than a model knows, made of those that it knows: `upside-down`; `inverted`, bright for dark;
/// `shuffled`, their pixels by one permutation; `noise`, uniform numbers in their place, which depend on `first` + row.
/// Shapes: images [N, C, H, W] in [-1, 1], of 8 bits made continuous; shape [C, H, W].
/// Throws: std::invalid_argument on another name or a shape that is no image's.
std::vector<double> disturbed(const std::string& name, std::span<const double> images,
                              const std::vector<std::int64_t>& shape, std::int64_t first);

}  // namespace tuiqiao::cli
