#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "tuiqiao/text/healing.h"
#include "tuiqiao/text/state_store.h"
#include "tuiqiao/text/vocabulary.h"

namespace tuiqiao {

/// One token of an answer and where it came from.
struct AnswerToken {
  Token id = 0;
  std::string bytes;        ///< may be part of a UTF-8 sequence
  double logprob = 0;       ///< of the pooled row, in nats
  int context = -1;         ///< index into Answer::contexts; -1 without documents
  double entropy_nats = 0;  ///< of the deciding context's row (without documents: of the row)
  bool switched = false;    ///< decided by another context than the token before
};

/// A context as a reader knows it.
struct AnswerContext {
  std::string id;
  std::string title;
  int part = 0;    ///< 1-based part of a split document; 0 if it was not split
  int tokens = 0;  ///< length as given to the model
};

/// An answer with its sources: what the reports show.
struct Answer {
  std::string question;
  std::string prefix;  ///< what the answer was made to begin with; may be empty
  std::vector<AnswerContext> contexts;
  std::vector<AnswerToken> tokens;
  bool abstained = false;            ///< no document answers (generation stopped before its first token)
  std::string finish;                ///< "end", "stopped", "length" or "abstained"
  double first_entropy_nats = 0;     ///< of the row that decides the first token: the signals that abstention
  double first_divergence_bits = 0;  ///< goes by; 0 without documents
  std::string model;                 ///< description of the model
  std::string pooling;               ///< name and settings, one line
  double prefill_seconds = 0;        ///< reading the documents
  double first_token_seconds = 0;    ///< from the start to the first token
  double tokens_per_second = 0;      ///< after the first
  std::int64_t peak_rss_bytes = 0;
  std::optional<StateStore::Statistics> cache;  ///< of the store that was used, if any
  /// How the end of the prompt was healed; nothing where it ended with the template. The first token's bytes are then
  /// those beyond the prompt, and its log-probability is that of going on so.
  std::optional<HealStatistics> healing;
  int heal_back = 0;  ///< HealOptions::back
};

/// What one context contributed.
struct ContextShare {
  int tokens = 0;
  double share = 0;              ///< of the answer's tokens
  double mean_entropy_nats = 0;  ///< over its tokens; 0 if it decided none
};
std::vector<ContextShare> context_shares(const Answer& answer);
/// How often another context decided than the one before.
int count_switches(const Answer& answer);

/// One JSON object a token: id, text, bytes, logprob, context, context_index, entropy_nats, switched. `text` holds the
/// characters that the token completes (so that the texts joined are the answer); `bytes` are its own bytes as numbers;
/// `context` is the document's id, which parts of one document share, and `context_index` the context's place in the
/// summary's `contexts`, from 0; both are null without documents. One object a line, no newline at the end. `pending`
/// carries the bytes of an unfinished character from one token to the next.
std::string token_json(const Answer& answer, const AnswerToken& token, std::string& pending);
/// The closing object: {"summary": {...}} with contexts (index, id, title, part, ...), switches, finish, abstained,
/// times, peak_rss_bytes, the cache's counts and healing (both null where none is used).
std::string summary_json(const Answer& answer);

/// A self-contained page with the coloured answers: each document has a colour, hovering a token shows its source,
/// entropy and log-probability; a legend shows share, mean entropy and switches; a strip under each answer shows
/// entropy and source along it. No network, light and dark, printable, readable on a phone. Everything from outside is
/// escaped. Written beside `file` and renamed into place. Throws: tuiqiao::Error when it cannot be written.
void write_answers_html(const std::filesystem::path& file, const std::string& title,
                        const std::vector<Answer>& answers);

/// Colours for a terminal: a stable colour a context (256-colour escape), nothing for context -1.
std::string terminal_colour(int context);
inline constexpr const char* kTerminalReset = "\x1b[0m";
/// The legend under an answer, one line a context that decided anything, then the switches; coloured if `colour`.
std::string legend(const Answer& answer, bool colour);
/// What a store was good for, in one line.
std::string cache_line(const StateStore::Statistics& cache);

}  // namespace tuiqiao
