#pragma once

#include <CLI/CLI.hpp>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <limits>
#include <optional>
#include <string_view>

// What the programs tuiqiao and tuiqiao-torch have in common.

namespace tuiqiao::cli {

/// Tells the user what went wrong, in one line; returns `code`.
int say(int code, std::string_view what);

/// Reads the arguments; the exit code where there is nothing more to do, for help or a mistake.
std::optional<int> parse_arguments(CLI::App& app, int argc, char** argv);

/// Takes whole numbers from 0 to `most`; CLI11 itself reads -1 as 2^64 - 1, and larger ones too.
CLI::Validator whole_number(std::uint64_t most = std::numeric_limits<std::uint64_t>::max());

/// Take finite numbers above 0, and from 0.
CLI::Validator positive_number();
CLI::Validator number_from_zero();

/// A file or folder that comes with the program, by its name in the source tree: in the current folder, else where it
/// was installed (share/tuiqiao), else in the current folder still.
std::filesystem::path data_file(const std::filesystem::path& name);

/// Carries a command out; what it throws of what commands are known to throw becomes a line and an exit code.
int carry_out(const std::function<int()>& command);

}  // namespace tuiqiao::cli
