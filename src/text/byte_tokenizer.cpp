#include "text/byte_tokenizer.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <utility>

#include "text/utf8.h"
#include "tuiqiao/error.h"

namespace tuiqiao {

namespace {

/// Length of what both begin with.
std::size_t common_length(std::string_view a, std::string_view b) {
  return static_cast<std::size_t>(std::mismatch(a.begin(), a.end(), b.begin(), b.end()).first - a.begin());
}

}  // namespace

ByteTokenizer::ByteTokenizer(const Vocabulary& vocabulary) : vocabulary_(vocabulary) {
  if (vocabulary.tokenization() == Tokenization::normalises) {
    throw Error("the model's tokenizer (WordPiece or unigram) does not keep the bytes of a text: it cannot be healed");
  }
  if (vocabulary.detokenize(tokenize("a")) == " a") lead_ = " ";
}

std::vector<Token> ByteTokenizer::tokenize(std::string_view text) {
  ++calls_;
  return vocabulary_.tokenize(text);
}

/// Tokens that spell just `text`, from a tokenizer that puts a space before what it is given.
std::vector<Token> ByteTokenizer::tokenize_bare(std::string_view text) {
  if (lead_.empty()) return tokenize(text);
  if (text.starts_with(lead_) && text != lead_) return tokenize(text.substr(lead_.size()));
  for (const std::string_view before : {"\n", "!", "\xEA\x80\x80"}) {  // until one that merges with nothing after it
    std::vector<Token> tokens = tokenize(std::string(before).append(text));
    std::size_t spelled = 0, count = 0;
    const std::size_t wanted = lead_.size() + before.size();
    while (spelled < wanted && count < tokens.size()) spelled += vocabulary_.bytes(tokens[count++]).size();
    if (spelled == wanted) return {tokens.begin() + static_cast<std::ptrdiff_t>(count), tokens.end()};
  }
  return {};
}

void ByteTokenizer::spell_bytes(std::string_view bytes, std::vector<Token>& to) const {
  for (const char byte : bytes) {
    const auto range = vocabulary_.trie().starting_with(std::string_view(&byte, 1));
    const auto whole = [&](Token t) { return vocabulary_.bytes(t).size() == 1; };
    const auto raw = [&](Token t) { return whole(t) && vocabulary_.kind(t) == TokenKind::byte; };
    auto found = std::find_if(range.begin(), range.end(), raw);
    if (found == range.end()) found = std::find_if(range.begin(), range.end(), whole);
    if (found == range.end()) {
      throw Error(fmt::format("the model's vocabulary has no token for the byte 0x{:02X}",
                              static_cast<unsigned>(static_cast<unsigned char>(byte))));
    }
    to.push_back(*found);
  }
}

void ByteTokenizer::spell_valid(std::string_view text, std::size_t offset, std::vector<Token>& to, std::size_t& hard) {
  const std::vector<Token> tokens = tokenize_bare(text);
  const std::string spelled = vocabulary_.detokenize(tokens);
  if (spelled == text) {
    to.insert(to.end(), tokens.begin(), tokens.end());
    return;
  }
  // A character that is not given back is spelled by its bytes wherever it is, and what lies between by the tokenizer.
  const std::size_t same = common_length(spelled, text);
  std::size_t begin = 0, length = 0;
  do {
    begin += length;
    length = first_character(text.substr(begin)).bytes;
  } while (begin + length <= same && begin + length < text.size());
  const std::string_view lost = text.substr(begin, length);
  for (std::size_t done = 0; done < text.size();) {
    const std::size_t end = std::min(text.find(lost, done), text.size());
    if (end > done) spell_valid(text.substr(done, end - done), offset + done, to, hard);
    if (end < text.size()) {
      spell_bytes(lost, to);
      hard = std::max(hard, offset + end + length);
    }
    done = end + length;
  }
}

std::vector<Token> ByteTokenizer::spell(std::string_view bytes, std::size_t* hard) {
  std::vector<Token> tokens;
  std::size_t last = 0;
  for (std::size_t done = 0; done < bytes.size();) {
    std::size_t end = done;
    while (end < bytes.size()) {
      const Utf8Character c = first_character(bytes.substr(end));
      if (c.state != Utf8Character::State::whole) break;
      end += c.bytes;
    }
    spell_valid(bytes.substr(done, end - done), done, tokens, last);
    if (end < bytes.size()) {
      const std::size_t broken = first_character(bytes.substr(end)).bytes;
      spell_bytes(bytes.substr(end, broken), tokens);
      end += broken;
      last = end;
    }
    done = end;
  }
  if (hard) *hard = last;
  return tokens;
}

namespace {

struct Completer {
  const ByteTrie& trie;
  std::size_t left;
  const std::function<bool(std::string_view)>& visit;

  bool below(std::string& begun) {
    std::vector<std::pair<std::size_t, char>> next;
    for (int byte = 0x80; byte <= 0xBF; ++byte) {
      begun.push_back(static_cast<char>(byte));
      const Utf8Character c = first_character(begun);
      if (c.bytes == begun.size() && c.state != Utf8Character::State::broken)
        next.emplace_back(trie.starting_with(begun).size(), static_cast<char>(byte));
      begun.pop_back();
    }
    std::stable_sort(next.begin(), next.end(), [](const auto& a, const auto& b) { return a.first < b.first; });
    for (const auto& [tokens, byte] : next) {
      if (left == 0) return false;
      begun.push_back(byte);
      bool found = false;
      if (first_character(begun).state == Utf8Character::State::whole) {
        --left;
        found = visit(begun);
      } else {
        found = below(begun);
      }
      begun.pop_back();
      if (found) return true;
    }
    return false;
  }
};

}  // namespace

bool any_completion(const ByteTrie& trie, std::string_view fragment, std::size_t most,
                    const std::function<bool(std::string_view character)>& visit) {
  std::string begun(fragment);
  return Completer{trie, most, visit}.below(begun);
}

}  // namespace tuiqiao
