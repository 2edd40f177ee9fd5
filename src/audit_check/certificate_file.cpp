#include "audit_check/certificate_file.h"

#include <fmt/format.h>
#include <zlib.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <cstring>
#include <nlohmann/json.hpp>
#include <set>
#include <vector>

#include "tuiqiao/error.h"

namespace tuiqiao::checking {

namespace {

using nlohmann::json;

constexpr int kVersion = 1;
constexpr std::size_t kLongestHeader = std::size_t{1} << 30, kLongestLine = std::size_t{1} << 26;
constexpr std::int64_t kMostSide = std::int64_t{1} << 40;
constexpr std::string_view kChecksumKey = ",\"crc\":\"";
constexpr std::size_t kChecksumTail = 18;  // the key, 8 digits, a quote and a brace

[[noreturn]] void refuse(const std::string& problem) { throw Error(problem); }

json object_of(std::string_view line) {
  if (!has_right_checksum(line)) refuse("the checksum is wrong: the line is damaged");
  std::set<std::string> keys;
  bool twice = false;
  const auto note_key = [&](int depth, json::parse_event_t event, json& parsed) {
    if (event == json::parse_event_t::key && depth == 1) twice |= !keys.insert(parsed.get<std::string>()).second;
    return true;
  };
  json object = json::parse(line, note_key, false);
  if (!object.is_object()) refuse("not a JSON object");
  if (twice) refuse("a key for the second time");
  return object;
}

std::int64_t integer(const json& object, const char* key, std::int64_t least, std::int64_t most) {
  const auto it = object.find(key);
  if (it == object.end()) refuse(fmt::format("no '{}'", key));
  if (!it->is_number_integer()) refuse(fmt::format("'{}' is no integer", key));
  const auto value = it->get<std::int64_t>();
  const bool huge = it->is_number_unsigned() && it->get<std::uint64_t>() > static_cast<std::uint64_t>(kMostSide);
  if (huge || value < least || value > most) refuse(fmt::format("'{}' outside [{}, {}]", key, least, most));
  return value;
}

double number(const json& object, const char* key) {
  const auto it = object.find(key);
  if (it == object.end() || !it->is_number()) refuse(fmt::format("'{}' is no number", key));
  const auto value = it->get<double>();
  if (!std::isfinite(value) || value < 0) refuse(fmt::format("'{}' is not finite or negative", key));
  return value;
}

bool flag(const json& object, const char* key) {
  const auto it = object.find(key);
  if (it == object.end() || !it->is_boolean()) refuse(fmt::format("'{}' is neither true nor false", key));
  return it->get<bool>();
}

std::string text(const json& object, const char* key, bool wanted) {
  const auto it = object.find(key);
  if (it == object.end() && !wanted) return "";
  if (it == object.end() || !it->is_string()) refuse(fmt::format("'{}' is no text", key));
  return it->get<std::string>();
}

std::string bytes_of_base64(const std::string& digits, const char* key) {
  static const std::array<std::int8_t, 256> kValues = [] {
    std::array<std::int8_t, 256> values{};
    values.fill(-1);
    const std::string_view all = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    for (std::size_t i = 0; i < all.size(); ++i)
      values[static_cast<std::uint8_t>(all[i])] = static_cast<std::int8_t>(i);
    return values;
  }();
  if (digits.size() % 4 != 0) refuse(fmt::format("'{}' is no base64", key));
  std::string bytes;
  bytes.reserve(digits.size() / 4 * 3);
  for (std::size_t at = 0; at < digits.size(); at += 4) {
    std::uint32_t word = 0;
    std::size_t padding = 0;
    for (std::size_t d = 0; d < 4; ++d) {
      const char digit = digits[at + d];
      const bool pads = digit == '=' && at + 4 == digits.size() && d >= 2;
      const int value = pads ? 0 : kValues[static_cast<std::uint8_t>(digit)];
      if (value < 0 || (!pads && padding > 0)) refuse(fmt::format("'{}' is no base64", key));
      padding += pads ? 1 : 0;
      word = word << 6 | static_cast<std::uint32_t>(value);
    }
    for (std::size_t b = 0; b + padding < 3; ++b) bytes += static_cast<char>(word >> (16 - 8 * b) & 255U);
  }
  return bytes;
}

template <class T>
std::vector<T> numbers(const json& object, const std::string& key) {
  static_assert(std::endian::native == std::endian::little);
  const std::string bytes = bytes_of_base64(text(object, key.c_str(), true), key.c_str());
  if (bytes.size() % sizeof(T) != 0) refuse(fmt::format("'{}' ends inside a number", key));
  std::vector<T> values(bytes.size() / sizeof(T));
  if (!values.empty()) std::memcpy(values.data(), bytes.data(), bytes.size());
  if (!std::all_of(values.begin(), values.end(), [](T x) { return std::isfinite(x); }))
    refuse(fmt::format("'{}' has a number that is not finite", key));
  return values;
}

/// Of `key` in float32, or `key`64.
std::vector<double> doubles(const json& object, const std::string& key) {
  if (object.contains(key + "64")) return numbers<double>(object, key + "64");
  const std::vector<float> values = numbers<float>(object, key);
  return {values.begin(), values.end()};
}

std::vector<std::string> texts(const json& object, const char* key) {
  const json& list = object.at(key);
  if (!list.is_array()) refuse(fmt::format("'{}' is no list", key));
  std::vector<std::string> made;
  for (const json& entry : list) {
    if (!entry.is_string()) refuse(fmt::format("'{}' has an entry that is no text", key));
    made.push_back(entry.get<std::string>());
  }
  return made;
}

void expect_size(std::size_t has, std::int64_t wants, const char* key) {
  if (static_cast<std::int64_t>(has) != wants) refuse(fmt::format("'{}' has {} entries, not {}", key, has, wants));
}

Verdict verdict_of(const std::string& word) {
  for (const Verdict verdict : {Verdict::argmaxable, Verdict::tie_only, Verdict::unargmaxable, Verdict::unknown}) {
    if (name(verdict) == word) return verdict;
  }
  refuse(fmt::format("no verdict '{:.40}'", word));
}

LeadBounds lead_of(const json& bounds) {
  const bool right = bounds.is_array() && bounds.size() == 2 && (bounds[0].is_null() || bounds[0].is_number()) &&
                     bounds[1].is_number();
  if (!right) refuse("'lead' is no pair of bounds");
  LeadBounds made{{}, bounds[1].get<double>()};
  if (!bounds[0].is_null()) made.least = bounds[0].get<double>();
  return made;
}

void read_witness(const json& object, const CertificateHeader& header, ClassVerdict& made) {
  const std::string rule = text(object, "rule", false);
  const bool has_z = object.contains("z") || object.contains("z64"), has_exact = object.contains("exact_z");
  if ((rule.empty() ? 0 : 1) + (has_z ? 1 : 0) + (has_exact ? 1 : 0) != 1)
    refuse("one of 'rule', 'z', 'z64' and 'exact_z' is wanted");
  if (has_z) made.z = doubles(object, "z");
  if (has_z) expect_size(made.z.size(), header.frame.columns, "z");
  if (has_exact) made.exact_z = texts(object, "exact_z");
  if (has_exact) expect_size(made.exact_z.size(), header.frame.columns, "exact_z");
  if (rule.empty()) return;
  for (const WitnessRule one : {WitnessRule::row, WitnessRule::centred, WitnessRule::whitened}) {
    if (name(one) == rule) made.rule = one;
  }
  if (made.rule == WitnessRule::vector) refuse(fmt::format("no rule '{:.40}'", rule));
  if (made.rule != WitnessRule::row && header.frame.centre.empty()) refuse("the header has no 'centre'");
  if (made.rule == WitnessRule::whitened && header.frame.whitening.empty()) refuse("the header has no 'whitening'");
}

void read_proof(const json& object, const CertificateHeader& header, ClassVerdict& made) {
  made.proof = text(object, "proof", false);
  if (made.proof.empty()) return;
  const auto rows = object.find("rows");
  if (rows == object.end() || !rows->is_array()) refuse("'rows' is no list");
  for (const json& entry : *rows) {
    if (!entry.is_number_integer()) refuse("'rows' has an entry that is no integer");
    const bool huge = entry.is_number_unsigned() && entry.get<std::uint64_t>() > static_cast<std::uint64_t>(kMostSide);
    const auto row = huge ? header.frame.classes : entry.get<std::int64_t>();
    if (row < -1 || row >= header.frame.classes) refuse(fmt::format("'rows' names class {}", row));
    made.rows.push_back(row);
  }
  std::vector<std::int64_t> sorted = made.rows;
  std::sort(sorted.begin(), sorted.end());
  if (std::adjacent_find(sorted.begin(), sorted.end()) != sorted.end()) refuse("'rows' names a class twice");
  const auto size = static_cast<std::int64_t>(made.rows.size());
  if (object.contains("weights") || object.contains("weights64")) {
    made.weights = doubles(object, "weights");
    expect_size(made.weights.size(), size, "weights");
  }
  if (object.contains("exact_weights")) {
    made.exact_weights = texts(object, "exact_weights");
    expect_size(made.exact_weights.size(), size, "exact_weights");
  }
}

}  // namespace

std::string checksum_of(const void* data, std::size_t size) {
  return fmt::format("{:08x}", static_cast<std::uint32_t>(crc32_z(0, static_cast<const Bytef*>(data), size)));
}

bool has_right_checksum(std::string_view line) {
  if (line.size() <= kChecksumTail) return false;
  const std::string_view object = line.substr(0, line.size() - kChecksumTail);
  return line.substr(object.size()) == fmt::format("{}{}\"}}", kChecksumKey, checksum_of(object.data(), object.size()));
}

CertificateHeader parse_header(std::string_view line) {
  const json object = object_of(line);
  if (!object.contains("tuiqiao_audit")) refuse("not the header of a certificates file");
  if (integer(object, "tuiqiao_audit", 0, kMostSide) != kVersion)
    refuse(fmt::format("version {} of the format, not {}", object["tuiqiao_audit"].get<std::int64_t>(), kVersion));
  CertificateHeader header;
  AuditFrame& frame = header.frame;
  frame.classes = integer(object, "classes", 1, kMostSide);
  header.head_columns = integer(object, "head_columns", 1, kMostSide);
  frame.columns = integer(object, "columns", 0, header.head_columns + 1);
  header.count = integer(object, "count", 0, frame.classes);
  header.tensor = text(object, "tensor", false);
  const std::string norm = text(object, "norm", true);
  if (norm != "none" && norm != "rms" && norm != "layer") refuse(fmt::format("no norm '{:.40}'", norm));
  header.norm = head_norm_from_name(norm);
  frame.has_bias = flag(object, "bias");
  frame.has_ball = flag(object, "ball");
  if (frame.has_bias && frame.columns < 1) refuse("biases without a column");
  header.rows_crc = text(object, "rows_crc", true);
  header.bias_crc = text(object, "bias_crc", false);
  header.gain_crc = text(object, "gain_crc", false);
  header.shift_crc = text(object, "shift_crc", false);
  if (frame.has_ball) frame.radius = number(object, "radius");
  if (frame.has_ball && !(frame.radius > 0 && std::isfinite(frame.radius))) refuse("a radius that is not positive");
  if (frame.has_bias) frame.reach = number(object, "reach");
  const std::int64_t linear = frame.columns - (frame.has_bias ? 1 : 0);
  if (object.contains("centre")) {
    frame.centre = numbers<float>(object, "centre");
    expect_size(frame.centre.size(), linear, "centre");
  }
  if (object.contains("whitening")) {
    if (linear >= std::int64_t{1} << 31) refuse("'whitening' of too many columns");
    frame.whitening = numbers<float>(object, "whitening");
    expect_size(frame.whitening.size(), linear * linear, "whitening");
  }
  if (object.contains("shard")) {
    const json& shard = object["shard"];
    if (!shard.is_array() || shard.size() != 2 || !shard[0].is_number_unsigned() || !shard[1].is_number_unsigned() ||
        shard[0] >= shard[1])
      refuse("'shard' is no pair of a part and their number");
    header.shard_part = shard[0].get<std::int64_t>();
    header.shard_parts = shard[1].get<std::int64_t>();
  }
  if (header.count < frame.classes && !object.contains("shard") && !object.contains("ids"))
    refuse(fmt::format("{} of {} classes, but neither 'ids' nor 'shard'", header.count, frame.classes));
  return header;
}

ClassVerdict parse_certificate(std::string_view line, const CertificateHeader& header) {
  const json object = object_of(line);
  ClassVerdict made;
  made.i = integer(object, "i", 0, header.frame.classes - 1);
  made.verdict = verdict_of(text(object, "verdict", true));
  if (object.contains("margin")) made.margin = number(object, "margin");
  const bool reaches = made.verdict == Verdict::argmaxable || made.verdict == Verdict::tie_only;
  if (made.margin > 0 && !reaches) refuse(fmt::format("{} with a margin", name(made.verdict)));
  if (made.verdict == Verdict::unknown && object.contains("lead")) made.lead = lead_of(object["lead"]);
  if (object.contains("twin")) made.twin = integer(object, "twin", 0, header.frame.classes - 1);
  if (object.contains("same_as")) {
    made.same_as = integer(object, "same_as", 0, made.i - 1);
    return made;
  }
  if (reaches) read_witness(object, header, made);
  read_proof(object, header, made);
  if (made.verdict == Verdict::unargmaxable && made.proof.empty()) refuse("unargmaxable without 'proof'");
  return made;
}

CertificateReader::CertificateReader(const std::filesystem::path& file) : file_(file), in_(file, std::ios::binary) {
  if (!in_ || std::filesystem::is_directory(file)) throw Error(fmt::format("{}: cannot be read", file.string()));
  std::string start(kFirstKey.size(), '\0');
  in_.read(start.data(), static_cast<std::streamsize>(start.size()));
  if (in_.gcount() == 0) throw Error(fmt::format("{}: empty", file.string()));
  if (start != kFirstKey) throw Error(fmt::format("{}: no certificates file", file.string()));
  in_.clear();
  in_.seekg(0);
  read_line();
  try {
    header_ = parse_header(text_);
  } catch (const Error& error) {
    throw Error(fmt::format("{}: line 1: {}", file.string(), error.what()));
  }
  header_text_ = text_;
}

bool CertificateReader::read_line() {
  text_.clear();
  std::streambuf& from = *in_.rdbuf();
  ++line_;
  for (;;) {
    const int next = from.sbumpc();
    if (next == std::char_traits<char>::eof()) {
      if (!text_.empty()) throw Error(fmt::format("{}: line {}: cut off", file_.string(), line_));
      return false;
    }
    if (next == '\n') return true;
    if (text_.size() >= (line_ == 1 ? kLongestHeader : kLongestLine))
      throw Error(fmt::format("{}: line {}: too long", file_.string(), line_));
    text_ += static_cast<char>(next);
  }
}

std::optional<ClassVerdict> CertificateReader::next() {
  if (!read_line()) {
    if (found_ != header_.count)
      throw Error(fmt::format("{}: {} classes, not the {} of its header", file_.string(), found_, header_.count));
    return {};
  }
  const auto fail = [&](const std::string& what) {
    throw Error(fmt::format("{}: line {}: {}", file_.string(), line_, what));
  };
  ClassVerdict made;
  try {
    made = parse_certificate(text_, header_);
  } catch (const Error& error) {
    fail(error.what());
  }
  if (made.i == last_) fail(fmt::format("class {} for the second time", made.i));
  if (made.i < last_) fail(fmt::format("class {} after class {}", made.i, last_));
  if (header_.count == header_.frame.classes && made.i != last_ + 1)
    fail(fmt::format("class {}, but class {} is missing", made.i, last_ + 1));
  if (found_ == header_.count) fail(fmt::format("more than the {} classes of its header", header_.count));
  last_ = made.i;
  ++found_;
  return made;
}

}  // namespace tuiqiao::checking
