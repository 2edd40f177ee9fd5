// clang 14, and so clang-tidy, cannot read libtorch 1.13's headers as C++20.
#ifndef __clang_analyzer__
#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <c10/core/GradMode.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <fstream>
#include <nlohmann/json.hpp>
#include <stdexcept>

#include "safetensors.h"
#include "tuiqiao/diffusion/ancestral.h"
#include "tuiqiao/diffusion/model.h"
#include "tuiqiao/diffusion/unet.h"

namespace tuiqiao {
namespace {

namespace fs = std::filesystem;
using at::Tensor;

const fs::path kCases = fs::path(TUIQIAO_TEST_DATA) / "unet";
constexpr const char* kNames[] = {"plain",   "attention",      "attention_conv", "resnet",
                                  "fourier", "class_timestep", "class_identity"};

/// What diffusers answered.
class Case {
 public:
  explicit Case(const std::string& name) : file_(kCases / name / "case.safetensors") {}
  bool has(const std::string& name) const { return file_.tensors().contains(name); }
  Tensor operator[](const std::string& name) const {
    if (!has(name)) return {};
    const auto values = file_.read(name);
    return at::tensor(at::ArrayRef<float>(values)).reshape(file_.at(name).shape);
  }

 private:
  SafetensorsFile file_;
};

double difference(const Tensor& a, const Tensor& b) {
  EXPECT_EQ(a.sizes(), b.sizes());
  return (a - b).abs().max().item<double>();
}

class Unet : public testing::Test {
 protected:
  void SetUp() override {
    at::set_num_threads(2);
    folder = fs::temp_directory_path() / ("tuiqiao-unet-" + std::to_string(getpid()));
    fs::create_directories(folder);
  }
  void TearDown() override { fs::remove_all(folder); }

  /// A copy of a case to damage.
  void copy(const std::string& name) const {
    fs::copy(kCases / name, folder, fs::copy_options::recursive | fs::copy_options::overwrite_existing);
  }
  void change_config(const std::function<void(nlohmann::json&)>& change) const {
    nlohmann::json config;
    std::ifstream(folder / "config.json") >> config;
    change(config);
    std::ofstream(folder / "config.json") << config;
  }
  void expect_refused(const std::vector<std::string>& words) const {
    try {
      UNet::load(folder);
      ADD_FAILURE() << "loaded: " << words.front();
    } catch (const Error& error) {
      const std::string text = error.what();
      EXPECT_TRUE(text.starts_with(folder.string())) << text;
      for (const std::string& word : words) EXPECT_NE(text.find(word), std::string::npos) << text;
    }
  }

  fs::path folder;
  c10::NoGradGuard no_grad;
};

TEST_F(Unet, AnswersAsDiffusersDoes) {
  for (const std::string name : kNames) {
    const Case want(name);
    const UNet net = UNet::load(kCases / name);
    const Tensor output = net.forward(want["x"], want["t"], want["classes"]);
    EXPECT_LT(difference(output, want["output"]), 1e-5) << name;
    EXPECT_GT(want["output"].abs().max().item<double>(), 0.1) << name;
  }
}

TEST_F(Unet, WritesWhatItReads) {
  for (const std::string name : kNames) {
    const UNet net = UNet::load(kCases / name);
    net.save(folder / name);
    // What --check of make_unet_cases.py loads in diffusers; it compares with this file.
    fs::copy_file(kCases / name / "case.safetensors", folder / name / "case.safetensors");
    if (const char* keep = std::getenv("TUIQIAO_KEEP_UNETS"))
      fs::copy(folder / name, fs::path(keep) / name,
               fs::copy_options::recursive | fs::copy_options::overwrite_existing);
    const UNet again = UNet::load(folder / name);
    ASSERT_EQ(again.parameters().size(), net.parameters().size());
    for (std::size_t i = 0; i < net.parameters().size(); ++i)
      EXPECT_TRUE(at::equal(again.parameters()[i].second, net.parameters()[i].second)) << net.parameters()[i].first;
    for (const char* half : {"F16", "BF16"}) {
      net.save(folder / name, half);
      const UNet rounded = UNet::load(folder / name);
      for (std::size_t i = 0; i < net.parameters().size(); ++i) {
        const at::ScalarType type = half[0] == 'B' ? at::kBFloat16 : at::kHalf;
        const Tensor want = net.parameters()[i].second.to(type).to(at::kFloat);
        EXPECT_TRUE(at::equal(rounded.parameters()[i].second, want)) << half << net.parameters()[i].first;
      }
    }
  }
}

TEST_F(Unet, RoundsHalvesAsPyTorchDoes) {
  // Both signs, every exponent, infinities, NaN, and fractions on both sides of ties.
  std::vector<float> values;
  for (std::uint32_t high = 0; high < 65536; high += 3) {
    for (const std::uint32_t low : {0U, 1U, 0x0FFFU, 0x1000U, 0x1001U, 0x7FFFU, 0x8000U, 0x8001U, 0xFFFFU})
      values.push_back(std::bit_cast<float>(high << 16 | low));
  }
  const Tensor exact = at::tensor(at::ArrayRef<float>(values));
  for (const auto& [type, name] : {std::pair{at::kHalf, "F16"}, {at::kBFloat16, "BF16"}}) {
    std::ofstream(folder / "halves.safetensors", std::ios::binary)
        << safetensors_of({{"x", {{static_cast<std::int64_t>(values.size())}, values, name}}});
    const auto got = SafetensorsFile(folder / "halves.safetensors").read("x");
    const Tensor want = exact.to(type).to(at::kFloat).contiguous();
    for (std::size_t i = 0; i < values.size(); ++i) {
      const float expected = want.data_ptr<float>()[i];
      ASSERT_TRUE(got[i] == expected || (std::isnan(got[i]) && std::isnan(expected))) << name << " " << values[i];
    }
  }
}

TEST_F(Unet, ReadsTheOlderNamesOfAttention) {
  copy("attention_conv");
  fs::rename(folder / "older.safetensors", folder / "diffusion_pytorch_model.safetensors");
  const Case want("attention_conv");
  EXPECT_LT(difference(UNet::load(folder).forward(want["x"], want["t"]), want["output"]), 1e-5);
}

TEST_F(Unet, StartsWithAnOutputOfZeroAndTheDrawnSeed) {
  UNetConfig config;
  config.in_channels = config.out_channels = 1;
  config.block_out_channels = {8, 16};
  config.down_block_types = {"DownBlock2D", "AttnDownBlock2D"};
  config.up_block_types = {"AttnUpBlock2D", "UpBlock2D"};
  config.norm_num_groups = 4;
  const UNet a(config, 1), b(config, 1), c(config, 2);
  const Tensor x = at::randn({2, 1, 8, 8}), t = at::tensor({3.0F, 800.0F});
  EXPECT_EQ(a.forward(x, t).abs().max().item<double>(), 0);
  EXPECT_TRUE(at::equal(a.parameters()[0].second, b.parameters()[0].second));
  EXPECT_FALSE(at::equal(a.parameters()[0].second, c.parameters()[0].second));
}

TEST_F(Unet, PassesAllSkipsThroughOnePlace) {
  const Case want("plain");
  UNet net = UNet::load(kCases / "plain");
  ASSERT_EQ(net.skips(), 6);  // the first convolution, two blocks and a change of size, two blocks
  std::vector<int> order;
  net.set_join([&](Joint& joint, int index) {
    order.push_back(index);
    if (index > 0) joint.skip = joint.skip * 1.0;
  });
  EXPECT_LT(difference(net.forward(want["x"], want["t"]), want["output"]), 1e-5);
  EXPECT_EQ(order, (std::vector{5, 4, 3, 2, 1, 0}));
  net.set_join([](Joint& joint, int) { joint.skip_factor = 0.5; });
  EXPECT_GT(difference(net.forward(want["x"], want["t"]), want["output"]), 1e-2);
  net.set_join(nullptr);
  EXPECT_LT(difference(net.forward(want["x"], want["t"]), want["output"]), 1e-5);
}

TEST_F(Unet, CloneIsApart) {
  const UNet net = UNet::load(kCases / "plain");
  UNet copy = net.clone();
  copy.parameters()[0].second.zero_();
  EXPECT_GT(net.parameters()[0].second.abs().max().item<double>(), 0);
  const Case want("plain");
  EXPECT_LT(difference(net.forward(want["x"], want["t"]), want["output"]), 1e-5);
}

TEST_F(Unet, GradientsAreThoseOfPyTorch) {
  const Case want("plain");
  const c10::AutoGradMode grad(true);
  const UNet net = UNet::load(kCases / "plain");
  for (const auto& [name, tensor] : net.parameters()) tensor.requires_grad_(true);
  const Tensor loss = (net.forward(want["x"], want["t"]) - want["noise"]).square().mean();
  EXPECT_NEAR(loss.item<double>(), want["loss"].item<double>(), 1e-6 * loss.item<double>());
  loss.backward();
  for (const auto& [name, tensor] : net.parameters()) {
    const Tensor gradient = want["gradient." + name];
    const double scale = gradient.abs().max().item<double>();
    EXPECT_LT(difference(tensor.grad(), gradient), 1e-5 * (scale + 1)) << name;
  }
}

TEST_F(Unet, ConvolvesInBfloat16WhereThatIsAskedFor) {
  const Case want("plain");
  UNet net = UNet::load(kCases / "plain");
  net.set_half_convolutions(true);
  const double error = difference(net.forward(want["x"], want["t"]), want["output"]);
  EXPECT_GT(error, 1e-5);
  EXPECT_LT(error, 0.02 * want["output"].abs().max().item<double>());
  EXPECT_LT(difference(net.clone().forward(want["x"], want["t"]), want["output"]), 1e-5);
  const c10::AutoGradMode grad(true);
  for (const auto& [name, tensor] : net.parameters()) tensor.requires_grad_(true);
  (net.forward(want["x"], want["t"]) - want["noise"]).square().mean().backward();
  for (const auto& [name, tensor] : net.parameters()) {
    const Tensor gradient = want["gradient." + name];
    EXPECT_EQ(tensor.grad().scalar_type(), at::kFloat);
    EXPECT_LT(difference(tensor.grad(), gradient), 0.05 * (gradient.abs().max().item<double>() + 0.01)) << name;
  }
  net.set_half_convolutions(false);
  EXPECT_LT(difference(net.forward(want["x"], want["t"]), want["output"]), 1e-5);
}

TEST_F(Unet, RoundsWeightsOnceWhereTheyAreFinal) {
  const Case want("plain");
  UNet net = UNet::load(kCases / "plain");
  net.set_half_convolutions(true);
  const Tensor each_time = net.forward(want["x"], want["t"]);
  net.set_half_convolutions(true, true);
  EXPECT_TRUE(at::equal(net.forward(want["x"], want["t"]), each_time));
  net.to(at::kCPU);
  for (const auto& [name, tensor] : net.parameters()) {
    if (tensor.dim() == 4) tensor.zero_();
  }
  EXPECT_TRUE(at::equal(net.forward(want["x"], want["t"]), each_time));
  net.set_half_convolutions(true);
  EXPECT_FALSE(at::equal(net.forward(want["x"], want["t"]), each_time));
}

TEST_F(Unet, NamesTheFieldThatIsWrong) {
  const auto wrong = [&](const char* field, const nlohmann::json& value) {
    copy("plain");
    change_config([&](nlohmann::json& config) { config[field] = value; });
    expect_refused({field, "config.json"});
  };
  wrong("colour", 1);
  wrong("in_channels", "one");
  wrong("in_channels", 0);
  wrong("in_channels", 1.5);
  wrong("in_channels", 1e12);
  wrong("layers_per_block", 0);
  wrong("layers_per_block", 999999999);
  wrong("block_out_channels", {1 << 20, 1 << 20});
  wrong("down_block_types", {"DownBlock2D", "CrossAttnDownBlock2D"});
  wrong("up_block_types", {"UpBlock2D"});
  wrong("block_out_channels", nlohmann::json::array());
  wrong("norm_num_groups", 3);
  wrong("norm_num_groups", 0);
  wrong("attention_head_dim", 0);
  wrong("attention_head_dim", 100);
  wrong("time_embedding_type", "learned");
  wrong("freq_shift", 4);
  wrong("act_fn", "tanh");
  wrong("resnet_time_scale_shift", "spatial");
  wrong("class_embed_type", "projection");
  wrong("mid_block_type", "UnCLIPUNetMidBlock2D");
  wrong("dropout", 1);
  wrong("norm_eps", -1);
  wrong("downsample_padding", 2);
  wrong("sample_size", {1, 2, 3});
  wrong("sample_size", 0);
  wrong("sample_size", {8, -8});
  wrong("sample_size", 1 << 24);
  copy("plain");
  // Too deep for recursion.
  std::ofstream(folder / "config.json") << "{\"in_channels\":" << std::string(300000, '[') << std::string(300000, ']')
                                        << "}";
  expect_refused({"in_channels", "a list"});
  std::ofstream(folder / "config.json") << "{\"in_channels\": 1";
  expect_refused({"no JSON object"});
  std::ofstream(folder / "config.json") << "[]";
  expect_refused({"no JSON object"});
  fs::remove(folder / "config.json");
  expect_refused({"cannot be read"});
}

TEST_F(Unet, NamesTheTensorThatIsWrong) {
  copy("plain");
  change_config([](nlohmann::json& config) { config["block_out_channels"] = {8, 12}; });
  expect_refused({"diffusion_pytorch_model.safetensors", "down_blocks.1", "shape"});
  copy("plain");
  change_config([](nlohmann::json& config) { config["layers_per_block"] = 3; });
  expect_refused({"down_blocks.0.resnets.2", "missing"});
  copy("plain");  // each is looked for, not the last alone
  change_config([](nlohmann::json& config) { config["layers_per_block"] = 64; });
  expect_refused({"down_blocks.0.resnets.2", "missing"});
  copy("plain");  // refused before memory is asked for: this would be 300 GB
  change_config([](nlohmann::json& config) { config["block_out_channels"] = {1 << 16, 1 << 16}; });
  expect_refused({"conv_in.weight", "shape"});
  copy("plain");
  change_config([](nlohmann::json& config) { config["add_attention"] = false; });
  expect_refused({"mid_block.attentions.0", "unknown"});
}

TEST_F(Unet, RefusesATruncatedFileAtEveryLength) {
  copy("class_identity");
  const fs::path file = folder / "diffusion_pytorch_model.safetensors";
  const auto size = static_cast<std::int64_t>(fs::file_size(file));
  for (std::int64_t length = size - 1; length >= 0; length -= 1 + length / 40) {
    fs::resize_file(file, static_cast<std::uintmax_t>(length));
    expect_refused({"diffusion_pytorch_model.safetensors"});
  }
  fs::remove(file);
  expect_refused({"diffusion_pytorch_model.safetensors"});
}

TEST_F(Unet, RefusesWrongInput) {
  const UNet plain = UNet::load(kCases / "plain"), classes = UNet::load(kCases / "resnet");
  const Tensor x = at::zeros({2, 1, 4, 4}), t = at::zeros({2}), label = at::zeros({2});
  EXPECT_THROW(plain.forward(at::zeros({2, 1, 5, 4}), t), std::invalid_argument);
  EXPECT_THROW(plain.forward(at::zeros({2, 1, 4, 0}), t), std::invalid_argument);
  EXPECT_THROW(plain.forward(at::zeros({2, 3, 4, 4}), t), std::invalid_argument);
  EXPECT_THROW(plain.forward(at::zeros({1, 4, 4}), t), std::invalid_argument);
  EXPECT_THROW(plain.forward(x, at::zeros({3})), std::invalid_argument);
  EXPECT_THROW(plain.forward(at::zeros({0, 1, 4, 4}), at::zeros({0})), std::invalid_argument);
  EXPECT_THROW(plain.forward(x, t, label), std::invalid_argument);
  EXPECT_THROW(classes.forward(x, t), std::invalid_argument);
  EXPECT_THROW(classes.forward(x, t, at::zeros({3})), std::invalid_argument);
  EXPECT_THROW(classes.forward(x, t, label + 5), std::invalid_argument);
  EXPECT_THROW(classes.forward(x, t, label - 1), std::invalid_argument);
  UNetConfig config;
  config.norm_num_groups = 5;
  EXPECT_THROW(UNet{config}, std::invalid_argument);
  EXPECT_THROW(plain.save(folder, "I8"), std::invalid_argument);
  EXPECT_THROW(plain.save("/proc/none"), Error);
}

TEST(DdpmSteps, AreThoseOfDiffusers) {
  nlohmann::json file;
  std::ifstream(kCases / "ddpm_steps.json") >> file;
  ASSERT_EQ(file["cases"].size(), 72U);
  for (const auto& step : file["cases"]) {
    const std::string variance = step["variance"];
    const Schedule schedule =
        Schedule::from_betas(betas_of(beta_schedule_from_name(step["schedule"].get<std::string>()), 1000));
    const std::vector<double> x = step["x"], output = step["output"], noise = step["noise"], after = step["after"];
    const bool learned = variance == "learned_range";
    const auto model = [&](std::span<const double>, double t, std::span<double> into) {
      EXPECT_EQ(t, step["t"].get<int>() + 1);
      std::copy(output.begin(), output.end(), into.begin());
    };
    const ModelDenoiser denoiser(model, 4, schedule, prediction_from_name(step["prediction"].get<std::string>()),
                                 learned);
    AncestralOptions options;
    options.variance =
        learned ? Variance::learned_range : (variance == "fixed_small" ? Variance::posterior : Variance::beta);
    options.clip = step["clip"].get<bool>() ? 1 : 0;
    const auto all = strided_steps(1000, step["steps"].get<int>(), Spacing::leading);
    const auto index = step["index"].get<std::size_t>();
    ASSERT_EQ(all[index], step["t"].get<int>() + 1);
    // The step itself and the next, which only shows where it landed.
    std::vector<int> steps{all[index]};
    if (index + 1 < all.size()) steps.push_back(all[index + 1]);
    std::vector<double> got(x), landed;
    int evaluations = 0;
    const auto once = [&](std::span<const double> at, double t, std::span<double> into) {
      if (evaluations++ == 0) return model(at, t, into);
      landed.assign(at.begin(), at.end());
      std::fill(into.begin(), into.end(), 0.0);
    };
    const ModelDenoiser both(once, 4, schedule, prediction_from_name(step["prediction"].get<std::string>()), learned);
    sample_ancestral(
        both, schedule, steps,
        [&](std::uint64_t, std::span<double> into) { std::copy(noise.begin(), noise.end(), into.begin()); }, options,
        got);
    if (landed.empty()) landed = got;
    for (std::size_t i = 0; i < after.size(); ++i)
      EXPECT_NEAR(landed[i], after[i], 1e-6 * std::max(1.0, std::abs(after[i]))) << step.dump().substr(0, 120);
  }
}

TEST(NetworkDenoiser, DoesPartsOfABatchSideBySide) {
  UNetConfig config;
  config.sample_size = {8, 8};
  config.in_channels = config.out_channels = 1;
  config.block_out_channels = {8, 16};
  config.down_block_types = {"DownBlock2D", "DownBlock2D"};
  config.up_block_types = {"UpBlock2D", "UpBlock2D"};
  config.norm_num_groups = 1;
  config.add_attention = false;
  config.num_class_embeds = 3;
  DiffusionModel model{UNet(config, 3), {}, 1, 8, 8};
  at::manual_seed(4);
  const c10::NoGradGuard no_grad;
  for (const auto& [name, tensor] : model.net.parameters()) tensor.add_(at::randn_like(tensor), 0.05);
  constexpr std::size_t kRows = 37, kSize = 64;
  std::vector<double> x(kRows * kSize), all(x.size()), again(x.size());
  std::vector<std::int64_t> classes(kRows);
  for (std::size_t i = 0; i < x.size(); ++i) x[i] = std::sin(static_cast<double>(i * i % 1009));
  for (std::size_t i = 0; i < kRows; ++i) classes[i] = static_cast<std::int64_t>(i * i % 3);
  at::set_num_threads(2);
  denoiser_of(model, classes)->denoise(x, 0.7, all);
  at::set_num_threads(3);
  denoiser_of(model, classes)->denoise(x, 0.7, again);
  EXPECT_EQ(all, again);
  for (const std::size_t row : {std::size_t{0}, std::size_t{15}, std::size_t{16}, std::size_t{36}}) {
    std::vector<double> alone(kSize);
    denoiser_of(model, {classes[row]})->denoise(std::span(x).subspan(row * kSize, kSize), 0.7, alone);
    for (std::size_t i = 0; i < kSize; ++i) EXPECT_NEAR(all[row * kSize + i], alone[i], 1e-5);
  }
  at::set_num_threads(1);
}

}  // namespace
}  // namespace tuiqiao
#endif
