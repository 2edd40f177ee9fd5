#include "tuiqiao/text/documents.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <functional>
#include <map>
#include <nlohmann/json.hpp>
#include <stdexcept>
#include <system_error>
#include <tuple>
#include <utility>

#include "tuiqiao/error.h"
#include "utf8.h"

namespace tuiqiao {

namespace {

namespace fs = std::filesystem;
using nlohmann::json;

constexpr std::string_view kSpaces = " \t\n\v\f\r";
constexpr std::string_view kByteOrderMark = "\xEF\xBB\xBF";

bool is_space(char32_t c) {
  return c == ' ' || (c >= '\t' && c <= '\r') || c == 0x85 || c == 0xA0 || c == 0x1680 ||
         (c >= 0x2000 && c <= 0x200A) || c == 0x2028 || c == 0x2029 || c == 0x202F || c == 0x205F || c == 0x3000;
}

/// Would break a line or steer a terminal.
bool is_control(char32_t c) { return c < 0x20 || (c >= 0x7F && c < 0xA0) || c == 0x2028 || c == 0x2029; }

bool is_blank(std::string_view text) {
  while (!text.empty()) {
    const Utf8Character c = first_character(text);
    if (!is_space(c.code)) return false;
    text.remove_prefix(c.bytes);
  }
  return true;
}

/// Foreign text made fit for one line of an error.
std::string one_line(std::string_view text) {
  std::string line;
  for_each_character(text, [&](char32_t c, std::string_view bytes) { line += is_control(c) ? "?" : bytes; });
  return line;
}

std::string in_quotes(std::string_view text) { return fmt::format("`{}`", one_line(shortened(text, 40))); }

void check_utf8(std::string_view text, const std::string& name) {
  for (std::size_t at = 0; at < text.size();) {
    const Utf8Character c = first_character(text.substr(at));
    if (c.state != Utf8Character::State::whole) {
      throw Error(fmt::format("{}: not UTF-8 at byte {} (0x{:02X})", name, at, static_cast<unsigned char>(text[at])));
    }
    at += c.bytes;
  }
}

void check_not_blank(std::string_view text, const std::string& name) {
  if (text.empty()) throw Error(name + ": empty");
  if (is_blank(text)) throw Error(name + ": nothing but white space");
}

/// Ids and titles stand in legends: one line, no control characters.
void check_label(std::string_view label, const std::string& name) {
  check_utf8(label, name);
  for_each_character(label, [&](char32_t c, std::string_view) {
    if (is_control(c)) throw Error(fmt::format("{}: control character U+{:04X}", name, static_cast<unsigned>(c)));
  });
}

/// At most `most` bytes of an open file.
std::string read_all(int descriptor, std::size_t expected, std::size_t most, const std::string& name) {
  std::string content(expected + 1, '\0');  // one more, to see the end without another turn
  std::size_t size = 0;
  for (;;) {
    const ssize_t got = ::read(descriptor, content.data() + size, content.size() - size);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) throw Error(fmt::format("{}: {}", name, std::generic_category().message(errno)));
    if (got == 0) break;
    size += static_cast<std::size_t>(got);
    if (size > most) throw Error(fmt::format("{}: larger than {} MiB", name, most >> 20));
    if (size == content.size()) content.resize(std::min(2 * size, most + 1));
  }
  content.resize(size);
  return content;
}

std::string read_file(const fs::path& file, std::size_t most) {
  const std::string name = one_line(file.string());
  const auto fail = [&](const std::string& reason) { throw Error(fmt::format("{}: {}", name, reason)); };
  struct stat status {};
  if (::stat(file.c_str(), &status) != 0) fail(std::generic_category().message(errno));
  if (S_ISDIR(status.st_mode)) fail("a folder, not a file");
  if (!S_ISREG(status.st_mode)) fail("not a regular file");
  const auto size = static_cast<std::size_t>(status.st_size);
  if (size > most) fail(fmt::format("{} bytes, at most {} ({} MiB) are read", size, most, most >> 20));
  const int descriptor = ::open(file.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (descriptor < 0) fail(std::generic_category().message(errno));
  struct Closer {
    int descriptor;
    ~Closer() { ::close(descriptor); }
  } const closer{descriptor};
  return read_all(descriptor, size, most, name);
}

Document read_document_as(const fs::path& file, const std::string& id) {
  const std::string name = one_line(file.string());
  check_label(id, name + ": its name");
  Document document;
  document.id = id;
  document.text = read_file(file, kMaxDocumentBytes);
  check_utf8(document.text, name);
  if (document.text.starts_with(kByteOrderMark)) document.text.erase(0, kByteOrderMark.size());
  check_not_blank(document.text, name);
  return document;
}

/// Paths of the regular files below `folder`.
std::vector<fs::path> files_below(const fs::path& folder) {
  std::vector<fs::path> files;
  for (fs::recursive_directory_iterator i(folder), end; i != end; ++i) {
    if (i->path().filename().string().starts_with('.')) {
      i.disable_recursion_pending();
      continue;
    }
    std::error_code dangling;
    if (i->is_regular_file(dangling)) files.push_back(i->path());
  }
  std::sort(files.begin(), files.end());
  return files;
}

using Fields = std::map<std::string, json, std::less<>>;

/// Reads an array of strings or flat objects without keeping more than one element. A string counts as an object with
/// the first of `keys` alone.
class ArrayReader final : public nlohmann::json_sax<json> {
 public:
  using Take = std::function<void(const Fields& fields, std::size_t number, const std::string& name)>;

  ArrayReader(std::string file, std::vector<std::string_view> keys, Take take)
      : file_(std::move(file)), keys_(std::move(keys)), take_(std::move(take)) {}

  std::size_t count() const { return count_; }

  bool null() override { return value(nullptr); }
  bool boolean(bool v) override { return value(v); }
  bool number_integer(number_integer_t v) override { return value(v); }
  bool number_unsigned(number_unsigned_t v) override { return value(v); }
  bool number_float(number_float_t v, const string_t&) override { return value(v); }
  bool string(string_t& v) override { return value(std::move(v)); }
  bool binary(binary_t&) override { return false; }
  bool start_object(std::size_t) override {
    if (place_ != Place::array) wrong_type("an object");
    ++count_;
    place_ = Place::object;
    return true;
  }
  bool key(string_t& key) override {
    if (std::find(keys_.begin(), keys_.end(), key) == keys_.end()) {
      fail(fmt::format("unknown key {}; known are {}", in_quotes(key), fmt::join(keys_, ", ")));
    }
    if (fields_.contains(key)) fail(fmt::format("{} stands twice", in_quotes(key)));
    key_ = key;
    return true;
  }
  bool end_object() override {
    place_ = Place::array;
    return take();
  }
  bool start_array(std::size_t) override {
    if (place_ != Place::outside) wrong_type("an array");
    place_ = Place::array;
    return true;
  }
  bool end_array() override { return true; }
  bool parse_error(std::size_t position, const std::string&, const nlohmann::detail::exception& error) override {
    // "[json.exception.parse_error.101] parse error at line 1, column 5: ...; last read: '...'": the middle is wanted.
    std::string_view reason = error.what();
    reason.remove_prefix(std::min(reason.size(), reason.find("] ") + 2));
    reason = reason.substr(0, reason.find("; last read"));
    if (place_ == Place::array) ++count_;
    fail(fmt::format("byte {}: {}", position - std::min<std::size_t>(position, 1), one_line(shortened(reason, 200))));
  }

 private:
  enum class Place { outside, array, object };

  std::string name() const { return place_ == Place::outside ? file_ : fmt::format("{}: element {}", file_, count_); }
  [[noreturn]] void fail(const std::string& reason) const { throw Error(fmt::format("{}: {}", name(), reason)); }
  [[noreturn]] void wrong_type(std::string_view type) {
    if (place_ == Place::outside) fail(fmt::format("must be an array of strings or objects, is {}", type));
    if (place_ == Place::object) fail(fmt::format("{} is {}", in_quotes(key_), type));
    ++count_;
    fail(fmt::format("must be a string or an object, is {}", type));
  }
  bool value(json v) {
    if (place_ == Place::object) {
      fields_.emplace(key_, std::move(v));
      return true;
    }
    if (place_ == Place::outside || !v.is_string()) wrong_type(v.type_name());
    ++count_;
    fields_.emplace(keys_.front(), std::move(v));
    return take();
  }
  bool take() {
    take_(fields_, count_, name());
    fields_.clear();
    return true;
  }

  std::string file_;
  std::vector<std::string_view> keys_;
  Take take_;
  Place place_ = Place::outside;
  std::size_t count_ = 0;
  std::string key_;
  Fields fields_;
};

void read_array(const fs::path& file, std::vector<std::string_view> keys, ArrayReader::Take take) {
  const std::string content = read_file(file, kMaxJsonBytes);
  const std::string name = one_line(file.string());
  check_utf8(content, name);
  if (is_blank(content)) throw Error(name + ": empty");
  ArrayReader reader(name, std::move(keys), std::move(take));
  json::sax_parse(content, &reader);
  if (reader.count() == 0) throw Error(name + ": an empty array");
}

/// The string `key` of an element; "" where there is none.
std::string string_of(const Fields& fields, std::string_view key, const std::string& name) {
  const auto found = fields.find(key);
  if (found == fields.end()) return {};
  if (!found->second.is_string())
    throw Error(fmt::format("{}: `{}` must be a string, is {}", name, key, found->second.type_name()));
  return found->second.get<std::string>();
}

/// A string that must be there and hold a text.
std::string text_of(const Fields& fields, std::string_view key, const std::string& name) {
  if (!fields.contains(key)) throw Error(fmt::format("{}: no `{}`", name, key));
  std::string text = string_of(fields, key, name);
  if (text.size() > kMaxDocumentBytes)
    throw Error(fmt::format("{}: `{}` is larger than {} MiB", name, key, kMaxDocumentBytes >> 20));
  check_not_blank(text, fmt::format("{}: `{}`", name, key));
  return text;
}

std::string id_of(const Fields& fields, std::size_t number, const std::string& name) {
  const auto found = fields.find("id");
  if (found == fields.end()) return fmt::format("{}", number);
  if (found->second.is_number_integer()) return found->second.dump();
  if (!found->second.is_string())
    throw Error(fmt::format("{}: `id` must be a string or an integer, is {}", name, found->second.type_name()));
  std::string id = found->second.get<std::string>();
  check_not_blank(id, name + ": `id`");
  check_label(id, name + ": `id`");
  return id;
}

std::optional<double> score_of(const Fields& fields, const std::string& name) {
  const auto found = fields.find("score");
  if (found == fields.end()) return std::nullopt;
  if (!found->second.is_number())
    throw Error(fmt::format("{}: `score` must be a number, is {}", name, found->second.type_name()));
  return found->second.get<double>();  // JSON has no NaN, and the parser refuses what overflows
}

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

/// Whether `text` has at most `most` tokens; a yes is exact. Growing beginnings of a long text are looked at before all
/// of it: one with twice the tokens allowed shows that the whole has too many.
bool has_at_most(const Vocabulary& vocabulary, std::string_view text, std::size_t most) {
  for (std::size_t look = 4 * kFirstLook * most; look < text.size() / 2; look *= 4) {
    if (vocabulary.tokenize(text.substr(0, character_begin(text, look))).size() > 2 * most) return false;
  }
  return vocabulary.tokenize(text).size() <= most;
}

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

void check_text(std::string_view text, const std::string& name) {
  check_utf8(text, name);
  check_not_blank(text, name);
}

Document read_document(const fs::path& file) { return read_document_as(file, file.filename().string()); }

std::vector<Document> read_document_folder(const fs::path& folder) {
  const std::string name = one_line(folder.string());
  std::vector<fs::path> files;
  try {
    files = files_below(folder);
  } catch (const fs::filesystem_error& error) {
    const fs::path& where = error.path1().empty() ? folder : error.path1();
    throw Error(fmt::format("{}: {}", one_line(where.string()), error.code().message()));
  }
  if (files.empty()) throw Error(name + ": no files in this folder");
  std::vector<Document> documents;
  for (const fs::path& file : files) {
    documents.push_back(read_document_as(file, file.lexically_relative(folder).generic_string()));
  }
  return documents;
}

std::vector<Document> read_documents_json(const fs::path& file) {
  std::vector<Document> documents;
  read_array(file, {"text", "id", "title", "score"},
             [&](const Fields& fields, std::size_t number, const std::string& name) {
               Document& document = documents.emplace_back();
               document.text = text_of(fields, "text", name);
               document.id = id_of(fields, number, name);
               document.title = string_of(fields, "title", name);
               check_label(document.title, name + ": `title`");
               document.score = score_of(fields, name);
             });
  return documents;
}

std::vector<Question> read_questions_json(const fs::path& file) {
  std::vector<Question> questions;
  read_array(file, {"question", "prefix"}, [&](const Fields& fields, std::size_t, const std::string& name) {
    Question& question = questions.emplace_back();
    question.text = text_of(fields, "question", name);
    question.prefix = string_of(fields, "prefix", name);
    if (!question.prefix.empty()) check_not_blank(question.prefix, name + ": `prefix`");
  });
  return questions;
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
