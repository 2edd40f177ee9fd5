#include "safetensors.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <cmath>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <random>

#include "half.h"
#include "tuiqiao/error.h"

namespace tuiqiao {
namespace {

namespace fs = std::filesystem;

class Safetensors : public testing::Test {
 protected:
  void TearDown() override { fs::remove(file); }
  SafetensorsFile opened(const std::string& bytes) const {
    std::ofstream(file, std::ios::binary) << bytes;
    return SafetensorsFile(file);
  }
  /// A header as given, and `data` behind it.
  static std::string made(const std::string& header, const std::string& data) {
    const std::uint64_t length = header.size();
    return std::string(reinterpret_cast<const char*>(&length), 8) + header + data;
  }
  void expect_refused(const std::string& bytes, const std::string& problem) const {
    try {
      opened(bytes);
      ADD_FAILURE() << "taken: " << problem;
    } catch (const Error& error) {
      EXPECT_NE(std::string(error.what()).find(problem), std::string::npos) << error.what();
      EXPECT_TRUE(std::string(error.what()).starts_with(file.string()));
    }
  }
  const fs::path file = fs::path(testing::TempDir()) / ("tuiqiao-" + std::to_string(::getpid()) + ".safetensors");
};

TEST_F(Safetensors, ReadsWhatItWrote) {
  const std::vector<float> a{1, -2.5F, 3e-30F, 4, 5, 6}, b{7};
  const std::string bytes =
      safetensors_of({{"a", {{2, 3}, a}}, {"scalar", {{}, b}}, {"none", {{0, 4}, {}}}}, {{"format", "pt"}});
  EXPECT_TRUE(is_safetensors(bytes));
  const SafetensorsFile read = opened(bytes);
  EXPECT_EQ(read.tensors().size(), 3U);
  EXPECT_EQ(read.metadata().at("format"), "pt");
  EXPECT_EQ(read.at("a").shape, (std::vector<std::int64_t>{2, 3}));
  EXPECT_EQ(read.read("a"), a);
  EXPECT_EQ(read.read("scalar"), b);
  EXPECT_TRUE(read.read("none").empty());
  std::vector<float> part(2);
  read.read("a", 3, part);
  EXPECT_EQ(part, (std::vector<float>{4, 5}));
  EXPECT_THROW(read.read("a", 5, part), std::invalid_argument);
  EXPECT_THROW(read.read("a", -1, part), std::invalid_argument);
  EXPECT_THROW(read.at("b"), Error);
}

TEST_F(Safetensors, ReadsHalves) {
  const std::uint16_t halves[] = {0x3C00, 0xC000, 0x0001, 0x7BFF, 0x8000, 0x7C00};
  const std::string data(reinterpret_cast<const char*>(halves), sizeof halves);
  const std::string header = R"({"h":{"dtype":"F16","shape":[6],"data_offsets":[0,12]}})";
  EXPECT_EQ(opened(made(header, data)).read("h"),
            (std::vector<float>{1, -2, std::ldexp(1.0F, -24), 65504, -0.0F, HUGE_VALF}));
  EXPECT_TRUE(std::isnan(float_of_half(0x7C01)));
  const std::uint16_t brains[] = {0x3F80, 0xC040, 0x0001};
  const std::string more(reinterpret_cast<const char*>(brains), sizeof brains);
  EXPECT_EQ(opened(made(R"({"b":{"dtype":"BF16","shape":[3],"data_offsets":[0,6]}})", more)).read("b"),
            (std::vector<float>{1, -3, std::ldexp(1.0F, -133)}));
}

TEST_F(Safetensors, RefusesWhatTheFileDoesNotHold) {
  const std::string data(8, '\0');
  expect_refused("", "no .safetensors");
  expect_refused(std::string(8, '\xFF'), "a header of");
  expect_refused(made("[1]", data), "no JSON object");
  expect_refused(made("{", data), "no JSON object");
  expect_refused(made(R"({"a":{"dtype":"F32","shape":[3],"data_offsets":[0,12]}})", data), "ends beyond the file");
  expect_refused(made(R"({"a":{"dtype":"F32","shape":[3],"data_offsets":[0,8]}})", data), "more or fewer bytes");
  expect_refused(made(R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[8,0]}})", data), "ends beyond the file");
  expect_refused(made(R"({"a":{"dtype":"X","shape":[2],"data_offsets":[0,8]}})", data), "unknown type");
  expect_refused(made(R"({"a":{"dtype":"F32","shape":[-2],"data_offsets":[0,8]}})", data), "a shape");
  expect_refused(made(R"({"a":{"dtype":"F32","shape":[4294967296,4294967296],"data_offsets":[0,8]}})", data),
                 "a shape");
  expect_refused(made(R"({"a":{"dtype":"F32","shape":[2]}})", data), "no plain dtype");
  expect_refused(made(R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},)"
                      R"("b":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}})",
                      data),
                 "share bytes");
  const SafetensorsFile integers = opened(made(R"({"a":{"dtype":"I64","shape":[1],"data_offsets":[0,8]}})", data));
  EXPECT_THROW(integers.read("a"), Error);
}

TEST_F(Safetensors, SurvivesDamage) {
  const std::vector<float> values(64, 1.5F);
  const std::string good = safetensors_of({{"a", {{8, 8}, values}}, {"b", {{64}, values}}}, {{"k", "v"}});
  std::mt19937 random(5);
  int refused = 0;
  for (int i = 0; i < 800; ++i) {
    std::string bytes = good;
    for (int j = 0; j < 3; ++j) bytes[random() % 200] = static_cast<char>(random());
    if (i % 3 == 0) bytes.resize(random() % bytes.size());
    try {
      const SafetensorsFile read = opened(bytes);
      for (const auto& [name, entry] : read.tensors()) read.read(name);
    } catch (const Error&) {
      ++refused;
    }
  }
  EXPECT_GT(refused, 400);
}

}  // namespace
}  // namespace tuiqiao
