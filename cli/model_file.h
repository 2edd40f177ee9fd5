#pragma once

#include <filesystem>
#include <string>

namespace tuiqiao::cli {

/// TUIQIAO_MODEL, else where scripts/bootstrap puts the model that it fetches, whether it is there or not.
std::filesystem::path default_model();

/// The GGUF file that was named, else TUIQIAO_MODEL, else the one that scripts/bootstrap fetches.
/// Throws: tuiqiao::Error where none was named and none is there.
std::filesystem::path model_file(const std::string& named);

}  // namespace tuiqiao::cli
