#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "tuiqiao/text/vocabulary.h"

namespace tuiqiao {

class ByteTokenizer;

/// Which token sequences cover a text: those that a tokenizer makes of some text that begins with it (what a model was
/// trained on), or all that spell it (only for small vocabularies, as a check).
enum class Covers : std::uint8_t { canonical, all };

/// The start of a covering: tokens that spell a text up to `at`. The next token must begin with the rest and go on.
struct Split {
  std::size_t at = 0;       ///< in bytes of Coverings::spelled()
  std::vector<Token> tail;  ///< tokens after Coverings::trunk()
};

/// The coverings of a text x. A covering is a token sequence that spells x and whose last token may overshoot it; it is
/// canonical if it begins what the tokenizer makes of some text that begins with x. All texts that begin with x begin
/// with exactly one of them, so P(x) is the sum of their probabilities.
///
/// Why it suffices to look where it looks. Let the tokenizer make tokens of y, and let p be the part of y before one of
/// their boundaries, inside one word of the tokenizer's regular expression (or anywhere, if it has none). No merge
/// crossed that boundary, so the merges inside p are those that p alone undergoes: its tokens are those of p (closure).
/// Hence a prefix is settled by where words begin, and whether (prefix, v) is canonical is seen by tokenising their
/// bytes and, where the tokenizer looks ahead, one text of each kind that can follow (kLookAheads in coverings.cpp).
/// Splits lie within Vocabulary::longest() bytes of the end. The tokens before them come from one tokenisation: the
/// text is tokenised again only from an anchor on, a boundary between words; without a regular expression this is
/// exact where the tokens on either side of the anchor stay two when tokenised together, which holds if they were so
/// in the whole text.
///
/// x is any bytes. Characters that a later byte may complete are covered by whole tokens that begin with them and by
/// the tokens of their parts; bytes that can never be part of a character are their own tokens and are never cut.
/// Control tokens cover nothing.
/// Threads: one call at a time.
/// Source: Vieira et al. (2024), "From Language Models over Tokens to Language Models over Characters"; Berglund and
/// van der Merwe (2023), "Formalizing BPE Tokenization".
class Coverings {
 public:
  /// Throws: tuiqiao::Error for a vocabulary that normalises, or that has no token for a byte of `text`, or
  /// (Covers::all) where more than kMostSequences sequences spell the text.
  Coverings(const Vocabulary& vocabulary, std::string_view text, Covers covers = Covers::canonical);
  ~Coverings();

  /// The text as tokens spell it: some tokenizers put a space before every text.
  const std::string& spelled() const { return spelled_; }
  /// Bytes that the tokenizer put before it.
  std::size_t lead() const { return lead_; }
  /// What a prompt of this text is without healing: tokens of the text that an unfinished character does not belong to,
  /// and of that one's single bytes.
  std::span<const Token> tokens() const { return tokens_; }
  /// The tokens that all prefixes have in common.
  std::span<const Token> trunk() const { return std::span(tokens_).first(trunk_); }
  /// By `at`, then by tail. More than one with the same `at` where what follows may move a word's end. Prefixes that
  /// end with the text are canonical; others are so if some token goes on from them (see canonical).
  std::span<const Split> splits() const { return splits_; }
  /// Tokens that could come next at a split: they begin with what is left of the text and go on. All tokens of text if
  /// nothing is left.
  std::span<const Token> candidates(const Split& split) const;
  /// Whether trunk and `tail` (the text and more) begin what the tokenizer makes of some text. Remembers its verdicts.
  /// Cost: a tokenisation of some 100 bytes (of all since the last space between letters, if that is longer) where it
  /// is so, one of each kind of look-ahead where it is not; up to 4096 where it ends inside a character. Of those that
  /// end after one byte of four, characters beyond 4096 are not tried.
  bool canonical(std::span<const Token> tail);
  /// Whether a text may end after trunk and `tail`.
  bool may_end(std::span<const Token> tail);

  /// Calls of the model's tokenizer so far.
  std::int64_t tokenisations() const;

 private:
  void find_splits();
  void add_prefixes(std::size_t at);
  void add_all(std::size_t at, std::vector<Token>& path);
  std::size_t anchor_before(std::size_t earliest);
  std::vector<Token> from_anchor(std::string_view tail);
  std::vector<Token> since_anchor(std::span<const Token> tail) const;
  std::span<const Token> head() const { return std::span(tokens_).first(head_); }

  const Vocabulary& vocabulary_;
  std::unique_ptr<ByteTokenizer> tokenizer_;
  Covers covers_;
  std::string spelled_;
  std::size_t lead_ = 0;
  std::vector<Token> tokens_;
  std::size_t whole_ = 0;   // bytes of spelled_ without an unfinished character
  std::size_t hard_ = 0;    // end of the last byte that is its own token
  std::size_t anchor_ = 0;  // bytes that tokens_[0, head_) spell
  std::size_t head_ = 0;
  std::size_t trunk_ = 0;
  std::vector<Split> splits_;
  std::map<std::vector<Token>, bool> begins_text_, ends_text_;  // verdicts
};

/// Tokens of bytes that need not be UTF-8, without healing: of UTF-8 text what the tokenizer makes of it.
/// Throws: tuiqiao::Error as Coverings, where it is not.
std::vector<Token> tokens_of_bytes(const Vocabulary& vocabulary, std::string_view text);

/// Most token sequences that Covers::all goes through.
inline constexpr std::size_t kMostSequences = 1 << 16;

}  // namespace tuiqiao
