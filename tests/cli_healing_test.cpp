#include <gtest/gtest.h>

#include <cmath>
#include <map>

#include "cli_fixture.h"
#include "rounds.h"

// Prompts that end inside a token, on the command line: generate --heal and score.

namespace tuiqiao::test {
namespace {

using Healed = Cli;
using Scored = Cli;

TEST_F(Healed, SaysHowInTheSummary) {
  const std::vector<std::pair<std::string, bool>> modes{{"exact", true}, {"one", false}, {"back=3", false}};
  for (const auto& [mode, exact] : modes) {
    const auto lines = answered(asked("tiny-llama", {"--answer-prefix", "It is at the brid", "--heal", mode}));
    const json& healing = lines.back()["summary"]["healing"];
    EXPECT_EQ(healing["mode"], mode);
    for (const char* field : {"tokens_removed", "bytes", "branches", "batches", "chosen_split", "unchecked_mass"})
      EXPECT_TRUE(healing[field].is_number()) << field;
    EXPECT_EQ(healing["prefix_logprob"].is_number(), exact);
    EXPECT_EQ(healing["bits_saved"].is_null(), !exact);
  }
  EXPECT_TRUE(answered(asked("tiny-llama", {"--answer-prefix", "It is at the brid", "--heal", "off"}))
                  .back()["summary"]["healing"]
                  .is_null());
  EXPECT_TRUE(answered(asked("tiny-llama")).back()["summary"]["healing"].is_null());
}

TEST_F(Healed, HealsByDefaultAndTheSameForTheSameSeed) {
  const auto text = [&](const Arguments& more) {
    Arguments all{"--answer-prefix", "It is at the brid", "--temp", "0.9"};
    all.insert(all.end(), more.begin(), more.end());
    const Result result = run(asked("tiny-bpe", all));
    EXPECT_EQ(result.code, 0) << result.err;
    EXPECT_TRUE(result.out.starts_with("It is at the brid")) << result.out;
    return result.out;
  };
  EXPECT_EQ(text({}), text({"--heal", "exact"}));
  EXPECT_EQ(text({"--seed", "7"}), text({"--seed", "7"}));
  EXPECT_NE(text({"--seed", "7"}), text({"--seed", "8"}));
}

TEST_F(Healed, GoesOnFromTheQuestionItself) {
  const std::string tiny = std::string(TUIQIAO_TEST_DATA) + "/models/tiny-llama.gguf";
  const auto healing = [&](const std::string& text) {
    const auto lines = answered({"generate", "-m", tiny, "--template", "none", "--json", "-n", "3", text});
    return lines.back()["summary"]["healing"];
  };
  EXPECT_EQ(healing("It is at the brid")["mode"], "exact");
  EXPECT_GT(healing("It is at the brid")["branches"], 0);
  EXPECT_EQ(healing(" two spaces  ")["mode"], "exact");
  // Its first token too: what comes before is read so that it has a row.
  EXPECT_GT(healing("brid")["branches"], 1);
  EXPECT_LT(healing("brid")["prefix_logprob"], 0);
  const auto lines =
      answered({"generate", "-m", tiny, "--template", "none", "--json", "-n", "1", "--unchecked", "0.0001", "the br"});
  EXPECT_LE(lines.back()["summary"]["healing"]["unchecked_mass"], 0.0001);
}

TEST_F(Healed, TakesAnyBytesAtTheEnd) {
  int combination = 0;
  for (const std::string model : {"tiny-llama", "tiny-bpe", "tiny-gemma3"}) {
    const std::string tiny = std::string(TUIQIAO_TEST_DATA) + "/models/" + model + ".gguf";
    for (const std::string end : {"a \xE6\x9C", "\xFF\xFE", "caf\xE9 noir", "\xF0\x9F\x98"}) {
      for (const std::string mode : {"exact", "one", "back=2", "off"}) {
        if (++combination % rounds(1, 3) != 0) continue;
        SCOPED_TRACE(model + " " + mode + " " + testing::PrintToString(end));
        const Arguments common{"-m", tiny, "--json", "-n", "3", "--heal", mode};
        for (Arguments arguments : {Arguments{"generate", end, "--template", "none"},
                                    Arguments{"generate", "Where?", "--answer-prefix", end}}) {
          arguments.insert(arguments.end(), common.begin(), common.end());
          const Result result = run(arguments);
          EXPECT_EQ(result.code, 0) << result.err;
          EXPECT_TRUE(json::parse(lines_of(result.out).back()).contains("summary"));
        }
      }
    }
  }
}

TEST_F(Healed, RefusesOtherModes) {
  for (const std::string mode : {"never", "back", "back=0", "back=-1", "back=2x", ""})
    expect_refused(asked("tiny-llama", {"--heal", mode}), kUsage, {"--heal"});
}

/// Every mode's line, by name.
std::map<std::string, json> scores(const Arguments& arguments) {
  const Result result = run(arguments);
  EXPECT_EQ(result.code, 0) << result.err;
  std::map<std::string, json> found;
  for (const std::string& line : lines_of(result.out)) {
    const json parsed = json::parse(line);
    found[parsed["mode"]] = parsed;
  }
  return found;
}

TEST_F(Scored, WeighsEveryMode) {
  for (const std::string name : {"tiny-llama", "tiny-gemma3", "tiny-bpe", "tiny-mamba"}) {
    const Arguments arguments{"score",
                              "-m",
                              model(name),
                              "--prompt-file",
                              write("x", "the brid"),
                              "--continuation-file",
                              write("y", "ge was"),
                              "--unchecked",
                              "0.1",
                              "--threads",
                              "1",
                              "--json"};
    const auto found = scores(arguments);
    ASSERT_EQ(found.size(), 4U) << name;
    for (const auto& [mode, score] : found) {
      EXPECT_EQ(score["bytes"], 6);
      EXPECT_LT(score["nats"], 0);
      EXPECT_LE(score["nats"], score["nats_at_most"]);
      // An untrained model spells "bridge" in so many ways that a search among them ends before.
      EXPECT_LE(score["unchecked_mass"], mode == "back=2" ? 1 : 0.1 / 0.9) << mode;
      EXPECT_NEAR(score["bits"].get<double>(), -score["nats"].get<double>() / std::log(2.0), 1e-9);
      EXPECT_NEAR(score["bits_per_byte"].get<double>(), score["bits"].get<double>() / 6, 1e-9);
    }
  }
}

TEST_F(Scored, TakesAnyBytesAndSomeModes) {
  const auto found = scores({"score", "-m", model("tiny-llama"), "--prompt-file", write("x", "a \xE6\x9C"),
                             "--continuation-file", write("y", "\x8D\xFF"), "--heal", "exact,back=3", "--json"});
  ASSERT_EQ(found.size(), 2U);
  EXPECT_TRUE(found.contains("exact") && found.contains("back=3"));
  const Result table = run(
      {"score", "-m", model("tiny-llama"), "--prompt-file", path("x"), "--continuation-file", one, "--heal", "exact"});
  EXPECT_EQ(table.code, 0) << table.err;
  EXPECT_NE(table.out.find("bits/byte"), std::string::npos);
}

TEST_F(Scored, KeepsTheBoundThatWasAskedFor) {
  const std::string x = write("x", "the bri"), y = write("y", "dge and the river");
  for (const double unchecked : {0.5, 0.01}) {
    const Result result =
        run({"score", "-m", std::string(TUIQIAO_TEST_DATA) + "/models/tiny-llama.gguf", "--prompt-file", x,
             "--continuation-file", y, "--heal", "exact", "--unchecked", std::to_string(unchecked), "--json"});
    ASSERT_EQ(result.code, 0) << result.err;
    EXPECT_LE(json::parse(result.out)["unchecked_mass"], unchecked);
  }
}

TEST_F(Scored, RefusesWhatItCannotWeigh) {
  expect_refused({"score", "--prompt-file", "-", "--continuation-file", "-"}, kUsage, {"only one can be '-'"});
  expect_refused({"score", "--prompt-file", folder.string(), "--continuation-file", "-"}, kBadInput, {"is a folder"});
  const std::string x = write("x", "the brid"), empty = write("empty", "");
  const auto with = [&](const Arguments& more) {
    Arguments all{"score", "-m", model("tiny-llama")};
    all.insert(all.end(), more.begin(), more.end());
    return all;
  };
  expect_refused(with({"--prompt-file", x}), kUsage, {"--continuation-file"});
  expect_refused(with({"--prompt-file", x, "--continuation-file", empty}), kBadInput, {"is empty"});
  expect_refused(with({"--prompt-file", path("none"), "--continuation-file", one}), kBadInput, {"none"});
  expect_refused(with({"--prompt-file", x, "--continuation-file", one, "--heal", "two"}), kUsage, {"two"});
  expect_refused(with({"--prompt-file", x, "--continuation-file", one, "--unchecked", "2"}), kUsage, {"--unchecked"});
  expect_refused(with({"--prompt-file", write("long", words(200000)), "--continuation-file", one}), kBadInput,
                 {"window"});
}

}  // namespace
}  // namespace tuiqiao::test
