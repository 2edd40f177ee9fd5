#pragma once

#include <CLI/CLI.hpp>
#include <functional>
#include <stop_token>

namespace tuiqiao::cli {

/// Adds a command to the program; what it returns runs the command once it was parsed, and returns the exit code.
using Run = std::function<int(std::stop_token stop)>;
Run add_audit(CLI::App& app);
Run add_demo(CLI::App& app);
Run add_generate(CLI::App& app);
Run add_minsum(CLI::App& app);
Run add_score(CLI::App& app);
Run add_topk(CLI::App& app);

}  // namespace tuiqiao::cli
