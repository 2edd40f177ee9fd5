#include <fmt/format.h>
#include <fmt/ranges.h>
#include <malloc.h>

#include <CLI/CLI.hpp>
#include <exception>
#include <string_view>

#include "diffusion_commands.h"
#include "library_settings.h"
#include "manual.h"
#include "program.h"
#include "terminal.h"
#include "tuiqiao/torch.h"

namespace {

using namespace tuiqiao::cli;

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
  add_manual(app);
  if (const auto code = parse_arguments(app, argc, argv)) return *code;
  if (info->parsed()) return print_system(threads);
  const std::stop_token stop = stop_on_signal();
  return carry_out([&] { return run_diffusion(stop); });
}

}  // namespace

// The commands that need libtorch; `tuiqiao` executes this program for them.
int main(int argc, char** argv) {
  try {
    tuiqiao::settle_libraries(argv);
    // A network's activations come and go: memory is kept between them instead of asked of the system each time.
    constexpr int kKept = 1 << 30;
    ::mallopt(M_MMAP_THRESHOLD, kKept);
    ::mallopt(M_TRIM_THRESHOLD, kKept);
    settle_standard_streams();
    return run(argc, argv);
  } catch (const OutputClosed&) {
    return kOutputClosed;
  } catch (const std::exception& error) {
    const std::string_view what = error.what();
    return say(kBadInput, what.substr(0, what.find('\n')));  // libtorch adds a trace of calls
  }
}
