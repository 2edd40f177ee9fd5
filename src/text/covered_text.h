#pragma once

#include <cmath>
#include <cstddef>
#include <functional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "tuiqiao/text/coverings.h"
#include "tuiqiao/text/decoder.h"

namespace tuiqiao {

/// Some tokens after a trunk, weighed: their log-probability and the row after them.
struct Weighed {
  std::vector<Token> tail;
  std::size_t at = 0;  ///< bytes that trunk and tail spell
  double logprob = 0;
  std::vector<float> scores;
  double log_total = 0;

  /// Log-probability of the tail and a token after it.
  double with(Token token) const {
    return logprob + static_cast<double>(scores[static_cast<std::size_t>(token)]) - log_total;
  }
};

/// A branch of a decoder from which short tails are weighed, all in as few batches as may be. The branch itself only
/// grows by what is certain.
class Trunk {
 public:
  /// `forks` as HealOptions::max_forks. Throws: std::invalid_argument where none could be made.
  Trunk(Decoder& decoder, Branch branch, int forks);

  /// Appends to the branch and keeps its row. Nothing to append: keeps the row that the branch has.
  void grow(std::span<const Token> tokens);
  /// The same, and returns the log-probability of all but the first `uncounted` tokens. Cost: a row a token.
  double grow_counting(std::span<const Token> tokens, std::size_t uncounted);
  /// Weighs all tails, none of them twice. Needs a row; tails may be empty.
  std::vector<Weighed> weigh(std::vector<std::vector<Token>> tails);
  /// Both, in one batch where the decoder shares() and that holds them.
  std::vector<Weighed> grow_and_weigh(std::span<const Token> tokens, std::vector<std::vector<Token>> tails);
  /// The rows after the tails and no others; their log-probabilities are left 0.
  std::vector<Weighed> rows_after(std::vector<std::vector<Token>> tails);
  /// Whether a tail of so many tokens fits the window.
  bool fits(std::size_t tokens) const;

  Decoder& decoder() const { return decoder_; }
  Branch branch() const { return branch_; }
  /// Tails that one batch can weigh at most.
  std::size_t forks() const { return forks_; }
  /// Calls of the decoder beyond those that made the branch grow.
  int batches() const { return batches_; }

 private:
  /// Copies out what the rows after chains of tails say of them.
  void keep_rows(std::span<const std::vector<Token>> chains, std::span<const Branch> forks,
                 std::vector<Weighed>& of) const;
  /// Calls `read` with parts of `tails` and forks that were extended by them, in as many batches as are needed.
  void in_batches(std::span<const std::vector<Token>> tails, Rows rows,
                  const std::function<void(std::span<const std::vector<Token>>, std::span<const Branch>)>& read);

  void keep_own(const Row& row);

  Decoder& decoder_;
  Branch branch_;
  std::size_t forks_;
  int batches_ = 0;
  std::vector<float> scores_;  // of the branch's row
  double log_total_ = 0;
};

struct CoveredTextOptions {
  std::size_t skip = 0;   ///< tokens of the coverings' trunk that are in the branch already (then `before` is empty)
  std::size_t keep = 0;   ///< tokens of the text that are not to be cut; one never is where nothing comes before
  std::size_t spare = 0;  ///< as HealOptions::spare_tokens
  std::size_t room = 0;   ///< tokens that must fit the window after a prefix
  /// Prefixes' log-probabilities include those of all tokens of the text, but for the first that is read where nothing
  /// before it is. Default: only of those after grown().
  bool count = false;
};

/// A text's coverings with the probabilities of their prefixes.
class CoveredText {
 public:
  /// Reads `before` and what all coverings have in common, and weighs their prefixes.
  CoveredText(Trunk& trunk, std::span<const Token> before, Coverings& coverings, const CoveredTextOptions& options);

  Trunk& trunk() { return trunk_; }
  Coverings& coverings() { return coverings_; }
  const Vocabulary& vocabulary() const { return trunk_.decoder().vocabulary(); }
  /// One a prefix, in the order of Coverings::splits(); without those of probability 0. Tails begin after grown().
  const std::vector<Weighed>& prefixes() const { return prefixes_; }
  /// Whether all prefixes were weighed: those that do not fit the window are left out.
  bool complete() const { return complete_; }
  /// Tokens of the text that the branch holds.
  std::span<const Token> grown() const { return coverings_.tokens().first(grown_); }
  /// The text's own tokens that the branch does not hold.
  std::span<const Token> rest() const { return coverings_.tokens().subspan(grown_); }

  std::size_t size() const { return coverings_.spelled().size(); }
  /// Tokens that go on beyond the text after a prefix.
  std::span<const Token> candidates(const Weighed& prefix) const { return coverings_.candidates({prefix.at, {}}); }
  bool canonical(const Weighed& prefix, Token token);
  /// Whether a prefix spells the text and no more: all of it, or nothing of no text.
  bool spells_all(const Weighed& prefix) const {
    return prefix.at == size() || (prefix.at == 0 && size() == coverings_.lead());
  }
  /// Log-probability of a prefix and the end of the text; -inf where a text cannot end so.
  double end_after(const Weighed& prefix);

 private:
  std::vector<Token> after_trunk(std::span<const Token> tail) const;

  Trunk& trunk_;
  Coverings& coverings_;
  std::vector<Token> ends_;  // that end a text
  std::size_t grown_ = 0;
  bool complete_ = true;
  std::vector<Weighed> prefixes_;
};

/// A token that could come after a prefix and goes on beyond the text.
struct Candidate {
  double weight = 0;  ///< its probability with the prefix's, divided by exp(Candidates::reference)
  std::size_t prefix = 0;
  Token token = 0;
};

/// Candidates of a text and what is known of their weights.
struct Candidates {
  double reference = 0;              ///< log-probability that weights are relative to
  std::vector<Candidate> canonical;  ///< that were looked at and are so, heaviest first
  std::vector<Candidate> wrong;      ///< that were looked at and are not
  double total = 0;                  ///< weight of all but those that were looked at and are not canonical
  double unchecked = 0;              ///< part of `total` that was not looked at
};

/// Looks at the heaviest candidates until those not looked at have at most a fraction `unchecked` of the weight of all
/// that count, `also` included. Only candidates of prefixes that `counts` takes.
Candidates check_heaviest(CoveredText& text, double unchecked, double reference, double also,
                          const std::function<bool(const Weighed& prefix)>& counts);

/// The largest log-probability of a prefix; 0 if there is none.
double reference_of(const CoveredText& text);

/// P(text) by coverings.
struct TextMass {
  double logprob = 0;    ///< without what was looked at and is not canonical; -inf if nothing is left
  double unchecked = 0;  ///< part of it that was not looked at, as a fraction
};
TextMass mass_of(CoveredText& text, double unchecked);

}  // namespace tuiqiao
