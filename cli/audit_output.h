#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "audit_judge.h"
#include "audit_report.h"
#include "audit_table.h"

namespace tuiqiao::cli {

struct AuditOutput {
  std::string file, against;
  std::int64_t top = 20;  ///< most tokens that a list shows
  bool json = false;
};

/// Which hidden vectors verdicts are about.
std::string domain_of(const OutputHead& head, const AuditFrame& frame);

/// Tokens that must not win and are not proven to lose, and the same as llama-server's logit_bias.
std::vector<std::int64_t> masked(const Judged& judged, const std::vector<TokenFacts>& facts);
std::string mask_json(const std::vector<std::int64_t>& ids);

/// Tokens whose verdict is another in the other file. `compared`: how many tokens both judge.
std::vector<VerdictChange> changes_between(const std::vector<TokenVerdict>& before,
                                           const std::vector<TokenVerdict>& after, std::int64_t& compared);

void print_text(const AuditOutput& a, const OutputHead& head, const Judged& judged,
                const std::vector<TokenFacts>& facts);
void print_json(const AuditOutput& a, const OutputHead& head, const Judged& judged,
                const std::vector<TokenFacts>& facts, bool words);
void print_changes(const AuditOutput& a, const std::vector<VerdictChange>& changes, std::int64_t compared,
                   const std::vector<TokenFacts>& facts);

std::int64_t peak_bytes();

}  // namespace tuiqiao::cli
