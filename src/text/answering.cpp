#include "tuiqiao/text/answering.h"

#include <fmt/format.h>
#include <sys/resource.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <iterator>
#include <memory>
#include <stdexcept>
#include <utility>

#include "split.h"
#include "tuiqiao/error.h"
#include "tuiqiao/text/coverings.h"
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

/// A document or part as context number `number`.
Context context_of(const Vocabulary& vocabulary, const Document& part, int part_number, const AnsweringOptions& options,
                   std::size_t number) {
  Context context;
  context.tokens = document_prompt(options.prompt, vocabulary, body_of(part, options.numbered, number));
  context.score = part.score;
  context.label = {part.id, part.title, part_number, static_cast<int>(context.tokens.size())};
  return context;
}

/// A document as contexts of at most `space` tokens, `room` of them for its body: whole where it fits, else in parts;
/// none where its title and number leave less than kLeastPart for a part. `before` contexts come first.
std::vector<Context> fitting_parts(const Vocabulary& vocabulary, const Document& document,
                                   const AnsweringOptions& options, std::int64_t space, std::int64_t room,
                                   std::size_t before) {
  if (room > 0 && has_at_most(vocabulary, document.text, static_cast<std::size_t>(room))) {
    Context whole = context_of(vocabulary, document, 0, options, before + 1);
    if (whole.label.tokens <= space) return {std::move(whole)};
  }
  Document head = document;
  head.text = "-";
  const auto taken = static_cast<std::int64_t>(vocabulary.tokenize(body_of(head, options.numbered, before + 1)).size());
  std::int64_t most = room - taken;
  if (most < kLeastPart) return {};
  while (most >= kLeastPart / 2) {
    const auto limit = static_cast<int>(most);
    const std::vector<Document> parts =
        split_document(document, vocabulary, limit, std::min(options.overlap, limit / 2));
    std::vector<Context> contexts;
    std::int64_t excess = 0;
    for (std::size_t i = 0; i < parts.size(); ++i) {
      const int part = parts.size() > 1 ? static_cast<int>(i) + 1 : 0;
      contexts.push_back(context_of(vocabulary, parts[i], part, options, before + i + 1));
      excess = std::max(excess, contexts.back().label.tokens - space);
    }
    if (excess <= 0) return contexts;
    most -= excess;  // joined to its title a text may have more tokens than both apart
  }
  return {};
}

std::string describe(const PoolingOptions& pooling) {
  return fmt::format("{}, beta {}, eta {}, top-p {}", name(pooling.pooling),
                     pooling.beta_auto ? "auto" : fmt::format("{}", pooling.beta), pooling.eta, pooling.top_p);
}

/// Pooling options with the documents' scores, checked as far as that goes without rows.
PoolingOptions settled_pooling(PoolingOptions pooling, const std::vector<Context>& contexts) {
  const auto scored = [](const Context& c) { return c.score.has_value(); };
  const auto some = std::find_if(contexts.begin(), contexts.end(), scored);
  if (some != contexts.end()) {
    const auto none = std::find_if_not(contexts.begin(), contexts.end(), scored);
    if (none != contexts.end()) {
      throw Error(fmt::format("document '{}' has no score, but '{}' has one: give one to all or to none",
                              none->label.id, some->label.id));
    }
    for (const Context& context : contexts) pooling.scores.push_back(*context.score);
  }
  const Pooler checked(pooling);  // throws on options outside their domain
  if (pooling.pooling == Pooling::weights && pooling.weights.size() != contexts.size()) {
    throw std::invalid_argument(
        fmt::format("[answer_questions] {} weights for {} contexts", pooling.weights.size(), contexts.size()));
  }
  return pooling;
}

bool abstains(const AbstainRule& rule, double divergence_bits, double entropy_nats) {
  return divergence_bits < rule.min_divergence_bits ||
         (rule.max_entropy_nats > 0 && entropy_nats > rule.max_entropy_nats);
}

/// The decoder that one run uses, and its branches: without context, and one a context.
struct Reading {
  std::unique_ptr<LlamaDecoder> decoder;
  std::vector<Branch> trunks;
};

/// What answers one question: `source` is the pooled decoder where there are documents.
struct Engine {
  LlamaDecoder* decoder = nullptr;
  std::unique_ptr<NbceDecoder> pooled;
  std::unique_ptr<NbceDecoder> uncut;  ///< the same branches with whole rows: tokens of a prompt need not be probable
  Branch branch = 0;                   ///< of either

  Engine(const Reading& reading, std::span<const Branch> trunks, const PoolingOptions& pooling)
      : decoder(reading.decoder.get()), branch(trunks.front()) {
    if (trunks.size() == 1) return;
    pooled = std::make_unique<NbceDecoder>(*decoder, trunks, pooling);
    PoolingOptions whole = pooling;
    whole.top_p = 1;
    uncut = std::make_unique<NbceDecoder>(*decoder, trunks, whole);
    branch = NbceDecoder::trunk();
  }
  Decoder& source() const { return pooled ? static_cast<Decoder&>(*pooled) : *decoder; }
  Decoder& healer() const { return uncut ? static_cast<Decoder&>(*uncut) : *decoder; }
};

constexpr int kMostHealForks = 8;
constexpr std::int64_t kMostHealCells = 8192;  // more memory than the answers need, for forks
constexpr std::int64_t kHealTail = 64;         // tokens that a fork adds, about

/// How many forks of all contexts healing gets at once; 0 where there is nothing to heal or no room.
int forks_for(const std::vector<OpenPrompt>& asked, const HealOptions& heal, int contexts, std::int64_t longest) {
  const bool heals = heal.mode != HealMode::off &&
                     std::any_of(asked.begin(), asked.end(), [](const OpenPrompt& open) { return !open.text.empty(); });
  if (!heals) return 0;
  const int free = kMaxLlamaBranches / contexts - (asked.size() > 1 ? 2 : 1);
  const std::int64_t affordable = kMostHealCells / (contexts * (longest + kHealTail));
  const std::int64_t wanted =
      heal.mode == HealMode::exact ? std::clamp<std::int64_t>(affordable, 1, kMostHealForks) : 1;
  return static_cast<int>(std::clamp<std::int64_t>(free, 0, wanted));
}

/// Streams to make for so many branches. llama.cpp loads a state only into as many streams as it was saved from, so a
/// few sizes serve all: a document read among 16 is not read again among 12 or 20.
int stream_count(int branches) {
  for (const int size : {4, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192}) {
    if (branches <= size) return size;
  }
  return kMaxLlamaBranches;
}

/// How the decoder must be made for these texts.
LlamaDecoderOptions decoder_options(const std::vector<std::vector<Token>>& texts, std::int64_t tail, bool several,
                                    int forks, const AnsweringOptions& options, int window, int sliding) {
  LlamaDecoderOptions with;
  const int branches = static_cast<int>(texts.size()) * ((several ? 2 : 1) + forks);
  with.max_branches = branches;
  with.flash_attention = options.flash_attention;
  with.threads = options.threads;
  with.window = window;
  std::int64_t longest = 0;
  for (const auto& text : texts) {
    // A question that is not the last reads a copy of each branch. Layers that slide give it cells of its own.
    with.cells += (static_cast<std::int64_t>(text.size()) + tail) * (several ? 2 : 1);
    with.cells += (std::min<std::int64_t>(static_cast<std::int64_t>(text.size()) + tail, sliding) + kHealTail) * forks;
    longest = std::max(longest, static_cast<std::int64_t>(text.size()) + tail);
  }
  constexpr std::int64_t kPad = 256;  // llama.cpp rounds each buffer up to this
  const auto padded = [](std::int64_t cells) { return (cells + kPad - 1) / kPad * kPad; };
  const int streams = stream_count(branches);
  const std::int64_t stream_cells = padded(longest) * streams;
  const bool small = stream_cells <= std::min(kMostStreamCells * padded(with.cells), std::int64_t{1} << 30);
  with.streams = options.kv == KvLayout::streams || (options.kv == KvLayout::automatic && texts.size() > 1 && small);
  if (with.streams) {
    with.max_branches = streams;
    with.window = static_cast<int>(longest);  // a stream holds a whole window, so it is made no longer than needed
  }
  return with;
}

/// The texts that are read before the questions: without context, and one a context. Where a question follows them
/// directly and is to be healed, the token that all end with goes to the questions: texts are read without rows, and
/// the first token of a question may be cut only after a row.
std::vector<std::vector<Token>> texts_before(const Vocabulary& vocabulary, const std::vector<Context>& contexts,
                                             const AnsweringOptions& options, std::vector<OpenPrompt>& asked) {
  std::vector<std::vector<Token>> texts{empty_prompt(options.prompt, vocabulary)};
  for (const Context& context : contexts) texts.push_back(context.tokens);
  const auto follows = [](const OpenPrompt& open) { return open.tokens.empty() && !open.text.empty(); };
  const auto ends_alike = [&](const std::vector<Token>& text) {
    return !text.empty() && text.back() == texts.front().back();
  };
  if (options.heal.mode == HealMode::off || std::none_of(asked.begin(), asked.end(), follows) ||
      !std::all_of(texts.begin(), texts.end(), ends_alike)) {
    return texts;
  }
  for (OpenPrompt& open : asked) open.tokens.insert(open.tokens.begin(), texts.front().back());
  for (std::vector<Token>& text : texts) text.pop_back();
  return texts;
}

Reading read_all(const LlamaModel& model, const std::vector<std::vector<Token>>& texts, std::size_t longest_question,
                 bool several, int forks, const AnsweringOptions& options, int window, StateStore* store,
                 const Progress& progress, const AnsweringEvents& events) {
  const auto tail = static_cast<std::int64_t>(longest_question) + options.generate.max_tokens;
  Reading reading;
  reading.decoder = std::make_unique<LlamaDecoder>(
      model, decoder_options(texts, tail, several, forks, options, window, model.sliding_window()));
  reading.trunks = reading.decoder->read(texts, store, progress, events.note);
  return reading;
}

/// Where a row of `branch` came from: the latest, or so many before it.
AnswerToken source_of(const Decoder& source, const NbceDecoder* pooled, Branch branch, std::size_t before = 0) {
  AnswerToken token;
  const std::span<const Row> rows = source.rows(branch);
  const Row& row = rows[rows.size() - 1 - before];
  if (pooled) {
    const auto steps = pooled->steps(branch);
    const PoolingResult& step = steps[steps.size() - 1 - before];
    token.context = step.context;
    token.entropy_nats = step.entropies_nats[static_cast<std::size_t>(step.context)];
  } else {
    token.entropy_nats = entropy_nats(row);
  }
  return token;
}

bool is_blank(std::string_view text) { return text.find_first_not_of(" \t\r\n") == std::string_view::npos; }

bool has_stop(const PromptTemplate& prompt, std::string_view text) {
  const auto has = [&](const std::string& stop) { return text.find(stop) != std::string_view::npos; };
  return std::any_of(prompt.stops.begin(), prompt.stops.end(), has);
}

/// Takes the tokens of an answer as they are chosen. Where an answer may be withheld, its tokens are kept back until
/// one is no white space: a space before a number tells nothing about the documents.
class Recorder {
 public:
  /// `first` is the branch whose row decides whether the documents answer: that of the unhealed prompt.
  Recorder(const Engine& engine, Branch branch, Branch first, const AnsweringOptions& options,
           const AnsweringEvents& events, Answer& answer)
      : engine_(engine),
        branch_(branch),
        options_(options),
        events_(events),
        answer_(answer),
        decided_(!engine.pooled),
        agreed_(engine.pooled && engine.pooled->contexts() > 1) {
    if (!engine_.pooled) return;
    note_signals(first);
    compare(first);
  }

  void take(const Choice& choice) {
    compare(branch_);
    AnswerToken token = source_of(engine_.source(), engine_.pooled.get(), branch_);
    token.id = choice.token;
    token.bytes = engine_.source().vocabulary().bytes(choice.token);
    token.logprob = choice.logprob;
    if (!decided_ && !is_blank(token.bytes)) {
      note_signals(branch_);
      decide();
    }
    keep(token);
  }

  /// The token that healing chose, by the signals of the unhealed prompt.
  void take_healed(const AnswerToken& token) {
    if (!decided_ && !is_blank(token.bytes)) decide();
    keep(token);
  }
  /// The text is over.
  void finish() {
    if (!decided_) decide();
    if (!answer_.abstained) release();
  }

  /// Whether the contexts' rows were alike at every token; never where there is one context or none.
  bool agreed() const { return agreed_; }

 private:
  void keep(const AnswerToken& token) {
    // A blank that ends the answer is no part of it.
    if (answer_.abstained || (is_blank(token.bytes) && has_stop(options_.prompt, token.bytes))) return;
    held_.push_back(token);
    if (decided_ || !options_.abstain) release();
  }

  /// Costs nothing from the first token on at which the contexts differ.
  void compare(Branch branch) { agreed_ = agreed_ && engine_.pooled->contexts_agree(branch, kAgreementBits); }

  void note_signals(Branch branch) {
    answer_.first_entropy_nats = source_of(engine_.source(), engine_.pooled.get(), branch).entropy_nats;
    answer_.first_divergence_bits = engine_.pooled->divergence_bits(branch);
  }

  void decide() {
    decided_ = true;
    answer_.abstained =
        options_.abstain && abstains(*options_.abstain, answer_.first_divergence_bits, answer_.first_entropy_nats);
  }

  void release() {
    for (AnswerToken& token : held_) {
      token.switched = !answer_.tokens.empty() && answer_.tokens.back().context != token.context;
      answer_.tokens.push_back(token);
      if (events_.token) events_.token(answer_, answer_.tokens.back());
    }
    held_.clear();
  }

  const Engine& engine_;
  Branch branch_;
  const AnsweringOptions& options_;
  const AnsweringEvents& events_;
  Answer& answer_;
  bool decided_;
  bool agreed_;  // the contexts' rows at every token so far
  std::vector<AnswerToken> held_;
};

/// The healed beginning of an answer.
struct Healed {
  HealResult result;
  std::optional<AnswerToken> token;  ///< what it spells beyond the prompt; none if nothing
};

/// Heals the end of a question's prompt and reads what it chose, so that `branch` has a row (unless the text ended).
Healed heal_prompt(const Engine& engine, Branch branch, const OpenPrompt& open, const AnsweringOptions& options,
                   int forks) {
  HealOptions with = options.heal;
  if (with.mode == HealMode::exact && forks == 0) with.mode = HealMode::one;
  with.temperature = options.generate.temperature;
  with.seed = options.generate.seed;
  with.max_forks = forks;
  with.keep_first = open.tokens.empty();  // then texts were read without a row
  with.spare_tokens = 1;                  // what chose the healed token is asked for below
  Healed healed{heal(engine.healer(), branch, open.tokens, open.text, with), {}};
  const HealResult& result = healed.result;
  const auto named = [&](AnswerToken token) {
    token.id = result.tokens.back();
    token.bytes = result.bytes;
    token.logprob = result.logprob;
    return token;
  };
  const bool adds = !result.bytes.empty();
  // A single token was chosen from the row that the branch has now.
  if (adds && with.mode != HealMode::exact) {
    healed.token = named(source_of(engine.healer(), engine.uncut.get(), branch));
  }
  if (!result.tokens.empty()) engine.source().extend({branch, result.tokens, adds ? Rows::all : Rows::last});
  if (adds && !healed.token) {
    const std::size_t before = result.tokens.size() > 1 ? 1 : 0;
    healed.token = named(source_of(engine.source(), engine.pooled.get(), branch, before));
  }
  return healed;
}

/// Generates after a prompt that has been read; `healed` comes first.
Finish generate_answer(const Engine& engine, Branch branch, const Healed& healed, const AnsweringOptions& options,
                       const Answer& answer, Recorder& recorder) {
  const std::string& begun = healed.result.bytes;
  GenerateOptions with = options.generate;
  with.stop_when = [&](std::string_view text) {
    const std::string whole = begun + std::string(text);
    return answer.abstained || (options.generate.stop_when && options.generate.stop_when(whole)) ||
           has_stop(options.prompt, whole);
  };
  if (healed.token && with.max_tokens > 0) {
    recorder.take_healed(*healed.token);
    if (with.stop_when("")) return Finish::stopped;
    if (--with.max_tokens == 0) return Finish::length;
  }
  if (healed.result.ended) return Finish::end;
  return generate(engine.source(), branch, with, [&](const Choice& choice) { recorder.take(choice); });
}

/// Whether the contexts' rows were alike at every token.
bool answer_one(const Engine& engine, const OpenPrompt& question, const AnsweringOptions& options, int forks,
                Clock::time_point start, const AnsweringEvents& events, Answer& answer) {
  Decoder& source = engine.source();
  const Branch branch = engine.branch;
  const Vocabulary& vocabulary = source.vocabulary();
  Healed healed;
  Branch first = branch;
  const bool heals = options.heal.mode != HealMode::off && !question.text.empty();
  std::vector<Token> whole = question.tokens;
  if (!question.text.empty()) {
    const std::vector<Token> end = tokens_of_bytes(vocabulary, question.text);
    whole.insert(whole.end(), end.begin(), end.end());
  }
  std::optional<Recorder> recorder;
  if (heals && engine.pooled && forks > 0) {
    // Whether the documents answer is seen where the unhealed prompt ends.
    first = source.fork(branch);
    source.extend({first, whole, Rows::last});
    recorder.emplace(engine, branch, first, options, events, answer);
    source.close(first);
  }
  if (heals) {
    healed = heal_prompt(engine, branch, question, options, forks);
    answer.healing = healed.result.statistics;
    answer.heal_back = options.heal.back;
  } else {
    source.extend({branch, whole, Rows::last});
  }
  if (!recorder) recorder.emplace(engine, branch, branch, options, events, answer);
  answer.first_token_seconds = seconds_since(start);
  if (events.begin) events.begin(answer);

  const auto begun = Clock::now();
  answer.finish = name(generate_answer(engine, branch, healed, options, answer, *recorder));
  recorder->finish();
  if (answer.abstained) answer.finish = "abstained";
  if (answer.tokens.size() > 1)
    answer.tokens_per_second = static_cast<double>(answer.tokens.size() - 1) / seconds_since(begun);
  return recorder->agreed();
}

}  // namespace

void check_options(const AnsweringOptions& options) {
  const auto require = [](bool ok, std::string_view field, auto value, std::string_view domain) {
    if (!ok) throw std::invalid_argument(fmt::format("[answer_questions] {} = {} {}", field, value, domain));
  };
  const auto require_count = [&](std::string_view field, int value, int most) {
    require(value >= 0 && value <= most, field, value, fmt::format("outside [0, {}]", most));
  };
  const Pooler checked(options.pooling);
  require_count("generate.max_tokens", options.generate.max_tokens, kMaxLlamaWindow);
  require_count("window", options.window, kMaxLlamaWindow);
  require_count("overlap", options.overlap, kMaxLlamaWindow);
  require_count("threads", options.threads, kMaxLlamaThreads);
  check_options(options.heal);
  const double temperature = options.generate.temperature;
  require(temperature >= 0 && std::isfinite(temperature), "generate.temperature", temperature,
          "is not a finite number of at least 0");
  if (!options.abstain) return;
  const auto [divergence, entropy] = *options.abstain;
  require(divergence >= 0 && divergence <= 1, "abstain.min_divergence_bits", divergence, "outside [0, 1]");
  require(entropy >= 0 && std::isfinite(entropy), "abstain.max_entropy_nats", entropy,
          "is not a finite number of at least 0");
}

KvLayout kv_layout_from_name(std::string_view name) {
  if (name == "auto") return KvLayout::automatic;
  if (name == "unified") return KvLayout::unified;
  if (name == "streams") return KvLayout::streams;
  throw std::invalid_argument(
      fmt::format("[kv_layout_from_name] no layout is called '{}': auto, unified, streams", name));
}

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
  // Tokens of a context, and of its document alone.
  const std::int64_t space = window - static_cast<std::int64_t>(question_tokens) - options.generate.max_tokens;
  const std::int64_t room = space - static_cast<std::int64_t>(document_prompt(options.prompt, vocabulary, "").size());
  const auto too_small = [&](const std::string& consequence) {
    return Error(fmt::format("a window of {} tokens is too small: template and question take {}, the answer up to {}{}",
                             window, window - options.generate.max_tokens - room, options.generate.max_tokens,
                             consequence));
  };
  if (room < 0) throw too_small(documents.empty() ? "" : ", which leaves no room for a document");
  std::vector<Context> contexts;
  std::vector<std::string> notes;  // told once nothing is wrong
  for (const Document& document : documents) {
    std::vector<Context> parts = fitting_parts(vocabulary, document, options, space, room, contexts.size());
    if (parts.empty() && room < kLeastPart) throw too_small(fmt::format(", which leaves {} for {}", room, document.id));
    if (parts.empty())
      throw Error(
          fmt::format("{}: its title leaves no room for its text in a window of {} tokens", document.id, window));
    if (parts.size() > 1) {
      notes.push_back(fmt::format("{}: longer than the window of {} tokens, split into {} contexts", document.id,
                                  window, parts.size()));
    }
    std::move(parts.begin(), parts.end(), std::back_inserter(contexts));
  }
  const int most = questions.size() > 1 ? (kMaxContexts - 1) / 2 : kMaxContexts;
  if (contexts.size() > static_cast<std::size_t>(most)) {
    throw Error(fmt::format("{} contexts; at most {} can be pooled{} (llama.cpp keeps {} sequences)", contexts.size(),
                            most, questions.size() > 1 ? " for several questions" : "", kMaxLlamaBranches));
  }
  for (const std::string& line : notes) {
    if (note) note(line);
  }
  return contexts;
}

std::vector<Answer> answer_questions(const LlamaModel& model, const std::vector<Document>& documents,
                                     const std::vector<Question>& questions, const AnsweringOptions& options,
                                     StateStore* store, const Progress& progress, const AnsweringEvents& events) {
  const auto start = Clock::now();
  check_options(options);
  const int window = options.window > 0 ? options.window : model.trained_window();
  std::vector<std::string> notes;  // told once nothing is wrong
  const std::vector<Context> contexts = make_contexts(model.vocabulary(), documents, questions, options, window,
                                                      [&](const std::string& line) { notes.push_back(line); });
  std::vector<OpenPrompt> asked;
  std::size_t longest = 0;
  for (const Question& question : questions) {
    asked.push_back(open_question_prompt(options.prompt, model.vocabulary(), question.text, question.prefix));
    longest =
        std::max(longest, question_prompt(options.prompt, model.vocabulary(), question.text, question.prefix).size());
  }
  const PoolingOptions pooling = contexts.empty() ? options.pooling : settled_pooling(options.pooling, contexts);
  if (!pooling.scores.empty() && pooling.pooling != Pooling::max && pooling.pooling != Pooling::mixture) {
    notes.push_back(
        fmt::format("the documents' scores are not used by {}, only by max and mixture", name(pooling.pooling)));
  }
  std::int64_t longest_context = static_cast<std::int64_t>(longest) + options.generate.max_tokens;
  for (const Context& context : contexts) {
    longest_context = std::max(longest_context, context.label.tokens + static_cast<std::int64_t>(longest));
  }
  const int forks = forks_for(asked, options.heal, static_cast<int>(contexts.size()) + 1, longest_context);
  const auto open_ended = [](const OpenPrompt& open) { return !open.text.empty(); };
  if (forks == 0 && options.heal.mode == HealMode::exact && std::any_of(asked.begin(), asked.end(), open_ended)) {
    notes.emplace_back("too many contexts to heal exactly: one token is healed instead (--heal one)");
  }
  for (const std::string& line : notes) {
    if (events.note) events.note(line);
  }
  const std::vector<std::vector<Token>> texts = texts_before(model.vocabulary(), contexts, options, asked);
  const Reading reading =
      read_all(model, texts, longest + 1, questions.size() > 1, forks, options, window, store, progress, events);
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
    std::vector<Branch> branches = reading.trunks;  // the last question reads these, the others copies
    for (Branch& branch : branches) branch = last ? branch : reading.decoder->fork(branch);
    const Engine engine(reading, branches, pooling);
    const bool agreed = answer_one(engine, asked[i], options, forks, i == 0 ? start : began, events, answer);
    if (options.generate.stop.stop_requested()) throw Interrupted();
    for (const Branch branch : branches) {
      if (!last) reading.decoder->close(branch);
    }
    answer.peak_rss_bytes = peak_rss_bytes();
    if (store) answer.cache = store->statistics();
    if (events.end) events.end(answer);
    if (agreed && events.note) {
      events.note(fmt::format("the documents' rows never differ by more than {} bits: does the template show them?",
                              kAgreementBits));
    }
  }
  return answers;
}

}  // namespace tuiqiao
