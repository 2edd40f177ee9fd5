#include "terminal.h"

#include <fmt/format.h>
#include <signal.h>
#include <unistd.h>

#include <array>
#include <cstdio>
#include <thread>

namespace tuiqiao::cli {

std::stop_token stop_on_signal() {
  // A thread of its own receives the signals, since a handler may hardly do anything.
  static std::stop_source source;
  sigset_t signals;
  sigemptyset(&signals);
  sigaddset(&signals, SIGINT);
  sigaddset(&signals, SIGTERM);
  pthread_sigmask(SIG_BLOCK, &signals, nullptr);
  std::thread([signals] {
    int signal = 0;
    sigwait(&signals, &signal);
    source.request_stop();
    sigwait(&signals, &signal);
    _exit(kInterrupted);
  }).detach();
  return source.get_token();
}

void ProgressBar::show(std::string_view what, std::int64_t done, std::int64_t total) {
  if (!is_terminal_stderr()) return;
  constexpr int kWidth = 30;
  std::string line;
  if (total > 0) {
    const int filled = static_cast<int>(done * kWidth / total);
    line = fmt::format("{} [{:=<{}}{:<{}}] {}/{}", what, "", filled, "", kWidth - filled, done, total);
  } else {
    line = fmt::format("{} {}", what, done);
  }
  if (line == shown_) return;
  fmt::print(stderr, "\r\x1b[K{}", line);
  std::fflush(stderr);
  shown_ = line;
  if (total > 0 && done >= total) clear();
}

void ProgressBar::clear() {
  if (shown_.empty()) return;
  fmt::print(stderr, "\r\x1b[K");
  std::fflush(stderr);
  shown_.clear();
}

bool is_terminal_stdout() { return isatty(STDOUT_FILENO) == 1; }
bool is_terminal_stderr() { return isatty(STDERR_FILENO) == 1; }

std::string bytes_text(std::int64_t bytes) {
  constexpr std::array<const char*, 5> kUnits{"B", "KiB", "MiB", "GiB", "TiB"};
  auto value = static_cast<double>(bytes);
  std::size_t unit = 0;
  for (; value >= 1024 && unit + 1 < kUnits.size(); ++unit) value /= 1024;
  return fmt::format("{:.{}f} {}", value, unit == 0 ? 0 : 1, kUnits[unit]);
}

}  // namespace tuiqiao::cli
