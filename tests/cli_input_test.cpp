#include <gtest/gtest.h>

#include <regex>

#include "cli_fixture.h"

// What the command line takes and what it refuses: models, documents, options, questions.

namespace tuiqiao::test {
namespace {

TEST_F(Cli, RefusesBadModels) {
  const std::string good = content_of(model("tiny-llama"));
  const auto refused = [&](const std::string& file) {
    expect_refused({"generate", "Q", "-m", file}, kBadInput, {fs::path(file).filename()});
  };
  refused(path("absent.gguf"));
  refused(folder);
  refused(one);
  for (const std::size_t size : {std::size_t{0}, std::size_t{3}, std::size_t{100}, good.size() / 2, good.size() - 1}) {
    refused(write(fmt::format("cut at {}.gguf", size), good.substr(0, size)));
  }
  for (const std::size_t at : {4U, 8U, 15U, 16U, 23U, 24U, 31U}) {
    std::string damaged = good;
    damaged[at] = static_cast<char>(0x7F);
    refused(write(fmt::format("damaged at {}.gguf", at), damaged));
  }
  expect_refused({"generate", "Q"}, kBadInput, {"no model", "TUIQIAO_MODEL", "scripts/bootstrap"});
  expect_refused({"generate", "Q", "-m", path("a\nb\x1b[31m")}, kBadInput, {"a\\x0Ab\\x1B[31m"});
  expect_refused({"generate", "Q", "-m", model("tiny-llama"), "--rpc", "127.0.0.1:1"}, kBadInput, {"127.0.0.1:1"});
}

TEST_F(Cli, RefusesBadDocuments) {
  const auto refused = [&](const std::string& file, const std::string& problem) {
    expect_refused(generate("tiny-llama", {"Q", "--context", file}), kBadInput, {fs::path(file).filename(), problem});
  };
  refused(write("empty.txt", ""), "empty");
  refused(write("blank.txt", " \n\t\n"), "white space");
  refused(write("latin1.txt", "caf\xE9 noir"), "not UTF-8 at byte 3");
  refused(path("absent.txt"), "No such file");
  refused(path(std::string(300, 'x')), "name too long");
  fs::create_directories(folder / "nothing");
  refused(path("nothing"), "no files");
  write("mixed/a.txt", "good");
  write("mixed/b.txt", "\xFF");
  expect_refused(generate("tiny-llama", {"Q", "--context", path("mixed")}), kBadInput, {"b.txt", "not UTF-8"});
}

TEST_F(Cli, TakesAllContextsThatThereCanBe) {
  for (const char* name : {"tiny-mamba", "tiny-llama"}) {
    const auto lines = answered(generate(name, {"-n", "2", "--context", many(255), "Where?"}));
    ASSERT_FALSE(lines.empty());
    EXPECT_EQ(lines.back()["summary"]["contexts"].size(), 255U);
  }
  for (const int count : {256, 1000}) {
    expect_refused(generate("tiny-mamba", {"--context", many(count), "Where?"}), kBadInput,
                   {fmt::format("{} contexts", count), "255"});
  }
  answered(generate("tiny-mamba", {"-n", "2", "--context", many(127), "Where?", "Who?"}));
  expect_refused(generate("tiny-mamba", {"--context", many(128), "Where?", "Who?"}), kBadInput,
                 {"128 contexts", "127", "several questions"});
  write("long.txt", words(16000));  // splits: the note about that is not a second line
  expect_refused(generate("tiny-llama", {"-n", "100", "--ctx-size", "180", "--context", path("long.txt"), "Where?"}),
                 kBadInput, {"contexts; at most 255"});
}

TEST_F(Cli, RefusesWindowsThatAreTooSmall) {
  expect_refused(asked("tiny-llama", {"--ctx-size", "40"}), kBadInput, {"window of 40", "question"});
  expect_refused(asked("tiny-llama", {"-n", "500"}), kBadInput, {"window of 512", "500"});
  expect_refused(generate("tiny-llama", {words(600)}), kBadInput, {"window of 512", "question"});
  const std::string titled = write("titled.json", json{{{"title", words(100)}, {"text", words(50)}}}.dump());
  expect_refused(generate("tiny-bpe", {"--contexts", titled, "--ctx-size", "160", "Q"}), kBadInput, {"title"});
}

TEST_F(Cli, RefusesJsonOfWrongShape) {
  const auto refused = [&](const char* option, const std::string& content, const std::string& problem) {
    const std::string file = write("shape.json", content);
    expect_refused(generate("tiny-llama", {"Q", option, file}), kBadInput, {"shape.json", problem});
  };
  refused("--contexts", "", "empty");
  refused("--contexts", "[", "byte");
  refused("--contexts", "{}", "must be an array");
  refused("--contexts", "[]", "empty array");
  refused("--contexts", "[1]", "element 1");
  refused("--contexts", R"([{"text": "a"}, {"txt": "b"}])", "element 2");
  refused("--contexts", R"([{"title": "a"}])", "no `text`");
  refused("--contexts", R"([{"text": "a", "score": "high"}])", "`score`");
  refused("--contexts", R"([{"text": "a", "id": "x\ny"}])", "control character");
  refused("--contexts", "[\"\xFF\"]", "not UTF-8");
  refused("--questions", R"([{"text": "a"}])", "element 1");
  refused("--questions", R"([""])", "empty");
}

TEST_F(Cli, RefusesScoresOfSomeDocumentsOnly) {
  const std::string file = write("some.json", R"([{"id": "x", "text": "a", "score": 1}, {"id": "y", "text": "b"}])");
  expect_refused(generate("tiny-llama", {"--contexts", file, "Q"}), kBadInput, {"'y' has no score", "'x'"});
}

TEST_F(Cli, RefusesWrongOptions) {
  const std::vector<Arguments> wrong{{"--beta", "-2"},
                                     {"--beta", "nan"},
                                     {"--beta", "much"},
                                     {"--beta", ""},
                                     {"--top-p", "0"},
                                     {"--top-p", "1.1"},
                                     {"--eta", "inf"},
                                     {"--gamma", "x"},
                                     {"--pool", "median"},
                                     {"--kv", "paged"},
                                     {"--threads", "-1"},
                                     {"--threads", "513"},
                                     {"--threads", "1.5"},
                                     {"--ctx-size", "-5"},
                                     {"-n", "0"},
                                     {"--overlap", "-1"},
                                     {"--temp", "-1"},
                                     {"--temp", "nan"},
                                     {"--seed", "-1"},
                                     {"--seed", "x"},
                                     {"--seed", "18446744073709551616"},
                                     {"--abstain-entropy", "2"},
                                     {"--abstain", "--abstain-divergence", "2"},
                                     {"--cache-limit", "5GB"},
                                     {"--html", ""},
                                     {"--cache", ""},
                                     {"--contexts", ""},
                                     {"--questions", ""},
                                     {"--template", ""},
                                     {"--model", ""},
                                     {"--context", ""},
                                     {"--weights", "1,2"},
                                     {"--pool", "weights"},
                                     {"--no-such-option"},
                                     {"--json=maybe"}};
  for (const Arguments& options : wrong) {
    const std::string named = options.front() == "--abstain" ? "--abstain-divergence"
                              : options.front() == "-n"      ? "--max-tokens"
                                                             : options.front();
    expect_refused(asked("tiny-llama", options), kUsage, {named.substr(0, named.find('='))});
  }
  for (const char* weights : {"1", "1,2,3"}) {
    expect_refused(asked("tiny-llama", {"--pool", "weights", "--weights", weights}), kUsage,
                   {"weights for 2 contexts"});
  }
  expect_refused(asked("tiny-llama", {"--pool", "weights", "--weights", "1,x"}), kUsage, {"--weights"});
  expect_refused(asked("tiny-llama", {"--pool", "weights", "--weights", "0,0"}), kUsage, {"weights", "0"});
  expect_refused(generate("tiny-llama", {"--temp", "-1", "--context", path("absent.txt"), "Q"}), kUsage, {"--temp"});
  expect_refused(
      generate("tiny-llama", {"--pool", "weights", "--weights", "0,0", "--context", path("absent.txt"), "Q"}), kUsage,
      {"weights"});
  expect_refused(asked("tiny-llama", {"--cache", path("c"), "--cache-limit", "5XB"}), kUsage, {"--cache-limit"});
  expect_refused(asked("tiny-llama", {"--template", "nothing"}), kBadInput, {"--template nothing", "chatml"});
  expect_refused(asked("tiny-llama", {"--template", one}), kBadInput, {"one.txt", "{document}"});
  expect_refused(asked("tiny-llama", {"--cache", one}), kBadInput, {"one.txt"});
  answered(asked("tiny-llama", {"--pool", "weights", "--weights", "-1,2", "--beta", "-0.5"}));
}

TEST_F(Cli, RefusesBadQuestions) {
  const Arguments none{"generate", "-m", model("tiny-llama"), "--context", one};
  const auto with = [&](const Arguments& questions) {
    Arguments all = none;
    all.insert(all.end(), questions.begin(), questions.end());
    return all;
  };
  expect_refused(none, kUsage, {"no question"});
  expect_refused(with({""}), kBadInput, {"question", "empty"});
  expect_refused(with({" \n"}), kBadInput, {"question", "white space"});
  expect_refused(with({"caf\xE9?"}), kBadInput, {"question", "not UTF-8 at byte 3"});
  expect_refused(with({"\xFF", "--answer-prefix", "It"}), kBadInput, {"question", "not UTF-8 at byte 0"});
  expect_refused(with({"\xFF", "--answer-prefix", "It", "--template", "none"}), kBadInput, {"question", "not UTF-8"});
  expect_refused(with({"-"}), kBadInput, {"standard input", "empty"});
  expect_refused(with({"-"}), kBadInput, {"question", "not UTF-8"}, {.input = "\xC3\x28\n"});
  expect_refused(with({"-", "-"}), kUsage, {"'-' stands twice"});
  expect_refused(with({two}), kUsage, {"two.txt", "--context"});  // --context *.txt
}

TEST_F(Cli, ReadsAQuestionFromStandardInput) {
  const Arguments arguments = generate("tiny-llama", {"--context", one, "--json", "-"});
  const Result result = run(arguments, {.input = "Where is the bridge?\r\n"});
  ASSERT_EQ(result.code, 0) << result.err;
  const json summary = json::parse(lines_of(result.out).back())["summary"];
  EXPECT_EQ(summary["question"], "Where is the bridge?");
  EXPECT_EQ(ids_of(answered(generate("tiny-llama", {"--context", one, "Where is the bridge?"}))).size(),
            summary["tokens"].get<std::size_t>());
}

TEST_F(Cli, KnowsItsCommands) {
  expect_refused({}, kUsage, {"no command"}, {});
  expect_refused({"frobnicate"}, kUsage, {"unknown command 'frobnicate'"});
  expect_refused({"--frobnicate"}, kUsage, {"unknown option '--frobnicate'"});
  const Result help = run({"--help"});
  EXPECT_EQ(help.code, 0);
  for (const char* part : {"generate", "Exit codes: 0 done, 1 input", "130"}) {
    EXPECT_NE(help.out.find(part), std::string::npos) << part;
  }
  const Result generate_help = run({"generate", "--help"});
  EXPECT_EQ(generate_help.code, 0);
  for (const char* part :
       {"Examples:", "tuiqiao generate --context notes/ \"When", "in tokens", "Nats", "bits", "nats", "[128]", "[0.25]",
        "[0.95]", "[0.1]", "[min_entropy]", "[auto]", "--cache-limit SIZE", "500MB", "'-' reads it"}) {
    EXPECT_NE(generate_help.out.find(part), std::string::npos) << part;
  }
  EXPECT_TRUE(std::regex_match(run({"--version"}).out, std::regex("tuiqiao [0-9.]+\n")));
}

}  // namespace
}  // namespace tuiqiao::test
