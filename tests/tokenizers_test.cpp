#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <iostream>
#include <random>

#include "llama_fixtures.h"
#include "rounds.h"
#include "text/utf8.h"
#include "tuiqiao/error.h"
#include "tuiqiao/text/coverings.h"

// Coverings for the tokenizers of other models: the vocabulary-only files of llama.cpp's source, which
// scripts/bootstrap keeps. Prints the table of docs/healing.md.

namespace tuiqiao {
namespace {

namespace fs = std::filesystem;

constexpr int kCuts = test::rounds(12, 1);  // of each text

const std::vector<std::string>& texts() {
  static const std::vector<std::string> kTexts{
      "The keeper's log says it wasn't until 1987 that the old station opened again; by then, 12,500 people had left. "
      "\"We'll never go back,\" they said... and they didn't.  Two spaces, a tab\there\n\n  and an indented line. ",
      "太阳能电池板安装在白云机场的屋顶上，服务器放在地下室。2024年3月，字符串的长度是1024，人们说：“这里真好！”\n今天"
      "天气不错，"
      "我们去白云山散步吧。",
      "import numpy as np\n\ndef fibonacci(n: int) -> list[int]:\n    \"\"\"First n numbers.\"\"\"\n    a, b = 0, 1\n"
      "    for _ in range(n):\n        yield a\n        a, b = b, a + b\n\nurl = 'https://example.com/a?b=1&c=2'  # "
      "TODO\n",
      "So happy 😀😃👩‍👩‍👧 today!!! ❤️ "
      "Привет, мир. こんにちは世界。 안녕하세요 "
      "café naïve résumé ½ №5 "
      "مرحبا "
      "हिन्दी "
      "ไทย "};
  return kTexts;
}

/// Much that can follow a text: every printable ASCII character by itself, after a space and before a letter, words of
/// several scripts, runs of digits and white space.
std::vector<std::string> followers() {
  std::vector<std::string> all{
      "",       "\n",      "\n\n",    "\r\n",    "\t",     "  ",     "   ",    " \n",  "\n  x", "  x",
      " the",   "ing",     "'s",      "'ll be",  "'x",     "n't",    "123",    " 12",  "1234",  "0000000",
      "服务器", "器",      "，",      "。\n",    " 中",    "かな",   "カナ",   "한국", "мир",   " Мир",
      "é",      "\u0301",  "\u0301a", "😀",       "❤️", "ไทย",    "हिन्दी",  "مر",   "½",     "Ⅷ",
      "\u3000", "\u00A0x", "\uA000",  " \uA000", "\u0BE6", "\u203D", "\u9FA4", "Ab",   "aB",    "__init__"};
  for (char c = 33; c < 127; ++c) {
    all.emplace_back(1, c);
    all.push_back(std::string(" ") + c);
    all.push_back(std::string(1, c) + "q");
  }
  return all;
}

bool starts_with(std::span<const Token> tokens, std::span<const Token> with) {
  return tokens.size() >= with.size() && std::equal(with.begin(), with.end(), tokens.begin());
}

struct Found {
  int cuts = 0, coverings = 0, missed = 0, looked_at = 0, wrong = 0, splits = 0, most_splits = 0, moving = 0;
  std::int64_t tokenisations = 0;
};

/// Whether one of the splits goes on as the tokens of a text that begins so.
bool knows(Coverings& coverings, const Vocabulary& vocabulary, std::span<const Token> tokens) {
  std::size_t spelled = 0, count = 0;
  while (spelled <= coverings.spelled().size() && count < tokens.size())
    spelled += vocabulary.bytes(tokens[count++]).size();
  if (!starts_with(tokens, coverings.trunk())) return false;
  const std::span<const Token> tail = tokens.first(count).subspan(coverings.trunk().size());
  const bool over = spelled > coverings.spelled().size();
  const std::span<const Token> prefix = over ? tail.first(tail.size() - 1) : tail;
  const auto is_it = [&](const Split& split) {
    return std::equal(split.tail.begin(), split.tail.end(), prefix.begin(), prefix.end());
  };
  if (std::none_of(coverings.splits().begin(), coverings.splits().end(), is_it)) return false;
  return over ? coverings.canonical(tail) : coverings.may_end(tail);
}

Found check(const Vocabulary& vocabulary, const std::vector<std::string>& nexts) {
  Found found;
  std::mt19937 random(11);
  for (const std::string& text : texts()) {
    for (int i = 0; i < kCuts; ++i) {
      const std::size_t cut = text.size() / 8 + random() % (text.size() - text.size() / 8);
      const std::string x = text.substr(0, cut);
      Coverings coverings(vocabulary, x);
      ++found.cuts;
      found.splits += static_cast<int>(coverings.splits().size());
      found.most_splits = std::max(found.most_splits, static_cast<int>(coverings.splits().size()));
      for (std::size_t k = 1; k < coverings.splits().size(); ++k)
        found.moving += coverings.splits()[k].at == coverings.splits()[k - 1].at ? 1 : 0;
      // Every text that begins with x and goes on with one of many others must be covered.
      std::vector<std::string> wholes{text};
      const std::string rest = text.substr(cut - unfinished_bytes(x));
      const std::string whole_character = rest.empty() ? "" : rest.substr(0, first_character(rest).bytes);
      for (const std::string& next : nexts)
        wholes.push_back(x.substr(0, cut - unfinished_bytes(x)) + (unfinished_bytes(x) > 0 ? whole_character : "") +
                         next);
      for (const std::string& whole : wholes) {
        const std::vector<Token> tokens = vocabulary.tokenize(whole);
        if (vocabulary.detokenize(tokens).size() != whole.size() + coverings.lead()) continue;  // not given back
        ++found.coverings;
        if (knows(coverings, vocabulary, tokens)) continue;
        ++found.missed;
        if (found.missed <= 3)
          ADD_FAILURE() << "missed " << testing::PrintToString(x) << " | "
                        << testing::PrintToString(whole.substr(std::min(cut, whole.size())));
      }
      // What is said to begin a text must begin one, tokenised as a whole.
      for (int k = 0; k < 12; ++k) {
        const Split& split = coverings.splits()[random() % coverings.splits().size()];
        const auto candidates = coverings.candidates(split);
        if (candidates.empty()) continue;
        std::vector<Token> tail = split.tail;
        tail.push_back(candidates[random() % candidates.size()]);
        if (!coverings.canonical(tail)) continue;
        std::vector<Token> tokens(coverings.trunk().begin(), coverings.trunk().end());
        tokens.insert(tokens.end(), tail.begin(), tail.end());
        const std::string bytes = vocabulary.detokenize(tokens).substr(coverings.lead());
        if (unfinished_bytes(bytes) > 0) continue;
        ++found.looked_at;
        const bool seen = std::any_of(nexts.begin(), nexts.end(), [&](const std::string& next) {
          return starts_with(vocabulary.tokenize(bytes + next), tokens);
        });
        if (seen) continue;
        ++found.wrong;
        if (found.wrong <= 3) ADD_FAILURE() << "no text begins " << testing::PrintToString(bytes);
      }
      found.tokenisations += coverings.tokenisations();
    }
  }
  return found;
}

TEST(Tokenizers, AreCoveredAsTheEnumerationOfLookAheadsSays) {
  const fs::path folder = TUIQIAO_VOCABULARIES;
  if (!fs::is_directory(folder)) GTEST_SKIP() << folder << " is missing: scripts/bootstrap keeps it";
  std::vector<fs::path> files;
  for (const auto& entry : fs::directory_iterator(folder)) {
    if (entry.path().extension() == ".gguf") files.push_back(entry.path());
  }
  std::sort(files.begin(), files.end());
  ASSERT_FALSE(files.empty());
  const std::vector<std::string> nexts = followers();
  std::cout << "| vocabulary | tokens | kind | cuts | prefixes, mean (most) | texts covered | missed | said canonical "
               "| wrong |\n"
               "|---|---|---|---|---|---|---|---|---|\n";
  for (const fs::path& file : files) {
    SCOPED_TRACE(file.filename());
    LlamaModelOptions options;
    options.vocabulary_only = true;
    const LlamaModel model(file, options);
    const Vocabulary& vocabulary = model.vocabulary();
    const std::string name = file.stem().string().substr(std::string("ggml-vocab-").size());
    if (vocabulary.tokenization() == Tokenization::normalises) {
      EXPECT_THROW(Coverings(vocabulary, "a text"), Error);
      std::cout << fmt::format("| {} | {} | refused: it normalises | | | | | | |\n", name, vocabulary.size());
      continue;
    }
    const Found f = check(vocabulary, nexts);
    EXPECT_EQ(f.missed, 0);
    EXPECT_EQ(f.wrong, 0);
    EXPECT_GT(f.looked_at, 4 * kCuts);
    const char* kind = vocabulary.tokenization() == Tokenization::local ? "merges anywhere" : "merges in words";
    std::cout << fmt::format("| {} | {} | {} | {} | {:.1f} ({}) | {} | {} | {} | {} |\n", name, vocabulary.size(), kind,
                             f.cuts, static_cast<double>(f.splits) / f.cuts, f.most_splits, f.coverings, f.missed,
                             f.looked_at, f.wrong);
  }
}

}  // namespace
}  // namespace tuiqiao
