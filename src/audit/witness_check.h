#pragma once

#include <cstdint>
#include <vector>

#include "audit/problem.h"

namespace tuiqiao::auditing {

/// What checking a witness against every row found.
struct WitnessOutcome {
  bool wins = false;
  double margin = 0;                    ///< least z . (x_k - x_i), in float64
  std::vector<std::int64_t> violators;  ///< rows that reach or beat k, worst first; at most kMostViolators
  std::vector<std::int64_t> close;      ///< rows that come next to it or before it, of the losers; at most kMostClose
};
inline constexpr std::size_t kMostViolators = 256, kMostClose = 256;

/// Upper bounds of the rows' lengths.
std::vector<double> lengths_of(const Problem& problem);

/// Compares z . x_k with z . x_i for rows i that may matter, in float64 with its error bound and, where that does not
/// settle the sign, exactly. `rivals`: rows, k's own group among them or not.
WitnessOutcome compare_exactly(const Problem& problem, std::int64_t k, const double* z,
                               const std::vector<std::int64_t>& rivals);

/// Checks witnesses z (a row each) of the classes ks against every row by matrix products in float32 with outward
/// error bounds; what these do not settle goes to compare_exactly. Whether z is in the domain is not asked.
std::vector<WitnessOutcome> check_all_rows(const Problem& problem, const std::vector<double>& lengths,
                                           const std::vector<std::int64_t>& ks, const std::vector<double>& z);

}  // namespace tuiqiao::auditing
