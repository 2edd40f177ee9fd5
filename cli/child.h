#pragma once

#include <filesystem>
#include <functional>
#include <stop_token>
#include <string>
#include <vector>

namespace tuiqiao::cli {

/// A run of this program with other arguments.
struct Child {
  std::vector<std::string> arguments;  ///< without the program's name
  std::filesystem::path input;         ///< empty: none
  std::filesystem::path output, errors;
};

/// Runs it to its end and returns its exit code, 128 and more for a signal; a stop request is handed on.
/// `waits` is called about ten times a second. Throws: tuiqiao::Error where a file or the program cannot be opened;
/// Interrupted.
int run_child(const Child& child, const std::stop_token& stop, const std::function<void()>& waits);

}  // namespace tuiqiao::cli
