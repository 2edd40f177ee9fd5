#pragma once

#include <cstdint>
#include <functional>
#include <stop_token>
#include <string_view>

#include "tuiqiao/error.h"

namespace tuiqiao {

/// How long work talks to its caller: it reports how far it is and asks whether to go on.
/// Threads: `report` is called from the thread that called the long function, never at once from two.
struct Progress {
  /// Called with what is being done and how much of it; `total` 0 means unknown. Default: nobody listens.
  std::function<void(std::string_view what, std::int64_t done, std::int64_t total)> report;
  /// A stop is honoured between batches, by throwing Interrupted. Default: never stops.
  std::stop_token stop;

  /// Reports, then throws Interrupted if a stop was asked for.
  void step(std::string_view what, std::int64_t done, std::int64_t total) const {
    if (report) report(what, done, total);
    if (stop.stop_requested()) throw Interrupted();
  }
};

}  // namespace tuiqiao
