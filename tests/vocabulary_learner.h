#pragma once

#include <algorithm>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <ostream>
#include <random>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "text/utf8.h"
#include "tuiqiao/text/vocabulary.h"

namespace tuiqiao::test {

/// How a learnt vocabulary cuts texts before it merges.
enum class Words {
  none,        ///< merges run over the whole text
  look_ahead,  ///< as GPT-2's regular expression: contractions, letters, up to three digits, punctuation, spaces but
               ///< the last before a word
};

namespace learner {

inline bool is_space(char32_t c) { return c == ' ' || c == '\n' || c == '\t' || c == '\r' || c == 0x3000 || c == 0xA0; }
inline bool is_digit(char32_t c) { return (c >= '0' && c <= '9') || (c >= 0x0BE6 && c <= 0x0BEF); }
inline bool is_letter(char32_t c) {
  const char32_t lower = c | 0x20U;
  return (lower >= 'a' && lower <= 'z') || (c >= 0xC0 && !is_digit(c) && !(c >= 0x2000 && c <= 0x303F) && c < 0xFE00);
}

/// 's|'t| ?L+| ?N{1,3}| ?[^\s L N]+|\s+(?!\S)|\s+
inline std::vector<std::string> split_words(std::string_view text) {
  std::vector<std::pair<char32_t, std::string_view>> c;
  while (!text.empty()) {
    const Utf8Character next = first_character(text);
    c.emplace_back(next.code, text.substr(0, next.bytes));
    text.remove_prefix(next.bytes);
  }
  std::vector<std::string> words;
  const auto run = [&](std::size_t from, auto&& of, std::size_t most) {
    std::size_t end = from;
    while (end < c.size() && end - from < most && of(c[end].first)) ++end;
    return end;
  };
  const auto other = [](char32_t x) { return !is_space(x) && !is_letter(x) && !is_digit(x); };
  for (std::size_t at = 0; at < c.size();) {
    std::size_t end = at;
    if (c[at].first == '\'' && at + 1 < c.size() && (c[at + 1].first == 's' || c[at + 1].first == 't')) end = at + 2;
    const std::size_t start = c[at].first == ' ' ? at + 1 : at;
    if (end == at && run(start, is_letter, c.size()) > start) end = run(start, is_letter, c.size());
    if (end == at && run(start, is_digit, 3) > start) end = run(start, is_digit, 3);
    if (end == at && run(start, other, c.size()) > start) end = run(start, other, c.size());
    if (end == at) {
      end = run(at, is_space, c.size());
      if (end < c.size() && end - at > 1) --end;
    }
    std::string& word = words.emplace_back();
    for (; at < end; ++at) word += c[at].second;
  }
  return words;
}

}  // namespace learner

struct LearntOptions {
  Words words = Words::none;
  /// As SentencePiece: pieces start as characters, those that were not learnt fall back to bytes. Else as GPT-2's:
  /// pieces start as bytes.
  bool characters = false;
  /// As Llama 2: a space before every text (only with `characters`).
  bool lead = false;
  int merges = 20;
  /// Instead of learning: words that are to be one token, each made of two that are so, or are single pieces.
  std::vector<std::pair<std::string, std::string>> given{};
};

/// A kind of vocabulary: the parameter of a test.
struct LearntKind {
  const char* name;
  LearntOptions options;
};

inline void PrintTo(const LearntKind& kind, std::ostream* out) { *out << kind.name; }

inline std::vector<LearntKind> learnt_kinds() {
  return {{"bytes", {.words = Words::none, .merges = 25}},
          {"bytes_of_words", {.words = Words::look_ahead, .merges = 25}},
          {"few_merges_of_words", {.words = Words::look_ahead, .merges = 4}},
          {"many_merges_of_words", {.words = Words::look_ahead, .merges = 80}},
          {"characters", {.words = Words::none, .characters = true, .merges = 20}},
          {"characters_of_words", {.words = Words::look_ahead, .characters = true, .merges = 20}},
          {"characters_with_lead", {.words = Words::none, .characters = true, .lead = true, .merges = 20}}};
}

/// Byte-pair merges learnt from texts: the most frequent pair first.
class LearntVocabulary {
 public:
  LearntVocabulary(const std::vector<std::string>& texts, const LearntOptions& options) : options_(options) {
    std::vector<Vocabulary::Entry> entries;
    for (int byte = 0; byte < 256; ++byte)
      entries.push_back(
          {std::string(1, static_cast<char>(byte)), "", options.characters ? TokenKind::byte : TokenKind::text});
    if (!options.characters) {
      for (int byte = 0; byte < 256; ++byte) ids_[std::string(1, static_cast<char>(byte))] = byte;
    }
    const auto add = [&](const std::string& bytes) {
      if (!ids_.emplace(bytes, static_cast<Token>(entries.size())).second) return;
      entries.push_back({bytes, "", TokenKind::text});
    };
    std::vector<std::vector<std::string>> words;
    for (const std::string& text : texts) {
      for (const std::string& word : cut(options.lead ? " " + text : text)) words.push_back(pieces(word));
    }
    if (options.characters) {
      for (const auto& word : words) {
        for (const std::string& piece : word) add(piece);
      }
    }
    for (const auto& pair : options.given) {
      ranks_.emplace(pair, static_cast<int>(ranks_.size()));
      add(pair.first + pair.second);
    }
    for (int i = 0; i < options.merges && options.given.empty(); ++i) {
      std::map<std::pair<std::string, std::string>, int> counts;
      for (const auto& word : words) {
        for (std::size_t k = 0; k + 1 < word.size(); ++k) ++counts[{word[k], word[k + 1]}];
      }
      if (counts.empty()) break;
      const auto best = std::max_element(counts.begin(), counts.end(),
                                         [](const auto& a, const auto& b) { return a.second < b.second; });
      const auto pair = best->first;
      ranks_.emplace(pair, i);
      add(pair.first + pair.second);
      for (auto& word : words) merge(word);
    }
    begin_ = static_cast<Token>(entries.size());
    entries.push_back({"", "<begin>", TokenKind::control});
    end_ = static_cast<Token>(entries.size());
    entries.push_back({"", "<end>", TokenKind::control, true});
    vocabulary_ = std::make_shared<const Vocabulary>(
        std::move(entries), [this](std::string_view text, bool) { return tokenize(text); }, begin_,
        options.words == Words::none ? Tokenization::local : Tokenization::looks_ahead);
  }
  LearntVocabulary(const LearntVocabulary&) = delete;
  LearntVocabulary& operator=(const LearntVocabulary&) = delete;

  const std::shared_ptr<const Vocabulary>& vocabulary() const { return vocabulary_; }
  const LearntOptions& options() const { return options_; }
  Token begin() const { return begin_; }
  Token end() const { return end_; }
  Token id(const std::string& bytes) const { return ids_.at(bytes); }

  std::vector<Token> tokenize(std::string_view text) const {
    std::vector<Token> tokens;
    if (text.empty()) return tokens;
    for (const std::string& word : cut(options_.lead ? std::string(" ").append(text) : std::string(text))) {
      std::vector<std::string> merged = pieces(word);
      merge(merged);
      for (const std::string& piece : merged) {
        const auto found = ids_.find(piece);
        if (found != ids_.end()) {
          tokens.push_back(found->second);
        } else {
          for (const char byte : piece) tokens.push_back(static_cast<unsigned char>(byte));
        }
      }
    }
    return tokens;
  }

 private:
  std::vector<std::string> cut(const std::string& text) const {
    return options_.words == Words::none ? std::vector<std::string>{text} : learner::split_words(text);
  }
  std::vector<std::string> pieces(std::string_view word) const {
    std::vector<std::string> found;
    while (!word.empty()) {
      const std::size_t bytes = options_.characters ? first_character(word).bytes : 1;
      found.emplace_back(word.substr(0, bytes));
      word.remove_prefix(bytes);
    }
    return found;
  }
  /// Merges the pair of lowest rank, of equals the leftmost, until none is left.
  void merge(std::vector<std::string>& word) const {
    while (true) {
      int best = -1;
      std::size_t at = 0;
      for (std::size_t k = 0; k + 1 < word.size(); ++k) {
        const auto found = ranks_.find({word[k], word[k + 1]});
        if (found != ranks_.end() && (best < 0 || found->second < best)) best = found->second, at = k;
      }
      if (best < 0) return;
      word[at] += word[at + 1];
      word.erase(word.begin() + static_cast<std::ptrdiff_t>(at) + 1);
    }
  }

  LearntOptions options_;
  std::map<std::string, Token> ids_;
  std::map<std::pair<std::string, std::string>, int> ranks_;
  Token begin_ = 0, end_ = 0;
  std::shared_ptr<const Vocabulary> vocabulary_;
};

/// A character's bytes; "" for a surrogate.
inline std::string utf8(char32_t code) {
  const auto tail = [&](int shift) { return static_cast<char>(0x80U | (code >> shift & 0x3FU)); };
  if (code >= 0xD800 && code < 0xE000) return "";
  if (code < 0x80) return {static_cast<char>(code)};
  if (code < 0x800) return {static_cast<char>(0xC0U | code >> 6U), tail(0)};
  if (code < 0x10000) return {static_cast<char>(0xE0U | code >> 12U), tail(6), tail(0)};
  return {static_cast<char>(0xF0U | code >> 18U), tail(12), tail(6), tail(0)};
}

/// Texts over an alphabet of strings, the same for the same seed.
inline std::vector<std::string> random_texts(const std::vector<std::string>& alphabet, int count, int length,
                                             unsigned seed) {
  std::mt19937 random(seed);
  std::vector<std::string> texts;
  // Few pairs are frequent, so that merges grow long.
  for (int i = 0; i < count; ++i) {
    std::string& text = texts.emplace_back();
    std::size_t last = random() % alphabet.size();
    for (int k = 0; k < length; ++k) {
      text += alphabet[last];
      last = random() % 3 != 0 ? (last * 7 + seed + 1) % alphabet.size() : random() % alphabet.size();
    }
  }
  return texts;
}

/// All texts of at most `length` letters.
inline std::vector<std::string> all_texts(const std::vector<std::string>& alphabet, int length) {
  std::vector<std::string> texts{""};
  for (std::size_t i = 0, end = 1; length-- > 0; i = end, end = texts.size()) {
    for (std::size_t k = i; k < end; ++k) {
      for (const std::string& letter : alphabet) texts.push_back(texts[k] + letter);
    }
    if (i == 0 && end == texts.size()) break;
  }
  return texts;
}

}  // namespace tuiqiao::test
