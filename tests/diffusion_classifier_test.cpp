#include <gtest/gtest.h>
#include <unistd.h>

#include <cmath>
#include <filesystem>
#include <fstream>
#include <stdexcept>

#include "tuiqiao/diffusion/classifier.h"
#include "tuiqiao/diffusion/metrics.h"
#include "tuiqiao/diffusion/noise.h"
#include "tuiqiao/error.h"

namespace tuiqiao {
namespace {

namespace fs = std::filesystem;

/// A bar in one of ten places, on noise.
Images bars(std::int64_t count, std::uint64_t seed, std::vector<std::uint8_t>& labels) {
  Images images{count, 1, 28, 28, std::vector<std::uint8_t>(static_cast<std::size_t>(count) * 784)};
  labels.clear();
  for (std::int64_t n = 0; n < count; ++n) {
    const auto label = random_below(seed, 0, static_cast<std::uint64_t>(n), 10);
    labels.push_back(static_cast<std::uint8_t>(label));
    for (std::size_t i = 0; i < 784; ++i) {
      const auto noise = random_below(seed, 1 + static_cast<std::uint64_t>(n), i, 60);
      images.values[static_cast<std::size_t>(n) * 784 + i] =
          static_cast<std::uint8_t>(noise + (i % 28 / 2 == label + 2 ? 150 : 0));
    }
  }
  return images;
}

double share_right(const std::vector<std::uint8_t>& found, const std::vector<std::uint8_t>& truth) {
  double right = 0;
  for (std::size_t i = 0; i < truth.size(); ++i)
    right += found[i] == truth[i] ? 1.0 / static_cast<double>(truth.size()) : 0;
  return right;
}

class ClassifierTest : public testing::Test {
 protected:
  void TearDown() override { fs::remove(file); }
  fs::path file = fs::temp_directory_path() / ("classifier-" + std::to_string(::getpid()));
};

TEST_F(ClassifierTest, LearnsKeepsAndAnswersTheSame) {
  std::vector<std::uint8_t> labels, truth;
  const Images images = bars(600, 1, labels), others = bars(200, 2, truth);
  const ClassifierOptions options{.epochs = 3, .batch = 50};
  Classifier classifier = Classifier::train(images, labels, options);
  EXPECT_GT(share_right(classifier.classes(others), truth), 0.9);
  classifier.save(file);
  const Classifier loaded = Classifier::load(file);
  EXPECT_EQ(loaded.features(others), classifier.features(others));
  EXPECT_EQ(loaded.features(others).size(), 200U * Classifier::kFeatures);
  EXPECT_EQ(loaded.parameter_count(), classifier.parameter_count());
  // The same seed makes the same weights.
  Classifier again = Classifier::train(images, labels, options);
  again.save(file);
  EXPECT_EQ(Classifier::load(file).features(others), loaded.features(others));
}

TEST_F(ClassifierTest, RefusesWhatItCannotRead) {
  std::vector<std::uint8_t> labels;
  const Images images = bars(20, 1, labels);
  Images wide = images;
  wide.width = 14;
  wide.count *= 2;
  EXPECT_THROW(Classifier::train(wide, labels, {}), std::invalid_argument);
  std::vector<std::uint8_t> eleven = labels;
  eleven.back() = Classifier::kClasses;
  EXPECT_THROW(Classifier::train(images, eleven, {}), std::invalid_argument);
  EXPECT_THROW(Classifier::train(images, labels, {.epochs = 3, .batch = 5, .learning_rate = 1e30}), Error);
  labels.pop_back();
  EXPECT_THROW(Classifier::train(images, labels, {}), std::invalid_argument);
  EXPECT_THROW(Classifier::load(file), Error);
  std::ofstream(file) << "none";
  EXPECT_THROW(Classifier::load(file), Error);
  EXPECT_THROW(read_labels(fs::temp_directory_path()), Error);
}

// The shipped one on the test images of Fashion-MNIST, and what its features say of them and of noise.
TEST_F(ClassifierTest, ShipsWithMoreThanNinetyTwoPercent) {
  const fs::path data = "/usr/share/datasets/fashion-mnist";
  if (!fs::exists(data)) GTEST_SKIP() << "no " << data;
  const Classifier classifier =
      Classifier::load(fs::path(TUIQIAO_TEST_DATA) / "../../models/fashion-mnist-classifier/classifier.safetensors");
  EXPECT_LT(fs::file_size(fs::path(TUIQIAO_TEST_DATA) / "../../models/fashion-mnist-classifier/classifier.safetensors"),
            2U << 20);
  const Images test = read_images(data, "t10k");
  EXPECT_GT(share_right(classifier.classes(test), read_labels(data, "t10k")), 0.92);
  const std::vector<float> features = classifier.features(test);
  const std::span<const float> all(features);
  const auto half = static_cast<std::ptrdiff_t>(features.size() / 2);
  const FeatureMoments first = feature_moments(all.first(static_cast<std::size_t>(half)), Classifier::kFeatures);
  const FeatureMoments second = feature_moments(all.subspan(static_cast<std::size_t>(half)), Classifier::kFeatures);
  std::vector<std::uint8_t> unused;
  const FeatureMoments other = feature_moments(classifier.features(bars(1000, 3, unused)), Classifier::kFeatures);
  EXPECT_GT(frechet_distance(first, other), 20 * frechet_distance(first, second));
}

}  // namespace
}  // namespace tuiqiao
