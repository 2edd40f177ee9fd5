#include <gtest/gtest.h>

#include <cmath>
#include <cstring>

#include "cli_diffusion_fixture.h"
#include "npy.h"
#include "safetensors.h"
#include "tuiqiao/diffusion/images.h"
#include "tuiqiao/diffusion/noise.h"
#include "tuiqiao/diffusion/samplers.h"

namespace tuiqiao::test {
namespace {

const fs::path kCases = fs::path(TUIQIAO_TEST_DATA) / "unet";

TEST_F(DiffusionCli, TrainsAndWritesWhatItLearned) {
  const Result result = run(train("run", "4", {"--log-every", "2"}));
  EXPECT_EQ(result.code, 0) << result.err;
  EXPECT_NE(result.err.find("16 images of 1 x 8 x 8; "), std::string::npos) << result.err;
  EXPECT_NE(result.out.find("step 4, loss "), std::string::npos) << result.out;
  EXPECT_EQ(names_in(path("run")), (std::vector<std::string>{"loss.png", "metrics.jsonl", "model", "samples-000004.png",
                                                             "samples.png", "state.safetensors"}));
  EXPECT_EQ(names_in(path("run/model")),
            (std::vector<std::string>{"config.json", "diffusion_pytorch_model.safetensors", "scheduler_config.json"}));
  const auto lines = lines_of(content_of(path("run/metrics.jsonl")));
  ASSERT_EQ(lines.size(), 2U);
  const json second = json::parse(lines[1]);
  EXPECT_EQ(second["step"], 4);
  EXPECT_EQ(second["epoch"], 16.0);
  EXPECT_GT(second["loss"], 0.5);
  EXPECT_GT(second["images_per_second"], 0);
  fs::create_directories(path("png"));
  fs::rename(path("run/samples.png"), path("png/samples.png"));
  const Images grid = read_images(path("png"));
  EXPECT_EQ(grid.width, 2 * (2 * 8 + 1) + 1);  // 4 images, two pixels a pixel
  EXPECT_TRUE(content_of(path("run/loss.png")).starts_with("\x89PNG"));
}

TEST_F(DiffusionCli, EndsAsIfItHadNotBeenKilledTwice) {
  const Arguments more{"--save-every", "3", "--log-every", "1", "--json"};
  const Result whole = run(train("whole", "30", more));
  ASSERT_EQ(whole.code, 0) << whole.err;
  for (const std::int64_t after : {7, 16}) {
    const Result killed = run(
        train("killed", "30", more),
        {.interrupt_when = [&](const std::string& out) { return last_step(out) >= after; }, .interrupt_by = SIGKILL});
    ASSERT_EQ(killed.signal, SIGKILL) << killed.err;
    const json first = json::parse(lines_of(killed.out).front());
    EXPECT_EQ(first["step"].get<int>() % 3, 1);  // it went on after a state
    EXPECT_LE(first["step"].get<int>(), after);
  }
  const Result rest = run(train("killed", "30", more));
  ASSERT_EQ(rest.code, 0) << rest.err;
  EXPECT_GE(json::parse(lines_of(rest.out).front())["step"], 16);
  for (const char* file : {"state.safetensors", "model/diffusion_pytorch_model.safetensors", "samples.png"})
    EXPECT_TRUE(content_of(path("killed/" + std::string(file))) == content_of(path("whole/" + std::string(file))))
        << file;
  const auto losses = [&](const std::string& run) {
    std::vector<double> all;
    for (const std::string& line : lines_of(content_of(path(run + "/metrics.jsonl"))))
      all.push_back(json::parse(line)["loss"]);
    return all;
  };
  EXPECT_EQ(losses("killed"), losses("whole"));
  EXPECT_EQ(losses("whole").size(), 30U);
}

TEST_F(DiffusionCli, SavesWhereItIsInterrupted) {
  const Result stopped = run(train("run", "100000", {"--log-every", "1", "--json"}),
                             {.interrupt_when = [](const std::string& out) { return last_step(out) >= 5; }});
  EXPECT_EQ(stopped.code, kInterrupted);
  EXPECT_EQ(stopped.err, "tuiqiao: interrupted\n");
  const std::int64_t step = last_step(stopped.out);
  const Result on = run(train("run", std::to_string(step + 2), {"--log-every", "1", "--json"}));
  EXPECT_EQ(on.code, 0) << on.err;
  EXPECT_EQ(json::parse(lines_of(on.out).front())["step"], step + 1);
}

TEST_F(DiffusionCli, StopsAtALossThatIsNoNumberAndKeepsTheStateBefore) {
  const Arguments wild{"--learning-rate", "1e30", "--clip-norm", "0", "--save-every", "1",
                       "--log-every",     "100",  "--json"};
  expect_refused(train("run", "50", wild), kBadInput,
                 {" at step ", path("run/state.safetensors") + " keeps step ", "is "});
  const SafetensorsFile state(path("run/state.safetensors"));
  EXPECT_GT(std::stoi(state.metadata().at("step")), 0);
  for (const float value : state.read("adam_mean.conv_in.weight")) ASSERT_TRUE(std::isfinite(value));
}

TEST_F(DiffusionCli, KeepsTheStateBeforeAFullDisk) {
  ASSERT_EQ(run(train("run", "2")).code, 0);
  const std::string before = content_of(path("run/state.safetensors"));
  const Result full = run(train("run", "4"), {.file_limit = 20000});
  EXPECT_EQ(full.code, kBadInput);
  EXPECT_NE(full.err.find("cannot write " + path("run/state.safetensors")), std::string::npos) << full.err;
  EXPECT_TRUE(content_of(path("run/state.safetensors")) == before);
  EXPECT_EQ(names_in(path("run")).size(), 6U);  // nothing half-written was left
  EXPECT_EQ(run(train("run", "4")).code, 0);
}

TEST_F(DiffusionCli, WritesAgainWhatAnEarlierRunDidNotComeTo) {
  ASSERT_EQ(run(train("run", "2")).code, 0);
  const std::string weights = path("run/model/diffusion_pytorch_model.safetensors"), before = content_of(weights);
  for (const char* name : {"model", "samples.png", "loss.png"}) fs::remove_all(path("run/" + std::string(name)));
  ASSERT_EQ(run(train("run", "2")).code, 0);
  EXPECT_TRUE(content_of(weights) == before);
  EXPECT_EQ(names_in(path("run")).size(), 6U);
  ASSERT_EQ(run(train("run", "2", {"--type", "BF16"})).code, 0);
  EXPECT_EQ(SafetensorsFile(weights).at("conv_in.weight").type, "BF16");
}

TEST_F(DiffusionCli, StartsFromTheWeightsOfAModel) {
  const std::string model = small_model();
  EXPECT_EQ(run(train("second", "1", {"--init", model, "--seed", "5"})).code, 0);
  expect_refused(train("third", "1", {"--init", path("none")}), kBadInput, {"none/config.json"});
  expect_refused(train("third", "1", {"--init", model, "--channels", "8,8"}), kBadInput, {model, "block_out_channels"});
}

TEST_F(DiffusionCli, NamesWhatIsWrongWithTraining) {
  expect_refused({"diffusion", "train", "--steps", "1"}, kUsage, {"--out"});
  expect_refused({"diffusion", "train", "--out", path("run")}, kUsage, {"--steps"});
  expect_refused(train("run", "1", {"--data", path("none")}), kBadInput, {path("none"), "no such file"});
  expect_refused(train("run", "1", {"--data", path("mixture.json")}), kBadInput, {"mixture.json"});
  expect_refused(train("run", "1", {"--attention", "2"}), kUsage, {"--attention 2", "levels are 0 to 1"});
  expect_refused(train("run", "1", {"--groups", "3"}), kUsage, {"norm_num_groups"});
  expect_refused(train("run", "1", {"--prediction", "noise"}), kUsage, {"noise", "epsilon"});
  expect_refused(train("run", "1", {"--device", "cuda:7"}), kBadInput, {"cuda:7", "cpu"});
  expect_refused(train("run", "1", {"--ema", "2"}), kUsage, {"ema"});
  ASSERT_EQ(run(train("run", "1")).code, 0);
  expect_refused(train("run", "2", {"--prediction", "sample"}), kBadInput, {"state.safetensors", "prediction_type"});
  write("config.json", R"({"in_channels": 1, "out_channels": 1, "colour": 3})");
  expect_refused({"diffusion", "train", "--steps", "1", "--out", path("run"), "--config", path("config.json")},
                 kBadInput, {"config.json", "colour"});
}

TEST_F(DiffusionCli, SamplesAMixture) {
  const Arguments how{"-n", "200", "--steps", "100", "--seed", "3"};
  const Result text = run(sample(analytic(), how));
  ASSERT_EQ(text.code, 0) << text.err;
  ASSERT_EQ(lines_of(text.out).size(), 200U);
  int left = 0;
  for (const std::string& line : lines_of(text.out)) {
    double x = 0, y = 0;
    std::istringstream(line) >> x >> y;
    const double to_left = std::hypot(x + 1, y), to_right = std::hypot(x - 1, y - 1);
    EXPECT_LT(std::min(to_left, to_right), 1.0) << line;
    left += to_left < to_right;
  }
  EXPECT_NEAR(left, 50, 5 * std::sqrt(200 * 0.25 * 0.75));
}

TEST_F(DiffusionCli, SamplesKnowNoBatchAndTakeTheirNoise) {
  const auto values = [&](const Arguments& more) {
    Arguments all = sample(analytic(), {"--steps", "20", "--seed", "3", "--out", path("x.npy")});
    const Result result = run(changed(all, more));
    EXPECT_EQ(result.code, 0) << result.err;
    EXPECT_EQ(result.out, "");
    return read_npy(path("x.npy")).values;
  };
  const auto all = values({"-n", "10"});
  ASSERT_EQ(all.size(), 20U);
  EXPECT_EQ(values({"-n", "10", "--batch", "3"}), all);
  EXPECT_EQ(values({"-n", "4", "--first", "5"}), std::vector<double>(all.begin() + 10, all.begin() + 18));
  EXPECT_NE(values({"-n", "10", "--seed", "4"}), all);
  std::vector<double> noise(20);
  image_noise(3, 0, 2)(0, noise);
  write("noise.npy", npy_of(noise, std::vector<std::int64_t>{10, 2}));
  EXPECT_EQ(values({"--initial-noise", path("noise.npy")}), all);
  EXPECT_NE(values({"-n", "10", "--variance", "beta"}), all);
  EXPECT_NE(values({"-n", "10", "--variance", "optimal"}), all);
  EXPECT_NE(values({"-n", "10", "--noise-in-last-step", "--variance", "beta"}),
            values({"-n", "10", "--variance", "beta"}));
}

TEST_F(DiffusionCli, SamplesANetwork) {
  const std::string model = small_model();
  const Result result =
      run(sample(model, {"-n", "5", "--steps", "6", "--out", path("x.npy"), "--grid", path("g/grid.png")}));
  EXPECT_EQ(result.code, kBadInput);  // before any work
  fs::create_directories(path("g"));
  fs::create_directories(path("t"));
  const Result done =
      run(sample(model, {"-n", "5", "--steps", "6", "--out", path("x.npy"), "--grid", path("g/grid.png"),
                         "--trajectory", path("t/t.png"), "--batch", "2", "--json"}));
  ASSERT_EQ(done.code, 0) << done.err;
  const json told = json::parse(done.out);
  EXPECT_EQ(told["nfe"], 6);
  EXPECT_EQ(told["n"], 5);
  EXPECT_EQ(told["shape"], (std::vector<int>{5, 1, 8, 8}));
  EXPECT_EQ(told["variance"], "posterior");
  EXPECT_GT(told["seconds"], told["network_seconds"]);
  EXPECT_GT(told["peak_rss_bytes"], 1 << 20);
  const NpyArray x = read_npy(path("x.npy"));
  EXPECT_EQ(x.shape, (std::vector<std::int64_t>{5, 1, 8, 8}));
  for (const double value : x.values) ASSERT_LE(std::abs(value), 1);  // the model's own clip
  const Images grid = read_images(path("g"));
  EXPECT_EQ(grid.width, 3 * 17 + 1);
  EXPECT_EQ(grid.height, 2 * 17 + 1);
  EXPECT_EQ(grid.values[static_cast<std::size_t>(grid.width + 1)], byte_of(x.values[0]));
  EXPECT_EQ(read_images(path("t")).width, 6 * 17 + 1);   // a column a step
  EXPECT_EQ(read_images(path("t")).height, 2 * 17 + 1);  // of the first batch
}

TEST_F(DiffusionCli, RunsEverySampler) {
  const Result list = run({"diffusion", "sample", "--list-samplers"});
  EXPECT_EQ(list.code, 0) << list.err;
  for (const SamplerInfo& info : samplers()) {
    EXPECT_NE(list.out.find(std::string(info.name) + " "), std::string::npos) << info.name;
    const Result result = run(sample(analytic(), {"-n", "3", "--sampler", std::string(info.name), "--schedule",
                                                  "karras", "--steps", "8", "--json"}));
    ASSERT_EQ(result.code, 0) << result.err;
    const json told = json::parse(result.out);
    EXPECT_EQ(told["sampler"], info.name);
    const bool adaptive = info.name == "adaptive";  // its steps are its own
    EXPECT_EQ(told["sigmas"].size(), adaptive ? 2U : 9U);
    EXPECT_EQ(told.contains("steps"), !adaptive);
    if (adaptive) continue;
    EXPECT_EQ(told["nfe"], 7 * info.evaluations + 1) << info.name;
  }
}

// As anyone can check an order: the error of known data falls fourfold with twice the steps.
TEST_F(DiffusionCli, ShowsAnOrder) {
  const auto values = [&](const char* sampler, const char* steps) {
    Arguments more{"-n", "4",     "--sampler",   sampler,       "--schedule", "log_sigma", "--sigma-max",
                   "5",  "--out", path("x.npy"), "--sigma-min", "0.1",        "--steps",   steps};
    if (sampler == std::string_view("adaptive")) more.insert(more.end(), {"--tolerance", "1e-12"});
    const Result result = run(sample(analytic(), more));
    EXPECT_EQ(result.code, 0) << result.err;
    return read_npy(path("x.npy")).values;
  };
  const auto exact = values("adaptive", "1");
  const auto error = [&](const char* sampler, const char* steps) {
    const auto found = values(sampler, steps);
    double most = 0;
    for (std::size_t i = 0; i < exact.size(); ++i) most = std::max(most, std::abs(found[i] - exact[i]));
    return most;
  };
  for (const auto& [sampler, order] : {std::pair{"euler", 1}, {"heun", 2}, {"dpm-2", 2}, {"dpm-3", 3}, {"dpmpp-2m", 2}})
    EXPECT_NEAR(std::log2(error(sampler, "160") / error(sampler, "320")), order, 0.15) << sampler;
}

// What a run holds does not grow with its steps.
TEST_F(DiffusionCli, TakesAsMuchMemoryForManySteps) {
  const auto peak = [&](const char* steps) {
    const Result result = run(sample(analytic(), {"-n", "20000", "--batch", "20000", "--sampler", "dpmpp-3m",
                                                  "--schedule", "karras", "--steps", steps, "--json"}));
    EXPECT_EQ(result.code, 0) << result.err;
    return json::parse(result.out).at("peak_rss_bytes").get<std::int64_t>();
  };
  constexpr std::int64_t kState = std::int64_t{20000} * 2 * 8;  // 200 of these would be 64 MB
  EXPECT_LT(peak("200") - peak("10"), 20 * kState);
}

// Image i has class i mod the classes given, whatever is sampled beside it.
TEST_F(DiffusionCli, GivesClassesByTheNumberOfAnImage) {
  fs::copy(kCases / "resnet", path("classes"), fs::copy_options::recursive);
  json config = json::parse(content_of(path("classes/config.json")));
  config["sample_size"] = 8;
  write("classes/config.json", config.dump());
  write("classes/scheduler_config.json", R"({"_class_name": "DDPMScheduler", "variance_type": "learned_range"})");
  const auto values = [&](const Arguments& more) {
    Arguments all = sample(path("classes"), {"--steps", "2", "--class", "0,1,2", "--out", path("x.npy")});
    const Result result = run(changed(all, more));
    EXPECT_EQ(result.code, 0) << result.err;
    return read_npy(path("x.npy")).values;
  };
  for (const char* sampler : {"ancestral", "euler"}) {
    const auto all = values({"-n", "5", "--sampler", sampler});
    const auto last = values({"-n", "1", "--first", "4", "--sampler", sampler});
    for (std::size_t i = 0; i < last.size(); ++i) ASSERT_NEAR(last[i], all[4 * last.size() + i], 1e-4) << sampler;
  }
}

TEST_F(DiffusionCli, TakesNoiseFromAPath) {
  const auto values = [&](const Arguments& more) {
    Arguments all = sample(analytic(), {"-n", "20", "--sampler", "sde", "--schedule", "log_sigma", "--out",
                                        path("x.npy"), "--steps", "400"});
    EXPECT_EQ(run(changed(all, more)).code, 0);
    return read_npy(path("x.npy")).values;
  };
  const auto gap = [](const std::vector<double>& a, const std::vector<double>& b) {
    double sum = 0;
    for (std::size_t i = 0; i < a.size(); ++i) sum += std::abs(a[i] - b[i]) / static_cast<double>(a.size());
    return sum;
  };
  EXPECT_LT(gap(values({"--brownian"}), values({"--brownian", "--steps", "1600"})),
            0.5 * gap(values({}), values({"--steps", "1600"})));
  EXPECT_NE(values({}), values({"--s-fraction", "0.5"}));
  // On the process's own steps too, whose first or last sigma differs with their number.
  for (const char* spacing : {"leading", "trailing", "linspace"}) {
    const auto own = [&](const char* steps) {
      return values({"--schedule", "steps", "--spacing", spacing, "--brownian", "--steps", steps});
    };
    EXPECT_LT(gap(own("250"), own("1000")), 0.1) << spacing;
  }
}

TEST_F(DiffusionCli, NamesWhatIsWrongWithSamplers) {
  expect_refused(sample(analytic(), {"--sampler", "eular"}), kUsage, {"eular", "ancestral", "dpmpp-2m"});
  expect_refused(sample(analytic(), {"--sampler", "euler", "--schedule", "cubic"}), kUsage,
                 {"cubic", "steps", "karras"});
  expect_refused(sample(analytic(), {"--sampler", "unipc", "--order", "0"}), kUsage, {"--order"});
  expect_refused(sample(analytic(), {"--sampler", "euler", "--schedule", "karras", "--karras-rho", "1e-9"}), kUsage,
                 {"rho = 1e-09"});
  expect_refused(sample(analytic(), {"--sampler", "adaptive", "--tolerance", "0"}), kUsage,
                 {"--tolerance", "0 is no finite number above 0"});
  expect_refused(sample(analytic(), {"--clip", "-1"}), kUsage, {"--clip", "-1 is no finite number from 0"});
  expect_refused(sample(analytic(), {"--sampler", "heun", "--churn", "inf"}), kUsage,
                 {"--churn", "inf is no finite number"});
  expect_refused(sample(analytic(), {"--sampler", "euler", "--sigma-min", "1"}), kUsage, {"--schedule"});
  expect_refused(sample(analytic(), {"--schedule", "karras"}), kUsage, {"ancestral"});
  for (const char* option : {"--sigma-min", "--sigma-max", "--karras-rho"})
    expect_refused(sample(analytic(), {option, "2"}), kUsage, {option, "ancestral"});
  expect_refused(sample(analytic(), {"--sampler", "euler", "--variance", "beta"}), kUsage, {"--variance"});
  expect_refused(sample(analytic(), {"--sampler", "unipc", "--order", "4"}), kUsage, {"order"});
  expect_refused(sample(analytic(), {"--sampler", "euler", "--eta", "0.5"}), kUsage, {"--eta is of ddim"});
  expect_refused(sample(analytic(), {"--sampler", "euler", "--schedule", "karras", "--sigma-min", "1000"}), kUsage,
                 {"sigma_min"});
  expect_refused(sample(analytic(), {"--sampler", "sde", "--s-fraction", "1.5"}), kUsage, {"--s-fraction"});
  expect_refused(sample(analytic(), {"--sampler", "euler", "--brownian"}), kUsage,
                 {"--brownian is of samplers with noise"});
  expect_refused(sample(analytic(), {"--sampler", "euler", "--schedule", "time", "--karras-rho", "5"}), kUsage,
                 {"--karras-rho", "karras"});
}

TEST_F(DiffusionCli, NamesWhatIsWrongWithSampling) {
  const std::string model = small_model();
  const fs::path weights = model + "/diffusion_pytorch_model.safetensors";
  expect_refused(sample(model, {"--steps", "1001"}), kUsage, {"1001 steps of 1000"});
  expect_refused(sample(model, {"--variance", "large"}), kUsage, {"large", "posterior"});
  expect_refused(sample(model, {"--variance", "learned_range"}), kUsage, {"learned_range"});
  expect_refused(sample(model, {"--variance", "optimal"}), kUsage, {"--data"});
  expect_refused(sample(model, {"--class", "1"}), kUsage, {"no classes"});
  expect_refused(sample(analytic(), {"--class", "1"}), kUsage, {"--class"});
  expect_refused(sample(analytic(), {"--grid", path("x.png")}), kUsage, {"--grid"});
  expect_refused(sample(analytic(), {"--half"}), kUsage, {"--half"});
  expect_refused(sample(model, {"--process-steps", "10"}), kUsage, {"--process-steps"});
  expect_refused(sample(model, {"--data", path("bars.npy")}), kUsage, {"--data", "--variance optimal"});
  expect_refused(sample(analytic(), {"--first", "4294967295", "-n", "2"}), kUsage, {"--first"});
  expect_refused(sample(analytic(), {"--seed", "-1"}), kUsage, {"--seed", "-1", "18446744073709551615"});
  expect_refused(sample(analytic(), {"--seed", "18446744073709551616"}), kUsage, {"--seed", "18446744073709551616"});
  expect_refused(sample(model, {"--sampler", "euler", "--schedule", "log_sigma", "--sigma-max", "1", "--sigma-min", "1",
                                "--trajectory", path("t.png")}),
                 kUsage, {"--trajectory"});
  expect_refused(sample(model, {"--initial-noise", path("bars.npy")}), kBadInput,
                 {"bars.npy", "[16, 8, 8]", "[N, 1, 8, 8]"});
  expect_refused(sample(path("none"), {}), kBadInput, {"none/config.json"});
  expect_refused(sample("", {}), kUsage, {"--model"});
  expect_refused(sample("analytic:", {}), kUsage, {"--model", "analytic:"});
  expect_refused(sample(model, {"--rho-bottom", "inf"}), kUsage, {"--rho-bottom"});
  expect_refused(sample(model, {"--freeu", "1,nan,1,1"}), kUsage, {"--freeu"});
  expect_refused(sample(analytic(), {"--initial-noise", ""}), kUsage, {"--initial-noise"});
  write("noise.npy", npy_of(std::vector<double>(8, 0), std::vector<std::int64_t>{4, 2}));
  expect_refused(sample(analytic(), {"--initial-noise", path("noise.npy"), "-n", "3"}), kUsage, {"-n 3", "for 4"});
  expect_refused(sample("analytic:" + path("none.json"), {}), kBadInput, {"none.json"});
  for (const auto& [text, problem] : std::vector<std::pair<std::string, std::string>>{
           {"[]", "no JSON object"},
           {"{\"weights\": [\xff]}", "no JSON, at byte 14"},
           {R"({"weights": [1e400]})", "float64"},
           {"{\"weights\": " + std::string(300000, '[') + std::string(300000, ']') + "}", "a list"},
           {R"({"weights": [1], "means": [[0]]})", "stds"},
           {R"({"weights": [1], "means": [0], "stds": [1]})", "means[0]"},
           {R"({"weights": ["a"], "means": [[0]], "stds": [1]})", "weights"},
           {R"({"weights": [1], "means": [[0]], "stds": [-1]})", "-1"},
           {R"({"weight": [1]})", "'weight'"}}) {
    write("wrong.json", text);
    expect_refused(sample("analytic:" + path("wrong.json"), {}), kBadInput, {"wrong.json", problem});
  }
  json config = json::parse(content_of(model + "/config.json"));
  for (const auto& [size, problem] : {std::pair{json{8, 9}, "multiple of 2"}, {json{65536, 65536}, "numbers"}}) {
    config["sample_size"] = size;
    write("run/model/config.json", config.dump());
    expect_refused(sample(model, {}), kBadInput, {"config.json", "sample_size", problem});
  }
  config["sample_size"] = {8, 8};
  write("run/model/config.json", config.dump());
  std::string bytes = content_of(weights);
  bytes.replace(bytes.size() - 4, 4, std::string("\0\0\xc0\x7f", 4));  // a NaN of float32
  write("run/model/diffusion_pytorch_model.safetensors", bytes);
  expect_refused(sample(model, {}), kBadInput, {weights, "not finite"});
  fs::resize_file(weights, fs::file_size(weights) - 1);
  expect_refused(sample(model, {}), kBadInput, {weights});
  fs::remove(model + "/scheduler_config.json");
  expect_refused(sample(model, {}), kBadInput, {model});
}

TEST_F(DiffusionCli, AnswersForwardAsDiffusersDoes) {
  for (const auto& [name, t, classes] : {std::tuple{"plain", "0,37,999", ""},
                                         {"resnet", "0,37,999", "4,0,2"},
                                         {"fourier", "0.2,1.5,40", ""},
                                         {"class_timestep", "0,37,999", "1,500,7"}}) {
    const SafetensorsFile stored(kCases / name / "case.safetensors");
    const auto x = stored.read("x"), want = stored.read("output");
    write("x.npy", npy_of(std::span<const float>(x), stored.at("x").shape));
    Arguments all{"diffusion", "forward", "--model", kCases / name, "--x",       path("x.npy"),
                  "--t",       t,         "--out",   path("y.npy"), "--threads", "1"};
    if (*classes != '\0') all.insert(all.end(), {"--class", classes});
    const Result result = run(all);
    ASSERT_EQ(result.code, 0) << result.err;
    EXPECT_EQ(result.out + result.err, "");
    const std::string bytes = content_of(path("y.npy"));
    EXPECT_NE(bytes.substr(0, 128).find("'<f4'"), std::string::npos);
    const NpyArray y = parse_npy(bytes, "y.npy");
    EXPECT_EQ(y.shape, stored.at("output").shape);
    for (std::size_t i = 0; i < want.size(); ++i) ASSERT_NEAR(y.values[i], want[i], 1e-5) << name;
  }
}

TEST_F(DiffusionCli, NamesWhatIsWrongWithForward) {
  const std::vector<double> zeros(192);
  write("x.npy", npy_of(zeros, std::vector<std::int64_t>{2, 1, 8, 12}));
  const auto forward = [&](const std::string& name, const Arguments& more) {
    Arguments all{"diffusion", "forward", "--model", kCases / name, "--out", path("y.npy")};
    return changed(all, more);
  };
  const std::string x = path("x.npy");
  expect_refused(forward("plain", {"--x", x, "--t", "1,2,3"}), kUsage, {"--t", "3 values for 2 images"});
  expect_refused(forward("plain", {"--x", x, "--t", "1", "--class", "3"}), kUsage, {"no classes"});
  expect_refused(forward("resnet", {"--x", x, "--t", "1"}), kUsage, {"class"});
  expect_refused(forward("plain", {"--x", path("bars.npy"), "--t", "1"}), kBadInput, {"bars.npy", "[B, C, H, W]"});
  expect_refused(forward("attention", {"--x", x, "--t", "1"}), kUsage, {"[2, 1, 8, 12]", "[B, 3, H, W]"});
  expect_refused(forward("plain", {"--x", path("none.npy"), "--t", "1"}), kBadInput, {"none.npy"});
  expect_refused(forward("plain", {"--x", x, "--t", "soon"}), kUsage, {"--t"});
  expect_refused(forward("none", {"--x", x, "--t", "1"}), kBadInput, {"none/config.json"});
  expect_refused(forward("plain", {"--x", x, "--t", "1", "--out", path("no/y.npy")}), kBadInput, {"no/y.npy"});
}

}  // namespace
}  // namespace tuiqiao::test
