#include "tuiqiao/text/pooling.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <fstream>
#include <limits>
#include <nlohmann/json.hpp>
#include <numeric>
#include <random>

#include "npy.h"

namespace tuiqiao {
namespace {

constexpr float kNever = -std::numeric_limits<float>::infinity();

Row row_of(const std::vector<float>& scores) { return {scores, log_sum_exp(scores)}; }

std::vector<float> logs(const std::vector<double>& probabilities) {
  std::vector<float> scores;
  for (const double p : probabilities) scores.push_back(static_cast<float>(std::log(p)));
  return scores;
}

struct Pooled {
  std::vector<float> row;
  PoolingResult result;
};

Pooled pool(const PoolingOptions& options, const std::vector<std::vector<float>>& contexts,
            const std::vector<float>& empty, int previous = -1) {
  std::vector<Row> rows;
  for (const auto& scores : contexts) rows.push_back(row_of(scores));
  Pooled pooled{std::vector<float>(empty.size()), {}};
  pooled.result = Pooler(options).pool(rows, row_of(empty), previous, pooled.row);
  return pooled;
}

PoolingOptions plain(Pooling pooling) {
  PoolingOptions options;
  options.pooling = pooling;
  options.beta = 0;
  options.eta = 0;
  options.top_p = 1;
  return options;
}

double probability(const Pooled& pooled, std::size_t token) { return std::exp(static_cast<double>(pooled.row[token])); }

double total(const Pooled& pooled) {
  double sum = 0;
  for (std::size_t t = 0; t < pooled.row.size(); ++t) sum += probability(pooled, t);
  return sum;
}

// ---- Single rows ----

TEST(LogSumExp, AgreesWithTheDefinitionForEverySize) {
  std::mt19937 random(5);
  std::normal_distribution<float> normal(0, 6);
  for (const std::size_t n :
       {1UL, 2UL, 7UL, 8UL, 15UL, 16UL, 17UL, 63UL, 64UL, 65UL, 100UL, 4095UL, 4096UL, 4097UL, 20000UL}) {
    std::vector<float> scores(n);
    for (float& s : scores) s = normal(random);
    long double sum = 0;
    for (const float s : scores) sum += std::exp(static_cast<long double>(s));
    EXPECT_NEAR(log_sum_exp(scores), static_cast<double>(std::log(sum)), 1e-6) << n;
  }
}

TEST(LogSumExp, SurvivesExtremes) {
  EXPECT_EQ(log_sum_exp({}), -std::numeric_limits<double>::infinity());
  EXPECT_EQ(log_sum_exp(std::vector<float>(300, kNever)), -std::numeric_limits<double>::infinity());
  EXPECT_NEAR(log_sum_exp(std::vector<float>(4, 1e4F)), 1e4 + std::log(4), 1e-9);
  EXPECT_NEAR(log_sum_exp(std::vector<float>(4, -1e4F)), -1e4 + std::log(4), 1e-9);
  std::vector<float> rising(9000);  // each block's largest score is above the one before
  for (std::size_t i = 0; i < rising.size(); ++i) rising[i] = static_cast<float>(i);
  EXPECT_NEAR(log_sum_exp(rising), 8999 - std::log(1 - std::exp(-1)), 1e-6);
  for (const std::size_t at : {0UL, 3UL, 70UL, 99UL}) {
    std::vector<float> broken(100, 1);
    broken[at] = std::numeric_limits<float>::quiet_NaN();
    EXPECT_TRUE(std::isnan(log_sum_exp(broken))) << at;
    broken[at] = std::numeric_limits<float>::infinity();
    EXPECT_EQ(log_sum_exp(broken), std::numeric_limits<double>::infinity());
  }
}

TEST(Entropy, ClosedForms) {
  EXPECT_NEAR(entropy_nats(row_of(std::vector<float>(1000, 3))), std::log(1000), 1e-5);
  EXPECT_NEAR(entropy_nats(row_of({5})), 0, 1e-9);
  EXPECT_NEAR(entropy_nats(row_of(logs({0.5, 0.25, 0.25, 0}))), 1.5 * std::log(2), 1e-6);
}

TEST(JensenShannon, ClosedForms) {
  const std::vector<float> a = logs({1, 0}), b = logs({0, 1}), half = logs({0.5, 0.5});
  EXPECT_NEAR(jensen_shannon_bits(row_of(a), row_of(b)), 1, 1e-9);
  EXPECT_NEAR(jensen_shannon_bits(row_of(a), row_of(a)), 0, 1e-9);
  // H(3/4, 1/4) - H(1/2, 1/2) / 2 = 0.811278 - 0.5
  EXPECT_NEAR(jensen_shannon_bits(row_of(a), row_of(half)), 0.311278, 1e-6);
  EXPECT_NEAR(jensen_shannon_bits(row_of(half), row_of(a)), 0.311278, 1e-6);
}

/// Mass above a log-probability, and at or above it.
std::pair<double, double> masses_at(const Row& row, double log_p) {
  double above = 0, from = 0;
  for (std::size_t t = 0; t < row.scores.size(); ++t) {
    const double here = row[static_cast<Token>(t)];
    if (here > log_p + 1e-12) above += std::exp(here);
    if (here > log_p - 1e-12) from += std::exp(here);
  }
  return {above, from};
}

TEST(Nucleus, HoldsItsMassOnFlatPeakedAndTiedRows) {
  std::mt19937 random(17);
  for (int round = 0; round < 300; ++round) {
    std::vector<float> scores(1 + random() % 3000);
    const float spread = std::array{0.01F, 1.F, 4.F, 30.F}[random() % 4];
    std::normal_distribution<float> normal(0, spread);
    const bool tied = random() % 3 == 0;
    for (float& s : scores) s = tied ? std::round(normal(random)) : normal(random);
    if (random() % 4 == 0) scores[random() % scores.size()] = kNever;
    if (std::none_of(scores.begin(), scores.end(), [](float s) { return std::isfinite(s); })) scores[0] = 0;
    const Row row = row_of(scores);
    for (const double p : {0.05, 0.5, 0.9, 0.95, 0.999}) {
      // The lowest kept token has less than p above it, and with it p is reached.
      const auto [above, from] = masses_at(row, nucleus_threshold(row, p));
      EXPECT_LT(above, p + kNucleusError) << round << " " << p;
      EXPECT_GT(from, p - kNucleusError) << round << " " << p;
    }
    EXPECT_EQ(nucleus_threshold(row, 1), -std::numeric_limits<double>::infinity());
  }
}

TEST(Nucleus, StandsOnTheWholeRowWhereAnyRegularSampleMisleads) {
  // Most of the mass lies in short runs of tokens, between which the row is flat.
  constexpr std::size_t kTokens = 1 << 16;
  std::mt19937 random(41);
  for (const std::size_t period : {64UL, 1000UL, 1024UL, 4096UL}) {
    for (const std::size_t phase : {0UL, 5UL, 20UL, 63UL}) {
      std::vector<float> scores(kTokens);
      for (std::size_t t = 0; t < kTokens; ++t)
        scores[t] = (t % period == phase ? 9.F : 0.F) + 1e-4F * static_cast<float>(random() % 10000);
      for (const double p : {0.3, 0.95, 0.999}) {
        const auto [above, from] = masses_at(row_of(scores), nucleus_threshold(row_of(scores), p));
        EXPECT_LT(above, p + kNucleusError) << period << " " << phase << " " << p;
        EXPECT_GE(from, p - kNucleusError) << period << " " << phase << " " << p;
      }
    }
  }
}

TEST(Nucleus, KeepsTheTokenThatCrossesAndAllItsEquals) {
  const std::vector<float> scores = logs({0.5, 0.3, 0.1, 0.1});
  EXPECT_NEAR(nucleus_threshold(row_of(scores), 0.49), std::log(0.5), 1e-6);
  EXPECT_NEAR(nucleus_threshold(row_of(scores), 0.6), std::log(0.3), 1e-6);
  EXPECT_NEAR(nucleus_threshold(row_of(scores), 0.85), std::log(0.1), 1e-6);
  EXPECT_THROW(nucleus_threshold(row_of(scores), 0), std::invalid_argument);
  EXPECT_THROW(nucleus_threshold(row_of(scores), 1.1), std::invalid_argument);
}

// ---- Poolings ----

TEST(Pooling, NamesGoBothWays) {
  for (const char* known : {"min_entropy", "entropy_weighted", "mean", "max", "mixture", "weights"})
    EXPECT_EQ(name(pooling_from_name(known)), known);
  EXPECT_THROW(pooling_from_name("median"), std::invalid_argument);
}

TEST(Pooling, EtaKeepsTheChoiceUnlessAnotherIsMoreThanThatBetter) {
  // Entropies 0.693 and 0.6730 (0.6, 0.4): context 1 is better by 0.0201 nat.
  const std::vector<std::vector<float>> contexts{logs({0.5, 0.5}), logs({0.6, 0.4})};
  PoolingOptions options = plain(Pooling::min_entropy);
  EXPECT_EQ(pool(options, contexts, logs({0.5, 0.5})).result.context, 1);
  options.eta = 0.0202;
  EXPECT_EQ(pool(options, contexts, logs({0.5, 0.5}), 0).result.context, 0);
  options.eta = 0.0200;
  EXPECT_EQ(pool(options, contexts, logs({0.5, 0.5}), 0).result.context, 1);
  EXPECT_NEAR(pool(options, contexts, logs({0.5, 0.5}), 0).result.entropies_nats[0], std::log(2), 1e-6)
      << "reported without eta";
}

TEST(Pooling, ContrastAppliesOnlyWhereTheEmptyRowKnowsTheToken) {
  PoolingOptions options = plain(Pooling::min_entropy);
  options.beta = 0.25;
  // Token 2 is impossible without context: its pooled value stands as it is.
  const Pooled pooled = pool(options, {logs({0.5, 0.3, 0.2})}, logs({0.8, 0.2, 0}));
  const double a = std::pow(0.5, 1.25) / std::pow(0.8, 0.25), b = std::pow(0.3, 1.25) / std::pow(0.2, 0.25), c = 0.2;
  EXPECT_NEAR(probability(pooled, 0), a / (a + b + c), 1e-6);
  EXPECT_NEAR(probability(pooled, 1), b / (a + b + c), 1e-6);
  EXPECT_NEAR(probability(pooled, 2), c / (a + b + c), 1e-6);
}

TEST(Pooling, WeightsGiveGuidanceWithANegativePrompt) {
  PoolingOptions options = plain(Pooling::weights);
  options.weights = {2, -1};
  const Pooled pooled = pool(options, {logs({0.5, 0.5}), logs({0.8, 0.2})}, logs({0.5, 0.5}));
  const double a = 0.25 / 0.8, b = 0.25 / 0.2;
  EXPECT_NEAR(probability(pooled, 0), a / (a + b), 1e-6);
}

TEST(Pooling, MixtureAveragesProbabilitiesByScore) {
  PoolingOptions options = plain(Pooling::mixture);
  EXPECT_NEAR(probability(pool(options, {logs({1, 0}), logs({0.5, 0.5})}, logs({0.5, 0.5})), 0), 0.75, 1e-6);
  options.scores = {std::log(3.0), 0};
  EXPECT_NEAR(probability(pool(options, {logs({1, 0}), logs({0.5, 0.5})}, logs({0.5, 0.5})), 0), 0.875, 1e-6);
}

TEST(Pooling, MaxNamesTheContextThatGaveTheBestToken) {
  PoolingOptions options = plain(Pooling::max);
  const std::vector<std::vector<float>> contexts{logs({0.6, 0.3, 0.1}), logs({0.1, 0.2, 0.7})};
  const Pooled pooled = pool(options, contexts, logs({1 / 3., 1 / 3., 1 / 3.}));
  EXPECT_NEAR(probability(pooled, 2), 0.7 / 1.6, 1e-6);
  EXPECT_EQ(pooled.result.context, 1);
  options.scores = {1, 0};
  EXPECT_EQ(pool(options, contexts, logs({1 / 3., 1 / 3., 1 / 3.})).result.context, 0);
  options.gamma = 0;
  EXPECT_EQ(pool(options, contexts, logs({1 / 3., 1 / 3., 1 / 3.})).result.context, 1);
}

TEST(Pooling, DisjointNucleiArePooledOverTheirUnion) {
  PoolingOptions options = plain(Pooling::mean);
  options.top_p = 0.5;
  const Pooled pooled = pool(options, {logs({0.7, 0.2, 0.1}), logs({0.2, 0.7, 0.1})}, logs({0.3, 0.3, 0.4}));
  EXPECT_TRUE(pooled.result.fallback);
  EXPECT_NEAR(probability(pooled, 0), 0.5, 1e-6);
  EXPECT_NEAR(probability(pooled, 1), 0.5, 1e-6);
  EXPECT_EQ(pooled.row[2], kNever);
}

TEST(Pooling, UnionsOfScatteredNucleiEqualTheirDefinition) {
  constexpr std::size_t kTokens = 10007;  // no multiple of a vector
  std::mt19937 random(29);
  std::vector<std::vector<float>> contexts(5, std::vector<float>(kTokens));
  for (std::size_t k = 0; k < contexts.size(); ++k) {
    for (std::size_t t = 0; t < kTokens; ++t)
      contexts[k][t] = (t * 7919 % 5 == k ? 12.F : 0.F) + 1e-3F * static_cast<float>(random() % 5000);
  }
  PoolingOptions options = plain(Pooling::mean);
  options.top_p = 0.9;
  const Pooled pooled = pool(options, contexts, contexts[0]);
  EXPECT_TRUE(pooled.result.fallback);

  std::vector<double> means(kTokens), expected(kTokens, -std::numeric_limits<double>::infinity());
  std::vector<bool> kept(kTokens);
  for (const auto& scores : contexts) {
    const Row row = row_of(scores);
    const double threshold = nucleus_threshold(row, 0.9);
    for (std::size_t t = 0; t < kTokens; ++t) {
      kept[t] = kept[t] || row[static_cast<Token>(t)] >= threshold;
      means[t] += row[static_cast<Token>(t)] / 5;
    }
  }
  double sum = 0;
  for (std::size_t t = 0; t < kTokens; ++t) {
    if (kept[t]) sum += std::exp(expected[t] = means[t]);
  }
  for (std::size_t t = 0; t < kTokens; ++t) {
    if (std::isinf(expected[t])) {
      EXPECT_EQ(pooled.row[t], kNever) << t;
    } else {
      EXPECT_NEAR(pooled.row[t], expected[t] - std::log(sum), kPoolingError) << t;
    }
  }
}

TEST(Pooling, WhereNoTokenIsPossibleForAllTheRowOfLeastEntropyStands) {
  const Pooled pooled =
      pool(plain(Pooling::mean), {logs({0.5, 0.5, 0, 0}), logs({0, 0, 0.9, 0.1})}, logs({0.25, 0.25, 0.25, 0.25}));
  EXPECT_TRUE(pooled.result.fallback);
  EXPECT_EQ(pooled.result.context, 1);
  EXPECT_NEAR(probability(pooled, 2), 0.9, 1e-6);
}

TEST(Pooling, NaiveBayesOfManyContextsStaysExact) {
  // beta = n - 1 = 254: sums reach tens of thousands of nats, which float32 would round to 1e-3.
  constexpr std::size_t kContexts = 255, kTokens = 400;
  std::mt19937 random(3);
  std::normal_distribution<float> normal(0, 2);
  std::vector<std::vector<float>> contexts(kContexts, std::vector<float>(kTokens));
  std::vector<float> empty(kTokens);
  for (float& s : empty) s = normal(random);
  for (auto& scores : contexts) {
    for (std::size_t t = 0; t < kTokens; ++t) scores[t] = empty[t] + 0.2F * normal(random);
  }
  PoolingOptions options = plain(Pooling::mean);
  options.beta = kContexts - 1;
  const Pooled pooled = pool(options, contexts, empty);

  std::vector<long double> exact(kTokens, 0);
  for (std::size_t t = 0; t < kTokens; ++t) {
    for (const auto& scores : contexts) exact[t] += static_cast<long double>(scores[t]) - row_of(scores).log_total;
    exact[t] -= 254.0L * (static_cast<long double>(empty[t]) - row_of(empty).log_total);
  }
  const long double largest = *std::max_element(exact.begin(), exact.end());
  long double sum = 0;
  for (const long double x : exact) sum += std::exp(x - largest);
  for (std::size_t t = 0; t < kTokens; ++t) {
    const auto expected = static_cast<double>(exact[t] - largest - std::log(sum));
    if (expected > -100) {
      EXPECT_NEAR(pooled.row[t], expected, kPoolingError);
    }
  }
}

TEST(Pooling, EveryPoolingIsNormalisedOnSpreadAndTiedRows) {
  std::mt19937 random(23);
  for (const Pooling pooling : {Pooling::min_entropy, Pooling::entropy_weighted, Pooling::mean, Pooling::max,
                                Pooling::mixture, Pooling::weights}) {
    for (const float spread : {0.F, 1.F, 1e4F}) {
      for (const double top_p : {0.5, 0.95, 1.0}) {
        PoolingOptions options;
        options.pooling = pooling;
        options.top_p = top_p;
        options.beta_auto = random() % 2 == 0;
        if (pooling == Pooling::weights) options.weights = {0.5, 0.7, -0.2};
        std::normal_distribution<float> normal(0, 1);
        std::vector<std::vector<float>> rows(4, std::vector<float>(5000));
        for (auto& scores : rows) {
          for (float& s : scores) s = spread * normal(random);
        }
        const Pooled pooled = pool(options, {rows[0], rows[1], rows[2]}, rows[3]);
        EXPECT_NEAR(total(pooled), 1, 2e-5) << name(pooling) << " " << spread << " " << top_p;
        EXPECT_GE(pooled.result.context, 0);
        EXPECT_TRUE(std::none_of(pooled.row.begin(), pooled.row.end(), [](float x) { return std::isnan(x); }));
      }
    }
  }
}

TEST(Pooling, BetaOfMinusOneIsTheEmptyRowOnTheTokensThatAreLeft) {
  PoolingOptions options = plain(Pooling::min_entropy);
  options.beta = -1;
  const Pooled pooled = pool(options, {logs({0.5, 0.5, 0})}, logs({0.2, 0.6, 0.2}));
  EXPECT_NEAR(probability(pooled, 0), 0.25, 1e-6);
  EXPECT_NEAR(probability(pooled, 1), 0.75, 1e-6);
  EXPECT_EQ(pooled.row[2], kNever);
}

TEST(Pooling, RefusesWhatIsOutsideItsDomain) {
  const auto with = [](auto change) {
    PoolingOptions options;
    change(options);
    return options;
  };
  const double nan = std::numeric_limits<double>::quiet_NaN();
  EXPECT_THROW(Pooler(with([](auto& o) { o.beta = -1.1; })), std::invalid_argument);
  EXPECT_THROW(Pooler(with([&](auto& o) { o.beta = nan; })), std::invalid_argument);
  EXPECT_THROW(Pooler(with([&](auto& o) { o.eta = nan; })), std::invalid_argument);
  EXPECT_THROW(Pooler(with([](auto& o) { o.top_p = 0; })), std::invalid_argument);
  EXPECT_THROW(Pooler(with([](auto& o) { o.top_p = 1.01; })), std::invalid_argument);
  EXPECT_THROW(Pooler(with([&](auto& o) { o.scores = {nan}; })), std::invalid_argument);
  EXPECT_THROW(Pooler(with([](auto& o) { o.pooling = Pooling::weights; })), std::invalid_argument);
  EXPECT_THROW(Pooler(with([](auto& o) { o.pooling = Pooling::weights, o.weights = {0, 0}; })), std::invalid_argument);

  const std::vector<float> two{0, 1}, three{0, 1, 2};
  std::vector<float> out(2);
  const std::vector<Row> rows{row_of(two)};
  EXPECT_THROW(Pooler({}).pool({}, row_of(two), -1, out), std::invalid_argument);
  EXPECT_THROW(Pooler({}).pool(rows, row_of(three), -1, out), std::invalid_argument);
  EXPECT_THROW(Pooler({}).pool(rows, row_of(two), 1, out), std::invalid_argument);
  EXPECT_THROW(Pooler(with([](auto& o) {
                 o.scores = {1, 2};
               })).pool(rows, row_of(two), -1, out),
               std::invalid_argument);
}

// ---- Rows of the real model, against the float64 reference in tests/data/pooling_reference.py ----

PoolingOptions options_of(const nlohmann::json& json) {
  PoolingOptions options;
  options.pooling = pooling_from_name(json.at("pooling").get<std::string>());
  options.beta_auto = json.at("beta").is_string();
  if (!options.beta_auto) options.beta = json.at("beta");
  options.eta = json.at("eta");
  options.top_p = json.at("top_p");
  options.gamma = json.at("gamma");
  options.scores = json.at("scores").get<std::vector<double>>();
  options.weights = json.at("weights").get<std::vector<double>>();
  return options;
}

TEST(Pooling, AgreesWithTheReferenceOnRowsOfTheRealModel) {
  const std::string data = TUIQIAO_TEST_DATA "/";
  const NpyArray rows = read_npy(data + "pooling_rows.npy"), expected = read_npy(data + "pooling_expected.npy");
  std::ifstream in(data + "pooling_expected.json");
  const auto json = nlohmann::json::parse(in);
  const auto side = [](const NpyArray& array, std::size_t i) { return static_cast<std::size_t>(array.shape.at(i)); };
  const std::size_t steps = side(rows, 0), branches = side(rows, 1), size = side(rows, 2);
  ASSERT_EQ(json.size(), side(expected, 0));
  const std::vector<float> scores_of_all(rows.values.begin(), rows.values.end());
  bool fell_back = false;

  for (std::size_t c = 0; c < side(expected, 0); ++c) {
    const auto& test_case = json[c];
    const Pooler pooler(options_of(test_case.at("options")));
    int previous = -1;
    for (std::size_t step = 0; step < steps; ++step) {
      std::vector<Row> contexts;
      Row empty;
      for (std::size_t k = 0; k < branches; ++k) {
        const std::span<const float> scores(scores_of_all.data() + (step * branches + k) * size, size);
        (k == 0 ? empty : contexts.emplace_back()) = {scores, log_sum_exp(scores)};
      }
      std::vector<float> out(size);
      const PoolingResult result = pooler.pool(contexts, empty, previous, out);
      previous = result.context;
      const std::string where = test_case.at("name").get<std::string>() + ", step " + std::to_string(step);
      EXPECT_EQ(result.context, test_case.at("context")[step].get<int>()) << where;
      EXPECT_EQ(result.fallback, test_case.at("fallback")[step].get<bool>()) << where;
      EXPECT_NEAR(result.beta, test_case.at("beta")[step].get<double>(), 1e-6) << where;
      fell_back = fell_back || result.fallback;
      for (std::size_t k = 0; k + 1 < branches; ++k)
        EXPECT_NEAR(result.entropies_nats[k], test_case.at("entropies")[step][k].get<double>(), 1e-5) << where;
      for (std::size_t t = 0; t < size; ++t) {
        const double want = expected.values[(c * steps + step) * size + t];
        if (want > -100) {
          ASSERT_NEAR(out[t], want, kPoolingError) << where << ", token " << t;
        } else {
          ASSERT_LT(out[t], -99.99F) << where << ", token " << t;
        }
      }
    }
  }
  EXPECT_TRUE(fell_back) << "one case was made to need the fallback";
}

}  // namespace
}  // namespace tuiqiao
