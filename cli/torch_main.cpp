#include <fmt/format.h>
#include <fmt/ranges.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <exception>

#include "tuiqiao/torch.h"

// The commands that need libtorch; `tuiqiao` executes this program for them.
int main(int argc, char** argv) {
  CLI::App app("Commands of tuiqiao that need libtorch.", "tuiqiao");
  app.set_version_flag("--version", "tuiqiao-torch " TUIQIAO_VERSION);
  app.require_subcommand(1);
  int threads = 0;
  CLI::App* info = app.add_subcommand("torch-info", "Print what tensor operations run on");
  info->add_option("--threads", threads, "Processor threads, 0 for all [0]")->type_name("N")->check(CLI::Range(0, 512));
  info->footer("Examples:\n  tuiqiao torch-info\n  tuiqiao torch-info --threads 2");
  try {
    app.parse(argc, argv);
    tuiqiao::set_torch_threads(threads);
    const tuiqiao::TorchSystem system = tuiqiao::torch_system();
    fmt::print("libtorch {}\nthreads  {}\nblas     {}\ndevices  {}\n", system.version, system.threads, system.blas,
               fmt::join(system.devices, " "));
    return 0;
  } catch (const CLI::Success& help) {
    return app.exit(help);
  } catch (const CLI::ParseError& error) {
    std::string what = error.what();
    std::replace(what.begin(), what.end(), '\n', ' ');
    fmt::print(stderr, "tuiqiao: {} (see --help)\n", what);
    return 2;
  } catch (const std::exception& error) {
    fmt::print(stderr, "tuiqiao: {}\n", error.what());
    return 1;
  }
}
