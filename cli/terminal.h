#pragma once

#include <cstdint>
#include <stop_token>
#include <string>
#include <string_view>

#include "tuiqiao/progress.h"

namespace tuiqiao::cli {

/// Exit codes of every command.
inline constexpr int kDone = 0;
inline constexpr int kBadInput = 1;
inline constexpr int kUsage = 2;
inline constexpr int kUnknownVerdicts = 3;
inline constexpr int kInterrupted = 130;

/// Turns Ctrl-C and SIGTERM into a stop request; a second one ends the program at once. Call before any thread starts.
std::stop_token stop_on_signal();

/// A progress bar on stderr where that is a terminal; nothing elsewhere. Erases itself when its work is done.
class ProgressBar {
 public:
  ~ProgressBar() { clear(); }
  void show(std::string_view what, std::int64_t done, std::int64_t total);
  void clear();

 private:
  std::string shown_;
};

bool is_terminal_stdout();
bool is_terminal_stderr();

/// "12.3 MiB" and such.
std::string bytes_text(std::int64_t bytes);

}  // namespace tuiqiao::cli
