#pragma once

#include <cstdint>
#include <vector>

#include "audit/problem.h"

namespace tuiqiao::auditing {

/// Who shares a row with whom, which verdicts are wanted, and those found so far.
class Ledger {
 public:
  /// Throws: std::invalid_argument on ids outside the classes.
  Ledger(const Problem& problem, const AuditOptions& options);

  /// The first class of each group of equal rows.
  const std::vector<std::int64_t>& groups() const { return groups_; }
  /// Groups of which a verdict is wanted.
  const std::vector<std::int64_t>& wanted() const { return wanted_; }
  std::int64_t settled() const { return settled_; }
  std::int64_t total() const { return static_cast<std::int64_t>(places_.size()); }

  /// Gives a verdict on a row to all classes that have it: argmaxable becomes tie_only where there are several.
  void settle(ClassVerdict verdict, std::int64_t group);
  /// Hands out, by class, the verdicts of classes below `end`, all of which are settled.
  void publish(const AuditFrame& frame, std::int64_t end);

  std::vector<ClassVerdict> take() { return std::move(verdicts_); }

 private:
  const AuditOptions& options_;
  std::vector<std::int64_t> groups_, wanted_;
  std::vector<std::int64_t> second_;                ///< for the first class of a group, the next of it
  std::vector<std::vector<std::int64_t>> members_;  ///< for the first class of a group, those in `ids`
  std::vector<std::int64_t> places_;                ///< classes that get a verdict, rising
  std::vector<ClassVerdict> verdicts_;              ///< beside places_
  std::size_t published_ = 0;
  std::int64_t settled_ = 0;
};

}  // namespace tuiqiao::auditing
