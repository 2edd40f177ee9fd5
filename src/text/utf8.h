#pragma once

#include <fmt/format.h>

#include <algorithm>
#include <cstddef>
#include <string>
#include <string_view>

namespace tuiqiao {

/// What stands for broken bytes: U+FFFD.
inline constexpr std::string_view kReplacement = "\xEF\xBF\xBD";

/// The first character of a text; `code` is U+FFFD unless it is whole.
struct Utf8Character {
  enum class State { whole, broken, unfinished };
  char32_t code = 0xFFFD;
  std::size_t bytes = 1;
  State state = State::broken;
};

/// The character that begins `text`, which is not empty. Broken bytes are taken as Unicode advises: the longest run
/// that could have begun a character counts as one.
inline Utf8Character first_character(std::string_view text) {
  const auto byte = [&](std::size_t i) { return static_cast<unsigned char>(text[i]); };
  const unsigned lead = byte(0);
  if (lead < 0x80) return {lead, 1, Utf8Character::State::whole};
  const std::size_t length = lead < 0xC2 || lead > 0xF4 ? 0 : lead < 0xE0 ? 2 : lead < 0xF0 ? 3 : 4;
  if (length == 0) return {};
  // The second byte's range leaves out overlong forms, surrogates and what lies beyond U+10FFFF.
  unsigned low = lead == 0xE0 ? 0xA0 : lead == 0xF0 ? 0x90 : 0x80;
  unsigned high = lead == 0xED ? 0x9F : lead == 0xF4 ? 0x8F : 0xBF;
  char32_t code = lead & (0x7FU >> length);
  for (std::size_t i = 1; i < length; ++i, low = 0x80, high = 0xBF) {
    if (i == text.size()) return {0xFFFD, i, Utf8Character::State::unfinished};
    if (byte(i) < low || byte(i) > high) return {0xFFFD, i, Utf8Character::State::broken};
    code = code << 6 | (byte(i) & 0x3FU);
  }
  return {code, length, Utf8Character::State::whole};
}

/// Calls `visit(character, its bytes)` for each character; what is broken or unfinished comes with kReplacement.
template <typename Visit>
void for_each_character(std::string_view text, Visit&& visit) {
  while (!text.empty()) {
    const Utf8Character c = first_character(text);
    visit(c.code, c.state == Utf8Character::State::whole ? text.substr(0, c.bytes) : kReplacement);
    text.remove_prefix(c.bytes);
  }
}

inline std::string valid_utf8(std::string_view text) {
  std::string valid;
  for_each_character(text, [&](char32_t, std::string_view bytes) { valid += bytes; });
  return valid;
}

/// At most `most` characters, with an ellipsis where some are left out.
inline std::string shortened(std::string_view text, std::size_t most) {
  std::string start;
  std::size_t count = 0;
  while (!text.empty() && count + 1 < most) {
    const std::size_t bytes = first_character(text).bytes;
    start += text.substr(0, bytes);
    text.remove_prefix(bytes);
    ++count;
  }
  const bool fits = text.empty() || first_character(text).bytes == text.size();
  return start += fits ? text : std::string_view("\xE2\x80\xA6");
}

/// Bytes that begin an unfinished UTF-8 character at the end of `text` (0 if it is whole). Broken bytes count as whole.
inline std::size_t unfinished_bytes(std::string_view text) {
  constexpr std::size_t kMost = 3;  // of a character's four bytes
  for (std::size_t n = std::min(kMost, text.size()); n > 0; --n) {
    const Utf8Character c = first_character(text.substr(text.size() - n));
    if (c.state == Utf8Character::State::unfinished && c.bytes == n) return n;
  }
  return 0;
}

/// Moves a character that may be completed later out of the way: appends `bytes` to `pending`, takes off and returns
/// the characters that are complete now (valid UTF-8) and leaves the rest in `pending`.
inline std::string completed_characters(std::string& pending, std::string_view bytes) {
  pending += bytes;
  const std::size_t whole = pending.size() - unfinished_bytes(pending);
  std::string text = valid_utf8(std::string_view(pending).substr(0, whole));
  pending.erase(0, whole);
  return text;
}

/// Characters that move a terminal's cursor, colour it or turn the direction of its text.
inline bool steers_terminal(char32_t code) {
  return code < 0x20 || (code >= 0x7F && code < 0xA0) || code == 0x061C || (code >= 0x200E && code <= 0x200F) ||
         (code >= 0x2028 && code <= 0x202E) || (code >= 0x2066 && code <= 0x2069);
}

/// Text from outside as a terminal may show it: valid UTF-8, steering characters spelled out ("\x1B"), but newlines and
/// tabs where they are to be kept.
inline std::string spelled_out(std::string_view text, bool keep_lines) {
  std::string safe;
  for_each_character(text, [&](char32_t code, std::string_view bytes) {
    if (!steers_terminal(code) || (keep_lines && (code == '\n' || code == '\t'))) {
      safe += bytes;
    } else {
      safe += code < 0x80 ? fmt::format("\\x{:02X}", static_cast<unsigned>(code))
                          : fmt::format("\\u{:04X}", static_cast<unsigned>(code));
    }
  });
  return safe;
}

}  // namespace tuiqiao
