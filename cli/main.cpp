#include <fmt/format.h>
#include <signal.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <cerrno>
#include <cstring>
#include <exception>
#include <filesystem>
#include <map>
#include <string>
#include <string_view>

#include "commands.h"
#include "library_settings.h"
#include "manual.h"
#include "program.h"
#include "terminal.h"

namespace {

using namespace tuiqiao::cli;

/// Commands of parts that this build was made without, and the part.
const std::map<std::string, std::string> kLeftOut{
#ifndef TUIQIAO_HAS_TEXT
    {"generate", "the text engine (llama.cpp)"},
    {"score", "the text engine (llama.cpp)"},
#endif
#ifndef TUIQIAO_HAS_TORCH
    {"diffusion", "the tensor engine (libtorch)"},
    {"torch-info", "the tensor engine (libtorch)"},
#endif
};

/// Commands of the program tuiqiao-torch, with what they do.
const std::map<std::string, std::string> kTorchCommands{
#ifdef TUIQIAO_HAS_TORCH
    {"diffusion", "Train and sample diffusion models of images"},
    {"torch-info", "Print what tensor operations run on"},
#endif
};

/// Becomes tuiqiao-torch, which lies beside this program or in libexec. Returns only when it cannot.
int execute_torch(char** argv) {
  namespace fs = std::filesystem;
  const fs::path here = fs::read_symlink("/proc/self/exe").parent_path();
  for (const fs::path& place : {here / "tuiqiao-torch", here / ".." / "libexec" / "tuiqiao-torch"}) {
    if (!fs::exists(place)) continue;
    ::signal(SIGPIPE, SIG_DFL);
    ::execv(place.c_str(), argv);
    return say(kBadInput, fmt::format("{}: cannot be executed: {}", place.string(), std::strerror(errno)));
  }
  return say(kBadInput, fmt::format("'{}' needs the program tuiqiao-torch, which lies neither in {} nor in its libexec",
                                    argv[1], here.string()));
}

int run(int argc, char** argv) {
  CLI::App app("Weighs the choices of generative models.", "tuiqiao");
  app.set_version_flag("--version", "tuiqiao " TUIQIAO_VERSION);
  app.require_subcommand(1);
  std::map<CLI::App*, Run> commands;
  CLI::App* audit = app.add_subcommand("audit", "Prove for every token of an output layer whether it can be chosen");
  commands[audit] = add_audit(*audit);
  CLI::App* demo = app.add_subcommand("demo", "Show every part on real input, in one page");
  commands[demo] = add_demo(*demo);
#ifdef TUIQIAO_HAS_TEXT
  CLI::App* generate =
      app.add_subcommand("generate", "Answer questions from documents that together need not fit the window");
  commands[generate] = add_generate(*generate);
  CLI::App* score = app.add_subcommand("score", "Weigh a continuation of a prompt that may end inside a token");
  commands[score] = add_score(*score);
#endif
  CLI::App* minsum = app.add_subcommand("minsum", "Find the least a + b + c with N = a b + c, for N of any size");
  commands[minsum] = add_minsum(*minsum);
  CLI::App* topk = app.add_subcommand("topk", "Choose the k largest smoothly: p in [0, 1] with sum k");
  commands[topk] = add_topk(*topk);
  for (const auto& [command, what] : kTorchCommands) app.add_subcommand(command, what);
  add_manual(app);
  std::string left_out;
  for (const auto& [command, part] : kLeftOut)
    left_out += fmt::format("\nLeft out of this build: {}, which needs {}.", command, part);
  app.footer(
      "Exit codes: 0 done, 1 input or file, 2 usage, 3 finished with unknown verdicts, 130 interrupted, 141 nobody "
      "reads the output." +
      left_out);

  if (argc > 1 && kLeftOut.contains(argv[1])) {
    return say(kUsage,
               fmt::format("'{}' needs {}, which this build was made without; run scripts/bootstrap and build again",
                           argv[1], kLeftOut.at(argv[1])));
  }
  if (argc > 1 && kTorchCommands.contains(argv[1])) return execute_torch(argv);
  if (argc < 2) return say(kUsage, "no command given (see --help)");
  const std::string_view first = argv[1];
  const auto named_first = [&](const CLI::App* command) { return command->get_name() == first; };
  if (first != "-h" && first != "--help" && first != "--version" && app.get_subcommands(named_first).empty()) {
    return say(kUsage,
               fmt::format("unknown {} '{}' (see --help)", first.starts_with('-') ? "option" : "command", first));
  }
  if (const auto code = parse_arguments(app, argc, argv)) return *code;
  const std::stop_token stop = stop_on_signal();
  return carry_out([&] { return commands.at(app.get_subcommands().front())(stop); });
}

}  // namespace

int main(int argc, char** argv) {
  try {
    tuiqiao::settle_libraries(argv);
    settle_standard_streams();
    return run(argc, argv);
  } catch (const OutputClosed&) {
    return kOutputClosed;
  } catch (const std::exception& error) {
    return say(kBadInput, error.what());
  }
}
