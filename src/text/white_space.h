#pragma once

#include <string>
#include <string_view>

#include "text/utf8.h"

// What of a text nobody sees, for documents and their parts.

namespace tuiqiao {

inline bool is_space(char32_t c) {
  return c == ' ' || (c >= '\t' && c <= '\r') || c == 0x85 || c == 0xA0 || c == 0x1680 ||
         (c >= 0x2000 && c <= 0x200A) || c == 0x2028 || c == 0x2029 || c == 0x202F || c == 0x205F || c == 0x3000;
}

/// Would break a line or steer a terminal.
inline bool is_control(char32_t c) { return c < 0x20 || (c >= 0x7F && c < 0xA0) || c == 0x2028 || c == 0x2029; }

inline bool is_blank(std::string_view text) {
  while (!text.empty()) {
    const Utf8Character c = first_character(text);
    if (!is_space(c.code)) return false;
    text.remove_prefix(c.bytes);
  }
  return true;
}

/// Foreign text made fit for one line of an error.
inline std::string one_line(std::string_view text) {
  std::string line;
  for_each_character(text, [&](char32_t c, std::string_view bytes) { line += is_control(c) ? "?" : bytes; });
  return line;
}

}  // namespace tuiqiao
