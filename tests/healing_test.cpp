#include "tuiqiao/text/healing.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <map>
#include <set>
#include <span>

#include "rounds.h"
#include "text/choose_covering.h"
#include "text/utf8.h"
#include "text_distribution.h"
#include "tuiqiao/error.h"
#include "tuiqiao/text/generate.h"

namespace tuiqiao {
namespace {

using test::all_texts;
using test::LearntOptions;
using test::LearntVocabulary;
using test::random_texts;
using test::TableDecoder;
using test::TextDistribution;

constexpr int kDraws = test::rounds(100000, 5000);
constexpr double kSumError = 1e-12;
constexpr double kChainError = 1e-6;

/// Over random small vocabularies: everything compared with the enumeration of all texts.
class Healing : public testing::TestWithParam<test::LearntKind> {
 protected:
  struct World {
    LearntVocabulary learnt;
    TextDistribution distribution;
    std::vector<std::string> starts;  // of texts, some inside a character

    World(const LearntOptions& options, unsigned seed, double leak = 0)
        : learnt(random_texts(letters(seed), 40, 12, seed), options),
          distribution(learnt, all_texts({"s", "b", " ", "'", "\xE6\x9C\x8D", "\xE6\x9C\x8B"}, 4), seed, leak) {
      std::mt19937 random(seed);
      for (int i = 0; i < 12; ++i) {
        const std::string& text = distribution.texts()[random() % distribution.texts().size()].bytes;
        if (text.size() > 1) starts.push_back(text.substr(0, 1 + random() % text.size()));
      }
      starts.insert(starts.end(), {"  ", "   ", "s ", "\xE6", "b\xE6\x9C", "'"});
      if (leak > 0) starts = all_texts({"s", "b", "\xE6\x9C\x8D"}, 3);  // inside words: there tokens can be wrong
    }
    static std::vector<std::string> letters(unsigned seed) {
      if (seed % 2 == 0) return {"   ", "  ", "   ", "s", "b", "\xE6\x9C\x8D"};
      return {"s", "b", " ", "'", "\xE6\x9C\x8D", "\xE6\x9C\x8B"};
    }
  };

  template <typename Check>
  void for_each_start(Check&& check, double leak = 0) {
    for (unsigned seed = 1; seed <= 3; ++seed) {
      const World world(GetParam().options, seed, leak);
      for (const std::string& start : world.starts) {
        if (world.distribution.probability_of(start) == 0) continue;
        SCOPED_TRACE(testing::Message() << "seed " << seed << " text " << testing::PrintToString(start));
        TableDecoder decoder = world.distribution.make_decoder();
        decoder.share(seed % 2 == 1);
        check(world, decoder, start);
      }
    }
  }
  static HealOptions all_checked(Covers covers = Covers::canonical) {
    HealOptions options;
    options.unchecked = 0;
    options.covers = covers;
    return options;
  }
};

TEST_P(Healing, GivesTextsTheProbabilityThatTheirEnumerationHas) {
  for_each_start([&](const World& world, TableDecoder& decoder, const std::string& start) {
    const std::array before{world.learnt.begin()};
    const double expected = world.distribution.probability_of(start);
    for (const Covers covers : {Covers::canonical, Covers::all}) {
      const Branch branch = decoder.open();
      const TextScore score = score_text(decoder, branch, before, start, all_checked(covers));
      EXPECT_NEAR(std::exp(score.upper) / expected, 1, kSumError) << (covers == Covers::all ? "all" : "canonical");
      EXPECT_EQ(score.lower, score.upper);
      decoder.close(branch);
    }
  });
}

TEST_P(Healing, GivesTheNextByteItsProbability) {
  for_each_start([&](const World& world, TableDecoder& decoder, const std::string& start) {
    const std::array before{world.learnt.begin()};
    std::array<double, 256> expected{};
    double end = 0, total = 0;
    for (const auto& text : world.distribution.texts()) {
      if (!text.bytes.starts_with(start)) continue;
      total += text.probability;
      if (text.bytes == start) {
        end += text.probability;
      } else {
        expected[static_cast<unsigned char>(text.bytes[start.size()])] += text.probability;
      }
    }
    const NextBytes next = next_bytes(decoder, decoder.open(), before, start, all_checked());
    for (std::size_t b = 0; b < 256; ++b) EXPECT_NEAR(next.probability[b], expected[b] / total, kSumError) << b;
    EXPECT_NEAR(next.end, end / total, kSumError);
    EXPECT_EQ(next.unchecked_mass, 0);
  });
}

TEST_P(Healing, GivesTheNextCharacterItsProbability) {
  for_each_start([&](const World& world, TableDecoder& decoder, const std::string& start) {
    const std::array before{world.learnt.begin()};
    const std::size_t whole = start.size() - unfinished_bytes(start);
    std::map<std::string, double> expected;
    for (const auto& text : world.distribution.texts()) {
      if (!text.bytes.starts_with(start)) continue;
      std::string next;
      if (text.bytes != start) {
        const std::string_view rest = std::string_view(text.bytes).substr(whole);
        next = rest.substr(0, first_character(rest).bytes).substr(start.size() - whole);
      }
      expected[next] += text.probability / world.distribution.probability_of(start);
    }
    const Continuations next = next_characters(decoder, decoder.open(), before, start, all_checked());
    EXPECT_EQ(next.ways.size(), expected.size());
    for (const auto& [bytes, probability] : next.ways)
      EXPECT_NEAR(probability, expected[bytes], kSumError) << testing::PrintToString(bytes);
    EXPECT_EQ(next.unchecked_mass, 0);
  });
}

TEST_P(Healing, TheBytesOfATextMultiplyToItsProbability) {
  for (unsigned seed = 1; seed <= 2; ++seed) {
    const World world(GetParam().options, seed);
    const std::array before{world.learnt.begin()};
    TableDecoder decoder = world.distribution.make_decoder();
    for (std::size_t i = 400; i < world.distribution.texts().size(); i += 397) {
      const auto& text = world.distribution.texts()[i];
      double sum = 0;
      for (std::size_t k = 0; k <= text.bytes.size(); ++k) {
        const Branch branch = decoder.open();
        const NextBytes next = next_bytes(decoder, branch, before, text.bytes.substr(0, k), all_checked());
        decoder.close(branch);
        sum += std::log(k < text.bytes.size() ? next.probability[static_cast<unsigned char>(text.bytes[k])] : next.end);
      }
      EXPECT_NEAR(sum, std::log(text.probability), kChainError);
    }
  }
}

/// Tokens up to the one that goes beyond the text, the last of all if none does.
std::vector<Token> covering_of(const LearntVocabulary& learnt, const TextDistribution::Text& text,
                               const std::string& start) {
  const std::size_t wanted = start.size() + (learnt.options().lead && !text.bytes.empty() ? 1 : 0);
  std::vector<Token> covering;
  std::size_t spelled = 0;
  for (const Token token : text.tokens) {
    covering.push_back(token);
    spelled += learnt.vocabulary()->bytes(token).size();
    if (spelled > wanted) break;
  }
  return covering;
}

/// By its definition: the most probable byte again and again, until all texts that are left are covered alike.
std::vector<Token> followed(const LearntVocabulary& learnt, const TextDistribution& distribution, std::string start) {
  const std::string text = start;
  while (true) {
    std::set<std::vector<Token>> coverings;
    std::array<double, 257> next{};
    for (const auto& whole : distribution.texts()) {
      if (!whole.bytes.starts_with(start)) continue;
      coverings.insert(covering_of(learnt, whole, text));
      const bool ends = whole.bytes.size() == start.size();
      next[ends ? 256 : static_cast<unsigned char>(whole.bytes[start.size()])] += whole.probability;
    }
    if (coverings.size() == 1) return *coverings.begin();
    const auto best = static_cast<std::size_t>(std::max_element(next.begin(), next.end()) - next.begin());
    if (best < 256) {
      start += static_cast<char>(best);
      continue;
    }
    for (const auto& whole : distribution.texts()) {
      if (whole.bytes == start) return covering_of(learnt, whole, text);
    }
  }
}

/// What the branch holds after healing, and what is to be appended.
std::vector<Token> healed_tokens(const TableDecoder& decoder, Branch branch, const HealResult& result, Token end) {
  std::vector<Token> tokens(decoder.text(branch).begin() + 1, decoder.text(branch).end());
  tokens.insert(tokens.end(), result.tokens.begin(), result.tokens.end());
  if (result.ended) tokens.push_back(end);
  return tokens;
}

TEST_P(Healing, GreedyFollowsTheMostProbableText) {
  for_each_start([&](const World& world, TableDecoder& decoder, const std::string& start) {
    const std::array before{world.learnt.begin()};
    const Branch branch = decoder.open();
    const HealResult result = heal(decoder, branch, before, start, all_checked());
    const std::vector<Token> expected = followed(world.learnt, world.distribution, start);
    EXPECT_EQ(healed_tokens(decoder, branch, result, world.learnt.end()), expected);
    const std::string spelled = world.learnt.vocabulary()->detokenize(expected);
    EXPECT_EQ(spelled.substr(world.learnt.options().lead ? 1 : 0), start + result.bytes);
  });
}

/// What tokens spell, without the space that the tokenizer puts before a text.
std::string text_of(const LearntVocabulary& learnt, std::span<const Token> tokens) {
  const std::string spelled = learnt.vocabulary()->detokenize(tokens);
  return learnt.options().lead && !spelled.empty() ? spelled.substr(1) : spelled;
}

/// The coverings of a text by the texts that begin with it, with their probabilities.
std::map<std::vector<Token>, double> coverings_of(const LearntVocabulary& learnt, const TextDistribution& distribution,
                                                  const std::string& start) {
  std::map<std::vector<Token>, double> coverings;
  for (const auto& whole : distribution.texts()) {
    if (!whole.bytes.starts_with(start)) continue;
    const std::vector<Token> covering = covering_of(learnt, whole, start);
    coverings[covering] = distribution.probability_of(covering);
  }
  return coverings;
}

/// Draws coverings of a text and compares their numbers with p^(1 / temperature).
void expect_draws(const LearntVocabulary& learnt, const TextDistribution& distribution, TableDecoder& decoder,
                  const std::string& start, double temperature, int draws) {
  Coverings coverings(*learnt.vocabulary(), start);
  const Branch branch = decoder.open();
  Trunk trunk(decoder, branch, 0);
  CoveredText text(trunk, std::array{learnt.begin()}, coverings, {});
  std::map<std::vector<Token>, double> expected;
  double most = 0, total = 0;
  for (const auto& [covering, p] : coverings_of(learnt, distribution, start)) {
    expected[{covering.begin() + static_cast<std::ptrdiff_t>(text.grown().size()), covering.end()}] = p;
    most = std::max(most, p);
  }
  for (auto& [covering, p] : expected) total += p = std::pow(p / most, 1 / temperature);
  std::mt19937_64 random(7);
  std::map<std::vector<Token>, int> drawn;
  for (int i = 0; i < draws; ++i) {
    const auto covering =
        draw_covering(text, temperature, [&] { return static_cast<double>(random() >> 11) * 0x1p-53; });
    ASSERT_TRUE(covering);
    std::vector<Token> tokens = covering->prefix;
    tokens.push_back(covering->token.value_or(learnt.end()));
    ++drawn[tokens];
  }
  decoder.close(branch);
  double chi = 0, rare = 0;
  int rare_drawn = 0, cells = 0;
  const auto add = [&](double share, int count) {
    chi += (count - share * draws) * (count - share * draws) / (share * draws);
    ++cells;
  };
  for (const auto& [tokens, weight] : expected) {
    const double share = weight / total;
    if (share * draws >= 10) {
      add(share, drawn[tokens]);
    } else {
      rare += share;
      rare_drawn += drawn[tokens];
    }
    drawn.erase(tokens);
  }
  if (rare * draws >= 10) add(rare, rare_drawn);
  EXPECT_TRUE(drawn.empty() || drawn.begin()->second == 0) << "drew what no text is covered by";
  // A chi-square is beyond its mean by five of its standard deviations once in some million times.
  const double freedom = std::max(1, cells - 1);
  EXPECT_LE(chi, freedom + 5 * std::sqrt(2 * freedom)) << cells << " cells";
}

TEST_P(Healing, DrawsCoveringsByTheirProbability) {
  int cases = 0;
  for_each_start([&](const World& world, TableDecoder& decoder, const std::string& start) {
    if (cases++ % 9 != 0) return;
    expect_draws(world.learnt, world.distribution, decoder, start, 1, kDraws);
  });
}

/// Nearly all of every row that can be is given to tokens that no tokenizer puts there.
constexpr double kLeak = 0.999;

TEST_P(Healing, LeavesOutWhatNoTokenizerMakes) {
  int with_wrong = 0;
  const auto check = [&](const World& world, TableDecoder& decoder, const std::string& start) {
    const std::array before{world.learnt.begin()};
    const auto coverings = coverings_of(world.learnt, world.distribution, start);
    std::array<double, 257> expected{};
    double total = 0;
    std::set<std::vector<Token>> shorter;
    for (const auto& [covering, p] : coverings) {
      const std::string spelled = text_of(world.learnt, covering);
      const bool ends = covering.back() == world.learnt.end();
      expected[ends ? 256 : static_cast<unsigned char>(spelled[start.size()])] += p;
      total += p;
      for (std::size_t k = 0; k < covering.size(); ++k)
        shorter.insert({covering.begin(), covering.begin() + static_cast<std::ptrdiff_t>(k)});
    }
    int wrong = 0;
    for (const auto& path : shorter) {
      for (const Token token : world.distribution.wrong_after(path)) {
        std::vector<Token> both = path;
        both.push_back(token);
        const std::string spelled = text_of(world.learnt, both);
        wrong += spelled.size() > start.size() && spelled.starts_with(start) ? 1 : 0;
      }
    }
    if (wrong == 0) return;
    ++with_wrong;
    const Branch branch = decoder.open();
    const NextBytes next = next_bytes(decoder, branch, before, start, all_checked());
    decoder.close(branch);
    for (std::size_t b = 0; b < 256; ++b) EXPECT_NEAR(next.probability[b], expected[b] / total, kSumError) << b;
    EXPECT_NEAR(next.end, expected[256] / total, kSumError);

    HealOptions part_checked;
    part_checked.unchecked = 0.01;
    const Branch again = decoder.open();
    EXPECT_LE(next_bytes(decoder, again, before, start, part_checked).unchecked_mass, 0.01);
    decoder.close(again);
    const Branch characters = decoder.open();
    EXPECT_LT(next_characters(decoder, characters, before, start, part_checked).unchecked_mass, 0.02);
    decoder.close(characters);

    for (const double unchecked : {0.0, 0.01, 0.3}) {
      HealOptions options;
      options.unchecked = unchecked;
      const Branch greedy = decoder.open();
      const HealResult result = heal(decoder, greedy, before, start, options);
      EXPECT_TRUE(coverings.contains(healed_tokens(decoder, greedy, result, world.learnt.end()))) << unchecked;
      decoder.close(greedy);
    }

    if (with_wrong > 3) return;
    for (const double temperature : {1.0, 0.5, 0.05})
      expect_draws(world.learnt, world.distribution, decoder, start, temperature, kDraws / 10);
  };
  for_each_start(check, kLeak);
  EXPECT_GT(with_wrong, 4);
}

TEST_P(Healing, ScoresWhatFollowsByCoverings) {
  for_each_start([&](const World& world, TableDecoder& decoder, const std::string& start) {
    const std::array before{world.learnt.begin()};
    for (const std::string next : {"s", " b", "\x9C\x8D", "'s"}) {
      const double expected = world.distribution.probability_of(start + next);
      if (expected == 0) continue;
      const Branch branch = decoder.open();
      const TextScore score = score_continuation(decoder, branch, before, start, next, all_checked());
      decoder.close(branch);
      EXPECT_NEAR(std::exp(score.upper) * world.distribution.probability_of(start) / expected, 1, kSumError);
      EXPECT_EQ(score.lower, score.upper);
    }
  });
}

TEST_P(Healing, ScoresOneTokenBackByWhatItDoes) {
  for_each_start([&](const World& world, TableDecoder& decoder, const std::string& start) {
    const std::array before{world.learnt.begin()};
    const Coverings coverings(*world.learnt.vocabulary(), start);
    const std::vector<Token> naive(coverings.tokens().begin(), coverings.tokens().end());
    const std::vector<Token> kept(naive.begin(), naive.end() - 1);
    const std::string bytes(world.learnt.vocabulary()->bytes(naive.back()));
    for (const std::string next : {"s", " ", "b"}) {
      // Of texts whose tokens go on from those kept with one that begins with the dropped bytes: those that go on so.
      double could = 0, does = 0;
      for (const auto& text : world.distribution.texts()) {
        if (text.tokens.size() <= kept.size() || !std::equal(kept.begin(), kept.end(), text.tokens.begin())) continue;
        if (!world.learnt.vocabulary()->bytes(text.tokens[kept.size()]).starts_with(bytes)) continue;
        could += text.probability;
        if (text.bytes.starts_with(start + next)) does += text.probability;
      }
      HealOptions options = all_checked();
      options.mode = HealMode::one;
      const Branch branch = decoder.open();
      const TextScore score = score_continuation(decoder, branch, before, start, next, options);
      decoder.close(branch);
      if (could == 0) continue;  // it has nothing to choose from
      EXPECT_EQ(score.lower, score.upper);
      EXPECT_NEAR(std::exp(score.upper), does / could, kSumError);
    }
  });
}

TEST_P(Healing, CompletesByTheWordsOfTheVocabulary) {
  for_each_start([&](const World& world, TableDecoder& decoder, const std::string& start) {
    const std::array before{world.learnt.begin()};
    std::map<std::string, double> expected;
    for (const auto& text : world.distribution.texts()) {
      if (!text.bytes.starts_with(start) || text.bytes == start) continue;
      const std::string spelled = world.learnt.vocabulary()->detokenize(covering_of(world.learnt, text, start));
      expected[spelled.substr(start.size() + (world.learnt.options().lead ? 1 : 0))] +=
          text.probability / world.distribution.probability_of(start);
    }
    const Continuations found = completions(decoder, decoder.open(), before, start, 1000, all_checked());
    ASSERT_EQ(found.ways.size(), expected.size());
    for (std::size_t i = 0; i < found.ways.size(); ++i) {
      EXPECT_NEAR(found.ways[i].probability, expected[found.ways[i].bytes], kSumError);
      EXPECT_LE(found.ways[i].probability, found.ways[i - std::min<std::size_t>(i, 1)].probability);
    }
    EXPECT_LE(completions(decoder, decoder.open(), before, start, 2, all_checked()).ways.size(), 2U);
  });
}

INSTANTIATE_TEST_SUITE_P(Learnt, Healing, testing::ValuesIn(test::learnt_kinds()),
                         [](const auto& kind) { return kind.param.name; });

/// Merges that make a word one token, letter by letter.
void add_word(std::vector<std::pair<std::string, std::string>>& merges, const std::string& word) {
  std::string begun;
  for (std::string_view left = word; !left.empty();) {
    const std::string letter(left.substr(0, first_character(left).bytes));
    left.remove_prefix(letter.size());
    if (!begun.empty()) merges.emplace_back(begun, letter);
    begun += letter;
  }
}

/// A vocabulary in which "import numpy as np" is one token, but "import numpy" is two.
struct Snake {
  LearntVocabulary learnt{{}, options()};
  Token import = learnt.id("import"), numpy = learnt.id(" numpy"), whole = learnt.id("import numpy as np");

  static LearntOptions options() {
    LearntOptions options;
    for (const std::string word : {"import", " numpy", " as", " np"}) add_word(options.given, word);
    options.given.insert(options.given.end(), {{" as", " np"}, {" numpy", " as np"}, {"import", " numpy as np"}});
    return options;
  }
  /// Nine texts of ten are "import numpy as np", one begins with "import numpyx".
  TableDecoder make_decoder(int max_branches = 8, int window = 64) const {
    return TableDecoder(
        [this](std::span<const Token> text) {
          std::vector<double> p(static_cast<std::size_t>(learnt.vocabulary()->size()), 0);
          const auto at = [&](Token token) -> double& { return p[static_cast<std::size_t>(token)]; };
          if (text.back() == learnt.begin()) {
            at(whole) = 0.9;
            at(import) = 0.1;
          } else if (text.back() == import) {
            at(numpy) = 1;
          } else if (text.back() == numpy) {
            at(learnt.id("x")) = 1;
          } else {
            at(learnt.end()) = 1;
          }
          return p;
        },
        max_branches, window, learnt.vocabulary());
  }
};

HealOptions with_mode(HealMode mode, int back = 2) {
  HealOptions options;
  options.mode = mode;
  options.back = back;
  return options;
}

TEST(HealingModes, OnlyGoingFarEnoughBackFindsTheWord) {
  const Snake snake;
  const std::array before{snake.learnt.begin()};
  const auto healed = [&](const HealOptions& options) {
    TableDecoder decoder = snake.make_decoder();
    const Branch branch = decoder.open();
    HealResult result = heal(decoder, branch, before, "import numpy", options);
    result.tokens.insert(result.tokens.begin(), decoder.text(branch).begin(), decoder.text(branch).end());
    EXPECT_EQ(result.statistics.mode, options.mode);
    return result;
  };
  const HealResult exact = healed(with_mode(HealMode::exact));
  EXPECT_EQ(exact.tokens, (std::vector<Token>{snake.learnt.begin(), snake.whole}));
  EXPECT_EQ(exact.bytes, " as np");
  EXPECT_NEAR(exact.logprob, std::log(0.9), 1e-6);
  EXPECT_EQ(exact.statistics.tokens_removed, 2);
  EXPECT_EQ(exact.statistics.bytes, 12);
  EXPECT_EQ(exact.statistics.chosen_split, 0);
  EXPECT_NEAR(exact.statistics.prefix_logprob, 0, 1e-6);
  EXPECT_NEAR(exact.statistics.bits_saved, std::log2(10.0), 1e-6);
  EXPECT_EQ(exact.statistics.batches, 1);
  EXPECT_GT(exact.statistics.tokenisations, 0);

  EXPECT_EQ(healed(with_mode(HealMode::back, 2)).bytes, " as np");
  EXPECT_EQ(healed(with_mode(HealMode::back, 5)).bytes, " as np");  // no more than there are
  const HealResult one = healed(with_mode(HealMode::one));
  EXPECT_EQ(one.tokens, (std::vector<Token>{snake.learnt.begin(), snake.import, snake.numpy}));
  EXPECT_EQ(one.bytes, "");
  EXPECT_EQ(healed(with_mode(HealMode::back, 1)).tokens, one.tokens);
  const HealResult off = healed(with_mode(HealMode::off));
  EXPECT_EQ(off.tokens, one.tokens);
  EXPECT_EQ(off.bytes, "");
  EXPECT_EQ(off.statistics.batches, 0);
  EXPECT_TRUE(std::isnan(off.statistics.bits_saved));
}

TEST(HealingModes, OnlyExactScoresTheWord) {
  const Snake snake;
  const std::array before{snake.learnt.begin()};
  const auto score = [&](const HealOptions& options, const std::string& next) {
    TableDecoder decoder = snake.make_decoder();
    return score_continuation(decoder, decoder.open(), before, "import numpy", next, options).upper;
  };
  EXPECT_NEAR(score(with_mode(HealMode::exact), " as np"), std::log(0.9), 1e-6);
  EXPECT_NEAR(score(with_mode(HealMode::exact), "x"), std::log(0.1), 1e-6);
  EXPECT_NEAR(score(with_mode(HealMode::back, 2), " as"), std::log(0.9), 1e-6);
  for (const HealMode mode : {HealMode::off, HealMode::one}) {
    EXPECT_EQ(score(with_mode(mode), " as np"), -INFINITY);
    EXPECT_NEAR(score(with_mode(mode), "x"), 0, 1e-6);
  }
}

TEST(HealingModes, ScoresWhatNoDoubleHolds) {
  constexpr double kRare = 1e-30;
  TableDecoder decoder(
      [](std::span<const Token>) { return std::vector<double>{1 - kRare, kRare, 0, 0, 0, 0, 0, 0, 0, 0}; });
  const std::string rare(test::ten_words()->bytes(1));
  std::string next;
  for (int i = 0; i < 40; ++i) next += rare;
  const std::array before{Token{0}};
  const TextScore score = score_continuation(decoder, decoder.open(), before, "", next, with_mode(HealMode::off));
  EXPECT_NEAR(score.lower, 40 * std::log(kRare), 1e-3);  // -2763: e^-745 is the least double
  EXPECT_NEAR(score.upper, score.lower, 0.01);
}

TEST(HealingModes, ScoresWhatJustFitsTheWindow) {
  const Snake snake;
  const std::array before{snake.learnt.begin()};
  for (const int window : {12, 13, 64}) {  // begin token and 12 single bytes, the longest way to spell it
    TableDecoder decoder = snake.make_decoder(16, window);
    HealOptions options;
    options.covers = Covers::all;
    const auto score = [&] { return score_text(decoder, decoder.open(), before, "import numpy", options); };
    if (window == 12) {
      EXPECT_THROW(score(), Error);
    } else {
      EXPECT_NEAR(score().lower, 0, 1e-6) << window;
    }
  }
}

TEST(HealingModes, FindsChineseWordsOfOneToken) {
  LearntOptions with;
  with.characters = true;
  for (const std::string word : {"太阳", "白云", "机场"}) add_word(with.given, word);
  with.given.insert(with.given.end(), {{"太阳", "能"}, {"白云", "山"}, {"白云", "机场"}});
  const LearntVocabulary learnt({"太阳能", "白云山机场"}, with);
  const TableDecoder::Table table = [&](std::span<const Token> text) {
    std::vector<double> p(static_cast<std::size_t>(learnt.vocabulary()->size()), 1e-9);
    const auto at = [&](const std::string& word) -> double& { return p[static_cast<std::size_t>(learnt.id(word))]; };
    if (text.size() == 1) {
      at("太阳能") = 0.5;
      at("太阳") = 0.1;
      at("白云机场") = 0.2;
      at("白云山") = 0.15;
      at("白云") = 0.05;
    } else {
      p[static_cast<std::size_t>(learnt.end())] = 1;
    }
    return p;
  };
  const std::array before{learnt.begin()};
  const auto healed = [&](const std::string& prompt, HealMode mode) {
    TableDecoder decoder(table, 16, 64, learnt.vocabulary());
    const HealResult result = heal(decoder, decoder.open(), before, prompt, with_mode(mode));
    return result.bytes + (result.ended ? "$" : "");
  };
  EXPECT_EQ(healed("太阳", HealMode::exact), "能");
  EXPECT_EQ(healed("白云", HealMode::exact), "机场");
  EXPECT_EQ(healed("白云\xE6", HealMode::exact), std::string("机场").substr(1));
  EXPECT_EQ(healed("白云\xE5\xB1", HealMode::exact), "\xB1");
  EXPECT_EQ(healed("太", HealMode::exact), "阳能");
  EXPECT_EQ(healed("太阳", HealMode::off), "");
  EXPECT_EQ(healed("太阳能", HealMode::exact), "$");

  TableDecoder decoder(table, 16, 64, learnt.vocabulary());
  const Continuations words = completions(decoder, decoder.open(), before, "白", 2, {});
  ASSERT_EQ(words.ways.size(), 2U);
  EXPECT_EQ(words.ways[0].bytes, "云机场");
  EXPECT_NEAR(words.ways[0].probability, 0.5, 0.01);
  EXPECT_EQ(words.ways[1].bytes, "云山");
}

TEST(HealingModes, ReadsAheadWhatMayEndNext) {
  LearntOptions with;
  with.characters = true;
  for (const std::string word : {"白云", "机场"}) add_word(with.given, word);
  with.given.insert(with.given.end(), {{"白云", "山"}, {"白云山", "机场"}});
  const LearntVocabulary learnt({"白云山机场"}, with);
  // Followed byte by byte, 白云 ends first, then 白云山, each beside a longer word that is not much less probable.
  TableDecoder decoder(
      [&](std::span<const Token> text) {
        std::vector<double> p(static_cast<std::size_t>(learnt.vocabulary()->size()), 1e-9);
        const auto at = [&](const std::string& word) -> double& {
          return p[static_cast<std::size_t>(learnt.id(word))];
        };
        if (text.size() == 1) {
          at("白云") = 0.4;
          at("白云山") = 0.4;
          at("白云山机场") = 0.2;
        } else {
          at("白") = 0.4;
          p[static_cast<std::size_t>(learnt.end())] = 0.6;
        }
        return p;
      },
      16, 64, learnt.vocabulary());
  const HealResult result = heal(decoder, decoder.open(), std::array{learnt.begin()}, "白", {});
  EXPECT_EQ(result.bytes, "云山");
  EXPECT_EQ(result.statistics.batches,
            2);  // the prefixes of the prompt, which this decoder does not share, and one more
}

}  // namespace
}  // namespace tuiqiao
