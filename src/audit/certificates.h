#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>

#include "tuiqiao/audit.h"

namespace tuiqiao::auditing {

/// Version of the lines below, in the header.
inline constexpr int kCertificateVersion = 1;

/// Part `part` of `parts` of the classes: equal rows are of the same part.
struct Shard {
  std::int64_t part = 0, parts = 1;
};

/// The first line of a certificates file: what was audited and what the certificates share. Vectors of numbers are
/// base64 of little-endian float32, or of float64 where a key ends in "64". `count`: lines to follow. Key "ids" is a
/// checksum of the classes that were asked for, "solver" the one that is not the usual. No newline.
std::string header_line(const OutputHead& head, const AuditFrame& frame, std::int64_t count, const Shard& shard = {},
                        std::span<const std::int64_t> ids = {}, AuditSolver solver = AuditSolver::active_set);

/// By how much a margin in float64 may be wrong.
class MarginError {
 public:
  MarginError(const OutputHead& head, const AuditFrame& frame);
  double of(const ClassVerdict& verdict) const;

 private:
  bool has_bias_;
  double reach_;                  ///< of the rules' hidden vectors
  double longest_ = 0;            ///< row
  double rows_ = 0, biases_ = 0;  ///< of a product with a vector of length 1, of a bias
};

/// A verdict's margin as its line gives it: rounded down by `error` and to six digits; 0 where another class stands for
/// this one, or nothing is left.
double certified_margin(const ClassVerdict& verdict, const MarginError& error);

/// The line of one class: keys i, verdict, and what of its certificate there is (see ClassVerdict). Margins as
/// of certified_margin. No newline.
std::string certificate_line(const ClassVerdict& verdict, const MarginError& error);

/// A JSON object with the checksum of its text before it as its last key: CRC-32, as 8 hexadecimal digits.
std::string with_checksum(std::string_view object);

}  // namespace tuiqiao::auditing
