#include "npy.h"

#include <gtest/gtest.h>

#include <cmath>
#include <random>

#include "tuiqiao/error.h"

namespace tuiqiao {
namespace {

std::string file_of(const std::string& header, const std::string& data, char version = 1) {
  std::string bytes = "\x93NUMPY";
  bytes += {version, '\0', static_cast<char>(header.size() & 255U), static_cast<char>(header.size() >> 8)};
  if (version > 1) bytes += std::string(2, '\0');
  return bytes + header + data;
}

std::string header_of(const std::string& type, const std::string& shape, const char* order = "False") {
  return "{'descr': '" + type + "', 'fortran_order': " + order + ", 'shape': " + shape + ", }\n";
}

void expect_refused(const std::string& bytes, const std::string& problem) {
  try {
    parse_npy(bytes, "some.npy");
    FAIL() << "read: " << problem;
  } catch (const Error& error) {
    const std::string what = error.what();
    EXPECT_TRUE(what.starts_with("some.npy: ")) << what;
    EXPECT_NE(what.find(problem), std::string::npos) << what;
    EXPECT_EQ(what.find('\n'), std::string::npos) << what;
  }
}

TEST(Npy, GoesBothWays) {
  for (const std::vector<std::int64_t>& shape : {std::vector<std::int64_t>{6}, {2, 3}, {3, 1, 2}, {}, {0, 4}, {4, 0}}) {
    std::vector<double> values{1.5, -2, 1e300, -0.0, INFINITY, 7};
    std::size_t count = 1;
    for (const std::int64_t side : shape) count *= static_cast<std::size_t>(side);
    values.resize(count);
    const NpyArray array = parse_npy(npy_of(values, shape), "x");
    EXPECT_EQ(array.shape, shape);
    EXPECT_EQ(array.values, values);
  }
}

TEST(Npy, WritesFloat32Too) {
  const std::vector<float> values{1.5F, -2, 1e30F};
  const std::string bytes = npy_of(values, std::vector<std::int64_t>{3, 1});
  EXPECT_NE(bytes.find("'<f4'"), std::string::npos);
  const NpyArray array = parse_npy(bytes, "x");
  EXPECT_EQ(array.shape, (std::vector<std::int64_t>{3, 1}));
  for (std::size_t i = 0; i < 3; ++i) EXPECT_EQ(array.values[i], values[i]);
}

TEST(Npy, ReadsEveryTypeAndOrder) {
  EXPECT_EQ(parse_npy(file_of(header_of("<f4", "(1,)"), {'\0', '\0', '\xc0', '\x3f'}), "x").values[0], 1.5);
  EXPECT_EQ(parse_npy(file_of(header_of("|i1", "(2,)"), {'\xff', '\x05'}, 2), "x").values,
            (std::vector<double>{-1, 5}));
  EXPECT_EQ(parse_npy(file_of(header_of("|u1", "(2, 3)", "True"), {1, 2, 3, 4, 5, 6}), "x").values,
            (std::vector<double>{1, 3, 5, 2, 4, 6}));
  const auto halves = parse_npy(
      file_of(header_of("<f2", "(4,)"), {'\x00', '\x3e', '\x01', '\x00', '\x00', '\xfc', '\x01', '\x7e'}), "x");
  EXPECT_EQ(halves.values[0], 1.5);
  EXPECT_EQ(halves.values[1], std::ldexp(1, -24));
  EXPECT_EQ(halves.values[2], -INFINITY);
  EXPECT_TRUE(std::isnan(halves.values[3]));
}

TEST(Npy, RefusesWhatItCannotBelieve) {
  expect_refused("", "no .npy file");
  expect_refused("\x93NUMPY", "cut off");
  expect_refused(file_of(header_of("<f8", "(2,)"), std::string(15, '\0')), "ends before");
  expect_refused(file_of(header_of("<f8", "(2,)"), std::string(17, '\0')), "goes on behind");
  expect_refused(file_of(header_of("<f8", "(4294967296, 4294967296)"), std::string(16, '\0')), "ends before");
  expect_refused(file_of(header_of("<f8", "(99999999999999999999,)"), ""), "a side of");
  expect_refused(file_of(header_of("<f8", "(-1,)"), ""), "no plain shape");
  expect_refused(file_of(std::string(9800, ' '), ""), "no plain type");
  expect_refused(file_of(header_of("<c16", "(1,)"), std::string(16, '\0')), "type '<c16'");
  expect_refused(file_of(header_of("|O", "(1,)"), "x"), "type '|O'");
  expect_refused(file_of("{'descr': [('a', '<f8')], 'fortran_order': False, 'shape': (1,)}", std::string(8, '\0')),
                 "no plain type");
  expect_refused(file_of(header_of("<f8", "(1,)"), std::string(8, '\0'), 9), "version 9");
}

TEST(Npy, SurvivesDamagedFiles) {
  const std::string good = npy_of(std::vector<double>(12, 1.0), std::vector<std::int64_t>{3, 4});
  std::mt19937 random(3);
  for (int i = 0; i < 3000; ++i) {
    std::string bad = good.substr(0, i % 3 == 0 ? random() % good.size() : good.size());
    for (int j = 0; j < 3 && !bad.empty(); ++j) bad[random() % bad.size()] = static_cast<char>(random());
    try {
      parse_npy(bad, "x");
    } catch (const Error&) {
    }
  }
}

}  // namespace
}  // namespace tuiqiao
