#pragma once

#include <array>
#include <cstdint>
#include <limits>
#include <span>
#include <stop_token>
#include <string>
#include <string_view>
#include <vector>

#include "tuiqiao/text/coverings.h"
#include "tuiqiao/text/decoder.h"

namespace tuiqiao {

/// How to go on from a prompt that may end inside a token.
enum class HealMode : std::uint8_t {
  off,    ///< after the tokens of the prompt, as they are
  one,    ///< the last token is dropped, and the next must begin with its bytes: one forward pass, renormalised
  back,   ///< HealOptions::back tokens are dropped; each next token is a part of their bytes or has them as its
          ///< beginning
  exact,  ///< by the model's distribution over texts that begin with the prompt
};

/// "off", "one", "exact" or "back=N", as on the command line. `back` is set by the last. Throws: std::invalid_argument.
HealMode heal_mode_from_name(std::string_view name, int& back);
std::string name(HealMode mode, int back);

struct HealOptions {
  HealMode mode = HealMode::exact;
  /// Tokens to drop where the mode is `back`, at least 1.
  int back = 2;
  /// Which token sequences count, for `exact`. Default: those that a tokenizer makes.
  Covers covers = Covers::canonical;
  /// As GenerateOptions: the healed token is drawn from p^(1 / temperature); 0 follows the most probable text.
  double temperature = 0;
  /// Of the draw. Independent of the draws that generate makes from the same seed.
  std::uint64_t seed = 0;
  /// Most of a mass, as a fraction, that may be counted without a look at whether its tokens are canonical. 0 checks
  /// all: a tokenisation for each token of the vocabulary where a prompt ends with a word.
  double unchecked = 1e-2;
  /// Branches that may be forked at once; 0 for all that the decoder can keep besides one. More need more batches.
  int max_forks = 0;
  /// Keeps the first token of the text, as where nothing comes before it: for a branch that holds tokens but has no
  /// row.
  bool keep_first = false;
  /// Tokens before the first split that are given to the model again with what comes after them, so that the caller has
  /// a row for each token that healing chose. Default: none.
  int spare_tokens = 0;
  /// Token sequences that score_continuation goes on from at most, at least 1; the bounds tell what is left open.
  int most_sequences = 512;
  /// Asked by score_continuation before each batch: a stop throws Interrupted. Default: never stops.
  std::stop_token stop = {};
};

/// Throws: std::invalid_argument "[heal] FIELD = VALUE ..." on a field outside its domain. Every function here does so.
void check_options(const HealOptions& options);

/// What healing did.
struct HealStatistics {
  HealMode mode = HealMode::off;
  int tokens_removed = 0;         ///< of the prompt's own, from its end
  int bytes = 0;                  ///< of the prompt that are spelled again; by `exact` in the healed token
  int branches = 0;               ///< prefixes that were weighed
  int batches = 0;                ///< calls of the decoder beyond those that read what all have in common
  std::int64_t chosen_split = 0;  ///< where the healed token begins, in bytes of the prompt
  /// Log-probability, in nats, of the end of the prompt: that a text which goes on from the tokens that all its
  /// coverings have in common begins with the rest of it; only by `exact`.
  double prefix_logprob = std::numeric_limits<double>::quiet_NaN();
  double unchecked_mass = 0;  ///< of it, as a fraction: it lies between (1 - unchecked_mass) of what is said and that
  /// Bits by which the prompt's own tokens are less probable than the prompt: -log2 of the share of its texts that the
  /// unhealed prompt can lead to; only by `exact`, infinite if it can lead to none.
  double bits_saved = std::numeric_limits<double>::quiet_NaN();
  std::int64_t tokenisations = 0;
};

struct HealResult {
  /// To append to the branch before anything is generated; empty if the text ended, or there is none.
  std::vector<Token> tokens;
  /// What they spell beyond the prompt: the beginning of the output.
  std::string bytes;
  /// The model ended the text with the prompt.
  bool ended = false;
  /// Log-probability of `bytes`' tokens in nats, given the prompt, as the mode gives it.
  double logprob = 0;
  HealStatistics statistics;
};

/// Reads `before` (tokens that are not to be touched, such as a template's) and `text` into a branch as far as its
/// tokens are certain, and chooses how to go on. Then: extend the branch by HealResult::tokens and generate.
/// Where nothing comes before the text, neither tokens nor a branch that holds some, its first token is kept.
/// `branch` needs a row only if `before` is empty and it holds tokens. Forks it makes are closed again.
/// Greedy (temperature 0): after the text, the next byte of largest probability is followed until all coverings that
/// are left have the same token beyond the prompt. Else coverings are drawn by their probability, and a draw that is
/// not canonical is rejected.
/// Throws: std::invalid_argument on options out of domain, or no branch to fork; tuiqiao::Error as Coverings; what the
/// decoder throws.
/// Cost: some ten tokens and rows more in the batch of the prompt where the decoder shares(), else one batch more of
/// short branches. Greedy may read rows that follow: most often none or one more batch.
HealResult heal(Decoder& decoder, Branch branch, std::span<const Token> before, std::string_view text,
                const HealOptions& options);

/// The exact distribution over what comes after a text that may end anywhere. What was not looked at counts as if it
/// were canonical, which most of it is: each probability is off by `unchecked_mass` at most.
struct NextBytes {
  std::array<double, 256> probability{};
  double end = 0;             ///< probability that the text ends here
  double unchecked_mass = 0;  ///< of all, as a fraction
  /// Share of the text's probability that the model gives to tokens which no tokenizer puts after it, or control
  /// tokens. What is above is renormalised without it, while P(text) of score_text includes it: P(text and b) is
  /// P(text) (1 - stray_mass) probability[b].
  double stray_mass = 0;
};
/// Parameters and exceptions as heal, which also does as much reading; mode and temperature are not used. Everything is
/// 0 where the model gives the text probability 0.
NextBytes next_bytes(Decoder& decoder, Branch branch, std::span<const Token> before, std::string_view text,
                     const HealOptions& options);

struct Continuation {
  std::string bytes;
  double probability = 0;
};
struct Continuations {
  std::vector<Continuation> ways;  ///< most probable first; of equals the first by bytes
  double unchecked_mass = 0;       ///< of all, as a fraction
};
/// The distribution over the next character: of a text that ends inside one, over the bytes that complete it. "" stands
/// for the end of the text. Masses below `unchecked` in all may be left out.
Continuations next_characters(Decoder& decoder, Branch branch, std::span<const Token> before, std::string_view text,
                              const HealOptions& options);
/// The most probable completions of the text by the vocabulary's words: what the next token that goes beyond the text
/// adds to it.
Continuations completions(Decoder& decoder, Branch branch, std::span<const Token> before, std::string_view text,
                          int count, const HealOptions& options);

/// A log-probability, in nats, between two bounds.
struct TextScore {
  double lower = 0, upper = 0;
};
/// Log-probability of the text, given what comes before, by coverings. Extends the branch. Where nothing comes before,
/// the text's first token is given, here and below; `before` is needed where the branch holds tokens.
TextScore score_text(Decoder& decoder, Branch branch, std::span<const Token> before, std::string_view text,
                     const HealOptions& options);
/// Log-probability that what is generated after the prompt begins with `continuation`. `exact`: P(both) / P(prompt), by
/// coverings, each with half of options.unchecked, so that the bounds differ by a fraction of that. `off`, `one` and
/// `back`: summed over the token sequences that spell it, as generation at temperature 1 would draw them (the branch is
/// extended by what is sure); the search ends where all that is left open has less than options.unchecked of the
/// probability found, or after options.most_sequences; the bounds differ by what is left.
TextScore score_continuation(Decoder& decoder, Branch branch, std::span<const Token> before, std::string_view prompt,
                             std::string_view continuation, const HealOptions& options);

}  // namespace tuiqiao
