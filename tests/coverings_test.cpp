#include "tuiqiao/text/coverings.h"

#include <gtest/gtest.h>

#include <array>
#include <set>

#include "rounds.h"
#include "text/utf8.h"
#include "tuiqiao/error.h"
#include "vocabulary_learner.h"

namespace tuiqiao {
namespace {

using test::all_texts;
using test::LearntVocabulary;
using test::random_texts;

using Sequence = std::vector<Token>;

/// Texts and what the tokenizer makes of them.
using Universe = std::vector<std::pair<std::string, Sequence>>;

/// By definition: what the tokenizer makes of every text that begins with `text`, up to the token that goes beyond it.
std::set<Sequence> enumerated(const LearntVocabulary& learnt, const std::string& text, const Universe& universe) {
  std::set<Sequence> found;
  const std::size_t wanted = text.size() + (learnt.options().lead ? 1 : 0);
  for (const auto& [whole, its_tokens] : universe) {
    if (!whole.starts_with(text)) continue;
    Sequence tokens;
    std::size_t spelled = 0;
    for (const Token token : its_tokens) {
      if (spelled > wanted) break;
      tokens.push_back(token);
      spelled += learnt.vocabulary()->bytes(token).size();
    }
    if (spelled == wanted) tokens.push_back(learnt.end());
    found.insert(tokens);
  }
  return found;
}

/// All of them by Coverings.
std::set<Sequence> found_by(Coverings& coverings, const LearntVocabulary& learnt) {
  std::set<Sequence> found;
  for (const Split& split : coverings.splits()) {
    Sequence tokens(coverings.trunk().begin(), coverings.trunk().end());
    tokens.insert(tokens.end(), split.tail.begin(), split.tail.end());
    Sequence tail = split.tail;
    for (const Token token : coverings.candidates(split)) {
      tail.push_back(token);
      if (coverings.canonical(tail)) {
        tokens.push_back(token);
        found.insert(tokens);
        tokens.pop_back();
      }
      tail.pop_back();
    }
    if (split.at == coverings.spelled().size() && coverings.may_end(split.tail)) {
      tokens.push_back(learnt.end());
      found.insert(tokens);
    }
  }
  return found;
}

/// Whether some text that goes on from these tokens is tokenised so, tried with many; those of 'texts' come first.
bool has_witness(const LearntVocabulary& learnt, const Sequence& sequence, const std::vector<std::string>& texts) {
  if (sequence.back() == learnt.end()) {
    const Sequence tokens(sequence.begin(), sequence.end() - 1);
    return learnt.tokenize(learnt.vocabulary()->detokenize(tokens).substr(learnt.options().lead ? 1 : 0)) == tokens;
  }
  std::string bytes = learnt.vocabulary()->detokenize(sequence);
  if (learnt.options().lead) bytes.erase(0, 1);
  const auto witnesses = [&](const std::string& text) {
    const Sequence tokens = learnt.tokenize(text);
    return tokens.size() >= sequence.size() && std::equal(sequence.begin(), sequence.end(), tokens.begin());
  };
  const std::size_t fragment = unfinished_bytes(bytes);
  if (fragment == 0) {
    return std::any_of(texts.begin(), texts.end(), [&](const std::string& next) { return witnesses(bytes + next); });
  }
  for (char32_t code = 0x80; code < 0x110000; ++code) {  // all characters that begin so
    const std::string character = test::utf8(code);
    if (character.starts_with(bytes.substr(bytes.size() - fragment)) &&
        witnesses(bytes.substr(0, bytes.size() - fragment) + character))
      return true;
  }
  return false;
}

// Letters of the longest text that is enumerated, and texts that are looked at for each vocabulary.
constexpr int kLongest = test::rounds(5, 4);
constexpr std::size_t kStarts = test::rounds(20, 5);

class OfLearntVocabularies : public testing::TestWithParam<test::LearntKind> {};

TEST_P(OfLearntVocabularies, AreThoseOfAllTextsThatBeginSo) {
  // Three letters, a space, an apostrophe and two characters that share their first two bytes.
  const std::vector<std::string> alphabet{"s", "b", " ", "'", "1", "\xE6\x9C\x8D", "\xE6\x9C\x8B"};
  for (unsigned seed = 1; seed <= 3; ++seed) {
    // Runs of spaces in what is learnt: their last one belongs to the word that follows, if one does.
    std::vector<std::string> letters = alphabet;
    if (seed % 2 == 0) letters = {"   ", "  ", "   ", "s", "b", "\xE6\x9C\x8D"};
    const LearntVocabulary learnt(random_texts(letters, 40, 12, seed), GetParam().options);
    Universe universe;
    for (const std::string& text : all_texts(alphabet, kLongest)) universe.emplace_back(text, learnt.tokenize(text));
    std::vector<std::string> starts;
    for (const std::string& text : all_texts(alphabet, 3)) {
      starts.push_back(text);
      if (text.size() > 1 && unfinished_bytes(text.substr(0, text.size() - 1)) > 0) {
        starts.push_back(text.substr(0, text.size() - 1));
        starts.push_back(text.substr(0, text.size() - 2));
      }
    }
    const std::vector<std::string> nexts = all_texts({"s", "q", "\xEA\x80\x80", "1", " ", ".", "'"}, 2);
    const std::array<std::string, 3> spaces{"  ", "   ", "s  "};
    std::mt19937 random(seed);
    for (std::size_t i = 0; i < kStarts; ++i) {
      const std::string& text = i < 3 ? spaces[i] : starts[1 + random() % (starts.size() - 1)];
      Coverings coverings(*learnt.vocabulary(), text);
      const std::set<Sequence> found = found_by(coverings, learnt);
      // The universe holds no longer texts and no other letters: what was found may be more, but no less.
      for (const Sequence& expected : enumerated(learnt, text, universe)) {
        EXPECT_TRUE(found.contains(expected))
            << "seed " << seed << " text '" << text << "' " << testing::PrintToString(expected);
      }
      for (const Sequence& sequence : found) {
        EXPECT_TRUE(has_witness(learnt, sequence, nexts))
            << "seed " << seed << " text '" << text << "' " << testing::PrintToString(sequence);
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Coverings, OfLearntVocabularies, testing::ValuesIn(test::learnt_kinds()),
                         [](const auto& kind) { return kind.param.name; });

}  // namespace
}  // namespace tuiqiao
