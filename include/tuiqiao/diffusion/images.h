#pragma once

#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <vector>

#include "tuiqiao/error.h"

namespace tuiqiao {

/// Images of 8 bits a number, one after another, each [channels, height, width].
struct Images {
  std::int64_t count = 0, channels = 0, height = 0, width = 0;
  std::vector<std::uint8_t> values;

  std::int64_t size() const { return channels * height * width; }  ///< numbers in one
};

/// What a network sees of 0 to 255, and back, rounded and held within range.
inline double unit_of(std::uint8_t value) { return value / 127.5 - 1; }
std::uint8_t byte_of(double unit);

/// Reads images: a folder with MNIST's train-images-idx3-ubyte.gz (or t10k-..., where `part` is "t10k"), a folder of
/// .png files of one size (by name; grey if all are grey, else RGB), an IDX file, or an .npy file of whole numbers from
/// 0 to 255, of shape [N, H, W] or [N, C, H, W]; C is 1 or 3.
/// Throws: tuiqiao::Error that names the file and what is wrong with it.
Images read_images(const std::filesystem::path& path, const std::string& part = "train");

/// The bytes of a .png file of one image of 1 or 3 channels. Throws: std::invalid_argument on another shape.
std::string png_of(const Images& image);

/// Many images as one, `columns` in a row (0: as square as can be), with a border of one grey pixel, each pixel `scale`
/// times as wide and high. Throws: std::invalid_argument "[image_grid] ..." without images, or on a scale below 1.
Images image_grid(const Images& images, int columns = 0, int scale = 1);

/// Numbers in [-1, 1] as images. Shapes: units holds count * channels * height * width numbers.
/// Throws: std::invalid_argument "[images_of] ..." on another number of them, or none.
Images images_of(std::span<const double> units, std::int64_t channels, std::int64_t height, std::int64_t width);

}  // namespace tuiqiao
