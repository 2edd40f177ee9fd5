#include <gtest/gtest.h>
#include <unistd.h>
#include <zlib.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <map>
#include <random>

#include "npy.h"
#include "safetensors.h"
#include "tuiqiao/audit.h"
#include "tuiqiao/error.h"

namespace tuiqiao {
namespace {

namespace fs = std::filesystem;

class HeadFiles : public testing::Test {
 protected:
  void TearDown() override { fs::remove(file); }
  const fs::path& write(const std::string& bytes) const {
    std::ofstream(file, std::ios::binary) << bytes;
    return file;
  }
  void expect_refused(const std::string& bytes, const std::string& problem, const std::string& tensor = "") const {
    try {
      read_output_head(write(bytes), tensor);
      ADD_FAILURE() << "taken: " << problem;
    } catch (const Error& error) {
      EXPECT_NE(std::string(error.what()).find(problem), std::string::npos) << error.what();
    }
  }
  const fs::path file = fs::path(testing::TempDir()) / ("tuiqiao-head-" + std::to_string(::getpid()));
  const std::vector<float> values{1, 2, 3, 4, 5, 6};
};

std::string hexed(std::string_view hex) {
  std::string bytes;
  for (std::size_t i = 0; i + 1 < hex.size(); i += 2)
    bytes += static_cast<char>(std::stoi(std::string(hex.substr(i, 2)), nullptr, 16));
  return bytes;
}

TEST_F(HeadFiles, FindsTheRows) {
  OutputHead head = read_output_head(write(safetensors_of({{"lm_head.weight", {{3, 2}, values}},
                                                           {"model.embed_tokens.weight", {{2, 3}, values}},
                                                           {"norm", {{6}, values}}})));
  EXPECT_EQ(head.classes, 3);
  EXPECT_EQ(head.columns, 2);
  EXPECT_EQ(head.tensor, "lm_head.weight");
  EXPECT_EQ(head.rows, values);
  head = read_output_head(file, "model.embed_tokens.weight");
  EXPECT_EQ(head.classes, 2);
  EXPECT_EQ(read_head_vector(file, "norm"), (std::vector<double>{1, 2, 3, 4, 5, 6}));
  EXPECT_THROW(read_head_vector(file, "lm_head.weight"), Error);
  EXPECT_THROW(read_head_vector(file, "absent"), Error);
  EXPECT_TRUE(is_head_file(file));
  head = read_output_head(write(safetensors_of({{"strange", {{3, 2}, values}}, {"norm", {{6}, values}}})));
  EXPECT_EQ(head.tensor, "strange");
  expect_refused(safetensors_of({{"a", {{3, 2}, values}}, {"b", {{3, 2}, values}}}), "2 matrices");
  expect_refused(safetensors_of({{"a", {{6}, values}}}), "0 matrices");
  expect_refused(safetensors_of({{"a", {{0, 2}, {}}}}), "'a' is 0 x 2");
  expect_refused(safetensors_of({{"a", {{6}, values}}}), "1 sides", "a");
  expect_refused(safetensors_of({{"a", {{6}, values}}}), "no tensor 'b'", "b");
  expect_refused("GGUF", "neither");
  EXPECT_THROW(read_output_head(file.string() + ".absent"), Error);
  EXPECT_THROW(read_output_head(fs::path(testing::TempDir())), Error);
}

TEST_F(HeadFiles, KnowsWhatStandsBeside) {
  const std::vector<float> one{1}, two{1, 2};
  write(safetensors_of({{"lm_head.weight", {{1, 2}, two}},
                        {"lm_head.bias", {{1}, one}},
                        {"model.norm.weight", {{2}, two}},
                        {"other.bias", {{1}, one}},
                        {"norm.weight", {{1, 2}, two}}}));
  using Names = std::vector<std::string>;
  EXPECT_EQ(vectors_beside(file, "lm_head.weight").biases, Names{"lm_head.bias"});
  EXPECT_EQ(vectors_beside(file, "lm_head.weight").gains, Names{"model.norm.weight"});
  EXPECT_EQ(vectors_beside(file, "lm_head.weight").shifts, Names{});
  EXPECT_EQ(vectors_beside(file, "strange").biases, Names{});
  EXPECT_EQ(vectors_beside(write(npy_of(std::vector<double>{1}, std::array<std::int64_t, 2>{1, 1})), "").gains,
            Names{});
}

TEST_F(HeadFiles, ReadsArrays) {
  const std::vector<double> exact{1, 2, 3, 0.5}, more{1, 2, 3, 0.1};
  const std::array<std::int64_t, 2> shape{2, 2};
  OutputHead head = read_output_head(write(npy_of(exact, shape)));
  EXPECT_FALSE(head.rounded);
  EXPECT_EQ(head.rows, (std::vector<float>{1, 2, 3, 0.5}));
  EXPECT_TRUE(read_output_head(write(npy_of(more, shape))).rounded);
  expect_refused(npy_of(exact, std::array<std::int64_t, 1>{4}), "1 sides");
  expect_refused(npy_of(std::vector<double>{}, std::array<std::int64_t, 2>{3, 0}), "3 x 0");
  expect_refused(npy_of(std::vector<double>{1, 2, 3, 1e300}, shape), "entry 3 is 1e+300, beyond float32");
  EXPECT_EQ(read_head_vector(write(npy_of(exact, std::array<std::int64_t, 1>{4}))), exact);
  EXPECT_THROW(read_head_vector(write(npy_of(exact, shape))), Error);
}

/// A zip file of stored members, as numpy.savez writes it.
std::string stored(const std::map<std::string, std::string>& members) {
  const auto number = [](std::uint64_t value, std::size_t size) {
    std::string bytes(size, '\0');
    std::memcpy(bytes.data(), &value, std::min(size, sizeof value));
    return bytes;
  };
  std::string bytes, list;
  for (const auto& [name, content] : members) {
    const auto sum = crc32_z(0, reinterpret_cast<const Bytef*>(content.data()), content.size());
    const std::string common = number(0, 4) + number(0, 4) + number(sum, 4) + number(content.size(), 4) +
                               number(content.size(), 4) + number(name.size(), 2) + number(0, 2);
    const std::string version = number(20, 2);
    for (const std::string& part :
         {std::string("PK\x01\x02"), version, version, common, number(0, 10), number(bytes.size(), 4), name})
      list += part;
    for (const std::string& part : {std::string("PK\x03\x04"), version, common, name, content}) bytes += part;
  }
  return bytes + list + "PK\x05\x06" + number(0, 4) + number(members.size(), 2) + number(members.size(), 2) +
         number(list.size(), 4) + number(bytes.size(), 4) + number(0, 2);
}

TEST_F(HeadFiles, ReadsNpz) {
  const std::vector<double> exact{1, 2, 3, 0.5};
  const std::string array = npy_of(exact, std::array<std::int64_t, 2>{2, 2});
  EXPECT_EQ(read_output_head(write(stored({{"w.npy", array}}))).rows, (std::vector<float>{1, 2, 3, 0.5}));
  EXPECT_EQ(read_output_head(write(stored({{"a.npy", array}, {"w.npy", array}})), "w").tensor, "w.npy");
  expect_refused(stored({{"a.npy", array}, {"w.npy", array}}), "2 members");
  const std::string vector = npy_of(exact, std::array<std::int64_t, 1>{4});
  EXPECT_EQ(read_head_vector(write(stored({{"b.npy", vector}, {"w.npy", array}})), "b"), exact);
  expect_refused(stored({{"b.npy", vector}}), "'b.npy' has 1 sides", "b");
  expect_refused(stored({{"a.npy", array}}), "no member 'w'", "w");
  const std::string good = stored({{"w.npy", array}});
  std::string flipped = good;
  flipped[good.find(array) + array.size() - 1] ^= 1;  // of a number
  expect_refused(flipped, "damaged");
  std::mt19937 random(3);
  for (int i = 0; i < 800; ++i) {
    std::string bytes = good;
    for (int j = 0; j < 4; ++j) bytes[4 + random() % (bytes.size() - 4)] = static_cast<char>(random());
    try {
      read_output_head(write(bytes));
    } catch (const Error&) {
    }
  }
}

TEST_F(HeadFiles, UnpacksNpz) {
  // What numpy.savez_compressed(f, w=numpy.array([[1, 2], [3, 4]], "<f4")) holds, packed by Python's zipfile.
  const std::string packed = hexed(
      "504b0304140000000800000021004efb2075530000009000000005000000772e6e70799bec17ea1b10c9c850c650ad9e925a"
      "9c5ca46ea5a06e9366a2aea3a09e965f54529498179f5f94920a12774bcc294e058a17672416a402f91a463a0a469a3a0ab5"
      "0a64032e0686067b060606072002e2060700504b01021403140000000800000021004efb2075530000009000000005000000"
      "0000000000000000800100000000772e6e7079504b0506000000000100010033000000760000000000");
  const OutputHead head = read_output_head(write(packed));
  EXPECT_EQ(head.rows, (std::vector<float>{1, 2, 3, 4}));
}

}  // namespace
}  // namespace tuiqiao
