#pragma once

#include <sys/resource.h>

#include <string>

#include "commands.h"

namespace tuiqiao::cli {

/// `diffusion` with its commands.
Run add_diffusion(CLI::App& app);

Run add_diffusion_train(CLI::App& app);
Run add_diffusion_sample(CLI::App& app);
Run add_diffusion_forward(CLI::App& app);
Run add_diffusion_classifier(CLI::App& app);
Run add_diffusion_quality(CLI::App& app);
Run add_diffusion_encode(CLI::App& app);
Run add_diffusion_decode(CLI::App& app);
Run add_diffusion_interpolate(CLI::App& app);
Run add_diffusion_edit(CLI::App& app);
Run add_diffusion_likelihood(CLI::App& app);
Run add_diffusion_tune(CLI::App& app);
Run add_diffusion_compare(CLI::App& app);

/// Options that all of them have.
struct DeviceArguments {
  std::string device = "cpu";
  int threads = 0;

  void add_to(CLI::App& app);
  /// For commands that the CPU alone runs.
  void add_threads_to(CLI::App& app);
  /// Settles threads; throws tuiqiao::Error where there is no such device.
  void settle() const;
};

inline std::int64_t peak_rss_bytes() {
  struct rusage usage {};
  ::getrusage(RUSAGE_SELF, &usage);
  return static_cast<std::int64_t>(usage.ru_maxrss) * 1024;
}

}  // namespace tuiqiao::cli
