#include "tuiqiao/text/generate.h"

#include <gtest/gtest.h>

#include <array>
#include <cmath>
#include <limits>

#include "table_decoder.h"

namespace tuiqiao {
namespace {

using test::TableDecoder;

constexpr float kNever = -std::numeric_limits<float>::infinity();

TEST(Choose, TakesTheMostProbableAndOfEqualsTheFirst) {
  const std::array<float, 4> scores{1.F, 3.F, 3.F, kNever};
  EXPECT_EQ(choose({scores, 0}, 0, 0.999), 1);
}

TEST(Choose, DrawsByProbability) {
  // p = 1/8, 5/8, 0, 2/8, and each at exponent 1/T = 2: 1/30, 25/30, 0, 4/30.
  const std::array<float, 4> scores{std::log(1.F), std::log(5.F), kNever, std::log(2.F)};
  const auto at = [&](double temperature, double uniform) {
    return choose({scores, std::log(8.0)}, temperature, uniform);
  };
  EXPECT_EQ(at(1, 0), 0);
  EXPECT_EQ(at(1, 0.1249), 0);
  EXPECT_EQ(at(1, 0.1251), 1);
  EXPECT_EQ(at(1, 0.7499), 1);
  EXPECT_EQ(at(1, 0.7501), 3);
  EXPECT_EQ(at(1, 1 - 1e-16), 3);
  EXPECT_EQ(at(0.5, 0.0332), 0);
  EXPECT_EQ(at(0.5, 0.0335), 1);
  EXPECT_EQ(at(0.5, 0.8665), 1);
  EXPECT_EQ(at(0.5, 0.8668), 3);
  EXPECT_EQ(at(1e-6, 0.5), 1);  // exponents that overflow unless the largest is taken off
}

TEST(Choose, RefusesWhatHasNoAnswer) {
  const std::array<float, 2> scores{kNever, kNever};
  EXPECT_THROW(choose({scores, 0}, 0, 0), std::invalid_argument);
  EXPECT_THROW(choose({{}, 0}, 0, 0), std::invalid_argument);
  const std::array<float, 1> one{0};
  EXPECT_THROW(choose({one, 0}, -1, 0), std::invalid_argument);
  EXPECT_THROW(choose({one, 0}, std::numeric_limits<double>::quiet_NaN(), 0), std::invalid_argument);
}

/// Prefers the token after the last one; 9 ends the text.
std::vector<double> counting(std::span<const Token> text) {
  std::vector<double> p(10, 0.01);
  p[static_cast<std::size_t>(text.back() + 1)] = 0.91;
  return p;
}

struct Generated {
  std::vector<Token> tokens;
  Finish finish;
};

Generated run_from(Token first, const GenerateOptions& options, int window = 64) {
  TableDecoder decoder(counting, 1, window);
  const Branch branch = decoder.open();
  decoder.extend({branch, std::span(&first, 1), Rows::last});
  Generated run{};
  run.finish = generate(decoder, branch, options, [&](const Choice& choice) {
    run.tokens.push_back(choice.token);
    EXPECT_NEAR(choice.logprob, std::log(choice.token == 9 ? 0.01 : 0.91), 1e-6);
  });
  return run;
}

TEST(Generate, GoesOnUntilTheModelEnds) {
  const Generated run = run_from(5, {});
  EXPECT_EQ(run.tokens, (std::vector<Token>{6, 7, 8}));
  EXPECT_EQ(run.finish, Finish::end);
}

TEST(Generate, StopsAtItsLimits) {
  GenerateOptions options;
  options.max_tokens = 2;
  EXPECT_EQ(run_from(0, options).tokens, (std::vector<Token>{1, 2}));
  EXPECT_EQ(run_from(0, options).finish, Finish::length);
  options.max_tokens = 0;
  EXPECT_TRUE(run_from(0, options).tokens.empty());
  EXPECT_EQ(run_from(0, {}, 3).tokens,
            (std::vector<Token>{1, 2, 3}));  // window of 3: two more evaluated, one more chosen
  options = {};
  options.stop_when = [](std::string_view text) { return text == "bab"; };
  EXPECT_EQ(run_from(0, options).tokens, (std::vector<Token>{1, 2}));
  EXPECT_EQ(run_from(0, options).finish, Finish::stopped);
  std::stop_source source;
  source.request_stop();
  options = {};
  options.stop = source.get_token();
  EXPECT_TRUE(run_from(0, options).tokens.empty());
}

TEST(Generate, DrawsTheSameFromTheSameSeedAndFollowsTheLaw) {
  const auto draw = [](std::uint64_t seed) {
    TableDecoder decoder(
        [](std::span<const Token>) { return std::vector<double>{0.5, 0.25, 0.25, 0, 0, 0, 0, 0, 0, 0}; }, 1, 5000);
    const Branch branch = decoder.open();
    const Token first = 0;
    decoder.extend({branch, std::span(&first, 1), Rows::last});
    GenerateOptions options;
    options.max_tokens = 4000;
    options.temperature = 1;
    options.seed = seed;
    std::vector<Token> tokens;
    generate(decoder, branch, options, [&](const Choice& choice) { tokens.push_back(choice.token); });
    return tokens;
  };
  const std::vector<Token> tokens = draw(7);
  EXPECT_EQ(tokens, draw(7));
  EXPECT_NE(tokens, draw(8));
  const auto zeros = static_cast<double>(std::count(tokens.begin(), tokens.end(), 0));
  EXPECT_NEAR(zeros / 4000, 0.5, 0.04);  // five standard deviations
}

}  // namespace
}  // namespace tuiqiao
