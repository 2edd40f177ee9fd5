#include "audit/ledger.h"

#include <fmt/format.h>

#include <algorithm>
#include <stdexcept>

namespace tuiqiao::auditing {

Ledger::Ledger(const Problem& problem, const AuditOptions& options) : options_(options) {
  const auto classes = static_cast<std::size_t>(problem.classes());
  const auto group_of = [&](std::int64_t i) { return problem.group()[static_cast<std::size_t>(i)]; };
  second_.assign(classes, -1);
  for (std::int64_t i = problem.classes(); i-- > 0;) {
    if (group_of(i) != i) second_[static_cast<std::size_t>(group_of(i))] = i;
  }
  std::vector<bool> asked(classes, options.ids.empty());
  for (const std::int64_t id : options.ids) {
    if (id < 0 || id >= problem.classes())
      throw std::invalid_argument(fmt::format("[audit] class {} outside [0, {})", id, problem.classes()));
    asked[static_cast<std::size_t>(id)] = true;
  }
  members_.resize(classes);
  for (std::int64_t i = 0; i < problem.classes(); ++i) {
    if (group_of(i) == i) groups_.push_back(i);
    if (!asked[static_cast<std::size_t>(i)]) continue;
    members_[static_cast<std::size_t>(group_of(i))].push_back(i);
    if (i >= options.from) places_.push_back(i);
  }
  for (const std::int64_t group : groups_) {
    const std::vector<std::int64_t>& members = members_[static_cast<std::size_t>(group)];
    if (!members.empty() && members.back() >= options.from) wanted_.push_back(group);
  }
  verdicts_.resize(places_.size());
}

void Ledger::settle(ClassVerdict verdict, std::int64_t group) {
  const std::vector<std::int64_t>& members = members_[static_cast<std::size_t>(group)];
  const std::int64_t second = second_[static_cast<std::size_t>(group)];
  const bool shared = second >= 0;
  if (verdict.verdict == Verdict::argmaxable && shared) verdict.verdict = Verdict::tie_only;
  for (const std::int64_t i : members) {
    if (i < options_.from) continue;
    ClassVerdict one;
    if (i == members[0] || verdict.verdict == Verdict::unknown) {
      one = verdict;
      if (verdict.verdict == Verdict::tie_only && shared) one.twin = i == group ? second : group;
    } else {
      one.verdict = verdict.verdict;
      one.margin = verdict.margin;
      one.same_as = members[0];
    }
    one.i = i;
    const auto at = std::lower_bound(places_.begin(), places_.end(), i) - places_.begin();
    verdicts_[static_cast<std::size_t>(at)] = std::move(one);
    ++settled_;
  }
}

void Ledger::publish(const AuditFrame& frame, std::int64_t end) {
  for (; published_ < places_.size() && places_[published_] < end; ++published_) {
    if (options_.found) options_.found(frame, verdicts_[published_]);
  }
}

}  // namespace tuiqiao::auditing
