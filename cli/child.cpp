#include "child.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <signal.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <cstring>
#include <thread>

#include "tuiqiao/error.h"
#include "tuiqiao/progress.h"

extern char** environ;

namespace tuiqiao::cli {

namespace {

class Actions {
 public:
  Actions() { ::posix_spawn_file_actions_init(&actions_); }
  ~Actions() { ::posix_spawn_file_actions_destroy(&actions_); }
  Actions(const Actions&) = delete;
  Actions& operator=(const Actions&) = delete;

  void open(int descriptor, const std::filesystem::path& file, int flags) {
    constexpr mode_t kMode = 0666;
    ::posix_spawn_file_actions_addopen(&actions_, descriptor, file.c_str(), flags, kMode);
  }
  const posix_spawn_file_actions_t* get() const { return &actions_; }

 private:
  posix_spawn_file_actions_t actions_{};
};

}  // namespace

int run_child(const Child& child, const std::stop_token& stop, const std::function<void()>& waits) {
  Actions actions;
  actions.open(STDIN_FILENO, child.input.empty() ? "/dev/null" : child.input, O_RDONLY);
  actions.open(STDOUT_FILENO, child.output, O_WRONLY | O_CREAT | O_TRUNC);
  actions.open(STDERR_FILENO, child.errors, O_WRONLY | O_CREAT | O_TRUNC);
  std::string program = std::filesystem::read_symlink("/proc/self/exe").string();
  std::vector<std::string> arguments = child.arguments;
  std::vector<char*> argv{program.data()};
  for (std::string& argument : arguments) argv.push_back(argument.data());
  argv.push_back(nullptr);
  pid_t pid = 0;
  if (const int error = ::posix_spawn(&pid, program.c_str(), actions.get(), nullptr, argv.data(), environ); error != 0)
    throw Error(fmt::format("{}: cannot be run with {}: {}", program, child.output.string(), std::strerror(error)));
  bool told = false;
  for (int status = 0;;) {
    if (::waitpid(pid, &status, WNOHANG) == pid) {
      if (stop.stop_requested()) throw Interrupted();
      constexpr int kBySignal = 128;
      return WIFEXITED(status) ? WEXITSTATUS(status) : kBySignal + WTERMSIG(status);
    }
    if (stop.stop_requested() && !told) {
      ::kill(pid, SIGTERM);
      told = true;
    }
    waits();
    std::this_thread::sleep_for(std::chrono::milliseconds(100));
  }
}

}  // namespace tuiqiao::cli
