#pragma once

#include <cstdint>
#include <stop_token>
#include <vector>

#include "audit/problem.h"
#include "audit/shifted_rows.h"
#include "audit/witness_check.h"

namespace tuiqiao::auditing {

/// Checks any witnesses against every row of a large head by exact products of rows and witnesses that were rounded to
/// int16, twice as fast as float32: what the rounding leaves open is multiplied in float32 and then exactly.
class Sweep {
 public:
  /// `shift`: the centre of the rows. `keep`: holds all rounded rows, 2 bytes a number; else they are made anew for
  /// every call.
  Sweep(const Problem& problem, const std::vector<std::int64_t>& groups, std::vector<float> shift, bool keep);

  /// False where the rows' numbers are beyond what float32 multiplies.
  bool is_usable() const { return rows_.is_usable(); }

  /// As check_all_rows. An outcome depends on its class and witness alone. A stop leaves outcomes unfinished.
  std::vector<WitnessOutcome> check(const std::vector<std::int64_t>& ks, const std::vector<double>& z,
                                    const std::stop_token& stop) const;

 private:
  struct Witness;
  struct Chunk {
    double unit = 0, slack = 0;  ///< of the rounded numbers; beside products of a witness of length 1
    std::vector<std::int16_t> packed;
  };
  Chunk chunk_of(std::size_t chunk) const;
  std::size_t chunks() const;
  Witness witness_of(std::int64_t k, const double* z) const;

  const Problem& problem_;
  ShiftedRows rows_;
  std::size_t pairs_ = 0;
  std::vector<float> sample_;  ///< some rows, evenly spread
  std::size_t sampled_ = 0;
  std::vector<Chunk> kept_;
};

}  // namespace tuiqiao::auditing
