#include "tuiqiao/idx.h"

#include <gtest/gtest.h>
#include <unistd.h>
#include <zlib.h>

#include <fstream>
#include <string>

namespace tuiqiao {
namespace {

/// Tests run at once, a process each.
std::filesystem::path place(const std::string& name) {
  return std::filesystem::path(testing::TempDir()) / (std::to_string(::getpid()) + "-" + name);
}

std::filesystem::path written(const std::string& bytes, const std::string& name = "array.idx") {
  auto file = place(name);
  std::ofstream(file, std::ios::binary) << bytes;
  return file;
}

std::filesystem::path packed(const std::string& bytes) {
  auto file = place("array.idx.gz");
  gzFile out = gzopen(file.c_str(), "wb");
  gzwrite(out, bytes.data(), static_cast<unsigned>(bytes.size()));
  gzclose(out);
  return file;
}

std::string whole(const std::filesystem::path& file) {
  std::ifstream in(file, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

std::string two_by_three() { return std::string("\0\0\x08\x02\0\0\0\x02\0\0\0\x03", 12) + "abcdef"; }

std::string problem_of(const std::filesystem::path& file) {
  try {
    read_idx(file);
  } catch (const Error& error) {
    return error.what();
  }
  return "none";
}

TEST(Idx, ReadsPlainAndPacked) {
  for (const auto& file : {written(two_by_three()), packed(two_by_three())}) {
    const IdxArray array = read_idx(file);
    EXPECT_EQ(array.shape, (std::vector<std::int64_t>{2, 3}));
    EXPECT_EQ(std::string(array.values.begin(), array.values.end()), "abcdef");
  }
}

TEST(Idx, TakesEmptySides) {
  const IdxArray array = read_idx(written(std::string("\0\0\x08\x02\0\0\0\0\xff\xff\xff\xff", 12)));
  EXPECT_EQ(array.shape, (std::vector<std::int64_t>{0, 0xffffffff}));
  EXPECT_TRUE(array.values.empty());
}

TEST(Idx, RefusesEveryTruncation) {
  const std::string bytes = two_by_three();
  for (std::size_t size = 0; size < bytes.size(); ++size) {
    const std::string problem = problem_of(written(bytes.substr(0, size)));
    EXPECT_NE(problem.find("array.idx: "), std::string::npos) << size << ": " << problem;
  }
  const std::string gz = whole(packed(bytes));
  for (std::size_t size = 0; size < gz.size(); ++size)
    EXPECT_NE(problem_of(written(gz.substr(0, size), "cut.gz")), "none") << size;
}

TEST(Idx, RefusesWhatItIsNot) {
  EXPECT_NE(problem_of("/nowhere/x").find("/nowhere/x: No such file"), std::string::npos);
  EXPECT_NE(problem_of(testing::TempDir()).find("is a folder"), std::string::npos);
  EXPECT_NE(problem_of(written("PNG and more")).find("is no IDX file"), std::string::npos);
  EXPECT_NE(problem_of(written(std::string("\0\0\x0d\x01\0\0\0\x01", 8) + "abcd")).find("type 0x0d"),
            std::string::npos);
  EXPECT_NE(problem_of(written(two_by_three() + "g")).find("goes on after 6 bytes"), std::string::npos);
  const std::string huge("\0\0\x08\x02\xff\xff\xff\xff\xff\xff\xff\xff", 12);
  EXPECT_NE(problem_of(written(huge)).find("claims more than"), std::string::npos);
  const std::string large("\0\0\x08\x01\xff\xff\xff\xff", 8);
  EXPECT_NE(problem_of(written(large + "abc")).find("ends after 3 of 4294967295"), std::string::npos);
}

}  // namespace
}  // namespace tuiqiao
