#pragma once

#include <cstdint>
#include <span>

#include "tuiqiao/text/vocabulary.h"

namespace tuiqiao {

/// A text that a Decoder keeps, by number. Forks share what they have in common.
using Branch = std::int32_t;

/// One row of next-token log-probabilities, as a view: log p(t) = scores[t] - log_total. Kept so, a row costs no pass
/// over the vocabulary beyond the one that found `log_total`. Scores may be -inf (impossible), never NaN or +inf.
struct Row {
  std::span<const float> scores;  ///< one a token, up to a common constant
  double log_total = 0;           ///< log of the sum of exp(scores)

  double operator[](Token token) const {
    return static_cast<double>(scores[static_cast<std::size_t>(token)]) - log_total;
  }
};

/// Which rows an extension is to leave: of no token, of its last token, or of each.
enum class Rows : std::uint8_t { none, last, all };

/// Tokens to append to one branch.
struct Extension {
  Branch branch = 0;
  std::span<const Token> tokens;
  Rows rows = Rows::last;
  /// Forks of `branch` that hold the same text: they get the tokens too, at no cost and without rows, and may be named
  /// again further on in the same call, to go on from there. Only where Decoder::shares(); that their texts are the
  /// same, and not of the same length only, is the caller's duty. Some 500 tokens at a time are safe for every model.
  std::span<const Branch> also = {};
};

/// A source of next-token log-probabilities over branches of text. A branch only grows: nothing is ever rolled back,
/// so recurrent and sliding-window models work like any other. Plan, evaluate the trunk, fork, extend the forks.
/// Threads: one call at a time.
class Decoder {
 public:
  virtual ~Decoder() = default;

  virtual const Vocabulary& vocabulary() const = 0;
  /// How many branches may live at once.
  virtual int max_branches() const = 0;
  /// How many tokens one branch may hold.
  virtual int window() const = 0;
  /// How many tokens the branch holds. Throws: std::invalid_argument on a branch that does not live, here and below.
  virtual int length(Branch branch) const = 0;

  /// Whether one call can extend a branch and its forks alike and the forks further: a tree in one batch.
  virtual bool shares() const { return false; }

  /// A new branch with the same text. It has no row until it is extended.
  /// Throws: std::invalid_argument when max_branches() live already.
  virtual Branch fork(Branch branch) = 0;
  /// As fork, of a fork that is closed before `branch` is extended by itself: nothing need be copied for the time when
  /// they go separate ways.
  virtual Branch fork_briefly(Branch branch) { return fork(branch); }
  /// Forgets a branch; its number may be given out again.
  virtual void close(Branch branch) = 0;
  /// Appends to several branches, together. The rows asked for replace those of the extension before.
  /// Throws: std::invalid_argument when a branch is named twice, gets no tokens or a token outside the vocabulary, or
  /// would outgrow the window, or on Extension::also where it is not taken; tuiqiao::Error when the engine fails.
  virtual void extend(std::span<const Extension> extensions) = 0;
  /// The row after the branch's last token. Valid until the next extend or close.
  /// Throws: std::invalid_argument when the latest extension left the branch no row.
  Row row(Branch branch) const { return rows(branch).back(); }
  /// All rows that the latest extension left the branch, in the order of its tokens; not empty.
  virtual std::span<const Row> rows(Branch branch) const = 0;

  void extend(const Extension& extension) { extend(std::span<const Extension>(&extension, 1)); }
};

}  // namespace tuiqiao
