// clang 14, and so clang-tidy, cannot read libtorch 1.13's headers as C++20.
#ifndef __clang_analyzer__
#include "diffusion_inputs.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <numbers>

#include "npy.h"
#include "program.h"
#include "tuiqiao/diffusion/classifier.h"
#include "tuiqiao/diffusion/noise.h"

namespace tuiqiao::cli {

namespace {

/// Uniform in [-1/2, 1/2), of a normal number.
double uniform_of(double normal) { return 0.5 * std::erfc(-normal / std::numbers::sqrt2) - 0.5; }

Inputs read_images_of(const InputArguments& a, const OpenedModel& model) {
  const Images images = read_images_for(model, a.data, a.part);
  if (a.first >= images.count) throw Error(fmt::format("{}: {} images; none after {}", a.data, images.count, a.first));
  const std::int64_t left = images.count - a.first;
  Inputs inputs{a.count > 0 ? std::min(a.count, left) : left, left, {}};
  const auto size = static_cast<std::size_t>(images.size());
  inputs.values.resize(static_cast<std::size_t>(inputs.count) * size);
  if (!a.as_it_is) image_noise(0, static_cast<std::uint64_t>(a.first), images.size())(0, inputs.values);
  for (std::size_t i = 0; i < inputs.values.size(); ++i) {
    const double more = a.as_it_is ? 0 : uniform_of(inputs.values[i]);
    inputs.values[i] = unit_of(images.values[static_cast<std::size_t>(a.first) * size + i]) + more / 127.5;
  }
  return inputs;
}

}  // namespace

void InputArguments::add_to(CLI::App& app) {
  app.add_option("--x", x, "An .npy file of data, [N, shape of one]")->type_name("FILE");
  app.add_option("--data", data, "Images, as train reads them")->type_name("PATH")->excludes("--x");
  app.add_option("--part", part, "Of MNIST's files: train or t10k [train]")
      ->type_name("NAME")
      ->check(CLI::IsMember({"train", "t10k"}))
      ->needs("--data");
  app.add_option("-n,--count", count, fmt::format("At most so many; 0 for all [{}]", count))
      ->type_name("N")
      ->check(number_from_zero());
  app.add_option("--first", first, "Number of the first [0]")->type_name("I")->check(number_from_zero());
}

Images read_images_for(const OpenedModel& model, const std::string& path, const std::string& part) {
  Images images = read_images(path, part);
  if (std::vector{images.channels, images.height, images.width} != model.shape)
    throw Error(fmt::format("{}: images of [{}, {}, {}]; the model has [{}]", path, images.channels, images.height,
                            images.width, fmt::join(model.shape, ", ")));
  return images;
}

void check_size(const std::string& path, const Images& images) {
  constexpr std::int64_t kSide = Classifier::kSide;
  if (images.channels != 1 || images.height != kSide || images.width != kSide)
    throw Error(fmt::format("{}: images of [{}, {}, {}]; the classifier looks at [1, {}, {}]", path, images.channels,
                            images.height, images.width, kSide, kSide));
}

Images images_to_classify(const std::string& path, const std::string& part) {
  Images images = read_images(path, part);
  check_size(path, images);
  return images;
}

Inputs read_states(const std::string& file, const OpenedModel& model) {
  NpyArray array = read_npy(file);
  std::vector<std::int64_t> shape = model.shape;
  shape.insert(shape.begin(), array.shape.empty() ? 0 : array.shape[0]);
  if (array.shape != shape || array.values.empty())
    throw Error(fmt::format("{}: of shape [{}]; [N, {}] is wanted", file, fmt::join(array.shape, ", "),
                            fmt::join(model.shape, ", ")));
  if (!std::all_of(array.values.begin(), array.values.end(), [](double value) { return std::isfinite(value); }))
    throw Error(fmt::format("{}: holds numbers that are not finite", file));
  return {array.shape[0], array.shape[0], std::move(array.values)};
}

Inputs read_inputs(const InputArguments& a, const OpenedModel& model) {
  if (a.x.empty() == a.data.empty()) throw std::invalid_argument("one of --x and --data is needed");
  if (a.x.empty()) return read_images_of(a, model);
  Inputs all = read_states(a.x, model);
  if (a.first >= all.count) throw Error(fmt::format("{}: {} data; none after {}", a.x, all.count, a.first));
  const std::int64_t left = all.count - a.first, count = a.count > 0 ? std::min(a.count, left) : left;
  const auto from = all.values.begin() + static_cast<std::ptrdiff_t>(a.first * model.size());
  return {count, left, {from, from + static_cast<std::ptrdiff_t>(count * model.size())}};
}

Chart histogram(const std::vector<Sample>& samples, const std::string& label) {
  constexpr std::size_t kMostParts = 40;
  double low = HUGE_VAL, high = -HUGE_VAL;
  std::size_t most = 0;
  for (const Sample& one : samples) {
    most = std::max(most, one.values.size());
    for (const double value : one.values) {
      low = std::min(low, value);
      high = std::max(high, value);
    }
  }
  const std::size_t parts = std::clamp<std::size_t>(most / 4, 1, kMostParts);
  const double width = high > low ? (high - low) / static_cast<double>(parts) : 1;
  Chart chart{fmt::format("{} data", most), {label}, {"data"}, {}};
  for (const Sample& one : samples) {
    std::vector<double> counts(parts, 0);
    for (const double value : one.values)
      ++counts[std::min(static_cast<std::size_t>((value - low) / width), parts - 1)];
    Series steps{samples.size() > 1 ? one.name : "", {{low, 0}}};
    for (std::size_t p = 0; p < parts; ++p) {
      steps.points.emplace_back(low + width * static_cast<double>(p), counts[p]);
      steps.points.emplace_back(low + width * static_cast<double>(p + 1), counts[p]);
    }
    steps.points.emplace_back(low + width * static_cast<double>(parts), 0);
    chart.series.push_back(std::move(steps));
  }
  return chart;
}

std::string count_of(const Inputs& inputs) {
  return inputs.count < inputs.available ? fmt::format("{} of {} data", inputs.count, inputs.available)
                                         : fmt::format("{} data", inputs.count);
}

}  // namespace tuiqiao::cli
#endif
