#include <gtest/gtest.h>

#include <cstdlib>

#include "cli_fixture.h"

namespace tuiqiao::test {
namespace {

constexpr const char* kIds[] = {"audit",   "answers",    "healing", "samples", "skips",
                                "latents", "likelihood", "topk",    "minsum"};

class DemoCli : public Cli {
 protected:
  Result demo(const Arguments& more) const {
    // The documents, but no image model: its sections would take minutes.
    const std::string data = path("data");
    if (!fs::exists(data)) {
      fs::create_directory(data);
      fs::create_directory_symlink(std::string(TUIQIAO_TEST_DATA) + "/../../examples", data + "/examples");
    }
    Arguments all{"demo", "--out", path("demo"), "--images", path("none"), "--data", data};
    all.insert(all.end(), more.begin(), more.end());
    return run(all);
  }
  std::string page() const { return content_of(path("demo/index.html")); }
  /// A section of the page.
  std::string section(const std::string& id) const {
    const std::string all = page();
    const std::size_t begin = all.find("<section id=\"" + id + "\">");
    if (begin == std::string::npos) return {};
    const std::size_t end = all.find("<section id=", begin + 1);
    return all.substr(begin, end == std::string::npos ? end : end - begin);
  }
};

TEST_F(DemoCli, TakesAFolderAsItIsSeenFromHere) {
  const fs::path out = fs::relative(path("relative"));
  const Result result =
      run({"demo", "--out", out.string(), "--model", path("none"), "--images", path("none"), "--data", path("none")});
  EXPECT_EQ(result.code, 0) << result.err;
  EXPECT_TRUE(fs::exists(out / "raw" / "topk.svg"));
  EXPECT_NE(content_of(out / "index.html").find("data:image/svg+xml;base64,"), std::string::npos);
}

TEST_F(DemoCli, SaysWhatIsMissingAndGoesOn) {
  const Result result = demo({"--model", path("none.gguf")});
  ASSERT_EQ(result.code, 0) << result.err;
  EXPECT_EQ(result.out, path("demo/index.html") + "\n");
  for (const char* id : kIds) {
    EXPECT_NE(section(id), "") << id;
    const bool runs = std::string_view(id) == "topk" || std::string_view(id) == "minsum";
    EXPECT_EQ(section(id).find("Left out: "), runs ? std::string::npos : section(id).find("Left out: ")) << id;
    if (!runs) {
      EXPECT_NE(section(id).find("Left out: "), std::string::npos) << id;
    }
  }
  EXPECT_NE(
      section("minsum").find(
          R"(<td>130</td><td data-label="a">10</td><td data-label="b">13</td><td data-label="c">0</td><td data-label="sum">23</td>)"),
      std::string::npos);
  EXPECT_NE(section("topk").find("data:image/svg+xml;base64,"), std::string::npos);
  EXPECT_NE(section("topk").find("--taus 2,0.5,0.1"), std::string::npos);
  // One file that asks for nothing else.
  EXPECT_EQ(page().find("src=\"http"), std::string::npos);
  EXPECT_EQ(page().find("<script"), std::string::npos);
  EXPECT_EQ(page().find("<link"), std::string::npos);
}

TEST_F(DemoCli, KeepsWhatAnEarlierRunFinished) {
  ASSERT_EQ(demo({"--model", path("none.gguf")}).code, 0);
  const auto kept = fs::last_write_time(path("demo/raw/minsum.jsonl"));
  ASSERT_EQ(demo({"--model", path("none.gguf")}).code, 0);
  EXPECT_EQ(fs::last_write_time(path("demo/raw/minsum.jsonl")), kept);
  ASSERT_EQ(demo({"--model", path("none.gguf"), "--again"}).code, 0);
  EXPECT_NE(fs::last_write_time(path("demo/raw/minsum.jsonl")), kept);
}

TEST_F(DemoCli, TellsWhatWentWrongAndFails) {
#ifndef TUIQIAO_HAS_TEXT
  GTEST_SKIP() << "without the text engine";
#endif
  const Result result = demo({"--model", write("bad.gguf", "GGUF and no more")});
  EXPECT_EQ(result.code, kBadInput);
  EXPECT_NE(section("audit").find("bad.gguf"), std::string::npos) << section("audit");
  EXPECT_NE(section("minsum").find("<td>130</td>"), std::string::npos);
}

TEST_F(DemoCli, NamesAFolderThatCannotBe) {
  const Result result = run({"demo", "--out", one + "/demo"});
  EXPECT_EQ(result.code, kBadInput);
  EXPECT_NE(result.err.find("one.txt/demo"), std::string::npos) << result.err;
}

TEST_F(DemoCli, IsReadByABrowserWithoutAWord) {
  if (std::system("command -v chromium >/dev/null") != 0) GTEST_SKIP() << "no chromium here";
  ASSERT_EQ(demo({"--model", path("none.gguf")}).code, 0);
  const std::string command = fmt::format(
      "chromium --headless --no-sandbox --disable-gpu --enable-logging=stderr --dump-dom 'file://{}' >'{}' 2>'{}'",
      path("demo/index.html"), path("dom"), path("log"));
  ASSERT_EQ(std::system(command.c_str()), 0) << content_of(path("log"));
  EXPECT_EQ(content_of(path("log")).find("CONSOLE"), std::string::npos) << content_of(path("log"));
  for (const char* id : kIds) EXPECT_NE(content_of(path("dom")).find(fmt::format("id=\"{}\"", id)), std::string::npos);
}

}  // namespace
}  // namespace tuiqiao::test
