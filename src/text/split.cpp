#include "split.h"

#include <fmt/format.h>

#include <algorithm>
#include <optional>
#include <stdexcept>
#include <tuple>
#include <utility>

#include "tuiqiao/error.h"
#include "tuiqiao/text/documents.h"
#include "white_space.h"

namespace tuiqiao {

namespace {

constexpr std::string_view kSpaces = " \t\n\v\f\r";

/// Where a text may be cut, after white space: ends of paragraphs, and of lines and sentences (paragraphs included).
struct Cuts {
  std::vector<std::size_t> paragraphs, sentences;  // ascending; the last is the text's size
};

enum class Mark { none, stop, full_stop, closer };

/// A stop ends a sentence if white space follows, a full stop (Chinese, Japanese) always; closing marks go with them.
Mark mark_of(char32_t c) {
  constexpr std::u32string_view kStops = U".!?\u2026\u061F\u06D4\u0964", kFullStops = U"\u3002\uFF01\uFF1F\uFF1B\uFF61";
  constexpr std::u32string_view kClosers = U"\"')]}\u00BB\u2019\u201D\u300B\u300D\u300F\u3011\uFF09";
  if (kStops.find(c) != std::u32string_view::npos) return Mark::stop;
  if (kFullStops.find(c) != std::u32string_view::npos) return Mark::full_stop;
  return kClosers.find(c) != std::u32string_view::npos ? Mark::closer : Mark::none;
}

Cuts find_cuts(std::string_view text) {
  Cuts cuts;
  Mark state = Mark::none;
  for (std::size_t at = 0; at < text.size();) {
    const std::size_t run = std::min(text.find_first_not_of(kSpaces, at), text.size());
    if (run > at) {
      const std::string_view white = text.substr(at, run - at);
      const auto lines = std::count(white.begin(), white.end(), '\n');
      const std::size_t cut =
          lines > 0 ? at + white.rfind('\n') + 1 : run;  // indentation belongs to the line it begins
      const bool lower = run < text.size() && text[run] >= 'a' && text[run] <= 'z';  // "e.g. this"
      if (lines > 1) cuts.paragraphs.push_back(cut);
      if (lines > 0 || state == Mark::full_stop || (state == Mark::stop && !lower)) cuts.sentences.push_back(cut);
      state = Mark::none;
      at = run;
      continue;
    }
    const Utf8Character c = first_character(text.substr(at));
    const Mark mark = mark_of(c.code);
    if (mark == Mark::none && state == Mark::full_stop) cuts.sentences.push_back(at);
    if (mark != Mark::closer && (mark != Mark::stop || state != Mark::full_stop)) state = mark;
    at += c.bytes;
  }
  for (auto* ends : {&cuts.paragraphs, &cuts.sentences}) {
    if (ends->empty() || ends->back() != text.size()) ends->push_back(text.size());
  }
  return cuts;
}

/// `at`, or the begin of the character that it lies in.
std::size_t character_begin(std::string_view text, std::size_t at) {
  if (at >= text.size()) return text.size();
  for (std::size_t back = 0; back < 4 && back <= at; ++back) {
    if ((static_cast<unsigned char>(text[at - back]) & 0xC0) == 0x80) continue;
    return back < first_character(text.substr(at - back)).bytes ? at - back : at;
  }
  return at;
}

/// Of a piece of unknown density, this many bytes a token are tokenised first, to see whether more are worth it.
constexpr std::size_t kFirstLook = 6;

/// Cuts one text into parts. Positions are bytes into it; a part is a range whose text is `body(begin, end)`.
class Splitter {
 public:
  using Range = std::pair<std::size_t, std::size_t>;

  Splitter(const Document& document, const Vocabulary& vocabulary, int max_tokens)
      : document_(document),
        text_(document.text),
        vocabulary_(vocabulary),
        max_(static_cast<std::size_t>(max_tokens)),
        cuts_(find_cuts(text_)) {}

  std::vector<Range> split(std::size_t overlap) const;
  std::string_view body(std::size_t begin, std::size_t end) const;

 private:
  bool fits(std::size_t begin, std::size_t end, std::size_t most) const {
    return has_at_most(vocabulary_, body(begin, end), most);
  }
  std::size_t reach(std::size_t begin) const;
  std::size_t preferred_cut(std::size_t begin, std::size_t floor, std::size_t reach) const;
  std::optional<std::size_t> next_end(std::size_t begin, std::size_t floor) const;
  Range next_part(std::size_t begin, std::size_t floor) const;
  std::size_t overlap_begin(std::size_t begin, std::size_t end, std::size_t overlap) const;

  const Document& document_;
  std::string_view text_;
  const Vocabulary& vocabulary_;
  std::size_t max_;
  Cuts cuts_;
};

/// The range without blank lines at its begin and white space at its end.
std::string_view Splitter::body(std::size_t begin, std::size_t end) const {
  const std::string_view range = text_.substr(begin, end - begin);
  const std::size_t first = range.find_first_not_of(kSpaces);
  if (first == std::string_view::npos) return range.substr(0, 0);
  const std::size_t line = range.substr(0, first).rfind('\n');
  const std::size_t from = line == std::string_view::npos ? 0 : line + 1;
  return range.substr(from, range.find_last_not_of(kSpaces) + 1 - from);
}

/// An end such that [begin, end) fits and hardly more would, found by the bytes that the first tokens of a longer piece
/// cover. White space that follows is taken in: the part will go without it.
std::size_t Splitter::reach(std::size_t begin) const {
  constexpr int kGuesses = 8;
  const std::size_t least = begin + first_character(text_.substr(begin)).bytes;
  std::size_t best = begin, bad = text_.size() + 1;
  std::size_t at = std::max(least, character_begin(text_, begin + kFirstLook * max_));
  const auto with_space = [&](std::size_t end) {
    return std::min(text_.find_first_not_of(kSpaces, end), text_.size());
  };
  for (int tries = 0;; ++tries) {
    const std::string_view piece = body(begin, at);
    const std::vector<Token> tokens = vocabulary_.tokenize(piece);
    if (tokens.size() <= max_) {
      best = at;
      if (bad <= text_.size() || at == text_.size()) return with_space(best);
      at = character_begin(text_, begin + 2 * (at - begin));
      continue;
    }
    bad = at;
    auto guess = static_cast<std::size_t>(piece.data() - text_.data());
    for (std::size_t i = 0; i < max_; ++i) guess += vocabulary_.bytes(tokens[i]).size();
    if (guess >= bad || tries > kGuesses) guess = begin + (bad - begin) / 2;
    at = character_begin(text_, guess);
    if (at > best && at >= least) continue;
    if (best > begin) return with_space(best);
    if (bad == least) {
      throw Error(fmt::format("{}: the character at byte {} takes {} tokens, a part may have {}",
                              one_line(document_.id), begin, tokens.size(), max_));
    }
    at = least;
  }
}

/// Where to end the part that begins at `begin`, could go to `reach` and must go beyond `floor`. A paragraph that does
/// not fit in the rest of the part but would in one of its own stays whole, else its sentences do likewise. Returns
/// `floor` when nothing whole fits.
std::size_t Splitter::preferred_cut(std::size_t begin, std::size_t floor, std::size_t reach) const {
  std::size_t cut = floor;
  for (const auto* ends : {&cuts_.paragraphs, &cuts_.sentences}) {
    const auto next = std::upper_bound(ends->begin(), ends->end(), reach);
    if (next == ends->begin() || *std::prev(next) < cut) continue;  // what remains is the rest of something cut already
    cut = *std::prev(next);
    if (cut > begin && fits(cut, *next, max_)) return cut;  // from `begin` on it does not: `reach` is before its end
  }
  const std::size_t least = std::max({cut, floor + 1, begin + (reach - begin) / 2});
  const std::size_t space = text_.substr(least - 1, reach - least + 1).find_last_of(kSpaces);
  return space != std::string_view::npos ? least + space : reach;
}

/// The end of the part that begins at `begin`, beyond `floor`; nothing if it would end there or before.
std::optional<std::size_t> Splitter::next_end(std::size_t begin, std::size_t floor) const {
  const std::size_t most = reach(begin);
  if (most <= floor) return std::nullopt;
  if (most == text_.size()) return most;
  const std::size_t cut = preferred_cut(begin, floor, most);
  if (cut == floor) return std::nullopt;
  return cut == most || fits(begin, cut, max_) ? cut : most;
}

/// The earliest begin of a sentence in (begin, end) from which on at most `overlap` tokens remain; `end` if there is
/// none.
std::size_t Splitter::overlap_begin(std::size_t begin, std::size_t end, std::size_t overlap) const {
  const auto& ends = cuts_.sentences;
  auto from = static_cast<std::size_t>(std::lower_bound(ends.begin(), ends.end(), end) - ends.begin());
  if (overlap == 0 || ends[from] != end) return end;
  begin = text_.find_first_not_of(kSpaces, begin);
  bool grows = true;
  for (std::size_t step = 1; step > 0;) {  // gallops backwards, then halves its steps
    const bool further = from >= step && ends[from - step] > begin && fits(ends[from - step], end, overlap);
    if (further) from -= step;
    grows = grows && further;
    step = grows ? 2 * step : step / 2;
  }
  return ends[from];
}

/// The part with the text from `floor` on that begins at `begin`, or later where that leaves no room for anything new.
Splitter::Range Splitter::next_part(std::size_t begin, std::size_t floor) const {
  const auto& ends = cuts_.sentences;
  while (begin < floor) {
    if (const auto end = next_end(begin, floor)) return {begin, *end};
    const auto from = std::lower_bound(ends.begin(), ends.end(), begin), to = std::lower_bound(from, ends.end(), floor);
    begin = from[(to - from + 1) / 2];
  }
  return {floor, *next_end(floor, floor)};
}

std::vector<Splitter::Range> Splitter::split(std::size_t overlap) const {
  std::vector<Range> parts;
  std::size_t begin = 0, end = 0;
  while (end < text_.size()) {
    const std::size_t before = end;
    std::tie(begin, end) = next_part(begin, end);
    if (is_blank(text_.substr(before, end - before))) continue;
    parts.emplace_back(begin, end);
    begin = overlap_begin(begin, end, overlap);
  }
  return parts;
}

}  // namespace

bool has_at_most(const Vocabulary& vocabulary, std::string_view text, std::size_t most) {
  for (std::size_t look = 4 * kFirstLook * most; look < text.size() / 2; look *= 4) {
    if (vocabulary.tokenize(text.substr(0, character_begin(text, look))).size() > 2 * most) return false;
  }
  return vocabulary.tokenize(text).size() <= most;
}

std::vector<Document> split_document(const Document& document, const Vocabulary& vocabulary, int max_tokens,
                                     int overlap_tokens) {
  if (overlap_tokens < 0 || overlap_tokens >= max_tokens) {
    throw std::invalid_argument(
        fmt::format("[split_document] overlap_tokens {} outside [0, max_tokens = {})", overlap_tokens, max_tokens));
  }
  if (has_at_most(vocabulary, document.text, static_cast<std::size_t>(max_tokens))) return {document};
  const Splitter splitter(document, vocabulary, max_tokens);
  std::vector<Document> parts;
  for (const auto& [begin, end] : splitter.split(static_cast<std::size_t>(overlap_tokens))) {
    parts.push_back({document.id, document.title, std::string(splitter.body(begin, end)), document.score});
  }
  return parts;
}

}  // namespace tuiqiao
