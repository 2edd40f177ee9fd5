#include "tuiqiao/diffusion/images.h"

#include <fmt/format.h>
#include <png.h>

#include <algorithm>
#include <cmath>
#include <fstream>
#include <iterator>
#include <stdexcept>

#include "npy.h"
#include "tuiqiao/idx.h"

namespace tuiqiao {

namespace fs = std::filesystem;

namespace {

constexpr std::int64_t kMostPngValues = std::int64_t{1} << 28;

[[noreturn]] void refuse(const fs::path& file, const std::string& problem) {
  throw Error(fmt::format("{}: {}", file.string(), problem));
}

Images shaped(const fs::path& file, const std::vector<std::int64_t>& shape, std::vector<std::uint8_t> values) {
  if (shape.size() != 3 && shape.size() != 4)
    refuse(file, fmt::format("{} sides; images are [N, H, W] or [N, C, H, W]", shape.size()));
  Images images{shape[0], shape.size() == 4 ? shape[1] : 1, shape[shape.size() - 2], shape.back(), std::move(values)};
  if (images.values.empty()) refuse(file, "no image");
  if (images.channels != 1 && images.channels != 3)
    refuse(file, fmt::format("{} channels; images have 1 or 3", images.channels));
  return images;
}

Images read_npy_images(const fs::path& file) {
  const NpyArray array = read_npy(file);
  std::vector<std::uint8_t> values;
  values.reserve(array.values.size());
  for (const double value : array.values) {
    if (!(value >= 0 && value <= 255 && value == std::floor(value)))
      refuse(file, fmt::format("{} at {} is no whole number from 0 to 255", value, values.size()));
    values.push_back(static_cast<std::uint8_t>(value));
  }
  return shaped(file, array.shape, std::move(values));
}

/// Reads a file's header; png_image_free or png_image_finish_read ends it.
png_image begin_png(const fs::path& file) {
  png_image image{};
  image.version = PNG_IMAGE_VERSION;
  if (!png_image_begin_read_from_file(&image, file.c_str())) refuse(file, image.message);
  return image;
}

bool is_grey_png(const fs::path& file) {
  png_image image = begin_png(file);
  png_image_free(&image);
  return (image.format & PNG_FORMAT_FLAG_COLOR) == 0;
}

/// Grey where `grey`, else RGB: [C, H, W].
Images read_png(const fs::path& file, bool grey) {
  png_image image = begin_png(file);
  image.format = grey ? PNG_FORMAT_GRAY : PNG_FORMAT_RGB;
  const std::int64_t channels = grey ? 1 : 3, height = image.height, width = image.width;
  if (height > kMostPngValues / channels / width) {
    png_image_free(&image);
    refuse(file, fmt::format("{} x {} is too large", height, width));
  }
  std::vector<std::uint8_t> rows(PNG_IMAGE_SIZE(image));
  const png_color black{0, 0, 0};
  if (!png_image_finish_read(&image, &black, rows.data(), 0, nullptr)) refuse(file, image.message);
  Images result{1, channels, height, width, std::vector<std::uint8_t>(rows.size())};
  for (std::int64_t i = 0; i < height * width; ++i) {
    for (std::int64_t c = 0; c < channels; ++c)
      result.values[static_cast<std::size_t>(c * height * width + i)] =
          rows[static_cast<std::size_t>(i * channels + c)];
  }
  return result;
}

Images read_png_folder(const fs::path& folder) {
  std::vector<fs::path> files;
  std::error_code problem;
  for (const auto& entry : fs::directory_iterator(folder, problem)) {
    if (entry.path().extension() == ".png") files.push_back(entry.path());
  }
  if (problem) refuse(folder, problem.message());
  if (files.empty()) refuse(folder, "no .png files and no train-images-idx3-ubyte.gz");
  std::sort(files.begin(), files.end());
  const bool all_grey = std::all_of(files.begin(), files.end(), is_grey_png);
  Images all;
  for (const fs::path& file : files) {
    Images one = read_png(file, all_grey);
    if (all.count == 0) {
      all = std::move(one);
      continue;
    }
    if (one.height != all.height || one.width != all.width)
      refuse(file, fmt::format("{} x {}, where {} is {} x {}", one.height, one.width, files.front().string(),
                               all.height, all.width));
    all.values.insert(all.values.end(), one.values.begin(), one.values.end());
    ++all.count;
  }
  return all;
}

}  // namespace

std::uint8_t byte_of(double unit) {
  const double value = std::rint((unit + 1) * 127.5);
  return value >= 0 ? static_cast<std::uint8_t>(std::min(value, 255.0)) : std::uint8_t{0};  // NaN is black
}

Images read_images(const fs::path& path, const std::string& part) {
  if (fs::is_directory(path)) {
    for (const char* end : {".gz", ""}) {
      const fs::path file = path / (part + "-images-idx3-ubyte" + end);
      if (fs::exists(file)) return read_images(file);
    }
    return read_png_folder(path);
  }
  if (!fs::exists(path)) refuse(path, "no such file or folder");
  std::ifstream in(path, std::ios::binary);
  std::string start(8, '\0');
  in.read(start.data(), static_cast<std::streamsize>(start.size()));
  if (is_npy(start)) return read_npy_images(path);
  IdxArray array = read_idx(path);
  return shaped(path, array.shape, std::move(array.values));
}

std::string png_of(const Images& image) {
  if (image.count != 1 || (image.channels != 1 && image.channels != 3) ||
      image.size() != static_cast<std::int64_t>(image.values.size()) || image.values.empty())
    throw std::invalid_argument(fmt::format("[png_of] {} images of {} channels", image.count, image.channels));
  const std::int64_t places = image.height * image.width;
  std::vector<std::uint8_t> rows(image.values.size());
  for (std::int64_t i = 0; i < places; ++i) {
    for (std::int64_t c = 0; c < image.channels; ++c)
      rows[static_cast<std::size_t>(i * image.channels + c)] = image.values[static_cast<std::size_t>(c * places + i)];
  }
  png_image header{};
  header.version = PNG_IMAGE_VERSION;
  header.width = static_cast<png_uint_32>(image.width);
  header.height = static_cast<png_uint_32>(image.height);
  header.format = image.channels == 1 ? PNG_FORMAT_GRAY : PNG_FORMAT_RGB;
  png_alloc_size_t size = PNG_IMAGE_PNG_SIZE_MAX(header);
  std::string bytes(size, '\0');
  if (!png_image_write_to_memory(&header, bytes.data(), &size, 0, rows.data(), 0, nullptr))
    throw std::runtime_error(fmt::format("[png_of] {}", header.message));
  bytes.resize(size);
  return bytes;
}

Images image_grid(const Images& images, int columns, int scale) {
  if (images.count < 1 || scale < 1 || columns < 0)
    throw std::invalid_argument(
        fmt::format("[image_grid] {} images, {} columns, scale {}", images.count, columns, scale));
  constexpr std::uint8_t kBorder = 96;
  const auto across = columns > 0 ? columns : static_cast<std::int64_t>(std::ceil(std::sqrt(images.count)));
  const std::int64_t down = (images.count + across - 1) / across;
  const std::int64_t tile_height = images.height * scale + 1, tile_width = images.width * scale + 1;
  Images grid{1, images.channels, down * tile_height + 1, across * tile_width + 1, {}};
  grid.values.assign(static_cast<std::size_t>(grid.size()), kBorder);
  for (std::int64_t n = 0; n < images.count; ++n) {
    const std::int64_t top = n / across * tile_height + 1, left = n % across * tile_width + 1;
    for (std::int64_t c = 0; c < images.channels; ++c) {
      for (std::int64_t y = 0; y < images.height * scale; ++y) {
        for (std::int64_t x = 0; x < images.width * scale; ++x) {
          const std::int64_t from = ((n * images.channels + c) * images.height + y / scale) * images.width + x / scale;
          grid.values[static_cast<std::size_t>((c * grid.height + top + y) * grid.width + left + x)] =
              images.values[static_cast<std::size_t>(from)];
        }
      }
    }
  }
  return grid;
}

Images images_of(std::span<const double> units, std::int64_t channels, std::int64_t height, std::int64_t width) {
  Images images{0, channels, height, width, {}};
  if (units.empty() || channels < 1 || height < 1 || width < 1 ||
      static_cast<std::int64_t>(units.size()) % images.size() != 0)
    throw std::invalid_argument(fmt::format("[images_of] {} numbers as images of {}", units.size(), images.size()));
  images.count = static_cast<std::int64_t>(units.size()) / images.size();
  for (const double unit : units) images.values.push_back(byte_of(unit));
  return images;
}

}  // namespace tuiqiao
