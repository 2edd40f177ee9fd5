#include "cli_fixture.h"

// The audit of GGUF files, whose words, norm and head come from one file.

namespace tuiqiao::test {
namespace {

using AuditModelCli = Cli;

TEST_F(AuditModelCli, JoinsVerdictsAndWords) {
  for (const char* name : {"tiny-llama", "tiny-gemma3", "tiny-bpe", "tiny-mamba"}) {
    const Result result =
        run({"audit", model(name), "--json", "--out", path(name + std::string(".jsonl")), "--mask", path("mask.json")});
    ASSERT_EQ(result.code, 0) << result.err;
    std::vector<json> tokens;
    json header, summary;
    for (const std::string& line : lines_of(result.out)) {
      const json object = json::parse(line);
      if (object.contains("verdict")) tokens.push_back(object);
      if (object.contains("audit")) header = object;
      if (object.contains("summary")) summary = object["summary"];
    }
    ASSERT_EQ(header["classes"], tokens.size()) << name;
    EXPECT_EQ(header["norm"], "rms");
    std::size_t ok = 0, undecodeable = 0;
    std::vector<json> mask;
    for (std::size_t i = 0; i < tokens.size(); ++i) {
      EXPECT_EQ(tokens[i]["i"], i);
      EXPECT_TRUE(tokens[i]["token"].is_string());
      EXPECT_GT(tokens[i]["length"].get<double>(), 0);
      ok += tokens[i]["category"] == "OK";
      undecodeable += tokens[i]["category"] == "UNDECODEABLE";
      const bool loses = tokens[i]["verdict"] == "unargmaxable";
      if (tokens[i].contains("must_not_win") && !loses) mask.push_back({i, false});
    }
    EXPECT_GT(ok, 200U) << name;
    EXPECT_GE(undecodeable, 128U) << name;  // the upper half of the bytes at least
    EXPECT_EQ(json::parse(content_of(path("mask.json"))), json(mask)) << name;
    EXPECT_EQ(summary["must_not_win_but_can"], mask.size());
    const Result verified = run({"audit", model(name), "--verify", path(name + std::string(".jsonl")), "--json"});
    EXPECT_EQ(verified.code, 0) << verified.err;
    EXPECT_TRUE(json::parse(verified.out)["faults"].empty()) << name;
  }
}

TEST_F(AuditModelCli, KnowsPadding) {
  const Result result = run({"audit", model("tiny-llama"), "--ids", "470-475", "--words", "472", "--json"});
  ASSERT_EQ(result.code, 0) << result.err;
  std::vector<std::string> categories;
  for (const std::string& line : lines_of(result.out)) {
    const json object = json::parse(line);
    if (object.contains("verdict")) categories.push_back(object["category"]);
  }
  ASSERT_EQ(categories.size(), 6U);
  EXPECT_NE(categories[1], "PADDING");
  EXPECT_EQ(categories[2], "PADDING");
  EXPECT_EQ(categories[5], "PADDING");
}

TEST_F(AuditModelCli, RefusesDamagedModels) {
  const std::string whole = content_of(model("tiny-llama"));
  expect_refused({"audit", write("cut.gguf", whole.substr(0, whole.size() / 2))}, kBadInput, {"cut.gguf"});
  expect_refused({"audit", write("short.gguf", whole.substr(0, 20))}, kBadInput, {"short.gguf"});
  expect_refused({"audit", model("tiny-llama"), "--tensor", "absent.weight"}, kBadInput,
                 {"tiny-llama.gguf", "absent.weight"});
  expect_refused({"audit", model("tiny-llama"), "--tensor", "output_norm.weight"}, kBadInput, {"tiny-llama.gguf"});
}

}  // namespace
}  // namespace tuiqiao::test
