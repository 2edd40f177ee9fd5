#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "tuiqiao/audit.h"
#include "tuiqiao/progress.h"
#include "tuiqiao/text/vocabulary.h"

namespace tuiqiao::cli {

/// What a token's verdict rests on, without the numbers.
struct TokenVerdict {
  std::int64_t i = 0;
  Verdict verdict = Verdict::unknown;
  double margin = 0;
  std::string certificate;  ///< a rule, "vector", "exact", or a proof
  std::optional<std::int64_t> twin;
  std::optional<LeadBounds> lead;
};
TokenVerdict token_verdict_of(const ClassVerdict& verdict);

/// As magikarp calls them, as far as they can be told without running the model.
enum class TokenCategory : std::uint8_t {
  ok,            ///< its text becomes this token again
  special,       ///< control tokens
  unused,        ///< reserved or unknown to the tokenizer
  undecodeable,  ///< part of a UTF-8 sequence only
  unreachable,   ///< its text becomes other tokens
  padding,       ///< beyond the tokenizer's words
};
std::string_view name(TokenCategory category);

/// What weights and tokenizer say about a token.
struct TokenFacts {
  std::string text;
  std::optional<TokenCategory> category;  ///< nothing without a vocabulary
  bool must_not_win = false;              ///< padding, unused, and control tokens that end nothing
  double length = 0;                      ///< of its row
  bool near_zero = false;                 ///< length below 1/1000 of the median
  std::optional<std::int64_t> equal_to;   ///< the first token with the same row
  std::optional<std::int64_t> near_to;    ///< a token whose row differs by less than 1/1000 of its length
  std::optional<double> unused_distance;  ///< from the mean row of unused tokens
};

/// Facts of every row. `vocabulary`: may be null; `words`: how many tokens the tokenizer has, without one.
std::vector<TokenFacts> token_facts(const OutputHead& head, const Vocabulary* vocabulary,
                                    std::optional<std::int64_t> words, const std::vector<std::int64_t>& unused,
                                    const Progress& progress);

}  // namespace tuiqiao::cli
