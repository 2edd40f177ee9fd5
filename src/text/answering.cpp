#include "tuiqiao/text/answering.h"

#include <fmt/format.h>
#include <sys/resource.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <memory>

#include "tuiqiao/error.h"
#include "tuiqiao/text/nbce.h"

namespace tuiqiao {

namespace {

using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point start) { return std::chrono::duration<double>(Clock::now() - start).count(); }

/// Room that a part of a document must have at least, else splitting makes no sense.
constexpr int kLeastPart = 32;

std::string trimmed(std::string text) {
  text.resize(text.find_last_not_of(" \t\r\n") + 1);
  return text;
}

std::string body_of(const Document& part, bool numbered, std::size_t number) {
  std::string body = numbered ? fmt::format("Part {}\n\n", number) : std::string();
  if (!part.title.empty()) body += part.title + "\n\n";
  return trimmed(body + part.text);
}

std::string describe(const PoolingOptions& pooling) {
  return fmt::format("{}, beta {}, eta {}, top-p {}", name(pooling.pooling),
                     pooling.beta_auto ? "auto" : fmt::format("{}", pooling.beta), pooling.eta, pooling.top_p);
}

PoolingOptions with_scores(PoolingOptions pooling, const std::vector<Context>& contexts) {
  const auto scored = [](const Context& c) { return c.score.has_value(); };
  if (std::none_of(contexts.begin(), contexts.end(), scored)) return pooling;
  if (!std::all_of(contexts.begin(), contexts.end(), scored))
    throw Error("some documents have a score and some have none");
  for (const Context& context : contexts) pooling.scores.push_back(*context.score);
  return pooling;
}

bool abstains(const AbstainRule& rule, double divergence_bits, double entropy_nats) {
  return divergence_bits < rule.min_divergence_bits ||
         (rule.max_entropy_nats > 0 && entropy_nats > rule.max_entropy_nats);
}

/// The decoder and branches that one run uses: `source` is the pooled one where there are documents.
struct Engine {
  std::unique_ptr<LlamaDecoder> decoder;
  std::unique_ptr<NbceDecoder> pooled;
  Branch trunk = 0;

  Decoder& source() const { return pooled ? static_cast<Decoder&>(*pooled) : *decoder; }
};

Engine read_all(const LlamaModel& model, const std::vector<Context>& contexts, std::size_t longest_question,
                bool several, const AnsweringOptions& options, int window, StateStore* store,
                const Progress& progress) {
  std::vector<std::vector<Token>> texts{empty_prompt(options.prompt, model.vocabulary())};
  for (const Context& context : contexts) texts.push_back(context.tokens);
  if (contexts.empty()) texts.resize(1);

  const auto tail = static_cast<std::int64_t>(longest_question) + options.generate.max_tokens;
  LlamaDecoderOptions with;
  with.max_branches = static_cast<int>(texts.size()) * (several ? 2 : 1);
  with.streams = options.streams;
  with.flash_attention = options.flash_attention;
  with.threads = options.threads;
  std::int64_t longest = 0;
  for (const auto& text : texts) {
    with.cells += static_cast<std::int64_t>(text.size()) + tail;
    longest = std::max(longest, static_cast<std::int64_t>(text.size()) + tail);
  }
  // A stream holds a whole window, so it is made no longer than needed.
  with.window = options.streams ? static_cast<int>(longest) : window;

  Engine engine;
  engine.decoder = std::make_unique<LlamaDecoder>(model, with);
  const std::vector<Branch> trunks = engine.decoder->read(texts, store, progress);
  engine.trunk = trunks.front();
  if (!contexts.empty()) {
    engine.pooled = std::make_unique<NbceDecoder>(*engine.decoder, trunks, with_scores(options.pooling, contexts));
    engine.trunk = NbceDecoder::trunk();
  }
  return engine;
}

/// Where the latest row of `branch` came from.
AnswerToken source_of(const Engine& engine, Branch branch, const Row& row) {
  AnswerToken token;
  if (engine.pooled) {
    const PoolingResult& step = engine.pooled->steps(branch).back();
    token.context = step.context;
    token.entropy_nats = step.entropies_nats[static_cast<std::size_t>(step.context)];
  } else {
    token.entropy_nats = entropy_nats(row);
  }
  return token;
}

void answer_one(const Engine& engine, Branch branch, const std::vector<Token>& question,
                const AnsweringOptions& options, Clock::time_point start, const AnsweringEvents& events,
                Answer& answer) {
  Decoder& source = engine.source();
  source.extend({branch, question, Rows::last});
  if (engine.pooled) {
    answer.first_entropy_nats = source_of(engine, branch, source.row(branch)).entropy_nats;
    answer.first_divergence_bits = engine.pooled->divergence_bits(branch);
  }
  answer.first_token_seconds = seconds_since(start);
  if (events.begin) events.begin(answer);
  if (engine.pooled && options.abstain &&
      abstains(*options.abstain, answer.first_divergence_bits, answer.first_entropy_nats)) {
    answer.abstained = true;
    answer.finish = "abstained";
    return;
  }

  GenerateOptions with = options.generate;
  if (!options.prompt.stops.empty()) {
    with.stop_when = [&, own = options.generate.stop_when](std::string_view text) {
      const auto ends = [&](const std::string& stop) { return text.find(stop) != std::string_view::npos; };
      return (own && own(text)) || std::any_of(options.prompt.stops.begin(), options.prompt.stops.end(), ends);
    };
  }
  const auto first = Clock::now();
  answer.finish = name(generate(source, branch, with, [&](const Choice& choice) {
    AnswerToken token = source_of(engine, branch, *choice.row);
    token.id = choice.token;
    token.bytes = source.vocabulary().bytes(choice.token);
    token.logprob = choice.logprob;
    token.switched = !answer.tokens.empty() && answer.tokens.back().context != token.context;
    answer.tokens.push_back(token);
    if (events.token) events.token(answer, answer.tokens.back());
  }));
  if (answer.tokens.size() > 1)
    answer.tokens_per_second = static_cast<double>(answer.tokens.size() - 1) / seconds_since(first);
}

}  // namespace

std::int64_t peak_rss_bytes() {
  rusage usage{};
  return getrusage(RUSAGE_SELF, &usage) == 0 ? static_cast<std::int64_t>(usage.ru_maxrss) * 1024 : 0;
}

std::vector<Context> make_contexts(const Vocabulary& vocabulary, const std::vector<Document>& documents,
                                   const std::vector<Question>& questions, const AnsweringOptions& options, int window,
                                   const std::function<void(const std::string&)>& note) {
  std::size_t question_tokens = 0;
  for (const Question& q : questions) {
    question_tokens = std::max(question_tokens, question_prompt(options.prompt, vocabulary, q.text, q.prefix).size());
  }
  const auto frame =
      static_cast<std::int64_t>(document_prompt(options.prompt, vocabulary, "").size() + question_tokens);
  const std::int64_t room = window - frame - options.generate.max_tokens;
  if (room < (documents.empty() ? 0 : kLeastPart)) {
    throw Error(fmt::format("a window of {} tokens is too small: template and question take {}, the answer up to {}{}",
                            window, frame, options.generate.max_tokens,
                            documents.empty() ? "" : ", which leaves no room for a document"));
  }
  // Titles and numbers stand before every part, and take tokens of their own.
  std::vector<Context> contexts;
  for (const Document& document : documents) {
    Document head = document;
    head.text = "-";
    const auto taken =
        static_cast<std::int64_t>(vocabulary.tokenize(body_of(head, options.numbered, documents.size() + 1000)).size());
    if (room - taken < kLeastPart)
      throw Error(
          fmt::format("{}: its title leaves no room for its text in a window of {} tokens", document.id, window));
    const auto most = static_cast<int>(room - taken);
    const std::vector<Document> parts = split_document(document, vocabulary, most, std::min(options.overlap, most / 2));
    if (parts.size() > 1 && note) {
      note(fmt::format("{}: longer than the window of {} tokens, split into {} contexts", document.id, window,
                       parts.size()));
    }
    for (std::size_t i = 0; i < parts.size(); ++i) {
      Context context;
      const std::string body = body_of(parts[i], options.numbered, contexts.size() + 1);
      context.tokens = document_prompt(options.prompt, vocabulary, body);
      context.score = document.score;
      context.label = {document.id, document.title, parts.size() > 1 ? static_cast<int>(i) + 1 : 0,
                       static_cast<int>(context.tokens.size())};
      contexts.push_back(std::move(context));
    }
  }
  const int most = questions.size() > 1 ? (kMaxContexts - 1) / 2 : kMaxContexts;
  if (contexts.size() > static_cast<std::size_t>(most)) {
    throw Error(fmt::format("{} contexts; at most {} can be pooled{} (llama.cpp keeps {} sequences)", contexts.size(),
                            most, questions.size() > 1 ? " for several questions" : "", kMaxLlamaBranches));
  }
  return contexts;
}

std::vector<Answer> answer_questions(const LlamaModel& model, const std::vector<Document>& documents,
                                     const std::vector<Question>& questions, const AnsweringOptions& options,
                                     StateStore* store, const Progress& progress, const AnsweringEvents& events) {
  const auto start = Clock::now();
  const int window = options.window > 0 ? options.window : model.trained_window();
  const std::vector<Context> contexts =
      make_contexts(model.vocabulary(), documents, questions, options, window, events.note);
  std::vector<std::vector<Token>> asked;
  std::size_t longest = 0;
  for (const Question& question : questions) {
    asked.push_back(question_prompt(options.prompt, model.vocabulary(), question.text, question.prefix));
    longest = std::max(longest, asked.back().size());
  }
  const Engine engine = read_all(model, contexts, longest, questions.size() > 1, options, window, store, progress);
  const double prefill_seconds = seconds_since(start);

  std::vector<Answer> answers;
  for (std::size_t i = 0; i < questions.size(); ++i) {
    const auto began = Clock::now();
    Answer& answer = answers.emplace_back();
    answer.question = questions[i].text;
    answer.prefix = questions[i].prefix;
    for (const Context& context : contexts) answer.contexts.push_back(context.label);
    answer.model = model.description();
    answer.pooling = contexts.empty() ? "none" : describe(options.pooling);
    answer.prefill_seconds = prefill_seconds;
    const bool last = i + 1 == questions.size();
    const Branch branch = last ? engine.trunk : engine.source().fork(engine.trunk);
    answer_one(engine, branch, asked[i], options, i == 0 ? start : began, events, answer);
    if (!last) engine.source().close(branch);
    answer.peak_rss_bytes = peak_rss_bytes();
    if (events.end) events.end(answer);
    if (options.generate.stop.stop_requested()) throw Interrupted();
  }
  return answers;
}

}  // namespace tuiqiao
