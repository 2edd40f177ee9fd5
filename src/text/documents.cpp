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
#include <utility>

#include "tuiqiao/error.h"
#include "white_space.h"

namespace tuiqiao {

namespace {

namespace fs = std::filesystem;
using nlohmann::json;

constexpr std::string_view kByteOrderMark = "\xEF\xBB\xBF";

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

}  // namespace

void check_text(std::string_view text, const std::string& name) {
  check_utf8(text, name);
  check_not_blank(text, name);
}

void check_bytes(std::string_view text, const std::string& name) { check_not_blank(text, name); }

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

}  // namespace tuiqiao
