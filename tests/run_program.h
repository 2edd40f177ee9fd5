#pragma once

#include <fcntl.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <fstream>
#include <functional>
#include <stdexcept>
#include <string>
#include <vector>

// Runs the program TUIQIAO_PROGRAM as its users do.

namespace tuiqiao::test {

using Arguments = std::vector<std::string>;
using Clock = std::chrono::steady_clock;

inline constexpr std::chrono::seconds kLimit{120};

struct Surroundings {
  std::string input{};                ///< on standard input, which ends after it
  bool keep_input_open = false;       ///< instead: it never ends
  bool terminal = false;              ///< standard output and error are terminals
  std::string output{};               ///< a file that standard output goes to; "-" closes it
  bool close_output = false;          ///< the reader goes away after the first bytes
  rlim_t file_limit = RLIM_INFINITY;  ///< no file may become larger, as on a full disk
  /// Asked every few milliseconds once the program catches SIGINT; sends a signal once.
  std::function<bool(const std::string& out)> interrupt_when{};
  int interrupt_by = SIGINT;
};

struct Result {
  std::string out, err;
  int code = -1;   ///< exit code
  int signal = 0;  ///< that ended it
};

/// Both ends of a pipe or a terminal.
struct Channel {
  int parent = -1, child = -1;

  static Channel pipe(bool to_child = false) {
    int ends[2];
    if (::pipe2(ends, O_CLOEXEC) != 0) throw std::runtime_error("pipe2");
    return to_child ? Channel{ends[1], ends[0]} : Channel{ends[0], ends[1]};
  }
  static Channel terminal() {
    Channel made;
    made.parent = ::posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC);
    if (made.parent < 0 || ::grantpt(made.parent) != 0 || ::unlockpt(made.parent) != 0) throw std::runtime_error("pty");
    made.child = ::open(::ptsname(made.parent), O_RDWR | O_NOCTTY | O_CLOEXEC);
    termios raw{};
    if (made.child < 0 || ::tcgetattr(made.child, &raw) != 0) throw std::runtime_error("pty");
    ::cfmakeraw(&raw);
    ::tcsetattr(made.child, TCSANOW, &raw);
    return made;
  }
};

inline void close_once(int& descriptor) {
  if (descriptor >= 0) ::close(descriptor);
  descriptor = -1;
}

[[noreturn]] inline void become(const Arguments& arguments, const Surroundings& around, int in, int out, int err) {
  ::dup2(in, STDIN_FILENO);
  ::dup2(out, STDOUT_FILENO);
  ::dup2(err, STDERR_FILENO);
  if (around.output == "-") ::close(STDOUT_FILENO);
  for (const int signal : {SIGINT, SIGTERM, SIGPIPE, SIGXFSZ}) ::signal(signal, SIG_DFL);
  const rlimit files{around.file_limit, around.file_limit};
  ::setrlimit(RLIMIT_FSIZE, &files);
  ::unsetenv("TUIQIAO_MODEL");
  ::unsetenv("NO_COLOR");
  ::setenv("TERM", "xterm", 1);
  ::setenv("XDG_CACHE_HOME", "/nonexistent", 1);
  std::vector<char*> argv{const_cast<char*>("tuiqiao")};
  for (const std::string& argument : arguments) argv.push_back(const_cast<char*>(argument.c_str()));
  argv.push_back(nullptr);
  ::execv(TUIQIAO_PROGRAM, argv.data());
  ::_exit(99);
}

/// Reads what there is; false at the end.
inline bool take(int descriptor, std::string& into) {
  char buffer[65536];
  const ssize_t got = ::read(descriptor, buffer, sizeof buffer);
  if (got < 0) return errno == EINTR || errno == EAGAIN;  // EIO: the other side of a terminal was closed
  into.append(buffer, static_cast<std::size_t>(got));
  return got > 0;
}

/// Whether a process has set its own answer to SIGINT: before, it would just die, however slowly it starts.
inline bool catches_interrupts(pid_t process) {
  std::ifstream status("/proc/" + std::to_string(process) + "/status");
  for (std::string line; std::getline(status, line);) {
    if (line.starts_with("SigCgt:")) return (std::stoull(line.substr(7), nullptr, 16) >> (SIGINT - 1) & 1) != 0;
  }
  return false;
}

inline Result run(const Arguments& arguments, const Surroundings& around = {}) {
  Channel in = Channel::pipe(true);
  Channel out = around.terminal ? Channel::terminal() : Channel::pipe();
  Channel err = around.terminal ? Channel::terminal() : Channel::pipe();
  if (!around.output.empty() && around.output != "-") {
    close_once(out.child);
    out.child = ::open(around.output.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
  }
  const pid_t child = ::fork();
  if (child == 0) become(arguments, around, in.child, out.child, err.child);
  for (Channel* channel : {&in, &out, &err}) close_once(channel->child);
  ::signal(SIGPIPE, SIG_IGN);
  if (!around.input.empty() && ::write(in.parent, around.input.data(), around.input.size()) < 0) ADD_FAILURE();
  if (!around.keep_input_open) close_once(in.parent);

  Result result;
  const auto end = Clock::now() + kLimit;
  bool interrupted = false;
  while ((out.parent >= 0 || err.parent >= 0) && Clock::now() < end) {
    pollfd files[2] = {{out.parent, POLLIN, 0}, {err.parent, POLLIN, 0}};
    ::poll(files, 2, 2);
    if (files[0].revents != 0 && !take(out.parent, result.out)) close_once(out.parent);
    if (files[1].revents != 0 && !take(err.parent, result.err)) close_once(err.parent);
    if (around.close_output && !result.out.empty()) close_once(out.parent);
    if (!interrupted && around.interrupt_when && catches_interrupts(child) && around.interrupt_when(result.out)) {
      ::kill(child, around.interrupt_by);
      interrupted = true;
    }
  }
  if (Clock::now() >= end) {
    ADD_FAILURE() << "killed after " << kLimit.count() << " s";
    ::kill(child, SIGKILL);
  }
  for (Channel* channel : {&in, &out, &err}) close_once(channel->parent);
  int status = 0;
  ::waitpid(child, &status, 0);
  if (WIFEXITED(status)) result.code = WEXITSTATUS(status);
  if (WIFSIGNALED(status)) result.signal = WTERMSIG(status);
  return result;
}

}  // namespace tuiqiao::test
