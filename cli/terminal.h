#pragma once

#include <cstdint>
#include <initializer_list>
#include <stdexcept>
#include <stop_token>
#include <string>
#include <string_view>

#include "text/utf8.h"
#include "tuiqiao/progress.h"

namespace tuiqiao::cli {

/// Exit codes of every command.
inline constexpr int kDone = 0;
inline constexpr int kBadInput = 1;
inline constexpr int kUsage = 2;
inline constexpr int kUnknownVerdicts = 3;
inline constexpr int kInterrupted = 130;
inline constexpr int kOutputClosed = 141;  ///< whoever read standard output went away, as `head` does

/// Opens what the caller closed of the standard streams, so that no file gets their numbers, and keeps a reader that
/// goes away and a limit on file sizes from killing the program: writing fails instead. Call first.
void settle_standard_streams();

/// Turns Ctrl-C and SIGTERM into a stop request; a second one, half a second later or more, ends the program at once.
/// Call before any thread starts, but for those that libraries start before main.
std::stop_token stop_on_signal();

/// Thrown by print when nobody reads standard output any more: the program ends without a word.
class OutputClosed : public std::runtime_error {
 public:
  OutputClosed() : std::runtime_error("standard output was closed") {}
};
/// Writes to standard output at once. Throws: OutputClosed; tuiqiao::Error when it cannot be written otherwise.
void print(std::string_view text);

/// Writes to standard error; what cannot be written there is lost.
void tell(std::string_view text);

/// All of standard input, at most `most` bytes. Throws: tuiqiao::Error; Interrupted, also while it waits.
std::string read_standard_input(std::size_t most, const std::stop_token& stop);

/// A file that an option names for what the program writes; "" is none.
struct OutputFile {
  const char* option;
  std::string name;
};

/// Before the work that fills them. Throws: tuiqiao::Error where one could not be written, std::invalid_argument where
/// two are the same file.
void check_outputs(std::initializer_list<OutputFile> files);

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
/// Whether a terminal wants colours: not if NO_COLOR is set or TERM is "dumb".
bool wants_colour();

/// Text from outside on one line, for messages, as a terminal may show it.
inline std::string one_line(std::string_view text) { return spelled_out(text, false); }
/// The same of a word that may be long: its first 40 bytes.
std::string shortened(std::string_view text);
/// With newlines and tabs left as they are.
inline std::string terminal_text(std::string_view text) { return spelled_out(text, true); }
/// A line of JSON in which steering characters became \u escapes: the same JSON.
std::string terminal_json(std::string_view json);

}  // namespace tuiqiao::cli
