#pragma once

#include <algorithm>
#include <cstdint>
#include <string>
#include <vector>

#include "audit/certificates.h"
#include "audit_table.h"
#include "mpi_world.h"
#include "tuiqiao/audit.h"

namespace tuiqiao::cli {

struct Judged {
  AuditFrame frame;
  std::vector<TokenVerdict> verdicts;
  double seconds = 0;
  std::int64_t resumed = 0;  ///< verdicts of an earlier run

  std::int64_t count(Verdict verdict) const {
    return std::count_if(verdicts.begin(), verdicts.end(), [&](const TokenVerdict& v) { return v.verdict == verdict; });
  }
};

/// Audits `options.ids`, or the shard; with a file the certificates go there, from where an earlier run stopped.
/// Throws: tuiqiao::Error; std::invalid_argument; Interrupted.
Judged judge(const OutputHead& head, AuditOptions options, const auditing::Shard& shard, const std::string& file);

/// The same of all classes by the processes of `world`, a shard each, which all see the file's folder. Each leaves its
/// part beside `file` until the first joins them; only the first has the result.
Judged judge_together(const OutputHead& head, const AuditOptions& options, const MpiWorld& world,
                      const std::string& file);

std::vector<TokenVerdict> read_verdicts(const std::string& file);

}  // namespace tuiqiao::cli
