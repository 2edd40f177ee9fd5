#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "audit/certificates.h"
#include "tuiqiao/audit.h"

// What options of `tuiqiao audit` mean. All throw std::invalid_argument.

namespace tuiqiao::cli {

/// "3,7,10-20" in order, each once; those of `option`.
std::vector<std::int64_t> ids_of(const std::string& text, std::int64_t classes, const std::string& option);
/// "1/4"; "" is the whole.
auditing::Shard shard_of(const std::string& text);
/// "500M", "2G" and such; "" is 0.
std::int64_t bytes_of(const std::string& text);
AuditSolver solver_of(const std::string& word);

}  // namespace tuiqiao::cli
