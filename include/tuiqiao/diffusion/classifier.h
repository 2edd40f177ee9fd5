#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "tuiqiao/diffusion/images.h"
#include "tuiqiao/progress.h"

namespace tuiqiao {

/// Labels of read_images' images of a folder with MNIST's files.
/// Throws: tuiqiao::Error.
std::vector<std::uint8_t> read_labels(const std::filesystem::path& folder, const std::string& part = "train");

struct ClassifierOptions {
  int epochs = 12;
  int batch = 64;
  double learning_rate = 1e-3;  ///< falls to 0 along a cosine
  double dropout = 0.4;         ///< of the features; 0 for none
  std::uint64_t seed = 0;
};

/// A small network that tells ten classes of grey images of 28 x 28 apart. Frozen, its 128 features are what samples
/// are compared in: two convolutions of 5 x 5 and 3 x 3 with pooling, a layer of 128, one of 10. Threads: const members
/// one call at a time.
class Classifier {
 public:
  static constexpr std::int64_t kFeatures = 128, kSide = 28, kClasses = 10;

  /// Throws: tuiqiao::Error that names the file.
  static Classifier load(const std::filesystem::path& file);
  /// All of it is a function of the seed.
  /// Domain: labels below kClasses. Throws: std::invalid_argument "[train_classifier] ..."; tuiqiao::Error where the
  /// loss is not finite; Interrupted.
  static Classifier train(const Images& images, std::span<const std::uint8_t> labels, const ClassifierOptions& options,
                          const Progress& progress = {});
  Classifier(Classifier&&) noexcept;
  ~Classifier();

  /// Weights in bfloat16, renamed into place; these are what features() and classes() use from then on.
  /// Throws: tuiqiao::Error.
  void save(const std::filesystem::path& file);
  std::int64_t parameter_count() const;

  /// Shapes: rows of kFeatures, one an image. Throws: std::invalid_argument on images of another size.
  std::vector<float> features(const Images& images, const Progress& progress = {}) const;
  std::vector<std::uint8_t> classes(const Images& images, const Progress& progress = {}) const;

 private:
  struct Parts;
  explicit Classifier(std::unique_ptr<Parts> parts);
  std::unique_ptr<Parts> parts_;
};

}  // namespace tuiqiao
