#pragma once

#include <optional>
#include <string>
#include <vector>

#include "audit_table.h"

namespace tuiqiao::cli {

struct VerdictChange {
  std::int64_t i = 0;
  Verdict before = Verdict::unknown, after = Verdict::unknown;
};

struct AuditReport {
  std::string file, domain;
  const OutputHead& head;
  const std::vector<TokenVerdict>& verdicts;
  const std::vector<TokenFacts>& facts;
  std::string against;
  const std::optional<std::vector<VerdictChange>>& changes;
};

/// A page without scripts: counts, the margins as a chart, lost tokens, and what changed.
std::string audit_html(const AuditReport& report);

}  // namespace tuiqiao::cli
