#include <gtest/gtest.h>
#include <unistd.h>

#include <fstream>
#include <limits>
#include <stdexcept>

#include "npy.h"
#include "tuiqiao/diffusion/images.h"

namespace tuiqiao {
namespace {

namespace fs = std::filesystem;

Images counted(std::int64_t count, std::int64_t channels, std::int64_t height, std::int64_t width) {
  Images images{count, channels, height, width, {}};
  for (std::int64_t i = 0; i < count * images.size(); ++i)
    images.values.push_back(static_cast<std::uint8_t>(i * 37 % 256));
  return images;
}

class ImageFiles : public testing::Test {
 protected:
  void SetUp() override { fs::create_directories(folder); }
  void TearDown() override { fs::remove_all(folder); }

  fs::path write(const std::string& name, const std::string& bytes) const {
    std::ofstream(folder / name, std::ios::binary) << bytes;
    return folder / name;
  }
  fs::path write_npy(const std::vector<double>& values, const std::vector<std::int64_t>& shape) const {
    return write("x.npy", npy_of(values, shape));
  }
  static void expect_refused(const fs::path& path, const std::string& named, const std::string& problem) {
    try {
      read_images(path);
      ADD_FAILURE() << "read " << path;
    } catch (const Error& error) {
      const std::string what = error.what();
      EXPECT_TRUE(what.starts_with(named)) << what;
      EXPECT_NE(what.find(problem), std::string::npos) << what;
    }
  }

  const fs::path folder = fs::temp_directory_path() / ("tuiqiao-images-" + std::to_string(getpid()));
};

TEST(Units, AreBytesAndBack) {
  for (int value = 0; value < 256; ++value) {
    const auto byte = static_cast<std::uint8_t>(value);
    EXPECT_EQ(byte_of(unit_of(byte)), byte);
    EXPECT_GE(unit_of(byte), -1);
    EXPECT_LE(unit_of(byte), 1);
  }
  EXPECT_EQ(byte_of(7), 255);
  EXPECT_EQ(byte_of(-7), 0);
  EXPECT_EQ(byte_of(std::numeric_limits<double>::quiet_NaN()), 0);
  EXPECT_EQ(images_of(std::vector{-1.0, 1.0, 0.0, 0.5}, 1, 1, 2).values, (std::vector<std::uint8_t>{0, 255, 128, 191}));
  EXPECT_THROW(images_of(std::vector{1.0, 2.0, 3.0}, 1, 1, 2), std::invalid_argument);
  EXPECT_THROW(images_of({}, 1, 1, 2), std::invalid_argument);
  EXPECT_THROW(images_of(std::vector{1.0}, 0, 1, 1), std::invalid_argument);
}

TEST_F(ImageFiles, PngGoesBothWays) {
  for (const std::int64_t channels : {1, 3}) {
    fs::remove_all(folder);
    fs::create_directories(folder);
    Images both = counted(2, channels, 5, 3);
    Images second = both;
    second.count = 1;
    second.values.erase(second.values.begin(), second.values.begin() + both.size());
    Images first = both;
    first.count = 1;
    first.values.resize(static_cast<std::size_t>(both.size()));
    write("2.png", png_of(second));  // read by name
    write("1.png", png_of(first));
    write("other.txt", "no image");
    const Images read = read_images(folder);
    EXPECT_EQ(read.count, 2);
    EXPECT_EQ(read.channels, channels);
    EXPECT_EQ(read.height, 5);
    EXPECT_EQ(read.width, 3);
    EXPECT_EQ(read.values, both.values);
  }
  EXPECT_THROW(png_of(counted(2, 1, 2, 2)), std::invalid_argument);
  EXPECT_THROW(png_of(counted(1, 2, 2, 2)), std::invalid_argument);
  EXPECT_THROW(png_of(Images{}), std::invalid_argument);
}

TEST_F(ImageFiles, GreyAmongColouredBecomesColoured) {
  write("1.png", png_of(counted(1, 1, 2, 2)));
  write("2.png", png_of(counted(1, 3, 2, 2)));
  const Images read = read_images(folder);
  EXPECT_EQ(read.channels, 3);
  const std::vector<std::uint8_t> grey = counted(1, 1, 2, 2).values;
  for (std::size_t i = 0; i < 12; ++i) EXPECT_EQ(read.values[i], grey[i % 4]);
}

TEST_F(ImageFiles, NamesThePngThatIsWrong) {
  expect_refused(folder, folder, "no .png files");
  write("1.png", png_of(counted(1, 1, 4, 4)));
  const fs::path other = write("2.png", png_of(counted(1, 1, 4, 5)));
  expect_refused(folder, other, "4 x 5");
  const std::string whole = png_of(counted(1, 1, 30, 30));
  fs::remove(folder / "1.png");
  for (std::size_t length = 0; length + 13 < whole.size(); length += 7) {  // up to the last 12 bytes, which say nothing
    write("2.png", whole.substr(0, length));
    expect_refused(folder, other, ": ");
  }
  std::string large = whole;
  large[16] = '\x40';  // 2^30 pixels wide
  write("2.png", large);
  expect_refused(folder, other, ": ");
}

TEST_F(ImageFiles, ReadsNpyOfWholeNumbers) {
  const std::vector<double> values{0, 255, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16};
  Images read = read_images(write_npy(values, {3, 2, 2}));
  EXPECT_EQ(read.count, 3);
  EXPECT_EQ(read.channels, 1);
  EXPECT_EQ(read.values[1], 255);
  read = read_images(write_npy(values, {1, 3, 2, 2}));
  EXPECT_EQ(read.count, 1);
  EXPECT_EQ(read.channels, 3);
  const fs::path file = folder / "x.npy";
  write_npy(values, {12});
  expect_refused(file, file, "1 sides");
  write_npy(values, {3, 4, 1, 1});
  expect_refused(file, file, "4 channels");
  write_npy({}, {0, 2, 2});
  expect_refused(file, file, "no image");
  for (const double wrong : {-1.0, 256.0, 0.5, std::numeric_limits<double>::quiet_NaN()}) {
    write_npy({0, 0, 0, wrong}, {1, 2, 2});
    expect_refused(file, file, "at 3 is no whole number from 0 to 255");
  }
}

TEST_F(ImageFiles, ReadsIdxFilesAndTheFoldersThatHoldThem) {
  const std::string two{'\0', '\0', '\b', '\3', '\0', '\0', '\0', '\2', '\0', '\0', '\0',
                        '\1', '\0', '\0', '\0', '\3', '\1', '\2', '\3', '\4', '\5', '\6'};
  write("train-images-idx3-ubyte", two);
  const std::string one = two.substr(0, 7) + '\1' + two.substr(8, 11);
  write("t10k-images-idx3-ubyte", one);
  for (const Images& read : {read_images(folder), read_images(folder / "train-images-idx3-ubyte")}) {
    EXPECT_EQ(read.count, 2);
    EXPECT_EQ(read.height, 1);
    EXPECT_EQ(read.width, 3);
    EXPECT_EQ(read.values, (std::vector<std::uint8_t>{1, 2, 3, 4, 5, 6}));
  }
  EXPECT_EQ(read_images(folder, "t10k").count, 1);
  const fs::path file = write("train-images-idx3-ubyte", two.substr(0, 20));
  expect_refused(folder, file, ": ");
  expect_refused(folder / "none", folder / "none", "no such file or folder");
}

TEST(ImageGrid, PutsImagesSideBySide) {
  const Images images{3, 1, 1, 2, {1, 2, 3, 4, 5, 6}};
  const Images grid = image_grid(images, 2, 1);
  EXPECT_EQ(grid.height, 5);
  EXPECT_EQ(grid.width, 7);
  const std::uint8_t b = 96;
  EXPECT_EQ(grid.values, (std::vector<std::uint8_t>{b, b, b, b, b, b, b,  //
                                                    b, 1, 2, b, 3, 4, b,  //
                                                    b, b, b, b, b, b, b,  //
                                                    b, 5, 6, b, b, b, b,  //
                                                    b, b, b, b, b, b, b}));
  const Images scaled = image_grid({1, 3, 1, 1, {7, 8, 9}}, 0, 3);
  EXPECT_EQ(scaled.channels, 3);
  EXPECT_EQ(scaled.height, 5);
  for (int c = 0; c < 3; ++c) EXPECT_EQ(scaled.values[static_cast<std::size_t>(c * 25 + 12)], 7 + c);
  EXPECT_EQ(image_grid(counted(64, 1, 2, 2)).width, 8 * 3 + 1);
  EXPECT_THROW(image_grid(images, -1), std::invalid_argument);
  EXPECT_THROW(image_grid(images, 1, 0), std::invalid_argument);
}

}  // namespace
}  // namespace tuiqiao
