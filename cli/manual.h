#pragma once

#include <CLI/CLI.hpp>
#include <string>

namespace tuiqiao::cli {

/// Adds the command `manual`, which prints what it is asked for from the definitions of all commands: a manual page
/// ("man"), or the words that a shell completes ("words": a line for each command, its path, a colon, what may follow).
void add_manual(CLI::App& app);

}  // namespace tuiqiao::cli
