#pragma once

#include <string_view>

namespace tuiqiao {

/// What a function complains of, without its name: "[Pooler] beta = 2" as "beta = 2".
inline std::string_view complaint(std::string_view what) {
  const std::size_t name = what.starts_with('[') ? what.find("] ") : std::string_view::npos;
  return name == std::string_view::npos ? what : what.substr(name + 2);
}

}  // namespace tuiqiao
