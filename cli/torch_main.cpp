#include <fmt/format.h>
#include <fmt/ranges.h>

#include <CLI/CLI.hpp>
#include <exception>
#include <new>
#include <sstream>
#include <stdexcept>
#include <string_view>

#include "diffusion_commands.h"
#include "terminal.h"
#include "tuiqiao/error.h"
#include "tuiqiao/torch.h"

namespace {

using namespace tuiqiao::cli;

int say(int code, std::string_view what) {
  tell(fmt::format("tuiqiao: {}\n", one_line(what)));
  return code;
}

/// What a function complains of, without its name.
std::string_view complaint(std::string_view what) {
  const std::size_t name = what.starts_with('[') ? what.find("] ") : std::string_view::npos;
  return name == std::string_view::npos ? what : what.substr(name + 2);
}

int print_system(int threads) {
  tuiqiao::set_torch_threads(threads);
  const tuiqiao::TorchSystem system = tuiqiao::torch_system();
  print(fmt::format("libtorch {}\nthreads  {}\nblas     {}\ndevices  {}\n", system.version, system.threads, system.blas,
                    fmt::join(system.devices, " ")));
  return kDone;
}

int run(int argc, char** argv) {
  CLI::App app("Commands of tuiqiao that need libtorch.", "tuiqiao");
  app.set_version_flag("--version", "tuiqiao-torch " TUIQIAO_VERSION);
  app.require_subcommand(1);
  int threads = 0;
  CLI::App* info = app.add_subcommand("torch-info", "Print what tensor operations run on");
  info->add_option("--threads", threads, "Processor threads, 0 for all [0]")->type_name("N")->check(CLI::Range(0, 512));
  info->footer("Examples:\n  tuiqiao torch-info\n  tuiqiao torch-info --threads 2");
  CLI::App* diffusion = app.add_subcommand("diffusion", "Train and sample diffusion models of images");
  const Run run_diffusion = add_diffusion(*diffusion);
  try {
    app.parse(argc, argv);
  } catch (const CLI::Success& help) {
    std::ostringstream text;
    app.exit(help, text, text);
    print(text.str());
    return kDone;
  } catch (const CLI::ParseError& error) {
    return say(kUsage, fmt::format("{} (see --help)", error.what()));
  }
  if (info->parsed()) return print_system(threads);
  const std::stop_token stop = stop_on_signal();
  try {
    return run_diffusion(stop);
  } catch (const tuiqiao::Interrupted&) {
    return say(kInterrupted, "interrupted");
  } catch (const tuiqiao::Error& error) {
    return say(kBadInput, error.what());
  } catch (const std::invalid_argument& error) {
    return say(kUsage, fmt::format("{} (see --help)", complaint(error.what())));
  } catch (const std::bad_alloc&) {
    return say(kBadInput, "out of memory");
  }
}

}  // namespace

// The commands that need libtorch; `tuiqiao` executes this program for them.
int main(int argc, char** argv) {
  try {
    settle_standard_streams();
    return run(argc, argv);
  } catch (const OutputClosed&) {
    return kOutputClosed;
  } catch (const std::exception& error) {
    const std::string_view what = error.what();
    return say(kBadInput, what.substr(0, what.find('\n')));  // libtorch adds a trace of calls
  }
}
