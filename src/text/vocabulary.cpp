#include "tuiqiao/text/vocabulary.h"

#include <fmt/format.h>

#include <algorithm>
#include <stdexcept>

namespace tuiqiao {

ByteTrie::ByteTrie(std::span<const std::string> bytes, std::span<const TokenKind> kinds) : bytes_(bytes) {
  for (std::size_t t = 0; t < bytes.size(); ++t) {
    const bool spells = kinds[t] == TokenKind::text || kinds[t] == TokenKind::byte;
    if (spells && !bytes[t].empty()) order_.push_back(static_cast<Token>(t));
  }
  std::sort(order_.begin(), order_.end(), [&](Token a, Token b) {
    const int order = bytes[static_cast<std::size_t>(a)].compare(bytes[static_cast<std::size_t>(b)]);
    return order != 0 ? order < 0 : a < b;
  });
}

namespace {

/// The part of `range`, whose tokens agree in their first `depth` bytes, that has `byte` next.
std::span<const Token> descend(std::span<const Token> range, std::span<const std::string> bytes, std::size_t depth,
                               char byte) {
  const auto next = [&](Token t) -> int {  // -1 where the token ends here: it sorts first
    const std::string& s = bytes[static_cast<std::size_t>(t)];
    return depth < s.size() ? static_cast<unsigned char>(s[depth]) : -1;
  };
  const int wanted = static_cast<unsigned char>(byte);
  const auto first = std::partition_point(range.begin(), range.end(), [&](Token t) { return next(t) < wanted; });
  const auto last = std::partition_point(first, range.end(), [&](Token t) { return next(t) == wanted; });
  return {first, last};
}

}  // namespace

std::span<const Token> ByteTrie::starting_with(std::string_view prefix) const {
  std::span<const Token> range = order_;
  for (std::size_t depth = 0; depth < prefix.size() && !range.empty(); ++depth) {
    range = descend(range, bytes_, depth, prefix[depth]);
  }
  return range;
}

std::span<const Token> ByteTrie::narrowed(std::span<const Token> range, std::size_t depth, char byte) const {
  return descend(range, bytes_, depth, byte);
}

std::vector<Token> ByteTrie::prefixes_of(std::string_view text) const {
  std::vector<Token> found;
  std::span<const Token> range = order_;
  for (std::size_t depth = 0; depth < text.size() && !range.empty(); ++depth) {
    range = descend(range, bytes_, depth, text[depth]);
    for (const Token t : range) {  // tokens that end here come first
      if (bytes_[static_cast<std::size_t>(t)].size() != depth + 1) break;
      found.push_back(t);
    }
  }
  return found;
}

Vocabulary::Vocabulary(std::vector<Entry> entries, Tokenizer tokenizer, std::optional<Token> begin,
                       Tokenization tokenization)
    : tokenizer_(std::move(tokenizer)), begin_(begin), tokenization_(tokenization) {
  if (entries.empty()) throw std::invalid_argument("[Vocabulary] no tokens");
  bytes_.reserve(entries.size());
  names_.reserve(entries.size());
  for (Entry& entry : entries) {
    longest_ = std::max(longest_, entry.bytes.size());
    bytes_.push_back(std::move(entry.bytes));
    names_.push_back(std::move(entry.name));
    kinds_.push_back(entry.kind);
    ends_.push_back(entry.ends);
  }
  if (begin_) index(*begin_);
}

const ByteTrie& Vocabulary::trie() const {
  std::call_once(sorted_, [this] { trie_ = ByteTrie(bytes_, kinds_); });
  return trie_;
}

std::string Vocabulary::detokenize(std::span<const Token> tokens) const {
  std::string text;
  for (const Token token : tokens) text += bytes(token);
  return text;
}

std::size_t Vocabulary::index(Token token) const {
  if (token < 0 || token >= size()) {
    throw std::invalid_argument(fmt::format("[Vocabulary] token {} outside [0, {})", token, size()));
  }
  return static_cast<std::size_t>(token);
}

}  // namespace tuiqiao
