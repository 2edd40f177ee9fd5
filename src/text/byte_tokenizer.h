#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "tuiqiao/text/vocabulary.h"

namespace tuiqiao {

/// The model's tokenizer made to give back every byte. A tokenizer is only ever given valid UTF-8; characters that it
/// would not give back, and bytes that are part of none, become the tokens of their single bytes.
/// Threads: as the vocabulary's tokenizer.
class ByteTokenizer {
 public:
  /// Throws: tuiqiao::Error for a vocabulary that normalises.
  explicit ByteTokenizer(const Vocabulary& vocabulary);

  const Vocabulary& vocabulary() const { return vocabulary_; }
  /// What the tokenizer puts before a text by itself: "" or " " (Llama 2 and its kin).
  const std::string& lead() const { return lead_; }
  /// Tokens that together spell `bytes`, no more and no less: lead() + text for a text from its start.
  /// `hard`, if given, becomes the end of the last byte that had to be spelled by its own token (0 if none).
  /// Throws: tuiqiao::Error where the vocabulary has no token for a byte.
  std::vector<Token> spell(std::string_view bytes, std::size_t* hard = nullptr);
  /// Calls of the model's tokenizer so far.
  std::int64_t calls() const { return calls_; }

 private:
  std::vector<Token> tokenize(std::string_view text);
  void spell_valid(std::string_view text, std::size_t offset, std::vector<Token>& to, std::size_t& hard);
  void spell_bytes(std::string_view bytes, std::vector<Token>& to) const;
  std::vector<Token> tokenize_bare(std::string_view text);

  const Vocabulary& vocabulary_;
  std::string lead_;
  std::int64_t calls_ = 0;
};

/// Calls `visit` with each character that begins with `fragment`, the first bytes of one, until it returns true or
/// `most` were seen; true if one did. Characters of which the vocabulary has fewest tokens come first.
bool any_completion(const ByteTrie& trie, std::string_view fragment, std::size_t most,
                    const std::function<bool(std::string_view character)>& visit);

}  // namespace tuiqiao
