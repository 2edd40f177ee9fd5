#include <gtest/gtest.h>

#include <algorithm>
#include <stdexcept>

#include "diffusion/disturbed.h"

namespace tuiqiao {
namespace {

const std::vector<std::int64_t> kShape{2, 3, 4};  // two channels of 3 x 4
constexpr std::size_t kPixels = 12, kSize = 24;

/// Two images of numbers that are all different.
std::vector<double> two_images() {
  std::vector<double> images(2 * kSize);
  for (std::size_t i = 0; i < images.size(); ++i) images[i] = -0.9 + static_cast<double>(i) / 30;
  return images;
}

TEST(Disturbed, TurnsUpsideDown) {
  const std::vector<double> images = two_images(), turned = disturbed("upside-down", images, kShape, 0);
  for (std::size_t plane = 0; plane < 4; ++plane) {
    for (std::size_t y = 0; y < 3; ++y) {
      for (std::size_t x = 0; x < 4; ++x)
        EXPECT_EQ(turned[plane * kPixels + y * 4 + x], images[plane * kPixels + (2 - y) * 4 + x]);
    }
  }
  EXPECT_EQ(disturbed("upside-down", turned, kShape, 0), images);
}

TEST(Disturbed, Inverts) {
  const std::vector<double> images = two_images(), inverted = disturbed("inverted", images, kShape, 0);
  for (std::size_t i = 0; i < images.size(); ++i) EXPECT_EQ(inverted[i], -images[i]);
}

TEST(Disturbed, ShufflesAllPlanesTheSameWay) {
  const std::vector<double> images = two_images(), shuffled = disturbed("shuffled", images, kShape, 5);
  std::vector<std::size_t> from;
  for (std::size_t p = 0; p < kPixels; ++p)
    from.push_back(static_cast<std::size_t>(std::find(images.begin(), images.end(), shuffled[p]) - images.begin()));
  std::vector<std::size_t> sorted = from;
  std::sort(sorted.begin(), sorted.end());
  for (std::size_t p = 0; p < kPixels; ++p) EXPECT_EQ(sorted[p], p);
  EXPECT_NE(from, sorted);
  for (std::size_t i = 0; i < images.size(); ++i)
    EXPECT_EQ(shuffled[i], images[i / kPixels * kPixels + from[i % kPixels]]);
}

TEST(Disturbed, MakesNoiseOfTheWholeRange) {
  const std::int64_t rows = 200;
  const std::vector<double> noise = disturbed("noise", std::vector<double>(rows * kSize), kShape, 0);
  const auto [least, most] = std::minmax_element(noise.begin(), noise.end());
  EXPECT_GE(*least, -1 - 1 / 255.0);
  EXPECT_LT(*most, 1 + 1 / 255.0);
  double mean = 0, square = 0;
  for (const double x : noise) {
    mean += x / static_cast<double>(noise.size());
    square += x * x / static_cast<double>(noise.size());
  }
  EXPECT_NEAR(mean, 0, 0.04);  // five standard errors
  EXPECT_NEAR(square, 1.0 / 3, 0.025);
  // Each image has its own, whatever comes before it in a batch.
  const std::vector<double> later = disturbed("noise", std::vector<double>(kSize), kShape, 7);
  EXPECT_TRUE(std::equal(later.begin(), later.end(), noise.begin() + 7 * kSize));
  EXPECT_FALSE(std::equal(later.begin(), later.end(), noise.begin()));
}

TEST(Disturbed, RefusesWhatIsNoImage) {
  const std::vector<double> images = two_images();
  EXPECT_THROW(disturbed("sideways", images, kShape, 0), std::invalid_argument);
  EXPECT_THROW(disturbed("noise", images, {24}, 0), std::invalid_argument);
}

}  // namespace
}  // namespace tuiqiao
