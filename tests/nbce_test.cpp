#include "tuiqiao/text/nbce.h"

#include <gtest/gtest.h>

#include <cmath>

#include "table_decoder.h"
#include "tuiqiao/text/generate.h"

namespace tuiqiao {
namespace {

using test::random_table;
using test::TableDecoder;

/// A decoder with one branch for "no context" and one for each context, the contexts being single tokens.
struct Bundle {
  TableDecoder decoder;
  std::vector<Branch> trunks;

  explicit Bundle(unsigned seed, const std::vector<Token>& contexts, int max_branches = 8)
      : decoder(random_table(seed), max_branches) {
    trunks.push_back(decoder.open());
    for (const Token context : contexts) {
      trunks.push_back(decoder.open());
      decoder.extend({trunks.back(), std::span(&context, 1), Rows::none});
    }
  }
};

std::vector<double> conditional(unsigned seed, std::vector<Token> text) { return random_table(seed)(text); }

TEST(NbceDecoder, MeanWithBetaOfNaiveBayesIsNaiveBayesOverWholeTexts) {
  // p(T | S_1..S_n) proportional to prod p(T | S_k) / p(T)^(n - 1), token by token, against the products written out.
  const std::vector<Token> contexts{1, 4, 7};
  const unsigned seed = 11;
  Bundle s(seed, contexts);
  PoolingOptions options;
  options.pooling = Pooling::mean;
  options.top_p = 1;
  options.beta = static_cast<double>(contexts.size()) - 1;
  NbceDecoder nbce(s.decoder, s.trunks, options);

  std::vector<Token> text;
  for (const Token next : {3, 0, 5}) {
    text.push_back(next);
    nbce.extend({NbceDecoder::trunk(), std::span(&text.back(), 1), Rows::last});
    std::vector<double> expected(10, 1);
    double sum = 0;
    for (std::size_t t = 0; t < 10; ++t) {
      for (const Token context : contexts) {
        std::vector<Token> whole{context};
        whole.insert(whole.end(), text.begin(), text.end());
        expected[t] *= conditional(seed, whole)[t];
      }
      expected[t] /= std::pow(conditional(seed, text)[t], static_cast<double>(contexts.size()) - 1);
      sum += expected[t];
    }
    const Row row = nbce.row(NbceDecoder::trunk());
    for (Token t = 0; t < 10; ++t)
      EXPECT_NEAR(row[t], std::log(expected[static_cast<std::size_t>(t)] / sum), kPoolingError);
  }
}

TEST(NbceDecoder, ExtendsAllBranchesInOneCall) {
  Bundle s(3, {1, 2, 3, 4});
  NbceDecoder nbce(s.decoder, s.trunks, {});
  const int before = s.decoder.extends;
  const std::vector<Token> text{5, 6};
  nbce.extend({NbceDecoder::trunk(), text, Rows::last});
  EXPECT_EQ(s.decoder.extends, before + 1);
  EXPECT_EQ(s.decoder.text(s.trunks[0]), (std::vector<Token>{5, 6}));
  EXPECT_EQ(s.decoder.text(s.trunks[4]), (std::vector<Token>{4, 5, 6}));
  EXPECT_EQ(nbce.length(NbceDecoder::trunk()), 3);
  EXPECT_EQ(nbce.contexts(), 4);
}

TEST(NbceDecoder, RowsOfEachPositionAreThoseOfOneAtATime) {
  const std::vector<Token> text{5, 6, 0, 2};
  Bundle together(9, {1, 4});
  NbceDecoder all(together.decoder, together.trunks, {});
  all.extend({NbceDecoder::trunk(), text, Rows::all});
  ASSERT_EQ(all.rows(NbceDecoder::trunk()).size(), text.size());

  Bundle apart(9, {1, 4});
  NbceDecoder one(apart.decoder, apart.trunks, {});
  for (std::size_t i = 0; i < text.size(); ++i) {
    one.extend({NbceDecoder::trunk(), std::span(&text[i], 1), Rows::last});
    for (Token t = 0; t < 10; ++t) EXPECT_EQ(all.rows(NbceDecoder::trunk())[i][t], one.row(NbceDecoder::trunk())[t]);
    EXPECT_EQ(all.steps(NbceDecoder::trunk())[i].context, one.steps(NbceDecoder::trunk()).back().context);
  }
}

TEST(NbceDecoder, ThePreviousChoiceBelongsToABranchAndIsCopied) {
  // Context 1 is sure after token 0, context 2 after token 1. With a large eta the choice of the first step sticks.
  const auto table = [](std::span<const Token> text) {
    std::vector<double> p(10, 0.05);
    const bool sure = text.size() > 1 && ((text[0] == 7 && text.back() == 0) || (text[0] == 8 && text.back() == 1));
    if (sure) p.assign(10, 0.001);
    p[3] = 1 - (sure ? 0.009 : 0.45);
    return p;
  };
  TableDecoder decoder(table, 9);
  std::vector<Branch> trunks{decoder.open(), decoder.open(), decoder.open()};
  for (const Token context : {7, 8})
    decoder.extend({trunks[static_cast<std::size_t>(context - 6)], std::span(&context, 1), Rows::none});
  PoolingOptions options;
  options.eta = 100;
  options.top_p = 1;
  NbceDecoder nbce(decoder, trunks, options);
  EXPECT_EQ(nbce.max_branches(), 3);

  const Token zero = 0, one = 1;
  const Branch other = nbce.fork(NbceDecoder::trunk());
  nbce.extend({NbceDecoder::trunk(), std::span(&zero, 1), Rows::last});
  EXPECT_EQ(nbce.steps(NbceDecoder::trunk()).back().context, 0);
  nbce.extend({other, std::span(&one, 1), Rows::last});
  EXPECT_EQ(nbce.steps(other).back().context, 1) << "a fork made before the first choice has none";
  const Branch copy = nbce.fork(NbceDecoder::trunk());
  nbce.extend({copy, std::span(&one, 1), Rows::last});
  EXPECT_EQ(nbce.steps(copy).back().context, 0) << "eta keeps the choice that was copied";
  EXPECT_THROW(nbce.fork(copy), std::invalid_argument);
  nbce.close(other);
  EXPECT_EQ(nbce.fork(copy), other) << "numbers of closed branches are given out again";
}

TEST(NbceDecoder, GeneratesLikeAnyDecoder) {
  Bundle s(21, {1, 2});
  NbceDecoder nbce(s.decoder, s.trunks, {});
  const Token first = 5;
  nbce.extend({NbceDecoder::trunk(), std::span(&first, 1), Rows::last});
  GenerateOptions options;
  options.max_tokens = 12;
  std::vector<Token> tokens;
  const Finish finish = generate(nbce, NbceDecoder::trunk(), options, [&](const Choice& choice) {
    double sum = 0;
    for (Token t = 0; t < 10; ++t) sum += std::exp((*choice.row)[t]);
    EXPECT_NEAR(sum, 1, 1e-5);
    tokens.push_back(choice.token);
  });
  EXPECT_FALSE(tokens.empty());
  // The first token, then all that were chosen but one that nothing follows.
  EXPECT_EQ(s.decoder.text(s.trunks[0]).size(), 1 + tokens.size() - (finish == Finish::length ? 1 : 0));
}

TEST(NbceDecoder, RefusesWhatItCannotPool) {
  Bundle s(1, {1});
  EXPECT_THROW(NbceDecoder(s.decoder, std::span(s.trunks).first(1), {}), std::invalid_argument);
  EXPECT_THROW(NbceDecoder(s.decoder, {}, {}), std::invalid_argument);
  const std::vector<Branch> dead{0, 7};
  EXPECT_THROW(NbceDecoder(s.decoder, dead, {}), std::invalid_argument);
  NbceDecoder nbce(s.decoder, s.trunks, {});
  EXPECT_THROW(nbce.row(NbceDecoder::trunk()), std::invalid_argument);
  EXPECT_THROW(nbce.length(1), std::invalid_argument);
  const Token token = 0;
  nbce.extend({NbceDecoder::trunk(), std::span(&token, 1), Rows::none});
  EXPECT_THROW(nbce.row(NbceDecoder::trunk()), std::invalid_argument);
}

TEST(NbceDecoder, DivergenceIsZeroWhereContextsSayNothing) {
  const auto deaf = [](std::span<const Token>) { return std::vector<double>(10, 0.1); };
  TableDecoder decoder(deaf);
  std::vector<Branch> trunks{decoder.open(), decoder.open()};
  NbceDecoder nbce(decoder, trunks, {});
  const Token token = 0;
  nbce.extend({NbceDecoder::trunk(), std::span(&token, 1), Rows::last});
  EXPECT_NEAR(nbce.divergence_bits(NbceDecoder::trunk()), 0, 1e-6);
}

TEST(NbceDecoder, SaysWhetherContextsAgree) {
  // Only a branch that begins by token 2 has a mind of its own.
  const auto table = [](std::span<const Token> text) {
    std::vector<double> p(10, 0.1);
    if (text[0] == 2) p[3] = 0.19, p[4] = 0.01;
    return p;
  };
  for (const Token second : {1, 2}) {
    TableDecoder decoder(table);
    std::vector<Branch> trunks;
    for (const Token first : {0, 1, 1, second}) {
      trunks.push_back(decoder.open());
      decoder.extend({trunks.back(), std::span(&first, 1), Rows::none});
    }
    NbceDecoder nbce(decoder, trunks, {});
    EXPECT_THROW(nbce.contexts_agree(NbceDecoder::trunk(), 1), std::invalid_argument);
    const Token token = 0;
    nbce.extend({NbceDecoder::trunk(), std::span(&token, 1), Rows::last});
    EXPECT_EQ(nbce.contexts_agree(NbceDecoder::trunk(), 0.01), second == 1);
    EXPECT_TRUE(nbce.contexts_agree(NbceDecoder::trunk(), 0.9));
  }
}

}  // namespace
}  // namespace tuiqiao
