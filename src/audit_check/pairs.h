#pragma once

#include <cstdint>
#include <stop_token>
#include <string>
#include <vector>

#include "audit_check/checked_rows.h"
#include "audit_check/margins.h"

namespace tuiqiao::checking {

/// Rows that a witness puts beside k: equal to k's, or others.
struct Ties {
  std::int64_t copies = 0, others = 0;

  /// Whether no class is left that k leads, though some row is another than k's: such a witness proves nothing.
  bool are_all(std::int64_t classes) const { return others > 0 && copies + others + 1 == classes; }
};

/// Compares one witness with single rows: in float64 with its error bound, exactly where that leaves it open.
class PairCheck {
 public:
  PairCheck(const CheckedRows& rows, const WitnessClaim& claim, const std::vector<double>& z);

  /// What is wrong with row i, "" for nothing.
  std::string check(std::int64_t i);
  /// Of the rows that were checked.
  const Ties& ties() const { return ties_; }

 private:
  std::string check_exactly(std::int64_t i);

  const CheckedRows& rows_;
  const WitnessClaim& claim_;
  const std::vector<double>& z_;
  std::vector<double> own_, other_;
  double own_error_, length_;
  std::vector<mpq_class> exact_z_, exact_own_;  ///< once they are needed
  Ties ties_;
};

/// What is wrong with a claim whose witness is of rationals, "" where it holds. Throws: Interrupted.
std::string check_exact_witness(const CheckedRows& rows, const WitnessClaim& claim, const std::vector<mpq_class>& z,
                                const std::stop_token& stop);

}  // namespace tuiqiao::checking
