#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "audit_check/checked_rows.h"
#include "audit_check/margins.h"

namespace tuiqiao::checking {

/// Compares one witness with single rows: in float64 with its error bound, exactly where that leaves it open.
class PairCheck {
 public:
  PairCheck(const CheckedRows& rows, const WitnessClaim& claim, const std::vector<double>& z);

  /// What is wrong with row i, "" for nothing.
  std::string check(std::int64_t i);
  /// How many of the rows that were checked tie without being equal to k's.
  std::int64_t ties() const { return ties_; }

 private:
  std::string check_exactly(std::int64_t i);

  const CheckedRows& rows_;
  const WitnessClaim& claim_;
  const std::vector<double>& z_;
  std::vector<double> own_, other_;
  double own_error_, length_;
  std::vector<mpq_class> exact_z_, exact_own_;  ///< once they are needed
  std::int64_t ties_ = 0;
};

/// Sign of z . (x_k - x_i) less the claimed margin, exactly; 0 without a margin is a tie.
int exact_sign(const CheckedRows& rows, const WitnessClaim& claim, const std::vector<mpq_class>& z,
               const std::vector<mpq_class>& own, std::int64_t i);

}  // namespace tuiqiao::checking
