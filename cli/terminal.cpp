#include "terminal.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <poll.h>
#include <signal.h>
#include <sys/stat.h>
#include <ucontext.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <map>
#include <system_error>
#include <thread>

#include "text/utf8.h"
#include "tuiqiao/error.h"

namespace tuiqiao::cli {

namespace {

std::string message_of(int error) { return std::generic_category().message(error); }

/// A thread that a library started before main (OpenBLAS does) may get a signal too: it sends it once more and blocks
/// it from now on, so that it reaches the thread that waits for it.
void pass_on(int signal, siginfo_t*, void* context) {
  sigaddset(&static_cast<ucontext_t*>(context)->uc_sigmask, signal);
  ::kill(::getpid(), signal);
}

}  // namespace

void settle_standard_streams() {
  // Input and output the wrong way round, so that using them still fails.
  constexpr std::array<int, 3> kModes{O_WRONLY, O_RDONLY, O_WRONLY};
  for (int stream = 0; stream < 3; ++stream) {
    if (::fcntl(stream, F_GETFD) >= 0) continue;
    const int opened = ::open("/dev/null", kModes[static_cast<std::size_t>(stream)]);
    if (opened >= 0 && opened != stream) ::close(opened);
  }
  ::signal(SIGPIPE, SIG_IGN);
  ::signal(SIGXFSZ, SIG_IGN);
}

std::stop_token stop_on_signal() {
  // A thread of its own receives the signals, since a handler may hardly do anything. It outlives main.
  static std::stop_source& source = *new std::stop_source;
  sigset_t signals;
  sigemptyset(&signals);
  for (const int signal : {SIGINT, SIGTERM}) {
    struct sigaction now {};
    const bool ignored = ::sigaction(signal, nullptr, &now) == 0 && now.sa_handler == SIG_IGN;  // as nohup and & want
    if (!ignored) sigaddset(&signals, signal);
  }
  pthread_sigmask(SIG_BLOCK, &signals, nullptr);
  struct sigaction passing {};
  passing.sa_sigaction = pass_on;
  passing.sa_flags = SA_SIGINFO | SA_RESTART;
  for (const int signal : {SIGINT, SIGTERM}) {
    if (sigismember(&signals, signal) == 1) ::sigaction(signal, &passing, nullptr);
  }
  std::thread([signals] {
    int signal = 0;
    sigwait(&signals, &signal);
    source.request_stop();
    // `timeout` and some shells send a signal twice at once: that is no second wish.
    const auto first = std::chrono::steady_clock::now();
    do sigwait(&signals, &signal);
    while (std::chrono::steady_clock::now() - first < std::chrono::milliseconds(500));
    _exit(kInterrupted);
  }).detach();
  return source.get_token();
}

void print(std::string_view text) {
  while (!text.empty()) {
    const ssize_t written = ::write(STDOUT_FILENO, text.data(), text.size());
    if (written < 0 && errno == EINTR) continue;
    if (written < 0 && errno == EPIPE) throw OutputClosed();
    if (written < 0) throw Error("standard output: " + message_of(errno));
    text.remove_prefix(static_cast<std::size_t>(written));
  }
}

void tell(std::string_view text) { std::fwrite(text.data(), 1, text.size(), stderr); }

std::string read_standard_input(std::size_t most, const std::stop_token& stop) {
  constexpr int kLook = 100;  // milliseconds between looks at `stop`
  std::string text;
  std::array<char, 65536> buffer{};
  for (;;) {
    if (stop.stop_requested()) throw Interrupted();
    pollfd input{STDIN_FILENO, POLLIN, 0};
    if (::poll(&input, 1, kLook) == 0) continue;
    const ssize_t got = ::read(STDIN_FILENO, buffer.data(), buffer.size());
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) throw Error("standard input: " + message_of(errno));
    if (got == 0) return text;
    text.append(buffer.data(), static_cast<std::size_t>(got));
    if (text.size() > most) throw Error(fmt::format("standard input: larger than {} MiB", most >> 20));
  }
}

namespace {

/// "" where nothing is in the way.
std::string why_not_writable(const std::string& file) {
  namespace fs = std::filesystem;
  struct stat status {};
  const bool exists = ::stat(file.c_str(), &status) == 0;
  if (exists && S_ISDIR(status.st_mode)) return message_of(EISDIR);
  if (exists && !S_ISREG(status.st_mode)) return ::access(file.c_str(), W_OK) == 0 ? "" : message_of(errno);
  // It is written beside its place and renamed.
  std::error_code ignored;
  const fs::path place = exists ? fs::canonical(file, ignored) : fs::path(file);
  const fs::path folder = place.has_parent_path() ? place.parent_path() : fs::path(".");
  if (::stat(folder.c_str(), &status) != 0) return message_of(errno);
  if (!S_ISDIR(status.st_mode)) return message_of(ENOTDIR);
  return ::access(folder.c_str(), W_OK | X_OK) == 0 ? "" : message_of(errno);
}

}  // namespace

void check_outputs(std::initializer_list<OutputFile> files) {
  namespace fs = std::filesystem;
  std::map<fs::path, const char*> taken;
  for (const OutputFile& file : files) {
    if (file.name.empty()) continue;
    const std::string problem = why_not_writable(file.name);
    if (!problem.empty()) throw Error(fmt::format("cannot write {}: {}", file.name, problem));
    std::error_code ignored;
    if (fs::is_other(file.name, ignored)) continue;  // a terminal or a pipe takes them all
    const auto [at, is_new] = taken.emplace(fs::weakly_canonical(file.name, ignored), file.option);
    if (!is_new)
      throw std::invalid_argument(fmt::format("{} and {} name one file, {}", at->second, file.option, file.name));
  }
}

void ProgressBar::show(std::string_view what, std::int64_t done, std::int64_t total) {
  if (!is_terminal_stderr()) return;
  constexpr int kWidth = 30;
  std::string line;
  if (total > 0) {
    const int filled = static_cast<int>(kWidth * static_cast<double>(done) / static_cast<double>(total));
    line = fmt::format("{} [{:=<{}}{:<{}}] {}/{}", what, "", filled, "", kWidth - filled, done, total);
  } else {
    line = fmt::format("{} {}", what, done);
  }
  if (line == shown_) return;
  tell("\r\x1b[K" + line);
  shown_ = line;
  if (total > 0 && done >= total) clear();
}

void ProgressBar::clear() {
  if (shown_.empty()) return;
  tell("\r\x1b[K");
  shown_.clear();
}

bool is_terminal_stdout() { return isatty(STDOUT_FILENO) == 1; }
bool is_terminal_stderr() { return isatty(STDERR_FILENO) == 1; }

bool wants_colour() {
  const char* no_colour = std::getenv("NO_COLOR");
  const char* terminal = std::getenv("TERM");
  return (!no_colour || !*no_colour) && !(terminal && std::string_view(terminal) == "dumb");
}

std::string shortened(std::string_view text) {
  constexpr std::size_t kMost = 40;
  return one_line(text.size() <= kMost ? text : std::string(text.substr(0, kMost)) + "...");
}

std::string terminal_json(std::string_view json) {
  std::string safe;
  for_each_character(json, [&](char32_t code, std::string_view bytes) {
    if (steers_terminal(code)) {
      safe += fmt::format("\\u{:04x}", static_cast<unsigned>(code));
    } else {
      safe += bytes;
    }
  });
  return safe;
}

}  // namespace tuiqiao::cli
