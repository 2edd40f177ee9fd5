#pragma once

#include <algorithm>
#include <string>

namespace tuiqiao {

/// A value from a file, for a message: at most 60 bytes, however large or deep it is (dump() goes into depths by
/// recursion).
template <class Json>
std::string excerpt(const Json& value) {
  constexpr std::size_t kMostBytes = 60, kMostEntries = 16;
  const auto is_deep = [](const Json& entry) { return entry.is_structured(); };
  if (value.is_object()) return "an object";
  if (value.is_array() && (value.size() > kMostEntries || std::any_of(value.begin(), value.end(), is_deep)))
    return "a list";
  return value.dump().substr(0, kMostBytes);
}

}  // namespace tuiqiao
