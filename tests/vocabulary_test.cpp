#include "tuiqiao/text/vocabulary.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <random>
#include <thread>

#include "table_decoder.h"

namespace tuiqiao {
namespace {

using test::ten_words;

TEST(Vocabulary, KnowsBytesKindsAndNames) {
  const auto words = ten_words();
  EXPECT_EQ(words->size(), 10);
  EXPECT_EQ(words->bytes(7), "服务");
  EXPECT_EQ(words->kind(9), TokenKind::control);
  EXPECT_EQ(words->name(9), "<end>");
  EXPECT_TRUE(words->ends(9));
  EXPECT_FALSE(words->ends(0));
  EXPECT_THROW(words->bytes(10), std::invalid_argument);
  EXPECT_THROW(words->bytes(-1), std::invalid_argument);
}

TEST(Vocabulary, TakesControlTokensFromTextOnlyWhereAsked) {
  const auto words = ten_words();
  EXPECT_EQ(words->tokenize("ab<end>", true), (std::vector<Token>{2, 9}));
  EXPECT_THROW(words->tokenize("ab<end>", false), std::invalid_argument);
  EXPECT_EQ(words->detokenize(std::vector<Token>{6, 9, 2}), "服ab");
}

TEST(Vocabulary, RefusesEmptyAndForeignBegin) {
  EXPECT_THROW(Vocabulary({}, {}, std::nullopt), std::invalid_argument);
  EXPECT_THROW(Vocabulary({{"a", "", TokenKind::text, false}}, {}, 1), std::invalid_argument);
}

TEST(Vocabulary, SortsItsTrieForThreadsAtOnce) {
  const auto words = ten_words();
  std::vector<std::size_t> found(4);
  {
    std::vector<std::jthread> threads;
    for (std::size_t& count : found) threads.emplace_back([&] { count = words->trie().starting_with("a").size(); });
  }
  EXPECT_EQ(found, (std::vector<std::size_t>{3, 3, 3, 3}));
}

TEST(ByteTrie, FindsTokensByTheirFirstBytes) {
  const auto words = ten_words();
  const ByteTrie& trie = words->trie();
  const auto start = [&](std::string_view prefix) {
    const auto found = trie.starting_with(prefix);
    return std::vector<Token>(found.begin(), found.end());
  };
  EXPECT_EQ(start("a"), (std::vector<Token>{0, 2, 3}));
  EXPECT_EQ(start("abc"), (std::vector<Token>{3}));
  EXPECT_EQ(start("\xe6\x9c"), (std::vector<Token>{6, 7}));  // inside a character
  EXPECT_TRUE(start("abcd").empty());
  EXPECT_EQ(start("").size(), 9U);  // the control token has no bytes
  EXPECT_EQ(trie.prefixes_of("abcab"), (std::vector<Token>{0, 2, 3}));
  EXPECT_EQ(trie.prefixes_of("服务器"), (std::vector<Token>{6, 7}));
  EXPECT_TRUE(trie.prefixes_of("").empty());
  EXPECT_TRUE(trie.prefixes_of("z").empty());
}

TEST(ByteTrie, AgreesWithASearchOfAllTokens) {
  // Bytes 0, 0x7f, 0x80 and 0xff: signed comparison would order them wrongly. Duplicates and empty entries occur.
  std::mt19937 random(20240501);
  constexpr std::string_view kAlphabet("\0\x7f\x80\xff", 4);
  const auto word = [&](std::size_t longest) {
    std::string s(random() % (longest + 1), ' ');
    for (char& c : s) c = kAlphabet[random() % kAlphabet.size()];
    return s;
  };
  for (int round = 0; round < 20; ++round) {
    std::vector<std::string> bytes(1 + random() % 300);
    std::vector<TokenKind> kinds(bytes.size());
    for (std::size_t i = 0; i < bytes.size(); ++i) {
      bytes[i] = word(5);
      kinds[i] = static_cast<TokenKind>(random() % 4);
    }
    const ByteTrie trie(bytes, kinds);
    for (int query = 0; query < 50; ++query) {
      const std::string text = word(6);
      std::vector<Token> starting, prefixes;
      for (std::size_t i = 0; i < bytes.size(); ++i) {
        if (bytes[i].empty() || kinds[i] == TokenKind::control || kinds[i] == TokenKind::unused) continue;
        if (bytes[i].starts_with(text)) starting.push_back(static_cast<Token>(i));
        if (text.starts_with(bytes[i])) prefixes.push_back(static_cast<Token>(i));
      }
      const auto found = trie.starting_with(text);
      EXPECT_TRUE(std::is_permutation(found.begin(), found.end(), starting.begin(), starting.end()));
      std::stable_sort(prefixes.begin(), prefixes.end(), [&](Token a, Token b) {
        return bytes[static_cast<std::size_t>(a)].size() < bytes[static_cast<std::size_t>(b)].size();
      });
      EXPECT_EQ(trie.prefixes_of(text), prefixes);
    }
  }
}

}  // namespace
}  // namespace tuiqiao
