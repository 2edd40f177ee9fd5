#include "audit_options.h"

#include <fmt/format.h>

#include <algorithm>
#include <cctype>
#include <cstdlib>
#include <map>
#include <stdexcept>

#include "terminal.h"

namespace tuiqiao::cli {

namespace {

bool is_whole_number(const std::string& text) {
  return !text.empty() && text.size() <= 15 && text.find_first_not_of("0123456789") == std::string::npos;
}

std::int64_t whole_number(const std::string& text, const std::string& option) {
  if (!is_whole_number(text))
    throw std::invalid_argument(fmt::format("[audit] {}: '{}' is no number", option, shortened(text)));
  return std::strtoll(text.c_str(), nullptr, 10);
}

}  // namespace

std::vector<std::int64_t> ids_of(const std::string& text, std::int64_t classes, const std::string& option) {
  std::vector<std::int64_t> ids;
  for (std::size_t at = 0; at < text.size();) {
    const std::size_t end = std::min(text.find(',', at), text.size());
    const std::string word = text.substr(at, end - at);
    const std::size_t dash = word.find('-');
    const std::string from = word.substr(0, dash), to = dash == std::string::npos ? from : word.substr(dash + 1);
    if (!is_whole_number(from) || !is_whole_number(to))
      throw std::invalid_argument(
          fmt::format("[audit] {}: '{}' is neither a token nor a range like 10-20", option, shortened(word)));
    const std::int64_t first = whole_number(from, option), last = whole_number(to, option);
    if (last >= classes || first > last)
      throw std::invalid_argument(fmt::format("[audit] {} {}: not within the {} tokens", option, word, classes));
    for (std::int64_t i = first; i <= last; ++i) ids.push_back(i);
    at = end + 1;
  }
  std::sort(ids.begin(), ids.end());
  ids.erase(std::unique(ids.begin(), ids.end()), ids.end());
  return ids;
}

auditing::Shard shard_of(const std::string& text) {
  if (text.empty()) return {};
  const std::size_t slash = text.find('/');
  if (slash == std::string::npos) throw std::invalid_argument("[audit] --shard wants PART/PARTS, as 1/4");
  const auditing::Shard shard{whole_number(text.substr(0, slash), "--shard") - 1,
                              whole_number(text.substr(slash + 1), "--shard")};
  if (shard.part < 0 || shard.part >= shard.parts)
    throw std::invalid_argument(fmt::format("[audit] --shard {}: parts are 1 to {}", text, shard.parts));
  return shard;
}

std::int64_t bytes_of(const std::string& text) {
  if (text.empty()) return 0;
  static const std::map<char, int> kShifts{{'K', 10}, {'M', 20}, {'G', 30}, {'T', 40}};
  const auto unit = kShifts.find(static_cast<char>(std::toupper(static_cast<unsigned char>(text.back()))));
  const bool has_unit = unit != kShifts.end();
  const std::int64_t number = whole_number(has_unit ? text.substr(0, text.size() - 1) : text, "--memory");
  const int shift = has_unit ? unit->second : 0;
  if (number == 0 || number > std::int64_t{1} << (62 - shift))
    throw std::invalid_argument(fmt::format("[audit] --memory {}: 1 byte to 2^62, as 500M", text));
  return number << shift;
}

AuditSolver solver_of(const std::string& word) {
  if (word == "active-set") return AuditSolver::active_set;
  if (word == "frank-wolfe") return AuditSolver::frank_wolfe;
  throw std::invalid_argument(fmt::format("[audit] --solver {}: active-set or frank-wolfe", word));
}

}  // namespace tuiqiao::cli
