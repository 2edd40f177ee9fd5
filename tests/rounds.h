#pragma once

namespace tuiqiao::test {

/// How often to do what checks numbers: sanitizers, which look for other faults, make a round ten to thirty times as
/// long.
template <typename Count>
constexpr Count rounds([[maybe_unused]] Count all, [[maybe_unused]] Count sanitized) {
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
  return sanitized;
#else
  return all;
#endif
}

}  // namespace tuiqiao::test
