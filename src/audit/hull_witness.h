#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "audit/min_norm.h"
#include "audit/problem.h"

namespace tuiqiao::auditing {

/// Looks for a witness of one class of a head without biases: of all z that lead the rows taken in a little it is the
/// one that leads the centre by the most for what its products with rows of the head's covariance vary by, so that few
/// of the rows not taken in beat it. In that metric it is the shortest vector of the hull of x_k - centre and the
/// x_k - x_i, drawn out.
class HullWitness {
 public:
  /// `factor`: L with L L' = frame.whitening, row after row, or none for the plain metric.
  HullWitness(const Problem& problem, const AuditFrame& frame, const std::vector<double>& factor, std::int64_t k);

  /// Cost: O(r n^2) for r rows.
  void add(std::span<const std::int64_t> rows);
  /// A candidate of float32 numbers and length 1; none where the hull comes so near to the origin that it may hold it.
  std::vector<double> solve();
  /// How much shorter solve()'s vector is than x_k - centre: 1 before any row is in the way, 0 for rows deep inside.
  double lead() const { return lead_; }

 private:
  void add_points(std::vector<double> differences);

  const Problem& problem_;
  const std::vector<double>& factor_;
  std::vector<double> own_, points_, gram_;
  MinNorm found_;  ///< of the points when they were last solved
  double lead_ = 1;
  double reach_ = 0;       ///< length that differences of rows are brought to
  std::size_t known_ = 0;  ///< points whose products are in gram_
};

/// L, lower triangular with L L' = whitening; none where there is no whitening or it is not positive.
std::vector<double> factor_of(const AuditFrame& frame);

}  // namespace tuiqiao::auditing
