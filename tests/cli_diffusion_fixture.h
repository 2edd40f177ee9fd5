#pragma once

#include <algorithm>
#include <string>

#include "cli_fixture.h"
#include "npy.h"

namespace tuiqiao::test {

/// Bars to train on, a small network, a mixture.
class DiffusionCli : public Cli {
 protected:
  void SetUp() override {
    Cli::SetUp();
    std::vector<double> bars(16 * 64, 0);
    for (std::size_t n = 0; n < 16; ++n) {
      for (std::size_t i = 0; i < 8; ++i) bars[64 * n + (n < 8 ? 8 * i + n : 8 * (n - 8) + i)] = 255;
    }
    write("bars.npy", npy_of(bars, std::vector<std::int64_t>{16, 8, 8}));
    write("mixture.json", R"({"weights": [1, 3], "means": [[-1, 0], [1, 1]], "stds": [0.1, 0.2]})");
  }

  Arguments train(const std::string& out, const std::string& steps, const Arguments& more = {}) const {
    Arguments all{"diffusion", "train",      "--data",         path("bars.npy"), "--out",     path(out), "--steps",
                  steps,       "--channels", "8,16",           "--layers",       "1",         "--batch", "64",
                  "--warm-up", "10",         "--sample-every", "1000",           "--samples", "4",       "--threads",
                  "1"};
    return changed(all, more);
  }
  /// With other values of options, or more of them.
  static Arguments changed(Arguments all, const Arguments& more) {
    for (std::size_t i = 0; i < more.size(); ++i) {
      const auto there = std::find(all.begin(), all.end(), more[i]);
      if (more[i].starts_with("--") && there != all.end() && i + 1 < more.size()) {
        *(there + 1) = more[++i];
      } else {
        all.push_back(more[i]);
      }
    }
    return all;
  }
  std::string small_model() const {
    const Result result = run(train("run", "2"));
    EXPECT_EQ(result.code, 0) << result.err;
    return path("run/model");
  }
  Arguments sample(const std::string& model, const Arguments& more) const {
    Arguments all{"diffusion", "sample", "--model", model, "--threads", "1"};
    all.insert(all.end(), more.begin(), more.end());
    return all;
  }
  std::string analytic() const { return "analytic:" + path("mixture.json"); }

  static std::int64_t last_step(const std::string& out) {
    const auto lines = lines_of(out.substr(0, out.rfind('\n') + 1));
    return lines.empty() ? 0 : json::parse(lines.back()).at("step").get<std::int64_t>();
  }
};

}  // namespace tuiqiao::test
