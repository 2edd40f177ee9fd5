#pragma once

#include <CLI/CLI.hpp>
#include <cstdint>
#include <string>
#include <vector>

#include "chart.h"
#include "diffusion_model.h"
#include "tuiqiao/diffusion/images.h"

namespace tuiqiao::cli {

/// Data that a command looks at.
struct InputArguments {
  std::string x, data, part = "train";
  std::int64_t count = 0, first = 0;
  bool as_it_is = false;  ///< no dequantising noise

  void add_to(CLI::App& app);
};

struct Inputs {
  std::int64_t count = 0, available = 0;  ///< taken, and from the first on
  std::vector<double> values;             ///< rows of the model's size
};

/// Throws: tuiqiao::Error that names the file; std::invalid_argument unless one of --x and --data is given.
Inputs read_inputs(const InputArguments& arguments, const OpenedModel& model);

/// Images, as train reads them. Throws: tuiqiao::Error where they are not of the model's shape.
Images read_images_for(const OpenedModel& model, const std::string& path, const std::string& part = "train");

/// Throws: tuiqiao::Error that names the path where images are not of the classifier's size.
void check_size(const std::string& path, const Images& images);
/// Images, as train reads them, of that size. Throws: tuiqiao::Error.
Images images_to_classify(const std::string& path, const std::string& part = "train");

/// Throws: tuiqiao::Error where the array is no [N, shape of the model's datum] of finite numbers.
Inputs read_states(const std::string& file, const OpenedModel& model);

/// "8 of 60000 data", or "8 data" where that is all.
std::string count_of(const Inputs& inputs);

/// Numbers and what they are of.
struct Sample {
  std::string name;
  std::vector<double> values;
};

/// How many of each sample's values lie in each of some equal parts of the range of all.
Chart histogram(const std::vector<Sample>& samples, const std::string& label);

}  // namespace tuiqiao::cli
