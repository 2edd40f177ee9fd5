#pragma once

#include <gmpxx.h>

#include <cmath>
#include <cstdint>
#include <limits>

#include "tuiqiao/minsum.h"

/// What the scan needs of the integers that it starts from, for both of them.
namespace tuiqiao::minsum {

/// Modulo 2^64.
inline std::uint64_t low_word(UInt128 n) { return static_cast<std::uint64_t>(n); }
inline std::uint64_t low_word(const mpz_class& n) { return mpz_getlimbn(n.get_mpz_t(), 0); }
static_assert(std::numeric_limits<mp_limb_t>::digits == 64);

/// Modulo 2^128.
inline UInt128 low_words(UInt128 n) { return n; }
inline UInt128 low_words(const mpz_class& n) {
  return (UInt128{mpz_getlimbn(n.get_mpz_t(), 1)} << 64) | mpz_getlimbn(n.get_mpz_t(), 0);
}

/// With a relative error of at most 2^-52.
inline double real(UInt128 n) { return static_cast<double>(n); }
inline double real(const mpz_class& n) { return n.get_d(); }

inline bool is_odd(UInt128 n) { return (n & 1) != 0; }
inline bool is_odd(const mpz_class& n) { return mpz_odd_p(n.get_mpz_t()) != 0; }

/// floor(sqrt n)
inline UInt128 root(UInt128 n) {
  constexpr UInt128 kMost = std::numeric_limits<std::uint64_t>::max();
  UInt128 r = static_cast<UInt128>(std::sqrt(static_cast<long double>(n)));
  if (r > kMost) r = kMost;
  while (r * r > n) --r;
  while (r < kMost && (r + 1) * (r + 1) <= n) ++r;
  return r;
}
inline mpz_class root(const mpz_class& n) { return sqrt(n); }

/// min(n, most)
inline std::uint64_t capped(UInt128 n, std::uint64_t most) { return n < most ? static_cast<std::uint64_t>(n) : most; }
inline std::uint64_t capped(const mpz_class& n, std::uint64_t most) {
  return n < mpz_class(static_cast<unsigned long>(most)) ? n.get_ui() : most;
}
static_assert(sizeof(unsigned long) == sizeof(std::uint64_t));

inline mpz_class to_mpz(UInt128 n) {
  return (mpz_class(static_cast<unsigned long>(n >> 64)) << 64) + static_cast<unsigned long>(n);
}
inline mpz_class to_mpz(const mpz_class& n) { return n; }

template <class Integer>
Integer from_word(std::uint64_t n) {
  return Integer(static_cast<unsigned long>(n));
}

}  // namespace tuiqiao::minsum
