#pragma once

#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "tuiqiao/progress.h"
#include "tuiqiao/text/answer.h"
#include "tuiqiao/text/documents.h"
#include "tuiqiao/text/generate.h"
#include "tuiqiao/text/healing.h"
#include "tuiqiao/text/llama.h"
#include "tuiqiao/text/pooling.h"
#include "tuiqiao/text/prompt.h"

namespace tuiqiao {

/// When to say that no document answers: where the first token is decided that is no white space, if the documents
/// hardly change what the model would say without them (divergence) or the deciding document leaves it undecided
/// (entropy).
struct AbstainRule {
  double min_divergence_bits = 0;  ///< of the deciding row to the row without context, in [0, 1]; 0 turns it off
  double max_entropy_nats = 0;     ///< of the deciding row, at least 0; 0 turns it off
};

/// Where the contexts' keys and values lie.
enum class KvLayout {
  /// streams where there are documents, unless they would take over kMostStreamCells times the memory of unified:
  /// documents of very different lengths do.
  automatic,
  /// One buffer for all: least memory, and states kept in a StateStore serve whatever the other documents are. Each
  /// token passes over the cells of all contexts.
  unified,
  /// A buffer for each context, as long as the longest needs (LlamaDecoderOptions::streams). States kept in a
  /// StateStore serve only as many contexts and questions (one, or several) as they were saved with.
  streams,
};
/// "auto", "unified" or "streams", as on the command line. Throws: std::invalid_argument on another name.
KvLayout kv_layout_from_name(std::string_view name);
inline constexpr int kMostStreamCells = 8;

struct AnsweringOptions {
  /// How a document and a question become a prompt. Default: they follow each other with nothing in between, which
  /// suits no model; see plain_template and LlamaModel::apply_chat_template.
  PromptTemplate prompt;
  /// How the contexts' rows become one. `scores` are added from the documents that have some. Default: min_entropy.
  PoolingOptions pooling;
  /// Length of an answer in tokens, at least 0, and how they are drawn. Default: at most 128, the most probable ones.
  GenerateOptions generate;
  /// How to go on from a beginning of the answer (or, where the template has nothing after it, a question) that may end
  /// inside a token. Temperature, seed, max_forks, keep_first and spare_tokens are set here. Default: exactly. Costs
  /// branches; with so many contexts that llama.cpp has no sequences left for them, `one` takes its place.
  HealOptions heal;
  /// When to say that no document answers; nothing (the default) for never. Not used without documents.
  std::optional<AbstainRule> abstain;
  /// Tokens that fit one context with its question and answer, 0 to kMaxLlamaWindow; 0 (the default) for the window the
  /// model was trained with. Memory is taken for what the documents need, not for the window.
  int window = 0;
  /// Tokens that parts of a split document share, at least 0 (the default); never more than half a part.
  int overlap = 0;
  /// Puts "Part 1", "Part 2", ... before the contexts, for documents whose order matters. Default: no.
  bool numbered = false;
  /// Where keys and values lie; changes time and memory, hardly the answer. Default: what suits the documents.
  KvLayout kv = KvLayout::automatic;
  /// As LlamaDecoderOptions::flash_attention. Default: off.
  bool flash_attention = false;
  /// Processor threads, 0 to kMaxLlamaThreads; 0 (the default) for all processors.
  int threads = 0;
};

/// Checks all that can be checked without documents and model; answer_questions does so first.
/// Throws: std::invalid_argument "[answer_questions] FIELD = VALUE ..." on a field outside its domain, or what Pooler
/// says of `pooling`.
void check_options(const AnsweringOptions& options);

/// What a caller may want to hear while answers are made; each may be empty.
struct AnsweringEvents {
  std::function<void(const std::string& line)> note;  ///< a document was split, the store is full, ...
  std::function<void(const Answer& answer)> begin;
  std::function<void(const Answer& answer, const AnswerToken& token)> token;
  std::function<void(const Answer& answer)> end;
};

/// A context as the model will see it: a document, or a part of one.
struct Context {
  AnswerContext label;
  std::optional<double> score;
  std::vector<Token> tokens;  ///< begin, template, document, template; the question follows
};

/// Cuts documents into contexts that fit the window with the longest question and answer.
/// `note` hears of documents that were split, once all is known to fit.
/// Throws: tuiqiao::Error when the window is too small for them, or there are more than kMaxContexts.
std::vector<Context> make_contexts(const Vocabulary& vocabulary, const std::vector<Document>& documents,
                                   const std::vector<Question>& questions, const AnsweringOptions& options, int window,
                                   const std::function<void(const std::string&)>& note);

/// llama.cpp's 256 sequences, less the one without context. Several questions need two sequences a context.
inline constexpr int kMaxContexts = kMaxLlamaBranches - 1;

/// Reads the documents once and answers each question from all of them by naive-Bayes contexts; without documents it
/// continues the prompt of the question alone. Everything is checked before work starts. A store that cannot be written
/// ends no answer: `note` hears of it once.
/// `note` also hears, after `end`, of an answer over several contexts whose rows lay within kAgreementBits of each
/// other at every token: usually the template or a mask keeps the documents from the model. Throws: tuiqiao::Error on
/// documents or questions that do not fit; std::invalid_argument on options out of their domain; Interrupted.
std::vector<Answer> answer_questions(const LlamaModel& model, const std::vector<Document>& documents,
                                     const std::vector<Question>& questions, const AnsweringOptions& options,
                                     StateStore* store = nullptr, const Progress& progress = {},
                                     const AnsweringEvents& events = {});

inline constexpr double kAgreementBits = 0.01;

/// Highest resident memory of this process so far, in bytes; 0 where the system does not say.
std::int64_t peak_rss_bytes();

}  // namespace tuiqiao
