#include "tuiqiao/text/coverings.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <iterator>
#include <stdexcept>

#include "text/byte_tokenizer.h"
#include "text/utf8.h"
#include "tuiqiao/error.h"

namespace tuiqiao {

namespace {

/// One text of each kind that the regular expressions of known tokenizers tell apart after a word: nothing, letters by
/// script and case, marks, digits in runs of any length (some group them from the right), white space before each of
/// these, line breaks, punctuation, symbols, contractions. Where a kind has many characters the rare ones come first:
/// merges with what stands before would hide a boundary. ASCII stands where expressions name it.
constexpr std::array kLookAheads{"",       "\uA000",   " \uA000",  " ",       "\n",         "\u203D",   "\u9FA4",
                                 "\u0BE6", "  ",       " \u203D",  " \n",     "\n\n",       "\n\uA000", "\r\n",
                                 "\t",     "\t\uA000", "  \uA000", " \u0BE6", " \u9FA4",    "\u3000",   "\u3000\uA000",
                                 "\u00A0", "\uFE30",   "\u303F",   "\u269A",  "\U0001F701", "\u1AB0",   "\u1AB0\uA000",
                                 "\u0903", "\uA640",   "\uA641",   "\u1F88",  "\uA717",     "\u2185",   "\u31F0",
                                 "\u30FF", "\uD7A3",   "\u0E5B",   "\u0EC6",  "\U0001057A", "\uAB70",   "!",
                                 "'",      "/",        "(",        "_",       "-",          ".",        "$",
                                 "'s",     "'re",      "s",        "t",       "d",          "m",        "re",
                                 "ve",     "ll",       "q",        "z",       "x",          "Q",        "Z",
                                 "X",      "S",        "qq",       "QQ",      "Qq",         " q",       " Q",
                                 "  q",    " 0",       " !",       "\nq",     "0",          "1",        "2",
                                 "3",      "4",        "5",        "6",       "7",          "8",        "9",
                                 "00",     "000",      "0000",     "0q",      "\u0001"};
constexpr std::array kNoLookAhead{""};

/// Texts that may follow.
std::span<const char* const> look_aheads(const Vocabulary& vocabulary) {
  if (vocabulary.tokenization() == Tokenization::looks_ahead) return kLookAheads;
  return kNoLookAhead;
}

constexpr std::size_t kMostCompletions = 4096;  // all characters that begin with two bytes of four, or one of three
constexpr std::size_t kMoreCompletions = 128;   // tried once one has been found, for another that differs
constexpr std::size_t kAnchorMargin = 64;       // bytes between the anchor and the first split, at least
constexpr int kMostAnchors = 8;
constexpr std::size_t kMostBytesOfAll = 1024;  // each sequence is kept whole

bool starts_with(std::span<const Token> tokens, std::span<const Token> prefix) {
  return tokens.size() >= prefix.size() && std::equal(prefix.begin(), prefix.end(), tokens.begin());
}

/// UTF-8, but for an unfinished character at the end.
bool may_become_valid(std::string_view text) {
  while (!text.empty()) {
    const Utf8Character c = first_character(text);
    if (c.state == Utf8Character::State::broken) return false;
    text.remove_prefix(c.bytes);
  }
  return true;
}

bool is_ascii_letter(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'); }
bool is_cjk(char32_t c) { return (c >= 0x3041 && c <= 0x9FA5) || (c >= 0xAC00 && c <= 0xD7A3); }
bool is_cjk_stop(char32_t c) {
  return c == 0x3001 || c == 0x3002 || c == 0xFF01 || c == 0xFF0C || c == 0xFF1A || c == 0xFF1B || c == 0xFF1F;
}

/// Letters of other scripts, without the marks and digits among them.
bool is_other_letter(char32_t c) {
  constexpr std::array<std::pair<char32_t, char32_t>, 16> kLetters{{{0x00C0, 0x00D6},  // Latin
                                                                    {0x00D8, 0x00F6},
                                                                    {0x00F8, 0x02AF},
                                                                    {0x0391, 0x03A1},  // Greek
                                                                    {0x03A3, 0x03FF},
                                                                    {0x0400, 0x0481},  // Cyrillic
                                                                    {0x048A, 0x052F},
                                                                    {0x0531, 0x0556},  // Armenian
                                                                    {0x0561, 0x0587},
                                                                    {0x05D0, 0x05EA},  // Hebrew
                                                                    {0x0620, 0x064A},  // Arabic
                                                                    {0x0671, 0x06D3},
                                                                    {0x0904, 0x0939},  // Devanagari
                                                                    {0x0E01, 0x0E30},  // Thai
                                                                    {0x10D0, 0x10FA},  // Georgian
                                                                    {0x1E00, 0x1EFF}}};
  return c != 0x03F6 && std::any_of(kLetters.begin(), kLetters.end(),
                                    [c](const auto& range) { return c >= range.first && c <= range.second; });
}

bool is_letter(std::string_view character) {
  const char32_t code = first_character(character).code;
  return is_ascii_letter(character.front()) || is_cjk(code) || is_other_letter(code);
}

/// Whether every known tokenizer begins a word at `at`, whatever follows: after a letter, a space before a letter or a
/// Chinese stop.
bool parts_words(std::string_view text, std::size_t at) {
  std::size_t before = at;
  do {
    if (before == 0 || at - before == 4) return false;
    --before;
  } while ((static_cast<unsigned char>(text[before]) & 0xC0U) == 0x80);
  if (!is_letter(text.substr(before, at - before))) return false;
  if (text[at] == ' ') return at + 1 < text.size() && is_letter(text.substr(at + 1));
  return is_cjk_stop(first_character(text.substr(at)).code);
}

}  // namespace

Coverings::Coverings(const Vocabulary& vocabulary, std::string_view text, Covers covers)
    : vocabulary_(vocabulary), tokenizer_(std::make_unique<ByteTokenizer>(vocabulary)), covers_(covers) {
  spelled_ = tokenizer_->lead();
  lead_ = spelled_.size();
  spelled_ += text;
  whole_ = spelled_.size() - unfinished_bytes(spelled_);
  tokens_ = tokenizer_->spell(std::string_view(spelled_).substr(0, whole_), &hard_);
  const std::vector<Token> rest = tokenizer_->spell(std::string_view(spelled_).substr(whole_));
  tokens_.insert(tokens_.end(), rest.begin(), rest.end());
  if (covers_ == Covers::all) {
    std::vector<Token> path;
    add_all(0, path);
  } else {
    find_splits();
  }
}

std::vector<Token> tokens_of_bytes(const Vocabulary& vocabulary, std::string_view text) {
  if (may_become_valid(text) && unfinished_bytes(text) == 0) return vocabulary.tokenize(text);
  ByteTokenizer tokenizer(vocabulary);
  return tokenizer.spell(tokenizer.lead() + std::string(text));
}

Coverings::~Coverings() = default;

std::int64_t Coverings::tokenisations() const { return tokenizer_->calls(); }

std::span<const Token> Coverings::candidates(const Split& split) const {
  const std::string_view rest = std::string_view(spelled_).substr(split.at);
  const std::span<const Token> range = vocabulary_.trie().starting_with(rest);
  // Those that end with the text come first.
  const auto longer = [&](Token t) { return vocabulary_.bytes(t).size() > rest.size(); };
  return {std::find_if(range.begin(), range.end(), longer), range.end()};
}

void Coverings::find_splits() {
  std::vector<std::size_t> places;
  const std::size_t size = spelled_.size();
  const std::size_t first = std::max(hard_, size - std::min(size, vocabulary_.longest()));
  for (std::size_t at = first; at <= size; ++at) {
    if (at == size || !candidates({at, {}}).empty()) places.push_back(at);
  }
  anchor_ = anchor_before(places.front());
  for (std::size_t spelled = 0; spelled < anchor_;) spelled += vocabulary_.bytes(tokens_[head_++]).size();
  for (const std::size_t at : places) add_prefixes(at);

  // Until here tails began at the anchor.
  const std::span<const Token> mine = std::span<const Token>(tokens_).subspan(head_);
  std::size_t common = mine.size();
  for (const Split& split : splits_) {
    const auto end = std::mismatch(split.tail.begin(), split.tail.end(), mine.begin(), mine.end()).first;
    common = std::min(common, static_cast<std::size_t>(end - split.tail.begin()));
  }
  for (Split& split : splits_)
    split.tail.erase(split.tail.begin(), split.tail.begin() + static_cast<std::ptrdiff_t>(common));
  trunk_ = head_ + common;
}

void Coverings::add_prefixes(std::size_t at) {
  const std::string_view text = std::string_view(spelled_).substr(anchor_);
  const std::size_t length = at - anchor_;
  std::size_t before = length;  // up to the character that `at` lies in
  if (at > whole_) before = whole_ - anchor_;
  while (before > 0 && before < text.size() && (static_cast<unsigned char>(text[before]) & 0xC0U) == 0x80) --before;

  std::vector<std::vector<Token>> found;
  const auto look = [&](const std::string& with) {
    std::vector<Token> tokens = from_anchor(with);
    std::size_t spelled = 0, count = 0;
    while (spelled < length && count < tokens.size()) spelled += vocabulary_.bytes(tokens[count++]).size();
    if (spelled != length) return;
    tokens.resize(count);
    if (std::find(found.begin(), found.end(), tokens) == found.end()) found.push_back(std::move(tokens));
  };
  if (before == length) {
    for (const char* next : look_aheads(vocabulary_)) look(std::string(text.substr(0, length)) + next);
  } else {
    std::size_t more = kMoreCompletions;
    any_completion(vocabulary_.trie(), text.substr(before, length - before), kMostCompletions,
                   [&](std::string_view character) {
                     look(std::string(text.substr(0, before)).append(character));
                     const bool settled = vocabulary_.tokenization() == Tokenization::local;
                     return !found.empty() && (settled || more-- == 0);
                   });
  }
  std::sort(found.begin(), found.end());
  for (std::vector<Token>& tail : found) splits_.push_back({at, std::move(tail)});
}

void Coverings::add_all(std::size_t at, std::vector<Token>& path) {
  if (splits_.size() >= kMostSequences || spelled_.size() > kMostBytesOfAll) {
    throw Error(
        fmt::format("more than {} token sequences spell the text, or it is longer than {} bytes: too many to sum "
                    "over all",
                    kMostSequences, kMostBytesOfAll));
  }
  splits_.push_back({at, path});
  for (const Token token : vocabulary_.trie().prefixes_of(std::string_view(spelled_).substr(at))) {
    path.push_back(token);
    add_all(at + vocabulary_.bytes(token).size(), path);
    path.pop_back();
  }
  if (at == 0) {
    std::sort(splits_.begin(), splits_.end(),
              [](const Split& a, const Split& b) { return a.at != b.at ? a.at < b.at : a.tail < b.tail; });
  }
}

std::size_t Coverings::anchor_before(std::size_t earliest) {
  std::vector<std::size_t> ends;  // of tokens, in bytes
  std::size_t spelled = 0;
  for (const Token token : tokens_) ends.push_back(spelled += vocabulary_.bytes(token).size());
  const std::string_view text = std::string_view(spelled_).substr(0, whole_);
  int tried = 0;
  for (std::size_t i = ends.size(); i-- > 0 && tried < kMostAnchors;) {
    const std::size_t at = ends[i];
    if (at <= hard_) break;
    if (at + kAnchorMargin > earliest || at >= whole_) continue;
    const bool local = vocabulary_.tokenization() == Tokenization::local;
    if (local ? (static_cast<unsigned char>(text[at]) & 0xC0U) == 0x80 : !parts_words(text, at)) continue;
    if (!tokenizer_->lead().empty() && text[at] != ' ') continue;
    ++tried;
    if (starts_with(std::span<const Token>(tokens_).subspan(i + 1), tokenizer_->spell(text.substr(at)))) return at;
  }
  return hard_;
}

std::vector<Token> Coverings::from_anchor(std::string_view tail) {
  std::vector<Token> tokens = tokenizer_->spell(tail);
  if (anchor_ == hard_ || tokens.empty() || tokens.front() == tokens_[head_]) return tokens;
  tokens = tokenizer_->spell(spelled_.substr(0, anchor_).append(tail));
  if (!starts_with(tokens, head())) return {};
  tokens.erase(tokens.begin(), tokens.begin() + static_cast<std::ptrdiff_t>(head_));
  return tokens;
}

std::vector<Token> Coverings::since_anchor(std::span<const Token> tail) const {
  std::vector<Token> tokens(tokens_.begin() + static_cast<std::ptrdiff_t>(head_),
                            tokens_.begin() + static_cast<std::ptrdiff_t>(trunk_));
  tokens.insert(tokens.end(), tail.begin(), tail.end());
  return tokens;
}

bool Coverings::canonical(std::span<const Token> tail) {
  if (covers_ == Covers::all) return true;
  const auto [verdict, fresh] = begins_text_.try_emplace(std::vector<Token>(tail.begin(), tail.end()), false);
  if (!fresh) return verdict->second;
  const std::vector<Token> tokens = since_anchor(tail);
  const std::string text = vocabulary_.detokenize(tokens);
  if (!may_become_valid(text) || (head_ == 0 && !text.starts_with(tokenizer_->lead()))) return false;
  const std::size_t fragment = unfinished_bytes(text);
  if (fragment == 0) {
    const auto nexts = look_aheads(vocabulary_);
    verdict->second = std::any_of(nexts.begin(), nexts.end(),
                                  [&](const char* next) { return starts_with(from_anchor(text + next), tokens); });
  } else {
    const std::string whole = text.substr(0, text.size() - fragment);
    verdict->second = any_completion(vocabulary_.trie(), std::string_view(text).substr(whole.size()), kMostCompletions,
                                     [&](std::string_view character) {
                                       return starts_with(from_anchor(std::string(whole).append(character)), tokens);
                                     });
  }
  return verdict->second;
}

bool Coverings::may_end(std::span<const Token> tail) {
  const auto [verdict, fresh] = ends_text_.try_emplace(std::vector<Token>(tail.begin(), tail.end()), false);
  if (!fresh) return verdict->second;
  const std::vector<Token> tokens = since_anchor(tail);
  const std::string text = vocabulary_.detokenize(tokens);
  if (head_ == 0 && !text.empty() && text == tokenizer_->lead()) return false;  // nothing is put before no text
  verdict->second =
      may_become_valid(text) && unfinished_bytes(text) == 0 && (covers_ == Covers::all || from_anchor(text) == tokens);
  return verdict->second;
}

}  // namespace tuiqiao
