#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "tuiqiao/audit.h"
#include "tuiqiao/progress.h"

namespace tuiqiao {

struct CertificateCheckOptions {
  /// Multiplies every witness by every row instead of bounding most products. Default: bounds, which are proofs too.
  bool brute = false;
  Progress progress;
};

/// What a certificates file says that it is about.
struct CertificateSubject {
  std::string tensor;
  HeadNorm norm = HeadNorm::none;
  bool has_bias = false, has_ball = false;
  double radius = 0;
  std::int64_t classes = 0, count = 0;  ///< of the head, in the file
};

/// A certificate that does not prove its verdict.
struct CertificateFault {
  std::int64_t i = 0;
  std::string problem;
};

struct CertificateCheck {
  CertificateSubject subject;
  std::int64_t counts[4] = {};           ///< of each Verdict, faults among them
  std::vector<CertificateFault> faults;  ///< by class
};

/// The subject of a file of certificates, by its first line. Throws: tuiqiao::Error.
CertificateSubject read_certificate_subject(const std::filesystem::path& file);

/// Proves every verdict of a certificates file anew from the weights, by code that shares no arithmetic with the audit.
/// The head must be the one that was audited, bias, gain, shift and norm included.
/// Throws: tuiqiao::Error "FILE: line N: ..." on a damaged line, a missing, doubled or misplaced class, or a head other
/// than the file's; Interrupted.
/// Threads: its own (OpenMP); one call at a time, of this and of audit. Cost: some 1/10 of the product of all rows with
/// all rows; the whole of it with `brute`.
CertificateCheck check_certificates(const OutputHead& head, const std::filesystem::path& file,
                                    const CertificateCheckOptions& options = {});

}  // namespace tuiqiao
