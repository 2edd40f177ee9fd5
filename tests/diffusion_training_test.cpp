// clang 14, and so clang-tidy, cannot read libtorch 1.13's headers as C++20.
#ifndef __clang_analyzer__
#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <fmt/format.h>
#include <gtest/gtest.h>
#include <unistd.h>
#define XXH_INLINE_ALL
#include <xxhash.h>

#include <cmath>
#include <fstream>
#include <nlohmann/json.hpp>
#include <stdexcept>

#include "safetensors.h"
#include "tuiqiao/diffusion/training.h"

namespace tuiqiao {
namespace {

namespace fs = std::filesystem;
using at::Tensor;

/// Bars, one of 8 columns or 8 rows bright: as little as a network can learn.
Images bars(std::int64_t count = 16) {
  Images images{count, 1, 8, 8, std::vector<std::uint8_t>(static_cast<std::size_t>(64 * count), 0)};
  for (std::int64_t n = 0; n < count; ++n) {
    for (std::int64_t i = 0; i < 8; ++i)
      images.values[static_cast<std::size_t>(64 * n + (n % 16 < 8 ? 8 * i + n % 8 : 8 * (n % 8) + i))] = 255;
  }
  return images;
}

TrainingOptions small() {
  TrainingOptions o;
  o.network.in_channels = o.network.out_channels = 1;
  o.network.block_out_channels = {8, 16};
  o.network.down_block_types = {"DownBlock2D", "DownBlock2D"};
  o.network.up_block_types = {"UpBlock2D", "UpBlock2D"};
  o.network.layers_per_block = 1;
  o.network.norm_num_groups = 1;
  o.network.add_attention = false;
  o.process.steps = 100;
  o.process.beta_end = 0.2;
  o.batch = 16;
  o.learning_rate = 3e-3;
  o.warm_up = 10;
  o.ema = 0.9;
  return o;
}

class Training : public testing::Test {
 protected:
  void SetUp() override {
    at::set_num_threads(1);
    fs::create_directories(folder);
  }
  void TearDown() override { fs::remove_all(folder); }

  static std::string content(const fs::path& file) {
    std::ifstream in(file, std::ios::binary);
    return {std::istreambuf_iterator<char>(in), {}};
  }
  Trainer trainer(const TrainingOptions& options) const { return {options, images, at::kCPU}; }

  const Images images = bars();
  const fs::path folder = fs::temp_directory_path() / ("tuiqiao-training-" + std::to_string(getpid()));
};

// Parts of a batch go side by side and are added in their order.
TEST_F(Training, DoesNotDependOnThreads) {
  for (const bool half : {false, true}) {
    TrainingOptions options = small();
    options.batch = 40;
    options.half = half;
    std::vector<TrainingStep> last;
    std::vector<std::string> states;
    for (const int threads : {1, 2, 3}) {
      at::set_num_threads(threads);
      Trainer one = trainer(options);
      one.step();
      last.push_back(one.step());
      one.save(folder / "state");
      states.push_back(content(folder / "state"));
    }
    for (std::size_t i = 1; i < states.size(); ++i) {
      EXPECT_EQ(last[i].loss, last[0].loss);
      EXPECT_EQ(states[i], states[0]);
    }
  }
}

TEST_F(Training, LearnsWhatItIsShown) {
  Trainer learner = trainer(small());
  EXPECT_EQ(learner.steps_per_epoch(), 1);
  double first = 0, last = 0;
  for (int i = 0; i < 300; ++i) {
    const TrainingStep step = learner.step();
    EXPECT_EQ(step.step, i + 1);
    EXPECT_NEAR(step.learning_rate, 3e-3 * std::min(1.0, (i + 1) / 10.0), 1e-12);
    if (i == 0) {  // the output starts as 0, so that the loss is that of the noise
      EXPECT_NEAR(step.loss, 1, 0.2);
    }
    if (i < 10) first += step.loss / 10;
    if (i >= 250) last += step.loss / 50;
  }
  EXPECT_LT(last, 0.35 * first);
  // What was averaged does better on noise that it did not see than half of the way did.
  const DiffusionModel model = learner.averaged();
  EXPECT_LT(validation_loss(model, Weighting::epsilon, images, 16, 8, 99), 0.4);
  EXPECT_EQ(model.size(), 64);
  for (const auto& [name, tensor] : model.net.parameters()) EXPECT_FALSE(tensor.requires_grad()) << name;
}

TEST_F(Training, GoesOnBitByBitWhereItWasStopped) {
  TrainingOptions options = small();
  options.network.dropout = 0.1;
  options.mirror = true;
  options.batch = 12;  // epochs end within batches
  Trainer whole = trainer(options);
  for (int i = 0; i < 7; ++i) whole.step();
  whole.save(folder / "whole");
  {
    Trainer part = trainer(options);
    for (int i = 0; i < 3; ++i) part.step();
    part.save(folder / "part");
  }
  {
    Trainer part = trainer(options);
    part.load(folder / "part");
    EXPECT_EQ(part.steps(), 3);
    for (int i = 0; i < 2; ++i) part.step();
    part.save(folder / "part");
  }
  Trainer part = trainer(options);
  part.load(folder / "part");
  for (int i = 0; i < 2; ++i) part.step();
  part.save(folder / "part");
  EXPECT_EQ(content(folder / "part"), content(folder / "whole"));

  options.seed = 1;
  Trainer other = trainer(options);
  for (int i = 0; i < 7; ++i) other.step();
  other.save(folder / "part");
  EXPECT_NE(content(folder / "part"), content(folder / "whole"));
}

TEST_F(Training, KeepsTheWeightsWhereLossOrGradientIsNotFinite) {
  TrainingOptions options = small();
  options.learning_rate = 1e30;
  options.warm_up = 0;
  options.clip_norm = 0;
  Trainer wild = trainer(options);
  try {
    for (int i = 0; i < 20; ++i) {
      wild.save(folder / "state");
      wild.step();
    }
    FAIL() << "it never diverged";
  } catch (const Error& error) {
    EXPECT_NE(std::string(error.what()).find("at step " + std::to_string(wild.steps() + 1)), std::string::npos)
        << error.what();
  }
  wild.save(folder / "after");
  EXPECT_EQ(content(folder / "after"), content(folder / "state"));
}

TEST_F(Training, AveragesWithADecayThatGrows) {
  TrainingOptions options = small();
  options.ema = 0.999;
  Trainer learner = trainer(options);
  std::map<std::string, Tensor> average;
  const auto value = [&](const std::string& name) {
    const SafetensorsFile file(folder / "state");
    return at::tensor(at::ArrayRef<float>(file.read(name)), at::kDouble);
  };
  learner.save(folder / "state");
  Tensor expected = value("average.conv_in.weight");
  for (int step = 0; step < 5; ++step) {
    learner.step();
    learner.save(folder / "state");
    const double keep = (1.0 + step) / (10.0 + step);
    expected = expected * keep + value("weight.conv_in.weight") * (1 - keep);
    EXPECT_LT((value("average.conv_in.weight") - expected).abs().max().item<double>(), 1e-6);
  }
  options.ema = 0;
  Trainer without = trainer(options);
  without.step();
  without.save(folder / "state");
  EXPECT_TRUE(value("average.conv_in.weight").equal(value("weight.conv_in.weight")));
}

TEST_F(Training, UpdatesAsAdamWDoes) {
  // The first step of Adam is the rate times the sign of the gradient, whatever its size; weight decay comes on top
  // for matrices alone.
  TrainingOptions options = small();
  options.warm_up = 0;
  options.weight_decay = 0.5;
  Trainer learner = trainer(options);
  learner.save(folder / "before");
  learner.step();
  learner.save(folder / "after");
  const SafetensorsFile before(folder / "before"), after(folder / "after");
  int moved = 0;
  for (const char* name : {"weight.conv_out.weight", "weight.conv_out.bias"}) {
    const auto from = before.read(name), to = after.read(name),
               mean = after.read("adam_mean." + std::string(name).substr(7));
    for (std::size_t i = 0; i < from.size(); ++i) {
      if (std::abs(mean[i]) < 1e-6) continue;  // epsilon counts there
      const double kept = std::string_view(name).ends_with(".weight") ? from[i] * (1 - 3e-3 * 0.5) : from[i];
      EXPECT_NEAR(to[i], kept - 3e-3 * (mean[i] > 0 ? 1 : -1), 3e-3 * 1e-2) << name;
      ++moved;
    }
  }
  EXPECT_GT(moved, 10);
}

TEST_F(Training, WeighsErrorsAsTheyAreNamed) {
  const double A = 0.6, B = 0.8, clean = 0.3, epsilon = -1.1;
  // Predictions that mean an eps off by 0.1, and so an x_0 off by 0.1 B / A.
  for (const Prediction prediction : {Prediction::epsilon, Prediction::sample, Prediction::v}) {
    const double x = A * clean + B * epsilon;
    const double wrong = target_of(prediction, (x - B * (epsilon + 0.1)) / A, epsilon + 0.1, A, B);
    const double error = std::pow(wrong - target_of(prediction, clean, epsilon, A, B), 2);
    EXPECT_NEAR(error * loss_weight(prediction, Weighting::epsilon, A, B), 0.01, 1e-12) << name(prediction);
    EXPECT_NEAR(error * loss_weight(prediction, Weighting::sample, A, B), std::pow(0.1 * B / A, 2), 1e-12);
    EXPECT_EQ(loss_weight(prediction, Weighting::prediction, A, B), 1);
  }
  for (const Weighting weighting : {Weighting::prediction, Weighting::epsilon, Weighting::sample})
    EXPECT_EQ(weighting_from_name(name(weighting)), weighting);
  EXPECT_THROW(weighting_from_name("loss"), std::invalid_argument);
}

TEST_F(Training, ExportsWhatLoadsAgain) {
  Trainer learner = trainer(small());
  for (int i = 0; i < 3; ++i) learner.step();
  for (const char* type : {"F32", "BF16"}) {
    learner.export_model(folder / type, type);
    const DiffusionModel loaded = load_diffusion_model(folder / type, at::kCPU);
    EXPECT_EQ(loaded.net.config().sample_size, (std::vector<int>{8, 8}));
    EXPECT_EQ(loaded.process.steps, 100);
    EXPECT_EQ(loaded.process.beta_end, 0.2);
    const double most = type == std::string("F32") ? 0 : 0x1p-8;
    const DiffusionModel averaged = learner.averaged();
    for (std::size_t i = 0; i < loaded.net.parameters().size(); ++i) {
      const Tensor a = loaded.net.parameters()[i].second, b = averaged.net.parameters()[i].second;
      EXPECT_LE((a - b).abs().max().item<double>(), most * b.abs().max().item<double>());
    }
  }
}

TEST_F(Training, StartsFromAnotherModel) {
  Trainer learner = trainer(small());
  for (int i = 0; i < 20; ++i) learner.step();
  const DiffusionModel before = learner.averaged();
  TrainingOptions options = small();
  options.seed = 7;
  Trainer second = trainer(options);
  second.start_from(before.net);
  EXPECT_EQ(second.steps(), 0);
  const DiffusionModel after = second.averaged();
  for (std::size_t i = 0; i < after.net.parameters().size(); ++i)
    EXPECT_TRUE(after.net.parameters()[i].second.equal(before.net.parameters()[i].second));
  EXPECT_LT(second.step().loss, 0.9);  // 1 for a network that knows nothing
  EXPECT_THROW(second.start_from(before.net), std::invalid_argument);

  options.network.block_out_channels = {8, 8};
  EXPECT_THROW(trainer(options).start_from(before.net), std::invalid_argument);

  // A setting that one of the two does not have.
  TrainingOptions attends = small();
  attends.network.add_attention = true;
  attends.network.attention_head_dim = 8;
  TrainingOptions grouped = attends;
  grouped.network.attn_norm_num_groups = 4;
  EXPECT_THROW(trainer(attends).start_from(UNet(grouped.network, 1)), std::invalid_argument);
  EXPECT_THROW(trainer(grouped).start_from(UNet(attends.network, 1)), std::invalid_argument);
}

TEST_F(Training, RefusesWhatDoesNotFit) {
  const auto refused = [&](const std::function<void(TrainingOptions&)>& change) {
    TrainingOptions options = small();
    change(options);
    EXPECT_THROW(trainer(options), std::invalid_argument);
  };
  refused([](TrainingOptions& o) { o.network.in_channels = 3; });
  refused([](TrainingOptions& o) { o.network.num_class_embeds = 3; });
  refused([](TrainingOptions& o) { o.network.time_embedding_type = "fourier"; });
  refused([](TrainingOptions& o) { o.network.norm_num_groups = 3; });
  refused([](TrainingOptions& o) { o.network.block_out_channels = {8, 8, 8, 8, 8}; });
  refused([](TrainingOptions& o) { o.process.steps = 0; });
  refused([](TrainingOptions& o) { o.process.steps = 200000; });  // no signal is left
  refused([](TrainingOptions& o) { o.process.variance = Variance::learned_range; });
  refused([](TrainingOptions& o) { o.batch = 0; });
  refused([](TrainingOptions& o) { o.learning_rate = 0; });
  refused([](TrainingOptions& o) { o.learning_rate = 1e38; });
  refused([](TrainingOptions& o) { o.warm_up = -1; });
  refused([](TrainingOptions& o) { o.weight_decay = -1; });
  refused([](TrainingOptions& o) { o.beta1 = 1; });
  refused([](TrainingOptions& o) { o.clip_norm = -1; });
  refused([](TrainingOptions& o) { o.ema = 1; });
  const Images none;
  EXPECT_THROW((Trainer{small(), none, at::kCPU}), std::invalid_argument);
  const Images odd{1, 1, 7, 8, std::vector<std::uint8_t>(56)};
  EXPECT_THROW((Trainer{small(), odd, at::kCPU}), std::invalid_argument);
  // A network without the variances that its process has.
  DiffusionModel model = trainer(small()).averaged();
  model.process.variance = Variance::learned_range;
  EXPECT_THROW(validation_loss(model, Weighting::epsilon, images, 4, 1, 1), std::invalid_argument);
  std::vector<double> x(64), clean(64);
  EXPECT_THROW(denoiser_of(model)->denoise(x, 1, clean), std::invalid_argument);
}

TEST_F(Training, NamesWhatDiffersInAState) {
  Trainer learner = trainer(small());
  learner.step();
  const fs::path file = folder / "state";
  learner.save(file);
  const auto refused = [&](const std::function<void(TrainingOptions&)>& change, const std::string& problem) {
    TrainingOptions options = small();
    change(options);
    Trainer other = trainer(options);
    try {
      other.load(file);
      ADD_FAILURE() << "loaded: " << problem;
    } catch (const Error& error) {
      const std::string what = error.what();
      EXPECT_TRUE(what.starts_with(file.string())) << what;
      EXPECT_NE(what.find(problem), std::string::npos) << what;
    }
    EXPECT_EQ(other.steps(), 0);
  };
  refused([](TrainingOptions& o) { o.batch = 15; }, "batch = 16, not 15");
  refused([](TrainingOptions& o) { o.network.block_out_channels = {8, 24}; }, "block_out_channels");
  refused([](TrainingOptions& o) { o.seed = 3; }, "seed = 0, not 3");
  const std::string whole = content(file);
  for (std::size_t length = 0; length < whole.size(); length += 1 + length / 4) {
    std::ofstream(file, std::ios::binary) << whole.substr(0, length);
    refused([](TrainingOptions&) {}, ": ");
  }
  learner.export_model(folder / "model");
  fs::copy_file(folder / "model" / "diffusion_pytorch_model.safetensors", file, fs::copy_options::overwrite_existing);
  refused([](TrainingOptions&) {}, "no state of training");
}

TEST_F(Training, NamesTheFieldOfAProcessThatIsWrong) {
  const fs::path file = folder / "scheduler_config.json";
  std::ofstream(file) << process_config_text(ProcessConfig{});
  nlohmann::json right;
  std::ifstream(file) >> right;
  EXPECT_EQ(process_config_text(read_process_config(file)), process_config_text(ProcessConfig{}));
  const auto wrong = [&](const char* field, const nlohmann::json& value) {
    nlohmann::json changed = right;
    changed[field] = value;
    std::ofstream(file) << changed;
    try {
      read_process_config(file);
      ADD_FAILURE() << "read: " << field;
    } catch (const Error& error) {
      const std::string what = error.what();
      EXPECT_TRUE(what.starts_with(file.string())) << what;
      EXPECT_NE(what.find(field), std::string::npos) << what;
    }
  };
  wrong("num_train_timesteps", "many");
  wrong("num_train_timesteps", 0);
  wrong("num_train_timesteps", 1e30);
  wrong("num_train_timesteps", 4294968296);  // 1000 in 32 bits
  wrong("thresholding", true);
  for (const char* kind : {"EDMEulerScheduler", "UnCLIPScheduler", "IPNDMScheduler", "DDPMWuerstchenScheduler",
                           "FlowMatchEulerDiscreteScheduler", "ScoreSdeVeScheduler", "Pipeline"})
    wrong("_class_name", kind);
  wrong("beta_start", "x");
  wrong("beta_end", 2);
  wrong("beta_schedule", "laplace");
  wrong("prediction_type", "flow");
  wrong("variance_type", "learned");
  wrong("timestep_spacing", "log");
  wrong("clip_sample", 1);
  wrong("clip_sample_range", -1);
  wrong("steps_offset", 1000);
  wrong("steps_offset", -1);
  wrong("trained_betas", {0.1, "x"});
  wrong("trained_betas", {0.1, 1.5});
  // What is missing is as the class has it.
  const auto read = [&](const char* kind, int offset) {
    nlohmann::json changed = right;
    changed["_class_name"] = kind;
    changed["steps_offset"] = offset;
    for (const char* field : {"clip_sample", "clip_sample_range", "timestep_spacing"}) changed.erase(field);
    std::ofstream(file) << changed;
    return read_process_config(file);
  };
  EXPECT_EQ(read("DDIMScheduler", 1).clip, 1);
  EXPECT_EQ(read("DDIMScheduler", 1).spacing, Spacing::leading);
  EXPECT_EQ(read("PNDMScheduler", 1).clip, 0);
  EXPECT_EQ(read("PNDMScheduler", 1).spacing, Spacing::leading);
  EXPECT_EQ(read("EulerDiscreteScheduler", 0).clip, 0);
  EXPECT_EQ(read("EulerDiscreteScheduler", 0).spacing, Spacing::linspace);
  EXPECT_EQ(read("PNDMScheduler", 1).steps_offset, 1);
  EXPECT_NE(process_config_text(read("PNDMScheduler", 1)).find("steps_offset"), std::string::npos);
  EXPECT_EQ(read("PNDMScheduler", 0).steps_offset, 0);
  const auto refused = [&](const std::string& text, const std::string& problem) {
    std::ofstream(file) << text;
    try {
      read_process_config(file);
      ADD_FAILURE() << "read: " << problem;
    } catch (const Error& error) {
      EXPECT_EQ(error.what(), file.string() + ": " + problem);
    }
  };
  nlohmann::json faded = right;
  faded["num_train_timesteps"] = 200000;
  refused(faded.dump(), "nothing is left of the signal after 200000 steps");
  const std::string deep = std::string(300000, '[') + std::string(300000, ']');
  refused("{\"beta_start\": " + deep + "}", "field 'beta_start' has a value of a wrong type: a list");
  refused("{\"trained_betas\": " + deep + "}", "field 'trained_betas' holds nan; numbers in (0, 1) is wanted");
}

// A process whose hash changed would make all measurements those of another one.
TEST_F(Training, ProcessesHaveTheHashThatMeasurementsKeep) {
  const fs::path root = fs::path(TUIQIAO_TEST_DATA) / "../..";
  nlohmann::json kept;
  std::ifstream(root / "docs/few-steps.json") >> kept;
  const std::string text =
      process_config_text(read_process_config(root / "models/fashion-mnist/scheduler_config.json"));
  EXPECT_EQ(fmt::format("{:016x}", XXH3_64bits(text.data(), text.size())), kept["settings"]["process"]);
}

}  // namespace
}  // namespace tuiqiao
#endif
