#include "tuiqiao/text/answering.h"

#include <gtest/gtest.h>

#include <array>
#include <functional>

#include "llama_fixtures.h"
#include "tuiqiao/error.h"
#include "tuiqiao/text/nbce.h"

namespace tuiqiao {
namespace {

using namespace test;

/// Largest difference of a log-probability between runs whose batches or cells differ. reading_test.cpp measures up to
/// 0.0034, llama_test.cpp 0.0064.
constexpr double kBatchShapeNats = 0.03;
/// The same of the entropy of a row after top-p. Measured: 0.0003; a token that crosses the edge of the nucleus would
/// add -p log p of its own.
constexpr double kPooledEntropyNats = 0.05;

// ---- naive-Bayes contexts over llama.cpp ----

class Pooled : public testing::TestWithParam<Layout> {
 protected:
  const LlamaModel& model() const { return tiny(GetParam().model); }
  LlamaDecoderOptions settings(int branches) const {
    LlamaDecoderOptions options;
    options.max_branches = branches;
    options.window = 200;
    options.streams = GetParam().streams;
    options.threads = 1;
    return options;
  }
  /// Without context (a few tokens), then three documents.
  std::vector<std::vector<Token>> texts() const { return texts_of(model(), {3, 40, 90, 61}); }
};

TEST_P(Pooled, IsThePoolOfDecodersApart) {
  PoolingOptions options;
  LlamaDecoder inner(model(), settings(4));
  NbceDecoder pooled(inner, inner.read(texts()), options);
  const std::vector<Token> question = random_tokens(model().vocabulary(), 8, 6);

  // The same by four decoders that know nothing of one another. They are fed the tokens that the pooled one chose, so
  // that no near tie between two words can part them.
  std::vector<std::unique_ptr<LlamaDecoder>> apart;
  std::vector<Branch> branches;
  for (const auto& text : texts()) {
    apart.push_back(std::make_unique<LlamaDecoder>(model(), settings(1)));
    branches.push_back(apart.back()->read(std::vector<std::vector<Token>>{text})[0]);
  }
  const Pooler pooler(options);
  std::vector<float> scores(static_cast<std::size_t>(model().vocabulary().size()));
  int previous = -1, agreeing = 0, decided = 0;
  std::vector<Token> next = question, text;
  for (int step = 0; step < 24; ++step) {
    pooled.extend({NbceDecoder::trunk(), next, Rows::last});
    for (std::size_t i = 0; i < apart.size(); ++i) apart[i]->extend({branches[i], next, Rows::last});
    std::vector<Row> rows;
    for (std::size_t i = 1; i < apart.size(); ++i) rows.push_back(apart[i]->row(branches[i]));
    const PoolingResult expected = pooler.pool(rows, apart[0]->row(branches[0]), previous, scores);
    const PoolingResult& found = pooled.steps(NbceDecoder::trunk()).back();
    previous = found.context;
    const LogRow row = copy_row(pooled.row(NbceDecoder::trunk())), reference = copy_row({scores, 0});
    for (std::size_t k = 0; k < 3; ++k) {
      EXPECT_NEAR(found.entropies_nats[k], expected.entropies_nats[k], kPooledEntropyNats) << step;
    }
    // The nucleus has an edge: a token that lies on it may fall to either side. The best token does not.
    agreeing += found.context == expected.context;
    if (margin(row) > 4 * kBatchShapeNats && found.context == expected.context) {
      ++decided;
      EXPECT_EQ(best_token(row), best_token(reference)) << step;
    }
    next = {best_token(row)};
    text.push_back(next[0]);
  }
  EXPECT_GE(agreeing, 22);
  EXPECT_GE(decided, 12);  // or the text was all ties, and nothing was compared

  // The greedy text of the same layout, twice.
  LlamaDecoder second(model(), settings(4));
  NbceDecoder again(second, second.read(texts()), options);
  again.extend({NbceDecoder::trunk(), question, Rows::last});
  GenerateOptions greedy;
  greedy.max_tokens = 24;
  std::vector<Token> generated;
  generate(again, NbceDecoder::trunk(), greedy, [&](const Choice& choice) { generated.push_back(choice.token); });
  text.resize(generated.size());  // an ending token ends it
  EXPECT_EQ(generated, text);
}

TEST_P(Pooled, ForksCarryTheChoiceBefore) {
  PoolingOptions sticky;
  sticky.eta = 100;  // whoever decided once decides for good
  LlamaDecoder inner(model(), settings(12));
  NbceDecoder pooled(inner, inner.read(texts()), sticky);
  EXPECT_EQ(pooled.max_branches(), 3);
  const Branch trunk = NbceDecoder::trunk();
  const Branch early = pooled.fork(trunk);  // before anything was decided
  const std::vector<Token> question = random_tokens(model().vocabulary(), 8, 6);
  pooled.extend({trunk, question, Rows::last});
  const int choice = pooled.steps(trunk).back().context;
  const Branch copy = pooled.fork(trunk);
  int others = 0;
  for (unsigned seed = 0; seed < 30; ++seed) {
    const std::vector<Token> tokens = random_tokens(model().vocabulary(), 2, 50 + seed);
    pooled.extend(std::vector<Extension>{{copy, tokens, Rows::last}, {early, tokens, Rows::none}});
    const PoolingResult& step = pooled.steps(copy).back();
    EXPECT_EQ(step.context, choice);
    const auto least = std::min_element(step.entropies_nats.begin(), step.entropies_nats.end());
    others += static_cast<int>(least - step.entropies_nats.begin()) != choice;
  }
  EXPECT_GT(others, 3);  // another context would have decided, but for the choice before
  EXPECT_EQ(pooled.length(trunk), 98);
  EXPECT_EQ(pooled.length(copy), 158);

  // The early fork has chosen nothing yet, so it and its forks are free.
  pooled.close(copy);
  int free = 0;
  for (unsigned seed = 0; seed < 20; ++seed) {
    const Branch probe = pooled.fork(early);
    pooled.extend({probe, random_tokens(model().vocabulary(), 8, 300 + seed), Rows::last});
    const PoolingResult& step = pooled.steps(probe).back();
    const auto least = std::min_element(step.entropies_nats.begin(), step.entropies_nats.end());
    EXPECT_EQ(step.context, static_cast<int>(least - step.entropies_nats.begin()));
    free += step.context != choice;
    pooled.close(probe);
  }
  EXPECT_GT(free, 1);
}

INSTANTIATE_TEST_SUITE_P(Architectures, Pooled,
                         testing::Values(Layout{"tiny-llama", false}, Layout{"tiny-llama", true},
                                         Layout{"tiny-mamba", false}, Layout{"tiny-gemma3", false},
                                         Layout{"tiny-gemma3", true}));

// ---- documents to answers ----

Document document(const std::string& id, int sentences) {
  Document made{id, "", "", std::nullopt};
  for (int i = 0; i < sentences; ++i)
    made.text += "The heron of " + id + " was at station " + std::to_string(i) + ", not open. ";
  return made;
}

AnsweringOptions plain_options() {
  AnsweringOptions options;
  options.prompt = plain_template("plain");
  options.generate.max_tokens = 8;
  options.threads = 1;
  return options;
}

class Answering : public testing::TestWithParam<Layout> {
 protected:
  const LlamaModel& model() const { return tiny(GetParam().model); }
  AnsweringOptions options() const {
    AnsweringOptions made = plain_options();
    made.kv = GetParam().streams ? KvLayout::streams : KvLayout::unified;
    return made;
  }
  const std::vector<Document> documents{document("one", 2), document("two", 14), document("three", 3)};
  const std::vector<Question> questions{
      {"What is the river?", ""}, {"Where was the keeper?", "It was"}, {"桥在什么", ""}};
};

TEST_P(Answering, AnswersSeveralQuestionsFromSplitDocuments) {
  AnsweringOptions with = options();
  with.window = 150;
  std::vector<std::string> notes, events_seen;
  AnsweringEvents events;
  events.note = [&](const std::string& line) { notes.push_back(line); };
  events.begin = [&](const Answer&) { events_seen.push_back("begin"); };
  events.token = [&](const Answer& answer, const AnswerToken& token) {
    events_seen.push_back("token");
    EXPECT_EQ(answer.tokens.back().id, token.id);
  };
  events.end = [&](const Answer& answer) { events_seen.push_back("end " + answer.finish); };
  const ScratchFolder folder;
  StateStore store(folder.path);
  const auto answers = answer_questions(model(), documents, questions, with, &store, {}, events);
  ASSERT_EQ(answers.size(), 3U);
  ASSERT_EQ(notes.size(), 1U);
  EXPECT_NE(notes[0].find("two: longer than the window of 150 tokens, split into"), std::string::npos) << notes[0];
  std::vector<std::string> expected_events;
  for (std::size_t q = 0; q < answers.size(); ++q) {
    const Answer& answer = answers[q];
    EXPECT_EQ(answer.question, questions[q].text);
    EXPECT_EQ(answer.prefix, questions[q].prefix);
    ASSERT_GE(answer.contexts.size(), 5U);
    EXPECT_EQ(answer.contexts.front().id, "one");
    EXPECT_EQ(answer.contexts.front().part, 0);
    EXPECT_EQ(answer.contexts[1].id, "two");
    EXPECT_EQ(answer.contexts[1].part, 1);
    EXPECT_EQ(answer.contexts[2].part, 2);
    EXPECT_EQ(answer.contexts.back().id, "three");
    for (const AnswerContext& context : answer.contexts) EXPECT_LE(context.tokens, 150 - 8);
    EXPECT_FALSE(answer.abstained);
    EXPECT_TRUE(answer.finish == "length" || answer.finish == "stopped" || answer.finish == "end") << answer.finish;
    EXPECT_EQ(answer.tokens.size() == 8, answer.finish == "length");
    expected_events.push_back("begin");
    for (std::size_t i = 0; i < answer.tokens.size(); ++i) {
      const AnswerToken& token = answer.tokens[i];
      EXPECT_GE(token.context, 0);
      EXPECT_LT(token.context, static_cast<int>(answer.contexts.size()));
      EXPECT_LE(token.logprob, 0);
      EXPECT_EQ(token.bytes, model().vocabulary().bytes(token.id));
      EXPECT_EQ(token.switched, i > 0 && answer.tokens[i - 1].context != token.context);
      expected_events.push_back("token");
    }
    expected_events.push_back("end " + answer.finish);
  }
  EXPECT_EQ(events_seen, expected_events);
  EXPECT_EQ(folder.files().size(), answers[0].contexts.size() + 1);  // and the one without context

  // The same run from the store is the same to the bit.
  const auto again = answer_questions(model(), documents, questions, with, &store);
  EXPECT_EQ(store.statistics().hits, static_cast<int>(folder.files().size()));
  for (std::size_t q = 0; q < answers.size(); ++q) {
    ASSERT_EQ(again[q].tokens.size(), answers[q].tokens.size());
    for (std::size_t i = 0; i < answers[q].tokens.size(); ++i) {
      EXPECT_EQ(again[q].tokens[i].id, answers[q].tokens[i].id);
      EXPECT_EQ(again[q].tokens[i].logprob, answers[q].tokens[i].logprob);
      EXPECT_EQ(again[q].tokens[i].context, answers[q].tokens[i].context);
    }
  }
}

TEST_P(Answering, OneOfSeveralQuestionsIsAnsweredAsAlone) {
  const AnsweringOptions with = options();
  const auto together = answer_questions(model(), documents, questions, with);
  for (std::size_t q = 0; q < questions.size(); ++q) {
    const auto alone = answer_questions(model(), documents, {questions[q]}, with);
    // Other branches beside it move its rows, so only the first word is sure to be the same.
    EXPECT_NEAR(alone[0].first_entropy_nats, together[q].first_entropy_nats, kPooledEntropyNats);
    ASSERT_FALSE(alone[0].tokens.empty() || together[q].tokens.empty());
    EXPECT_EQ(alone[0].tokens[0].id, together[q].tokens[0].id);
    EXPECT_NEAR(alone[0].first_divergence_bits, together[q].first_divergence_bits, 0.02);
  }
}

TEST_P(Answering, HasRoomForCopiesOfManyDocuments) {
  const std::vector<Question> two{{"Why?", ""}, {"When?", ""}};
  for (const int count : {1, 17, 28, 127}) {
    std::vector<Document> many;
    for (int i = 0; i < count; ++i) {
      many.push_back({"d" + std::to_string(i), "", "", {}});
      for (int word = 0; word <= i % 5; ++word) many.back().text += "river ";
    }
    AnsweringOptions with = options();
    with.generate.max_tokens = 1;
    for (const KvLayout layout : {with.kv, KvLayout::automatic}) {
      with.kv = layout;
      EXPECT_EQ(answer_questions(model(), many, two, with).size(), 2U) << count << " documents";
    }
  }
}

TEST_P(Answering, AbstainsByEitherRule) {
  AnsweringOptions with = options();
  for (const AbstainRule& rule : {AbstainRule{1, 0}, AbstainRule{0, 1e-9}}) {
    with.abstain = rule;
    const auto answers = answer_questions(model(), documents, questions, with);
    for (const Answer& answer : answers) {
      EXPECT_TRUE(answer.abstained);
      EXPECT_EQ(answer.finish, "abstained");
      EXPECT_TRUE(answer.tokens.empty());
      EXPECT_GT(answer.first_entropy_nats, 0);
      EXPECT_GT(answer.first_divergence_bits, 0);
      EXPECT_LT(answer.first_divergence_bits, 1);
    }
  }
  with.abstain = AbstainRule{1e-9, 100};
  for (const Answer& answer : answer_questions(model(), documents, questions, with)) EXPECT_FALSE(answer.abstained);
}

TEST_P(Answering, StopsInTheMiddle) {
  AnsweringOptions with = options();
  std::stop_source stop;
  with.generate.stop = stop.get_token();
  std::vector<std::string> ended;
  int heard = 0;
  AnsweringEvents events;
  events.token = [&](const Answer& answer, const AnswerToken&) {
    if (answer.question != questions[1].text) return;
    if (++heard == 2) stop.request_stop();
  };
  events.end = [&](const Answer& answer) { ended.push_back(answer.question); };
  EXPECT_THROW(answer_questions(model(), documents, questions, with, nullptr, {}, events), Interrupted);
  EXPECT_EQ(heard, 2);
  EXPECT_EQ(ended, std::vector<std::string>{questions[0].text});  // an answer that was cut short has no end

  std::stop_source before;
  before.request_stop();
  Progress progress;
  progress.stop = before.get_token();
  EXPECT_THROW(answer_questions(model(), documents, questions, options(), nullptr, progress), Interrupted);
}

TEST_P(Answering, TakesAShortDocumentWhereLittleRoomIsLeft) {
  const Document tiny_document{"tiny", "", "The heron.", std::nullopt};
  const auto contexts_in = [&](int window, const Document& from) {
    return make_contexts(model().vocabulary(), {from}, {questions[0]}, options(), window, {});
  };
  // The window that it fills to the last token.
  const int needed =
      contexts_in(500, tiny_document)[0].label.tokens + options().generate.max_tokens +
      static_cast<int>(question_prompt(options().prompt, model().vocabulary(), questions[0].text, "").size());
  const auto contexts = contexts_in(needed, tiny_document);
  ASSERT_EQ(contexts.size(), 1U);
  EXPECT_EQ(contexts[0].label.part, 0);
  for (int less = 1; less < 20; ++less) EXPECT_THROW(contexts_in(needed - less, tiny_document), Error) << less;
  // A part of a longer one would be too short to be of use.
  try {
    contexts_in(needed, documents[1]);
    ADD_FAILURE();
  } catch (const Error& error) {
    EXPECT_NE(std::string(error.what()).find("too small"), std::string::npos) << error.what();
    EXPECT_NE(std::string(error.what()).find("for two"), std::string::npos) << error.what();
  }
}

TEST_P(Answering, RefusesWhatDoesNotFit) {
  AnsweringOptions with = options();
  with.window = 50;
  EXPECT_THROW(answer_questions(model(), documents, questions, with), Error);
  with = options();
  with.generate.max_tokens = 600;
  EXPECT_THROW(answer_questions(model(), documents, questions, with), Error);
  const std::vector<Document> many(256, document("many", 1));
  EXPECT_THROW(answer_questions(model(), many, {questions[0]}, options()), Error);
  const std::vector<Document> half(128, document("many", 1));
  EXPECT_THROW(answer_questions(model(), half, questions, options()), Error);
  std::vector<Document> scored = documents;
  scored[1].score = -0.5;
  EXPECT_THROW(answer_questions(model(), scored, questions, options()), Error);
  with = options();
  with.pooling.beta = -2;
  EXPECT_THROW(answer_questions(model(), documents, questions, with), std::invalid_argument);
}

TEST_P(Answering, ChecksOptionsBeforeDocuments) {
  const std::vector<Document> many(256, document("many", 1));  // too many, which is found out later
  const double nan = std::nan(""), infinity = INFINITY;
  const std::vector<std::pair<std::string, std::function<void(AnsweringOptions&)>>> cases{
      {"generate.temperature = -1", [](auto& o) { o.generate.temperature = -1; }},
      {"generate.temperature = nan", [=](auto& o) { o.generate.temperature = nan; }},
      {"generate.temperature = inf", [=](auto& o) { o.generate.temperature = infinity; }},
      {"generate.max_tokens = -1", [](auto& o) { o.generate.max_tokens = -1; }},
      {"window = -5", [](auto& o) { o.window = -5; }},
      {"window = 1073741825", [](auto& o) { o.window = (1 << 30) + 1; }},
      {"overlap = -1", [](auto& o) { o.overlap = -1; }},
      {"threads = 513", [](auto& o) { o.threads = 513; }},
      {"abstain.min_divergence_bits = -0.5",
       [](auto& o) {
         o.abstain = AbstainRule{-0.5, 0};
       }},
      {"abstain.min_divergence_bits = nan",
       [=](auto& o) {
         o.abstain = AbstainRule{nan, 0};
       }},
      {"abstain.max_entropy_nats = -1",
       [](auto& o) {
         o.abstain = AbstainRule{0, -1};
       }},
      {"abstain.max_entropy_nats = inf",
       [=](auto& o) {
         o.abstain = AbstainRule{0, infinity};
       }},
      {"beta", [](auto& o) { o.pooling.beta = -2; }}};
  for (const auto& [what, change] : cases) {
    AnsweringOptions with = options();
    change(with);
    try {
      answer_questions(model(), many, {questions[0]}, with);
      ADD_FAILURE() << what;
    } catch (const std::invalid_argument& error) {
      EXPECT_NE(std::string(error.what()).find(what), std::string::npos) << error.what();
    }
  }
}

TEST_P(Answering, SaysWhenTheContextsNeverDisagree) {
  std::vector<std::string> notes;
  AnsweringEvents events;
  events.note = [&](const std::string& line) { notes.push_back(line); };
  const auto noted = [&](const std::vector<Document>& from) {
    notes.clear();
    answer_questions(model(), from, {questions[0]}, options(), nullptr, {}, events);
    return notes.size();
  };
  EXPECT_EQ(noted({documents[0], documents[0], documents[0]}), 1U);
  EXPECT_NE(notes.at(0).find("0.01 bits"), std::string::npos) << notes[0];
  EXPECT_EQ(noted({documents[0], documents[0], documents[1]}), 0U);
  EXPECT_EQ(noted({documents[0]}), 0U);  // nothing to disagree with
  EXPECT_EQ(noted({}), 0U);
}

TEST_P(Answering, ContinuesTheQuestionWithoutDocuments) {
  AnsweringOptions naive = options();
  naive.heal.mode = HealMode::off;
  const auto answers = answer_questions(model(), {}, questions, naive);
  ASSERT_EQ(answers.size(), 3U);
  const std::vector<Token> begin = empty_prompt(options().prompt, model().vocabulary());
  for (std::size_t q = 0; q < questions.size(); ++q) {
    const auto& [text, prefix] = questions[q];
    const LogRow row =
        row_alone(model(), joined(begin, question_prompt(options().prompt, model().vocabulary(), text, prefix)));
    EXPECT_EQ(answers[q].pooling, "none");
    ASSERT_FALSE(answers[q].tokens.empty());
    EXPECT_EQ(answers[q].tokens[0].context, -1);
    EXPECT_EQ(answers[q].tokens[0].id, best_token(row));
    EXPECT_NEAR(answers[q].tokens[0].logprob, row[static_cast<std::size_t>(best_token(row))], kBatchShapeNats);
  }
}

TEST_P(Answering, HealsTheBeginningOfAnAnswer) {
  const Question cut{"Where?", "It lies on the mountai"};
  for (const bool pooled : {false, true}) {
    for (const HealMode mode : {HealMode::exact, HealMode::one, HealMode::back}) {
      AnsweringOptions with = options();
      with.heal.mode = mode;
      for (const int most : {1, 6}) {
        with.generate.max_tokens = most;
        const auto answers = answer_questions(model(), pooled ? documents : std::vector<Document>(), {cut, cut}, with);
        ASSERT_TRUE(answers[0].healing);
        const HealStatistics& healing = *answers[0].healing;
        EXPECT_EQ(healing.mode, mode);
        EXPECT_LE(answers[0].tokens.size(), static_cast<std::size_t>(most));
        if (mode == HealMode::exact) {
          EXPECT_GT(healing.branches, 0);
          EXPECT_LE(healing.prefix_logprob, 0);
          EXPECT_GE(healing.bits_saved, 0);
        }
        ASSERT_FALSE(answers[0].tokens.empty());
        const AnswerToken& first = answers[0].tokens[0];
        EXPECT_LE(first.logprob, 0);
        EXPECT_EQ(first.context >= 0, pooled);
        // The token's bytes are those beyond the prompt.
        const std::string whole(model().vocabulary().bytes(first.id));
        EXPECT_TRUE(whole.ends_with(first.bytes));
        EXPECT_FALSE(first.bytes.empty());
        // The second question finds the trunk as the first did.
        EXPECT_EQ(answers[1].tokens[0].bytes, first.bytes);
        EXPECT_NE(summary_json(answers[0]).find("\"tokens_removed\":"), std::string::npos);
      }
    }
  }
}

TEST_P(Answering, HasNothingToHealAfterATemplate) {
  const auto answers = answer_questions(model(), documents, {{"Where?", ""}}, options());
  EXPECT_FALSE(answers[0].healing);
  EXPECT_NE(summary_json(answers[0]).find("\"healing\":null"), std::string::npos);
}

TEST_P(Answering, LayoutsAgree) {
  AnsweringOptions with = options();
  const auto expected = answer_questions(model(), documents, questions, with);
  for (const KvLayout other : {KvLayout::automatic, KvLayout::unified, KvLayout::streams}) {
    with.kv = other;
    const auto answers = answer_questions(model(), documents, questions, with);
    for (std::size_t q = 0; q < questions.size(); ++q) {
      EXPECT_NEAR(answers[q].first_entropy_nats, expected[q].first_entropy_nats, kPooledEntropyNats);
      ASSERT_FALSE(answers[q].tokens.empty());
      EXPECT_EQ(answers[q].tokens[0].id, expected[q].tokens[0].id);
      EXPECT_EQ(answers[q].tokens[0].context, expected[q].tokens[0].context);
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Layouts, Answering,
                         testing::Values(Layout{"tiny-llama", false}, Layout{"tiny-llama", true},
                                         Layout{"tiny-gemma3", false}, Layout{"tiny-mamba", false}));

// ---- the real model ----

TEST(RealModel, TellsWhoBuiltTheClock) {
  TUIQIAO_REAL_MODEL(model);
  const fs::path folder = fs::path(TUIQIAO_TEST_DATA) / "../../examples/demo/documents";
  std::vector<Document> documents;
  for (const char* name : {"clock-label.txt", "flood-notice.txt", "plum-cake-recipe.txt"}) {
    documents.push_back(read_document(folder / name));
  }
  AnsweringOptions options = plain_options();
  options.generate.max_tokens = 12;
  const std::vector<Question> question{
      {"Who built the tower clock of St. Gertrude's in Lindenau?", "The tower clock was built by"}};
  const ScratchFolder states;
  StateStore store(states.path);
  const auto text = [](const Answer& answer) {
    std::string bytes;
    for (const AnswerToken& token : answer.tokens) bytes += token.bytes;
    return bytes;
  };
  const Answer cold = answer_questions(model, documents, question, options, &store)[0];
  const Answer cached = answer_questions(model, documents, question, options, &store)[0];
  EXPECT_EQ(store.statistics().hits, 4);
  EXPECT_TRUE(text(cold).starts_with(" Anton Brehm")) << text(cold);
  for (std::size_t i = 0, bytes = 0; bytes < std::string_view(" Anton Brehm").size();
       bytes += cold.tokens[i++].bytes.size()) {
    EXPECT_EQ(cold.contexts[static_cast<std::size_t>(cold.tokens[i].context)].id, "clock-label.txt");
  }
  // The same layout gives the same text to the last bit, read now or loaded.
  EXPECT_EQ(text(cached), text(cold));
  ASSERT_EQ(cached.tokens.size(), cold.tokens.size());
  for (std::size_t i = 0; i < cold.tokens.size(); ++i) EXPECT_EQ(cached.tokens[i].logprob, cold.tokens[i].logprob);
}

}  // namespace
}  // namespace tuiqiao
