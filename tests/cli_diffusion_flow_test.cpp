#include <fmt/format.h>
#include <gtest/gtest.h>

#include <cmath>
#include <map>
#include <numbers>

#include "cli_diffusion_fixture.h"
#include "npy.h"
#include "tuiqiao/diffusion/images.h"

// Likelihood, latents, scaled skips and quality from the command line.

namespace tuiqiao::test {
namespace {

using DiffusionFlowCli = DiffusionCli;

TEST_F(DiffusionFlowCli, TellsTheLikelihoodOfAMixture) {
  write("x.npy", npy_of(std::vector<double>{-1, 0, 1, 1, 0, 0.5}, std::vector<std::int64_t>{3, 2}));
  const Result result =
      run({"diffusion", "likelihood", "--model", analytic(), "--x", path("x.npy"), "--probes", "0", "--steps", "300",
           "--sigma-min", "0.001", "--sigma-max", "10000", "--json", "--plot", path("bars.svg")});
  ASSERT_EQ(result.code, 0) << result.err;
  const auto lines = lines_of(result.out);
  ASSERT_EQ(lines.size(), 3U);
  const auto density = [](double x, double y) {
    const auto part = [&](double weight, double mx, double my, double s) {
      return weight / (2 * std::numbers::pi * s * s) *
             std::exp(-(std::pow(x - mx, 2) + std::pow(y - my, 2)) / (2 * s * s));
    };
    return part(0.25, -1, 0, 0.1) + part(0.75, 1, 1, 0.2);
  };
  EXPECT_NEAR(json::parse(lines[0])["nats"], -std::log(density(-1, 0)), 1e-3);
  EXPECT_NEAR(json::parse(lines[1])["nats"], -std::log(density(1, 1)), 1e-3);
  EXPECT_EQ(json::parse(lines[2])["nfe"], 1200);
  EXPECT_TRUE(json::parse(lines[2])["bits_per_dim"].is_null());
  EXPECT_NE(result.err.find("over 3 data"), std::string::npos) << result.err;
  EXPECT_TRUE(content_of(path("bars.svg")).starts_with("<svg"));
}

// Exact and estimated traces of one network, whose float32 they share.
TEST_F(DiffusionFlowCli, ProbesANetworkWithinItsErrors) {
  const std::string model = small_model();
  const auto told = [&](const char* probes) {
    const Result result = run({"diffusion", "likelihood", "--model", model, "--data", path("bars.npy"), "-n", "2",
                               "--steps", "8", "--probes", probes, "--json", "--threads", "1"});
    EXPECT_EQ(result.code, 0) << result.err;
    return json::parse(lines_of(result.out).at(1));
  };
  const json whole = told("0"), probed = told("200");
  EXPECT_EQ(whole["stderr_nats"], 0);
  const double error = probed["stderr_nats"];
  EXPECT_GT(error, 0);
  EXPECT_LT(error, 20);
  EXPECT_NEAR(probed["nats"].get<double>(), whole["nats"].get<double>(), 5 * error + 1e-3);
  EXPECT_NEAR(whole["bits_per_dim"].get<double>(),
              whole["nats"].get<double>() / (64 * std::numbers::ln2) + std::log2(127.5), 1e-9);
}

TEST_F(DiffusionFlowCli, TellsOtherImagesFromItsOwn) {
  const std::string model = small_model();
  const std::vector<std::int64_t> shape{2, 1, 8, 8};
  std::vector<double> x, flipped(128), inverted;
  for (int i = 0; i < 128; ++i) x.push_back((i % 8 < i / 16 ? 0.8 : -0.9) + i / 1000.0);
  for (std::size_t i = 0; i < 128; ++i) {
    flipped[i / 64 * 64 + (7 - i % 64 / 8) * 8 + i % 8] = x[i];
    inverted.push_back(-x[i]);
  }
  write("x.npy", npy_of(x, shape));
  write("flipped.npy", npy_of(flipped, shape));
  write("inverted.npy", npy_of(inverted, shape));
  const auto told = [&](const std::string& file, const std::string& against) {
    Arguments arguments{"diffusion", "likelihood", "--model",   model, "--x",      path(file), "--steps",
                        "6",         "--json",     "--threads", "1",   "--probes", "2"};
    if (!against.empty()) arguments.insert(arguments.end(), {"--against", against, "--plot", path("apart.svg")});
    const Result result = run(arguments);
    EXPECT_EQ(result.code, 0) << result.err;
    std::vector<json> lines;
    for (const std::string& line : lines_of(result.out)) lines.push_back(json::parse(line));
    return lines;
  };
  const std::vector<json> own = told("x.npy", "");
  for (const auto& [name, file] : {std::pair{"upside-down", "flipped.npy"}, {"inverted", "inverted.npy"}}) {
    const std::vector<json> both = told("x.npy", name), others = told(file, "");
    ASSERT_EQ(both.size(), 5U);
    for (std::size_t i = 0; i < 2; ++i) {
      EXPECT_EQ(both[i], own[i]);
      EXPECT_EQ(both[2 + i]["against"], name);
      EXPECT_EQ(both[2 + i]["nats"], others[i]["nats"]);
    }
    double above = 0;
    for (const json& a : own) {
      for (const json& b : others) above += b["nats"].get<double>() > a["nats"].get<double>() ? 0.25 : 0;
    }
    EXPECT_EQ(both[4]["auroc"], above);
    // The median is the mean of both: they are equally far from it.
    const double a = own[0]["nats"], b = own[1]["nats"], middle = (a + b) / 2;
    double further = 0;
    for (const json& other : others)
      further += std::abs(other["nats"].get<double>() - middle) > std::abs(a - middle) ? 0.5 : 0;
    EXPECT_EQ(both[4]["auroc_of_distance"], further);
  }
  const std::vector<json> named = told("x.npy", path("flipped.npy"));
  ASSERT_EQ(named.size(), 5U);
  EXPECT_EQ(named[3]["nats"], told("flipped.npy", "")[1]["nats"]);
  EXPECT_NE(content_of(path("apart.svg")).find("flipped.npy"), std::string::npos);  // in its legend
  write("points.npy", npy_of(std::vector<double>{-1, 0}, std::vector<std::int64_t>{1, 2}));
  expect_refused({"diffusion", "likelihood", "--model", analytic(), "--x", path("points.npy"), "--against", "noise"},
                 kUsage, {"noise", "images"});
  expect_refused({"diffusion", "likelihood", "--model", model, "--x", path("x.npy"), "--against", path("none.npy")},
                 kBadInput, {"none.npy", "upside-down, inverted"});
}

// Its evaluations are those of the batch that took most, and not those of the way back.
TEST_F(DiffusionFlowCli, CountsWhatAdaptiveTakes) {
  write("near.npy", npy_of(std::vector<double>{-1, 0, 1, 1, 0.2, 0.3}, std::vector<std::int64_t>{3, 2}));
  const auto encode = [&](const Arguments& more) {
    Arguments arguments{"diffusion", "encode", "--model",     analytic(),    "--x", path("near.npy"), "--sampler",
                        "adaptive",  "--out",  path("z.npy"), "--sigma-min", "0.1", "--tolerance",    "1e-6"};
    arguments.insert(arguments.end(), more.begin(), more.end());
    Result result = run(arguments);
    EXPECT_EQ(result.code, 0) << result.err;
    return result;
  };
  const auto evaluations = [&](const Arguments& more) {
    Arguments all{"--json", "--batch", "1"};
    all.insert(all.end(), more.begin(), more.end());
    return json::parse(encode(all).out);
  };
  std::int64_t most = 0;
  for (const char* first : {"0", "1", "2"})
    most = std::max(most, evaluations({"--first", first, "-n", "1"})["nfe"].get<std::int64_t>());
  const json all = evaluations({"-n", "3"});
  EXPECT_EQ(all["nfe"], most);
  EXPECT_FALSE(all.contains("steps"));  // which it chooses
  const std::string told = encode({"-n", "3", "--batch", "1"}).err;
  EXPECT_NE(told.find(fmt::format("3 data by {} evaluations;", most)), std::string::npos) << told;
}

TEST_F(DiffusionFlowCli, EncodesAndComesBack) {
  const std::string model = small_model();
  const auto error = [&](const char* steps) {
    const Result result = run({"diffusion", "encode", "--model", model, "--data", path("bars.npy"), "-n", "3",
                               "--steps", steps, "--out", path("z.npy"), "--json", "--threads", "1"});
    EXPECT_EQ(result.code, 0) << result.err;
    return json::parse(result.out)["round_trip_rms"].get<double>();
  };
  const double coarse = error("20"), fine = error("80");
  EXPECT_LT(fine, coarse / 8);
  const NpyArray z = read_npy(path("z.npy"));
  EXPECT_EQ(z.shape, (std::vector<std::int64_t>{3, 1, 8, 8}));
  const Result back = run({"diffusion", "decode", "--model", model, "--z", path("z.npy"), "--steps", "80", "--out",
                           path("x.npy"), "--grid", path("x.png"), "--threads", "1"});
  ASSERT_EQ(back.code, 0) << back.err;
  const Images bars = read_images(path("bars.npy"));
  const NpyArray x = read_npy(path("x.npy"));
  for (std::size_t i = 0; i < x.values.size(); ++i) ASSERT_NEAR(x.values[i], unit_of(bars.values[i]), 0.05) << i;
  // The ends of a path are the data themselves.
  const Result path_between = run({"diffusion", "interpolate", "--model", model, "--data", path("bars.npy"), "-n", "2",
                                   "--columns", "4", "--steps", "80", "--out", path("p.npy"), "--threads", "1"});
  ASSERT_EQ(path_between.code, 0) << path_between.err;
  const NpyArray p = read_npy(path("p.npy"));
  EXPECT_EQ(p.shape, (std::vector<std::int64_t>{4, 1, 8, 8}));
  for (std::size_t i = 0; i < 64; ++i) {
    ASSERT_NEAR(p.values[i], unit_of(bars.values[i]), 0.05);
    ASSERT_NEAR(p.values[std::size_t{3} * 64 + i], unit_of(bars.values[64 + i]), 0.05);
  }
}

TEST_F(DiffusionFlowCli, EditsAndKeepsWhatAMaskHolds) {
  const std::string model = small_model();
  const auto edited = [&](const Arguments& more) {
    Arguments all{"diffusion", "edit", "--model", model,         "--data", path("bars.npy"), "-n", "3",
                  "--steps",   "6",    "--out",   path("e.npy"), "--json", "--threads",      "1"};
    if (std::find(more.begin(), more.end(), "flow") == more.end()) all.insert(all.end(), {"--variations", "2"});
    const Result result = run(changed(all, more));
    EXPECT_EQ(result.code, 0) << result.err;
    return std::pair{json::parse(result.out), read_npy(path("e.npy"))};
  };
  const auto [weak, weak_data] = edited({"--strength", "0.05"});
  const auto [strong, strong_data] = edited({"--strength", "1", "--grid", path("e.png")});
  EXPECT_EQ(weak_data.shape, (std::vector<std::int64_t>{6, 1, 8, 8}));
  EXPECT_LT(weak["change_rms"].get<double>(), strong["change_rms"].get<double>() / 2);
  EXPECT_NE(strong_data.values, edited({"--strength", "1", "--seed", "7"}).second.values);
  EXPECT_EQ(strong_data.values, edited({"--strength", "1", "--batch", "4"}).second.values);
  // The lower half may change.
  std::vector<double> mask(64, 0);
  std::fill(mask.begin() + 32, mask.end(), 1);
  write("mask.npy", npy_of(mask, std::vector<std::int64_t>{1, 1, 8, 8}));
  const NpyArray filled = edited({"--strength", "1", "--mask", path("mask.npy")}).second;
  const Images bars = read_images(path("bars.npy"));
  double change = 0;
  for (std::size_t i = 0; i < filled.values.size(); ++i) {
    const double was = unit_of(bars.values[i / 128 * 64 + i % 64]);
    if (i % 64 < 32) {
      ASSERT_NEAR(filled.values[i], was, 1e-12);
    } else {
      change += std::abs(filled.values[i] - was);
    }
  }
  EXPECT_GT(change, 1);
  // Also where the sampler clips, or stops while there is noise.
  const double beyond = 1.5;
  write("beyond.npy", npy_of(std::vector<double>(64, beyond), std::vector<std::int64_t>{1, 1, 8, 8}));
  write("none.npy", npy_of(std::vector<double>(64, 0), std::vector<std::int64_t>{1, 1, 8, 8}));
  const Result held = run({"diffusion", "edit", "--model", model, "--x", path("beyond.npy"), "--mask", path("none.npy"),
                           "--sigma-min", "0.5", "--steps", "4", "--out", path("e.npy"), "--threads", "1"});
  ASSERT_EQ(held.code, 0) << held.err;
  for (const double value : read_npy(path("e.npy")).values) ASSERT_EQ(value, beyond);
  // The flow goes up and comes back, unless the way down differs.
  const Arguments by_flow{"--by", "flow", "--sampler", "heun", "--strength", "0.6", "--steps", "60"};
  const auto back = edited(by_flow);
  EXPECT_EQ(back.first["variations"], 1);
  EXPECT_LT(back.first["change_rms"].get<double>(), 0.02);
  const auto tuned = edited(changed(by_flow, {"--rho-bottom", "0.5"}));
  EXPECT_GT(tuned.first["change_rms"].get<double>(), 3 * back.first["change_rms"].get<double>());
  expect_refused({"diffusion", "edit", "--model", model, "--data", path("bars.npy"), "--by", "flow", "--sampler", "sde",
                  "--out", path("e.npy")},
                 kUsage, {"sde", "noise"});
  expect_refused({"diffusion", "edit", "--model", model, "--data", path("bars.npy"), "--mask", path("bars.npy"),
                  "--out", path("e.npy")},
                 kBadInput, {"bars.npy", "shape"});
}

TEST_F(DiffusionFlowCli, TakesAFractionThatVaries) {
  const std::string model = small_model();
  const auto values = [&](const char* fraction) {
    const Result result = run(sample(
        model, {"-n", "2", "--sampler", "sde", "--steps", "4", "--s-fraction", fraction, "--out", path("x.npy")}));
    EXPECT_EQ(result.code, 0) << result.err;
    return read_npy(path("x.npy")).values;
  };
  EXPECT_EQ(values("0.5,0.5"), values("0.5"));
  EXPECT_NE(values("1,0"), values("1"));
  EXPECT_NE(values("1,0"), values("0,1"));
  EXPECT_EQ(values("0,0"), values("0"));
}

TEST_F(DiffusionFlowCli, ScalesSkips) {
  const std::string model = small_model();
  const auto values = [&](const Arguments& more) {
    Arguments all = sample(model, {"-n", "2", "--sampler", "euler", "--steps", "4", "--out", path("x.npy")});
    const Result result = run(changed(all, more));
    EXPECT_EQ(result.code, 0) << result.err;
    return read_npy(path("x.npy")).values;
  };
  const auto plain = values({});
  EXPECT_EQ(values({"--rho-bottom", "1", "--rho-top", "1"}), plain);
  EXPECT_NE(values({"--rho-bottom", "0.5"}), plain);
  EXPECT_NE(values({"--freeu", "1.2,1.4,0.9,0.2"}), plain);
  EXPECT_EQ(values({"--rho", "1,1,1,1"}), plain);
  EXPECT_EQ(values({"--rho", "1,0.9,0.8,0.7"}), values({"--rho-bottom", "0.7"}));
}

/// Quality needs images as wide as the classifier's.
class DiffusionQualityCli : public DiffusionCli {
 protected:
  void SetUp() override {
    DiffusionCli::SetUp();
    std::vector<double> bars(std::size_t{40} * 784, 0);
    for (std::size_t n = 0; n < 40; ++n) {
      for (std::size_t i = 0; i < 784; ++i) bars[784 * n + i] = i % 28 / 2 == n % 14 ? 255 : static_cast<double>(n);
    }
    write("wide.npy", npy_of(bars, std::vector<std::int64_t>{40, 28, 28}));
    const Result trained = run(train("wide", "2", {"--data", path("wide.npy")}));
    EXPECT_EQ(trained.code, 0) << trained.err;
  }
  Arguments with(const char* command, const Arguments& more) const {
    Arguments all{"diffusion", command, "--reference", path("wide.npy"), "--classifier", kClassifier, "--threads", "1"};
    all.insert(all.end(), more.begin(), more.end());
    return all;
  }
  const std::string kClassifier =
      (fs::path(TUIQIAO_TEST_DATA) / "../../models/fashion-mnist-classifier/classifier.safetensors").string();
};

TEST_F(DiffusionQualityCli, IsZeroForTheImagesThemselves) {
  const Result same = run(with("quality", {"--samples", path("wide.npy"), "--json"}));
  ASSERT_EQ(same.code, 0) << same.err;
  const json told = json::parse(same.out);
  EXPECT_NEAR(told["fd_fmnist"], 0, 1e-6);
  EXPECT_EQ(told["samples"], 40);
  ASSERT_EQ(run(sample(path("wide/model"), {"-n", "20", "--steps", "3", "--out", path("x.npy")})).code, 0);
  const Result noise = run(with("quality", {"--samples", path("x.npy"), "--json"}));
  ASSERT_EQ(noise.code, 0) << noise.err;
  EXPECT_GT(json::parse(noise.out)["fd_fmnist"], 1);
  write("small.npy", npy_of(std::vector<double>(128, 0), std::vector<std::int64_t>{2, 1, 8, 8}));
  expect_refused(with("quality", {"--samples", path("small.npy")}), kBadInput, {"small.npy", "[1, 28, 28]"});
  expect_refused(changed(with("quality", {"--samples", path("x.npy")}), {"--reference", path("bars.npy")}), kBadInput,
                 {"bars.npy", "[1, 8, 8]"});
}

TEST_F(DiffusionQualityCli, SearchesFactorsAndGoesOn) {
  Arguments arguments = with("tune-skips", {"--model", path("wide/model"), "--nfe", "4", "--sampler", "heun",
                                            "--schedule", "karras", "-n", "12", "--grid", "0.8,1,1.1", "--refine", "1",
                                            "--out", path("rho.json"), "--plot", path("rho.svg")});
  const Result first = run(arguments);
  ASSERT_EQ(first.code, 0) << first.err;
  const json told = json::parse(content_of(path("rho.json")));
  EXPECT_EQ(told["points"].size(), 4U);
  EXPECT_EQ(told["nfe"], 3);  // two steps of heun
  EXPECT_TRUE(content_of(path("rho.svg")).starts_with("<svg"));
  EXPECT_EQ(json::parse(content_of(path("rho.json")))["skip_effects"].size(), 4U);
  EXPECT_NE(first.err.find("rho_bottom 0.800"), std::string::npos);
  // At the end of what was tried, a better one may lie beyond.
  const double found = told["best"]["rho_bottom"];
  EXPECT_EQ(told["best"]["at_edge"], found == 0.8 || found == 1.1) << found;
  EXPECT_EQ(first.err.find("a wider --grid") != std::string::npos, found == 0.8 || found == 1.1) << first.err;
  EXPECT_NE(first.err.find("36 evaluations for each rho, about"), std::string::npos) << first.err;
  const Result again = run(arguments);
  EXPECT_EQ(again.out, first.out);
  EXPECT_EQ(again.err.find("rho_bottom 0.800"), std::string::npos) << again.err;
  EXPECT_EQ(again.err.find("for each rho"), std::string::npos) << again.err;  // nothing is left to take time
  json told_again = json::parse(content_of(path("rho.json")));
  told_again["peak_rss_bytes"] = told["peak_rss_bytes"];
  EXPECT_EQ(told_again, told);
  // A run that was stopped goes on as one that was not: here after the grid and one of three sections.
  const Result whole = run(changed(arguments, {"--refine", "3", "--out", path("whole.json")}));
  EXPECT_EQ(run(changed(arguments, {"--refine", "3"})).out, whole.out);
  EXPECT_EQ(json::parse(content_of(path("rho.json")))["points"], json::parse(content_of(path("whole.json")))["points"]);
  // Without 1 in the grid it is measured, and may be the best.
  const Result beside = run(changed(arguments, {"--grid", "0.2,0.3", "--refine", "0", "--out", path("beside.json")}));
  const json best = json::parse(content_of(path("beside.json")));
  EXPECT_EQ(best["points"].size(), 3U);
  EXPECT_NE(beside.out.find(fmt::format("best rho_bottom {:.3f}:", best["best"]["rho_bottom"].get<double>())),
            std::string::npos)
      << beside.out;
  // The best that the file tells is this search's, though all of it was known.
  const Result known = run(changed(arguments, {"--grid", "0.2", "--refine", "0", "--out", path("beside.json")}));
  const json best_known = json::parse(content_of(path("beside.json")));
  EXPECT_NE(known.out.find(fmt::format("best rho_bottom {:.3f}:", best_known["best"]["rho_bottom"].get<double>())),
            std::string::npos)
      << known.out;
  EXPECT_EQ(known.err.find("rho_bottom 1.000: FD"), std::string::npos) << known.err;
  expect_refused(changed(arguments, {"--grid", "0.8,nan"}), kUsage, {"--grid", "nan"});
  // A pipe holds no results of before, and is not waited for.
  const Result piped = run(changed(arguments, {"--out", "/dev/stdout", "--grid", "1", "--refine", "0"}));
  EXPECT_EQ(piped.code, 0) << piped.err;
  EXPECT_NE(piped.out.find("\"settings\""), std::string::npos) << piped.out;
  expect_refused(changed(arguments, {"--churn", "1", "--eta", "0.5"}), kUsage, {"--eta is of ddim"});
  json broken = told;
  broken["points"][0]["fd_fmnist"] = json::array();
  write("broken.json", broken.dump());
  expect_refused(changed(arguments, {"--out", path("broken.json")}), kBadInput, {"broken.json", "1 seeds"});
  ASSERT_EQ(run(train("run", "1")).code, 0);
  expect_refused(changed(arguments, {"--model", path("run/model"), "--out", path("o.json")}), kBadInput,
                 {"1 x 8 x 8", "28 x 28"});
}

TEST_F(DiffusionQualityCli, ComparesSamplersAndGoesOn) {
  Arguments arguments = with("compare", {"--model", path("wide/model"), "--samplers", "euler,sde", "--nfe", "3,6",
                                         "--rhos", "1,0.9", "-n", "10", "--solution-steps", "20", "--solution-images",
                                         "4", "--out", path("few.json"), "--plot", path("few.png")});
  const Result first = run(arguments);
  ASSERT_EQ(first.code, 0) << first.err;
  EXPECT_TRUE(content_of(path("few.png")).starts_with("\x89PNG"));
  const json rows = json::parse(content_of(path("few.json")))["rows"];
  ASSERT_EQ(rows.size(), 8U);
  for (const json& row : rows) EXPECT_EQ(row["distance"].is_null(), row["sampler"] == "sde") << row;
  const Result again = run(arguments);
  EXPECT_EQ(again.out, first.out);
  EXPECT_NE(again.err.find("8 measurements, 0 of them to do"), std::string::npos) << again.err;
  EXPECT_NE(again.err.find("in 3 steps begins at sigma 9.49"), std::string::npos)
      << again.err;  // three leading steps of 1000
  // Two counts that are one for the sampler are measured once.
  const Result once = run(changed(arguments, {"--samplers", "heun", "--nfe", "3,4", "--rhos", "1"}));
  ASSERT_EQ(once.code, 0) << once.err;
  EXPECT_NE(once.err.find("1 measurements, 1 of them to do"), std::string::npos) << once.err;
  expect_refused(changed(arguments, {"--seeds", "9007199254740993"}), kUsage, {"--seeds", "9007199254740992"});
  // What no sampler here, or the solution, cannot have is said before work begins.
  expect_refused(changed(arguments, {"--tolerance", "1e-3"}), kUsage, {"--tolerance is of adaptive"});
  expect_refused(changed(arguments, {"--schedule", "steps", "--solution-steps", "2000", "--out", path("f.json")}),
                 kUsage, {"2000 steps of 1000"});
  json broken = json::parse(content_of(path("few.json")));
  broken["rows"][0].erase("kid");
  write("broken.json", broken.dump());
  expect_refused(changed(arguments, {"--out", path("broken.json")}), kBadInput, {"broken.json", "no kid"});
  broken = json::parse(content_of(path("few.json")));
  broken["rows"][0]["distance"] = "far";
  write("broken.json", broken.dump());
  expect_refused(changed(arguments, {"--out", path("broken.json")}), kBadInput, {"broken.json", "no distance"});
  // What takes no notice of an option has a distance; --eta is of ddim.
  const Result with_eta = run(changed(
      arguments, {"--samplers", "ddim,euler", "--eta", "0.5", "--nfe", "3", "--rhos", "1", "--out", path("eta.json")}));
  ASSERT_EQ(with_eta.code, 0) << with_eta.err;
  const json of_eta = json::parse(content_of(path("eta.json")));
  for (const json& row : of_eta["rows"]) EXPECT_EQ(row["distance"].is_null(), row["sampler"] == "ddim") << row;
  // Samplers of the SDE have one along a path of each image, which more steps refine; 20 evaluations are the solution.
  const Arguments along =
      changed(arguments, {"--samplers", "sde,sde-dpmpp-2m,ddim,euler", "--eta", "1", "--brownian", "--schedule",
                          "karras", "--nfe", "5,20", "--rhos", "1", "--out", path("along.json")});
  const auto distances = [&](const std::string& file) {
    std::map<std::string, json> found;
    const json all = json::parse(content_of(file))["rows"];
    for (const json& row : all) found[row["key"]] = row["path_distance"];
    return found;
  };
  ASSERT_EQ(run(along).code, 0);
  auto found = distances(path("along.json"));
  EXPECT_EQ(found.at("sde-dpmpp-2m nfe 20 rho 1 seed 0"), 0);
  EXPECT_GT(found.at("sde-dpmpp-2m nfe 5 rho 1 seed 0"), 0);
  EXPECT_LT(found.at("sde nfe 20 rho 1 seed 0"), found.at("sde nfe 5 rho 1 seed 0"));
  EXPECT_NEAR(found.at("ddim nfe 5 rho 1 seed 0").get<double>(), found.at("sde nfe 5 rho 1 seed 0").get<double>(),
              1e-6);                                            // the same steps
  EXPECT_TRUE(found.at("euler nfe 5 rho 1 seed 0").is_null());  // of the ODE
  // Steps that begin elsewhere along a path are another start.
  const Result leading = run(changed(along, {"--schedule", "steps", "--nfe", "5", "--out", path("leading.json")}));
  ASSERT_EQ(leading.code, 0) << leading.err;
  EXPECT_NE(leading.err.find("no distances along paths"), std::string::npos) << leading.err;
  EXPECT_TRUE(distances(path("leading.json")).at("sde nfe 5 rho 1 seed 0").is_null());
  // A row from before there were such distances is done again.
  json before = json::parse(content_of(path("along.json")));
  before["rows"][0].erase("path_distance");
  write("along.json", before.dump());
  const Result once_more = run(along);
  EXPECT_NE(once_more.err.find("8 measurements, 1 of them to do"), std::string::npos) << once_more.err;
  EXPECT_EQ(distances(path("along.json")), found);
  broken.erase("rows");
  write("broken.json", broken.dump());
  expect_refused(changed(arguments, {"--out", path("broken.json")}), kBadInput, {"broken.json", "'rows'"});
  // Other weights at the same place are another model.
  ASSERT_EQ(run(train("wide", "4", {"--data", path("wide.npy")})).code, 0);
  const std::string kept = content_of(path("few.json"));
  expect_refused(arguments, kBadInput, {"few.json", "another run", "weights"});
  EXPECT_EQ(content_of(path("few.json")), kept);
}

// What a default leaves out is told, and what lies beyond a network's own sigmas.
TEST_F(DiffusionFlowCli, TellsWhatItLeavesOutAndWhereItIsLost) {
  write("ten.npy", npy_of(std::vector<double>(20, 0.5), std::vector<std::int64_t>{10, 2}));
  const Arguments edit{"diffusion",    "edit", "--model", analytic(), "--x",   path("ten.npy"),
                       "--variations", "1",    "--steps", "2",        "--out", path("y.npy")};
  const Result some = run(edit), all = run(changed(edit, {"-n", "0"}));
  ASSERT_EQ(some.code + all.code, 0) << some.err << all.err;
  EXPECT_NE(some.err.find("8 of 10 data, 1 each"), std::string::npos) << some.err;
  EXPECT_TRUE(all.err.starts_with("10 data, 1 each")) << all.err;
  const std::string model = small_model();
  const Result far = run(sample(model, {"--sampler", "euler", "--schedule", "karras", "--sigma-max", "1e4", "--steps",
                                        "2", "-n", "1", "--out", path("x.npy")})),
               near = run(sample(model, {"--sampler", "euler", "--schedule", "karras", "--steps", "2", "-n", "1",
                                         "--out", path("x.npy")}));
  ASSERT_EQ(far.code + near.code, 0) << far.err << near.err;
  EXPECT_NE(far.err.find("the network was made for"), std::string::npos) << far.err;
  EXPECT_EQ(near.err.find("the network was made for"), std::string::npos) << near.err;
}

// Halfway between two latents of one length lies one of that length; on a straight line it would be shorter.
TEST_F(DiffusionFlowCli, GoesBetweenLatentsAlongACircle) {
  write("one.json", R"({"weights": [1], "means": [[0, 0]], "stds": [0.5]})");
  write("x.npy", npy_of(std::vector<double>{1, 0, 0, 1}, std::vector<std::int64_t>{2, 2}));
  const Result result = run({"diffusion", "interpolate", "--model", "analytic:" + path("one.json"), "--x",
                             path("x.npy"), "--columns", "3", "--steps", "200", "--out", path("between.npy")});
  ASSERT_EQ(result.code, 0) << result.err;
  const std::vector<double> found = read_npy(path("between.npy")).values,
                            want{1, 0, 1 / std::numbers::sqrt2, 1 / std::numbers::sqrt2, 0, 1};
  ASSERT_EQ(found.size(), want.size());
  for (std::size_t i = 0; i < want.size(); ++i) EXPECT_NEAR(found[i], want[i], 1e-3) << i;
}

TEST_F(DiffusionFlowCli, NamesWhatIsWrong) {
  const std::string model = small_model();
  expect_refused({"diffusion", "likelihood", "--model", analytic()}, kUsage, {"--x", "--data"});
  expect_refused({"diffusion", "likelihood", "--model", analytic(), "--x", path("none.npy"), "--plot", path("h.gif")},
                 kUsage, {"h.gif", ".png"});
  expect_refused({"diffusion", "likelihood", "--model", analytic(), "--x", path("none.npy")}, kBadInput, {"none.npy"});
  expect_refused({"diffusion", "likelihood", "--model", analytic(), "--x", path("bars.npy")}, kBadInput,
                 {"bars.npy", "[N, 2]"});
  expect_refused(
      {"diffusion", "encode", "--model", model, "--data", path("bars.npy"), "--sampler", "sde", "--out", path("z.npy")},
      kUsage, {"sde", "noise"});
  write("two.npy", npy_of(std::vector<double>{1, 0, 0, 1}, std::vector<std::int64_t>{2, 2}));
  const Arguments encode{"diffusion", "encode", "--model", analytic(), "--x", path("two.npy"), "--out", path("z.npy")};
  expect_refused(changed(encode, {"--sampler", "ancestral"}), kUsage, {"ancestral", "sample"});
  expect_refused(changed(encode, {"--churn", "5"}), kUsage, {"heun --churn", "noise"});
  expect_refused(changed(encode, {"--part", "t10k"}), kUsage, {"--part requires --data"});
  EXPECT_EQ(run(changed(encode, {"--sampler", "sde", "--s-fraction", "0"})).code, 0);  // the flow
  expect_refused({"diffusion", "likelihood", "--model", analytic(), "--x", path("two.npy"), "--sigma-min", "1000"},
                 kUsage, {"--sigma-min 1000", "--sigma-max 157"});
  expect_refused(
      {"diffusion", "forward", "--model", analytic(), "--x", path("two.npy"), "--t", "1", "--out", path("y")}, kUsage,
      {"--model", "analytic"});
  const Arguments edit{"diffusion", "edit", "--model", analytic(), "--x", path("two.npy"), "--out", path("z.npy")};
  expect_refused(changed(edit, {"--strength", "0"}), kUsage, {"--strength 0"});
  expect_refused(changed(edit, {"--sampler", "eular"}), kUsage, {"eular"});
  write("mask.npy", npy_of(std::vector<double>{0.5, 0}, std::vector<std::int64_t>{1, 2}));
  expect_refused(changed(edit, {"--mask", path("mask.npy")}), kBadInput, {"mask.npy", "0.5"});
  expect_refused(
      {"diffusion", "interpolate", "--model", analytic(), "--x", path("two.npy"), "--columns", "1", "--out", path("x")},
      kUsage, {"--columns"});
  const Arguments decode{"diffusion", "decode", "--model", model, "--z", path("bars.npy")};
  expect_refused(changed(decode, {"--out", path("x.npy")}), kBadInput, {"bars.npy"});
  expect_refused(decode, kUsage, {"--out", "--grid"});
  expect_refused(changed(decode, {"--out", path("x"), "--grid", path("./x")}), kUsage,
                 {"--out and --grid", "one file"});
  expect_refused(
      {"diffusion", "interpolate", "--model", model, "--data", path("bars.npy"), "-n", "3", "--out", path("x")}, kUsage,
      {"pairs"});
  expect_refused(changed(decode, {"--schedule", "steps", "--out", path("x.npy")}), kUsage, {"--schedule", "steps"});
  expect_refused({"diffusion", "edit", "--model", model, "--data", path("bars.npy"), "--by", "flow", "--variations",
                  "2", "--out", path("x.npy")},
                 kUsage, {"--variations"});
  expect_refused({"diffusion", "edit", "--model", model, "--data", path("bars.npy"), "--by", "flow", "--steps", "1",
                  "--out", path("x.npy")},
                 kUsage, {"--steps 1"});
  expect_refused(sample(model, {"--rho", "1,2"}), kUsage, {"2 factors", "4 skips"});
  expect_refused(sample(analytic(), {"--rho-bottom", "0.8"}), kUsage, {"skips"});
  expect_refused({"diffusion", "quality", "--samples", path("bars.npy"), "--classifier", path("none")}, kBadInput,
                 {"none"});
  expect_refused({"diffusion", "tune-skips", "--model", analytic(), "--out", path("r.json")}, kUsage, {"skips"});
}

}  // namespace
}  // namespace tuiqiao::test
