#include <gtest/gtest.h>

#include <regex>

#include "cli_fixture.h"
#include "text/utf8.h"

// What the command line does with good input: answers, files, interruption, terminals.

namespace tuiqiao::test {
namespace {

// ------------------------------------------------------------------------------------------------------- interruption

class Interruption : public Cli {
 protected:
  static void expect_interrupted(const Result& result) {
    EXPECT_EQ(result.code, kInterrupted);
    EXPECT_EQ(result.err, "tuiqiao: interrupted\n");
  }
  /// Tokens without end: this model repeats itself.
  Arguments endless(const Arguments& more) const {
    Arguments all{"generate",   "-m",     model("tiny-gemma3"), "--threads", "1",           "-n", "90000",
                  "--ctx-size", "100000", "--context",          one,         "Where is it?"};
    all.insert(all.end(), more.begin(), more.end());
    return all;
  }
};

TEST_F(Interruption, WhileDocumentsAreRead) {
  for (int i = 0; i < 60; ++i) write(fmt::format("docs/{:02}.txt", i), words(380) + fmt::format(" {}", i));
  const std::string cache = path("states");
  const Arguments arguments = generate("tiny-llama", {"--context", path("docs"), "--cache", cache, "Where?"});
  const Result result = run(arguments, {.interrupt_when = [&](const std::string&) {
                              std::error_code none;
                              return fs::is_directory(cache, none) && names_in(cache).size() > 2;
                            }});
  expect_interrupted(result);
  EXPECT_EQ(result.out, "");
  const auto kept = names_in(cache);
  EXPECT_LT(kept.size(), 60U);
  for (const std::string& name : kept) EXPECT_TRUE(name.ends_with(".tuiqiao-state")) << name;
  // What was kept is whole: the answer is the one without it.
  const Result resumed = run(arguments);
  const Result fresh = run(generate("tiny-llama", {"--context", path("docs"), "Where?"}));
  EXPECT_EQ(resumed.code, 0);
  EXPECT_EQ(resumed.out, fresh.out);
}

TEST_F(Interruption, InTheMiddleOfAnAnswer) {
  const std::string page = write("page.html", "old");
  const auto before = names_in(folder);
  for (const bool lines : {false, true}) {
    Arguments arguments = endless({"--html", page});
    if (lines) arguments.push_back("--json");
    const Result result = run(arguments, {.interrupt_when = [](const std::string& out) { return out.size() > 20; }});
    expect_interrupted(result);
    EXPECT_TRUE(result.out.ends_with("\n"));
    EXPECT_EQ(result.out.find("summary"), std::string::npos);
    if (lines) {
      for (const std::string& line : lines_of(result.out)) EXPECT_TRUE(json::accept(line)) << line;
    }
  }
  EXPECT_EQ(content_of(page), "old");
  EXPECT_EQ(names_in(folder), before);
}

TEST_F(Interruption, WhileItWaitsForTheQuestion) {
  const auto start = Clock::now();
  const auto later = [&](const std::string&) { return Clock::now() - start > std::chrono::milliseconds(500); };
  expect_interrupted(run(generate("tiny-llama", {"-"}), {.keep_input_open = true, .interrupt_when = later}));
}

// ------------------------------------------------------------------------------------------------------------- output

TEST_F(Cli, WritesJsonLines) {
  // At this temperature byte tokens come often, and characters are cut, now and then at the end.
  int cut_at_the_end = 0;
  for (int seed = 0; seed < 40; ++seed) {
    const Arguments arguments = asked("tiny-llama", {"-n", "6", "--temp", "9", "--seed", std::to_string(seed)});
    const auto lines = answered(arguments);
    ASSERT_FALSE(lines.empty());
    std::string text, bytes;
    for (std::size_t i = 0; i + 1 < lines.size(); ++i) {
      for (const char* key :
           {"id", "text", "bytes", "logprob", "context", "context_index", "entropy_nats", "switched"}) {
        EXPECT_TRUE(lines[i].contains(key)) << key;
      }
      text += lines[i]["text"].get<std::string>();
      for (const json& byte : lines[i]["bytes"]) bytes.push_back(static_cast<char>(byte.get<int>()));
    }
    ASSERT_TRUE(lines.back().contains("summary"));
    const json& summary = lines.back()["summary"];
    EXPECT_EQ(summary["answer"], text);
    EXPECT_EQ(summary["tokens"], lines.size() - 1);
    EXPECT_GT(summary["peak_rss_bytes"], 1 << 20);
    if (unfinished_bytes(bytes) > 0) ++cut_at_the_end;
    if (seed % 8 == 0) {
      EXPECT_EQ(run(arguments).out, bytes + "\n");
    }
  }
  EXPECT_GT(cut_at_the_end, 0);
}

TEST_F(Cli, TellsPartsAndDocumentsOfOneNameApart) {
  write("a/long.txt", words(300));
  write("b/long.txt", words(300));
  const auto lines =
      answered(generate("tiny-llama", {"--context", path("a/long.txt"), "--context", path("b/long.txt"), "--ctx-size",
                                       "300", "--pool", "max", "--temp", "1", "-n", "40", "Where?"}));
  const json contexts = lines.back()["summary"]["contexts"];
  ASSERT_GT(contexts.size(), 3U);
  std::vector<int> decided(contexts.size());
  for (const json& line : lines) {
    if (!line.contains("id")) continue;
    ++decided.at(line["context_index"]);
    EXPECT_EQ(line["context"], contexts[line["context_index"].get<std::size_t>()]["id"]);
  }
  for (std::size_t i = 0; i < contexts.size(); ++i) {
    EXPECT_EQ(contexts[i]["index"], i);
    EXPECT_EQ(contexts[i]["id"], "long.txt");
    EXPECT_EQ(contexts[i]["tokens"], decided[i]);
  }
  EXPECT_EQ(contexts[1]["part"], 2);
}

TEST_F(Cli, AnswersSeveralQuestionsInTurn) {
  const std::string file = write("questions.json", R"(["Who?", {"question": "When?", "prefix": "It was"}])");
  const auto lines = answered(asked("tiny-bpe", {"--questions", file}));
  std::vector<std::string> questions;
  for (const json& line : lines) {
    if (line.contains("summary")) questions.push_back(line["summary"]["question"]);
  }
  EXPECT_EQ(questions, (std::vector<std::string>{"Where is the heron?", "Who?", "When?"}));
  const Result text = run(asked("tiny-bpe", {"--questions", file}));
  EXPECT_NE(text.out.find("When?\nIt was"), std::string::npos) << text.out;
}

TEST_F(Cli, WritesPages) {
  const std::string page = write("page.html", "old");
  const auto before = names_in(folder);
  const Result result = run(asked("tiny-llama", {"--html", page}));
  EXPECT_EQ(result.code, 0);
  const std::string html = content_of(page);
  EXPECT_TRUE(html.starts_with("<!doctype html>") && html.ends_with("</html>\n"));
  EXPECT_NE(html.find("Answers from 2 documents"), std::string::npos);
  EXPECT_EQ(names_in(folder), before);
  EXPECT_NE(result.err.find("tuiqiao: wrote " + page), std::string::npos);
  for (const std::string& target : {path("nowhere/page.html"), one + "/page.html", folder.string()}) {
    expect_refused(asked("tiny-llama", {"--html", target}), kBadInput, {"cannot write " + target});
  }
}

TEST_F(Cli, GivesTheSameBytesFromTheCache) {
  write("long/a.txt", words(700));
  write("long/b.txt", words(90));
  for (const char* name : {"tiny-llama", "tiny-gemma3", "tiny-mamba", "tiny-bpe"}) {
    for (const char* kv : {"auto", "unified", "streams"}) {
      const Arguments arguments = generate(name, {"--context", path("long"), "--kv", kv, "--ctx-size", "900", "Where?",
                                                  "--cache", path(fmt::format("states-{}-{}", name, kv)), "--json"});
      const auto tokens = [&] {
        const Result result = run(arguments);
        EXPECT_EQ(result.code, 0) << result.err;
        return result.out.substr(0, result.out.find("{\"summary\""));  // which holds times
      };
      const std::string first = tokens();
      EXPECT_EQ(first, tokens()) << name << " " << kv;
      EXPECT_FALSE(first.empty());
    }
  }
  const Arguments text = asked("tiny-gemma3", {"--cache", path("states")});
  const std::string first = run(text).out;
  const Result again = run(text);
  EXPECT_EQ(first, again.out);
  EXPECT_TRUE(std::regex_search(again.err, std::regex("cache: 3 loaded \\([0-9.]+ KiB\\), 0 not there, 0 damaged, 0 "
                                                      "evicted, 0 B saved\n")))
      << again.err;
  EXPECT_EQ(first, run(asked("tiny-gemma3")).out);
  const json cache = answered(asked("tiny-gemma3", {"--cache", path("states")})).back()["summary"]["cache"];
  EXPECT_EQ(cache["hits"], 3);
  EXPECT_EQ(cache["saved_bytes"], 0);
}

TEST_F(Cli, AnswersWhenTheCacheIsFull) {
  const Arguments arguments = asked("tiny-llama", {"--cache", path("states")});
  const Result full = run(arguments, {.file_limit = 100});
  EXPECT_EQ(full.code, 0) << full.err;
  EXPECT_EQ(full.out, run(asked("tiny-llama")).out);
  const std::string told = "cannot be written: File too large; going on without";
  const auto at = full.err.find(told);
  EXPECT_NE(at, std::string::npos) << full.err;
  EXPECT_EQ(full.err.find(told, at + 1), std::string::npos) << full.err;
  EXPECT_TRUE(names_in(path("states")).empty());
}

TEST_F(Cli, AnswersAlikeInEveryLayout) {
  for (const char* name : {"tiny-llama", "tiny-gemma3", "tiny-mamba", "tiny-bpe"}) {
    const auto ids = [&](const char* kv) { return ids_of(answered(asked(name, {"Who?", "When?", "--kv", kv}))); };
    const auto unified = ids("unified");
    EXPECT_GT(unified.size(), 2U);
    EXPECT_EQ(ids("streams"), unified) << name;
    EXPECT_EQ(ids("auto"), unified) << name;
  }
}

TEST_F(Cli, DrawsBySeed) {
  const auto drawn = [&](const char* seed) { return run(asked("tiny-llama", {"--temp", "1", "--seed", seed})).out; };
  EXPECT_EQ(drawn("7"), drawn("7"));
  EXPECT_NE(drawn("7"), drawn("8"));
  EXPECT_EQ(run(asked("tiny-llama")).out, run(asked("tiny-llama", {"--seed", "8"})).out);
}

TEST_F(Cli, NeverOutgrowsTheWindow) {
  // Tokens of title and text joined are more than of both apart: "▁water" alone is one, "water" after a title five.
  const std::string file = write("titled.json", json{{{"title", "The heron"}, {"text", words(120)}},
                                                     {{"title", "桥"}, {"text", words(37)}},
                                                     {{"text", words(300)}}}
                                                    .dump());
  const std::regex shown("--- (.*) \\((\\d+) tokens\\)");
  for (const char* name : {"tiny-llama", "tiny-bpe"}) {
    for (int window = 110; window < 126; ++window) {
      const Result result = run(generate(name, {"-n", "2", "--contexts", file, "Where?", "--show-prompts", "--ctx-size",
                                                std::to_string(window), "--number-documents"}));
      ASSERT_EQ(result.code, 0) << result.err;
      int longest = 0, question = 0;
      for (std::sregex_iterator i(result.err.begin(), result.err.end(), shown), end; i != end; ++i) {
        const int tokens = std::stoi((*i)[2]);
        if ((*i)[1] == "then to each of them") question = tokens;
        if ((*i)[1].str().starts_with("context")) longest = std::max(longest, tokens);
      }
      EXPECT_GT(question, 0);
      EXPECT_LE(longest + question + 2, window) << name;
      EXPECT_GT(longest + question + 2, window - 30) << name;
    }
  }
}

TEST_F(Cli, TakesControlTokensInDocumentsAsText) {
  const std::vector<std::pair<std::string, std::string>> cases{{"tiny-bpe", "<|im_end|>"},
                                                               {"tiny-gemma3", "<end_of_turn>"}};
  for (const auto& [name, control] : cases) {
    const std::string file = write(name + ".txt", control);
    const Arguments arguments = generate(name, {"--context", file, "Where?"});
    Arguments shown = arguments;
    shown.push_back("--show-prompts");
    EXPECT_NE(run(shown).err.find(control), std::string::npos);
    const int spelled = answered(arguments).back()["summary"]["contexts"][0]["prompt_tokens"];
    const std::string short_file = write("short.txt", "z");
    const json summary = answered(generate(name, {"--context", short_file, "Where?"})).back()["summary"];
    EXPECT_GE(spelled, summary["contexts"][0]["prompt_tokens"].get<int>() + 5);
  }
}

TEST_F(Cli, SurvivesItsReaders) {
  const Arguments endless{"generate", "-m",    model("tiny-gemma3"), "--threads", "1",
                          "-n",       "20000", "--ctx-size",         "30000",     "Q"};
  Arguments lines = endless;
  lines.push_back("--json");
  for (const Arguments& arguments : {endless, lines}) {
    const Result result = run(arguments, {.close_output = true});
    EXPECT_EQ(result.code, kOutputClosed);
    EXPECT_EQ(result.signal, 0);
    EXPECT_EQ(result.err, "");
  }
  for (const char* output : {"/dev/full", "-"}) {
    expect_refused(asked("tiny-llama"), kBadInput, {"standard output"}, {.output = output});
    expect_refused({"--help"}, kBadInput, {"standard output"}, {.output = output});
  }
}

// ---------------------------------------------------------------------------------------------------------- terminals

/// Text without the escapes that the program itself may write: colours, marks and the erasing of a line.
std::string without_colours(const std::string& text) {
  return std::regex_replace(text, std::regex("\x1b\\[(38;5;[0-9]+m|0m|7m|K)|\r(?=\x1b\\[K)"), "");
}

/// Whether some character steers a terminal.
bool steers(const std::string& text) {
  for (std::size_t i = 0; i < text.size(); ++i) {
    const auto byte = static_cast<unsigned char>(text[i]);
    const auto next = static_cast<unsigned char>(i + 1 < text.size() ? text[i + 1] : 0);
    if ((byte < 0x20 && byte != '\n' && byte != '\t') || byte == 0x7F || (byte == 0xC2 && next < 0xA0)) return true;
    if (text.compare(i, 3, "\u202E") == 0) return true;
  }
  return false;
}

TEST_F(Cli, KeepsControlCharactersFromTerminals) {
  const std::string evil =
      "\x1b[2J\x1b]0;owned\x07 \xC2\x9B"
      "31m \u202E \r\n";
  const std::string file = write("evil.txt", "the river " + evil);
  for (int seed = 0; seed < 3; ++seed) {
    for (const char* mode : {"--show-prompts", "--json"}) {
      const Result result = run(
          generate("tiny-llama", {"-n", "250", "--temp", "50", "--seed", std::to_string(seed), "--context", file,
                                  "--context", one, "What? " + evil, "Who?", "--answer-prefix", "So " + evil, mode}),
          {.terminal = true});
      EXPECT_EQ(result.code, 0) << result.err;
      EXPECT_FALSE(steers(without_colours(result.out))) << mode;
      EXPECT_FALSE(steers(without_colours(result.err))) << mode << result.err;
      if (std::string(mode) == "--json") {
        for (const std::string& line : lines_of(result.out)) EXPECT_TRUE(json::accept(line)) << line;
      } else {
        EXPECT_NE(result.out.find("\x1b[38;5;"), std::string::npos);
        EXPECT_NE(result.out.find("\\x1B[2J"), std::string::npos);
        EXPECT_NE(result.err.find("\\x1B[2J"), std::string::npos);
      }
    }
  }
}

TEST_F(Cli, NeverCutsCharactersOnTerminals) {
  for (int seed = 0; seed < 6; ++seed) {
    const Arguments arguments = asked("tiny-llama", {"-n", "60", "--temp", "3", "--seed", std::to_string(seed)});
    const Result result = run(arguments, {.terminal = true});
    EXPECT_EQ(result.code, 0) << result.err;
    const std::string answer = answered(arguments).back()["summary"]["answer"];
    std::string spelled;
    for (const char c : answer) {  // none of the others comes up here
      const auto byte = static_cast<unsigned char>(c);
      spelled +=
          (byte < 0x20 && c != '\n' && c != '\t') || byte == 0x7F ? fmt::format("\\x{:02X}", byte) : std::string(1, c);
    }
    EXPECT_EQ(without_colours(result.out), spelled + "\n");
  }
}

}  // namespace
}  // namespace tuiqiao::test
