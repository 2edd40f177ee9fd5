#pragma once

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <nlohmann/json.hpp>
#include <sstream>
#include <string>
#include <vector>

#include "run_program.h"

// What the tests of the command line share: files, the tiny models of tests/data/models, and what a refusal looks like.

namespace tuiqiao::test {

namespace fs = std::filesystem;
using nlohmann::json;

inline constexpr int kBadInput = 1, kUsage = 2, kInterrupted = 130, kOutputClosed = 141;

inline std::string model(const std::string& name) { return TUIQIAO_TEST_DATA "/models/" + name + ".gguf"; }

inline std::string content_of(const fs::path& file) {
  std::ifstream in(file, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

inline std::vector<std::string> names_in(const fs::path& folder) {
  std::vector<std::string> names;
  for (const auto& entry : fs::directory_iterator(folder)) names.push_back(entry.path().filename());
  std::sort(names.begin(), names.end());
  return names;
}

inline std::vector<std::string> lines_of(const std::string& text) {
  std::vector<std::string> lines;
  std::istringstream in(text);
  for (std::string line; std::getline(in, line);) lines.push_back(line);
  return lines;
}

class Cli : public testing::Test {
 protected:
  void SetUp() override {
    fs::remove_all(folder);
    fs::create_directories(folder);
    one = write("one.txt", "The river service opens at seven.");
    two = write("two.txt", "The bridge was closed that night, and the keeper was not there.");
  }
  void TearDown() override { fs::remove_all(folder); }

  std::string path(const std::string& name) const { return folder / name; }
  std::string write(const std::string& name, const std::string& content) const {
    fs::create_directories((folder / name).parent_path());
    std::ofstream(folder / name, std::ios::binary) << content;
    return path(name);
  }
  std::string many(int count) const {
    for (int i = 0; i < count; ++i) write(fmt::format("many{}/{:04}.txt", count, i), fmt::format("station {} open", i));
    return path(fmt::format("many{}", count));
  }
  /// `count` words of the tiny vocabularies.
  static std::string words(std::int64_t count) {
    constexpr const char* kWords[] = {"water", "bridge", "station", "heron", "river", "keeper", "lease", "night."};
    std::string text;
    for (std::int64_t i = 0; i < count; ++i)
      text += fmt::format("{}{}", i == 0 ? "" : " ", kWords[(i * i + i / 3) % 8]);
    return text;
  }

  static Arguments generate(const std::string& name, const Arguments& more) {
    Arguments all{"generate", "-m", model(name), "--threads", "1"};
    if (std::find(more.begin(), more.end(), "-n") == more.end()) all.insert(all.end(), {"-n", "8"});
    all.insert(all.end(), more.begin(), more.end());
    return all;
  }
  /// On two documents.
  Arguments asked(const std::string& name, const Arguments& more = {}) const {
    Arguments all{"--context", one, "--context", two, "Where is the heron?"};
    all.insert(all.end(), more.begin(), more.end());
    return generate(name, all);
  }

  /// One line on standard error that holds all of `parts`, and nothing else but the exit code.
  static void expect_refused(const Arguments& arguments, int code, const std::vector<std::string>& parts,
                             const Surroundings& around = {}) {
    const Result result = run(arguments, around);
    SCOPED_TRACE(fmt::format("{:.300}\n{}", fmt::format("{}", fmt::join(arguments, " ")), result.err));
    EXPECT_EQ(result.code, code);
    EXPECT_EQ(result.signal, 0);
    EXPECT_EQ(result.out, "");
    EXPECT_EQ(std::count(result.err.begin(), result.err.end(), '\n'), 1);
    EXPECT_TRUE(result.err.starts_with("tuiqiao: ") && result.err.ends_with("\n"));
    for (const std::string& part : parts) EXPECT_NE(result.err.find(part), std::string::npos) << part;
  }
  /// JSON lines of a run that works.
  static std::vector<json> answered(Arguments arguments) {
    arguments.push_back("--json");
    const Result result = run(arguments);
    EXPECT_EQ(result.code, 0) << result.err;
    std::vector<json> lines;
    for (const std::string& line : lines_of(result.out)) lines.push_back(json::parse(line));
    return lines;
  }
  static std::vector<int> ids_of(const std::vector<json>& lines) {
    std::vector<int> ids;
    for (const json& line : lines) {
      if (line.contains("id")) ids.push_back(line["id"]);
    }
    return ids;
  }

  const fs::path folder = fs::path(testing::TempDir()) / fmt::format("tuiqiao cli {}", ::getpid());
  std::string one, two;
};

}  // namespace tuiqiao::test
