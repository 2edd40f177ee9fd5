#pragma once

#include <cstdint>
#include <functional>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace tuiqiao {

/// A position in a model's vocabulary.
using Token = std::int32_t;

enum class TokenKind : std::uint8_t {
  text,     ///< stands for its bytes
  byte,     ///< stands for one raw byte, as `<0x0A>`
  control,  ///< steers the model (begin, end of turn, fill in the middle); has no bytes of text
  unused,   ///< reserved or unknown; never text
};

/// Token ids in the order of their bytes: a byte trie laid flat, in which a node is a range of neighbours.
/// Cost: 4 bytes a token; a query narrows the range by one byte at a time, O(length * log size).
class ByteTrie {
 public:
  ByteTrie() = default;
  /// `bytes[t]` are the bytes of token t; tokens without bytes are left out. Keeps views: `bytes` must outlive the
  /// trie.
  explicit ByteTrie(std::span<const std::string> bytes, std::span<const TokenKind> kinds);

  /// Tokens whose bytes start with `prefix`, in the order of their bytes (equal bytes: by id). All of them for "".
  std::span<const Token> starting_with(std::string_view prefix) const;
  /// Tokens whose bytes are a non-empty prefix of `text` (or all of it), shortest first.
  std::vector<Token> prefixes_of(std::string_view text) const;
  /// The part of `range`, tokens that agree in their first `depth` bytes, that has `byte` next.
  std::span<const Token> narrowed(std::span<const Token> range, std::size_t depth, char byte) const;

 private:
  std::span<const std::string> bytes_;
  std::vector<Token> order_;
};

/// What a tokenizer does to a text, as far as it matters to whoever cuts one (see coverings.h).
enum class Tokenization : std::uint8_t {
  local,        ///< tokens of a text that goes on begin with those of the text, wherever one of them ended
  looks_ahead,  ///< what follows a word may move its end: splits texts by a regular expression first
  normalises,   ///< tokens do not spell the text: case, accents or white space are lost
};

/// The words of a model: their bytes, what they are for, and the model's own tokenizer.
/// Threads: const members may be called at once if the tokenizer may.
class Vocabulary {
 public:
  struct Entry {
    std::string bytes;  ///< of text; empty for control and unused tokens. May be part of a UTF-8 sequence.
    std::string name;   ///< as the model writes it, for control tokens; may be empty for the others
    TokenKind kind = TokenKind::text;
    bool ends = false;  ///< generation stops here (end of text, end of turn)
  };
  /// Tokenises UTF-8 text. `special` true: names of control tokens in the text become those tokens; false: they are
  /// text.
  using Tokenizer = std::function<std::vector<Token>(std::string_view text, bool special)>;

  /// `begin` is the token a text begins with, if the model wants one. `tokenization` looks_ahead is right, if slower,
  /// for a tokenizer that is local.
  /// Throws: std::invalid_argument on an empty vocabulary or `begin` outside it.
  Vocabulary(std::vector<Entry> entries, Tokenizer tokenizer, std::optional<Token> begin,
             Tokenization tokenization = Tokenization::looks_ahead);
  Vocabulary(const Vocabulary&) = delete;
  Vocabulary& operator=(const Vocabulary&) = delete;

  int size() const { return static_cast<int>(bytes_.size()); }
  /// Throws: std::invalid_argument when `token` is outside [0, size()), here and below.
  std::string_view bytes(Token token) const { return bytes_[index(token)]; }
  std::string_view name(Token token) const { return names_[index(token)]; }
  TokenKind kind(Token token) const { return kinds_[index(token)]; }
  bool ends(Token token) const { return ends_[index(token)]; }
  std::optional<Token> begin() const { return begin_; }
  Tokenization tokenization() const { return tokenization_; }
  /// Bytes of the longest token.
  std::size_t longest() const { return longest_; }
  /// Sorted at the first call: what reads and writes text never needs it. Cost: then O(size log size), once.
  const ByteTrie& trie() const;

  /// Tokens of `text`, without the begin token. Pieces of a template are tokenised with `special`, documents and
  /// questions never: a document that contains "<end_of_turn>" is text.
  std::vector<Token> tokenize(std::string_view text, bool special = false) const { return tokenizer_(text, special); }
  /// The bytes of `tokens` one after another; control and unused tokens add none.
  std::string detokenize(std::span<const Token> tokens) const;

 private:
  std::size_t index(Token token) const;

  std::vector<std::string> bytes_;
  std::vector<std::string> names_;
  std::vector<TokenKind> kinds_;
  std::vector<bool> ends_;
  Tokenizer tokenizer_;
  std::optional<Token> begin_;
  Tokenization tokenization_;
  std::size_t longest_ = 0;
  mutable std::once_flag sorted_;
  mutable ByteTrie trie_;
};

}  // namespace tuiqiao
