#pragma once

#include <cstddef>

#include "audit/problem.h"

namespace tuiqiao::auditing {

/// What an audit holds at once.
struct Plan {
  std::size_t block = 16384;     ///< classes that get their verdicts before the next ones are looked at
  std::size_t batch = 2048;      ///< witnesses that are checked together
  std::size_t directions = 256;  ///< most principal directions for which parts of all rows are held
  bool keep_rows = true;         ///< all rows rounded to int16, else some at a time
};

/// Throws: std::invalid_argument where options.memory is less than the audit needs.
Plan plan_of(const Problem& problem, const AuditOptions& options);

}  // namespace tuiqiao::auditing
