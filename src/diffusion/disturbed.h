#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace tuiqiao {

/// What disturbed() does to images.
inline constexpr std::array<std::string_view, 4> kDisturbances{"upside-down", "inverted", "shuffled", "noise"};

bool is_disturbance(std::string_view name);

/// Images of other things than a model knows, made of those that it knows: `upside-down`; `inverted`, bright for dark;
/// `shuffled`, their pixels by one permutation; `noise`, uniform numbers in their place, which depend on `first` + row.
/// Shapes: images [N, C, H, W] in [-1, 1], of 8 bits made continuous; shape [C, H, W].
/// Throws: std::invalid_argument on another name or a shape that is no image's.
std::vector<double> disturbed(std::string_view name, std::span<const double> images,
                              const std::vector<std::int64_t>& shape, std::int64_t first);

}  // namespace tuiqiao
