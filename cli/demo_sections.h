#pragma once

#include <filesystem>
#include <functional>
#include <string>
#include <vector>

namespace tuiqiao::cli {

/// A run of this program that a section of the report shows something of.
struct DemoStep {
  std::string output;                  ///< where standard output goes, within the folder of raw results
  std::vector<std::string> arguments;  ///< files that it writes are within that folder too
  std::string input = {};              ///< what it reads, if anything
};

struct DemoSection {
  std::string id, title, lead;
  std::string page;     ///< of the documentation
  std::string missing;  ///< why it cannot be made here; empty: it can
  std::vector<DemoStep> steps;
  std::function<std::string(const std::filesystem::path& raw)> html;  ///< once all steps are done
};

struct DemoInputs {
  std::filesystem::path data;        ///< holds examples/demo and models/
  std::filesystem::path text_model;  ///< a GGUF file
  std::filesystem::path images;      ///< a folder of MNIST's files
  std::filesystem::path raw;         ///< where results go; small inputs are written there
  int threads = 0;
};

/// The parts of the report, in its order. Throws: tuiqiao::Error where an input cannot be written.
std::vector<DemoSection> demo_sections(const DemoInputs& inputs);

}  // namespace tuiqiao::cli
