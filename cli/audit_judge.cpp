#include "audit_judge.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <filesystem>
#include <optional>
#include <stdexcept>

#include "audit/certificate_store.h"
#include "audit/certificates.h"
#include "audit/problem.h"
#include "audit_check/certificate_file.h"

namespace tuiqiao::cli {

namespace {

using Clock = std::chrono::steady_clock;

/// Makes the audit of a part go the way of the audit of all, whose certificates it is to share.
void go_as_whole(AuditOptions& options, const auditing::Problem& problem) {
  std::int64_t groups = 0;
  for (std::int64_t i = 0; i < problem.classes(); ++i)
    groups += problem.group()[static_cast<std::size_t>(i)] == i ? 1 : 0;
  if (groups >= options.bounds_from) options.bounds_from = 0;
}

/// Classes of a shard: groups of equal rows stay together.
std::vector<std::int64_t> shard_ids(const auditing::Problem& problem, const auditing::Shard& shard) {
  const std::int64_t classes = problem.classes(), each = classes / shard.parts, more = classes % shard.parts;
  const std::int64_t from = each * shard.part + std::min(shard.part, more);
  const std::int64_t to = from + each + (shard.part < more ? 1 : 0);
  std::vector<std::int64_t> ids;
  for (std::int64_t i = 0; i < classes; ++i) {
    const std::int64_t first = problem.group()[static_cast<std::size_t>(i)];
    if (first >= from && first < to) ids.push_back(i);
  }
  return ids;
}

/// Audits while certificates go to a file, from where an earlier run stopped.
Judged judge_to_file(const OutputHead& head, AuditOptions options, const auditing::Shard& shard,
                     const std::string& file) {
  auditing::CertificateStore store(file);
  const std::int64_t count = options.ids.empty() ? head.classes : static_cast<std::int64_t>(options.ids.size());
  const std::int64_t before =
      options.ids.empty()
          ? store.next()
          : std::lower_bound(options.ids.begin(), options.ids.end(), store.next()) - options.ids.begin();
  if (store.kept() != before) store.clear();  // lines are missing
  Judged judged;
  options.from = store.next();
  if (options.from > 0 || !options.ids.empty()) go_as_whole(options, auditing::Problem(head, options.radius));
  std::optional<auditing::MarginError> error;
  const auto begin = [&](const AuditFrame& frame) {
    if (error) return;
    store.begin(auditing::header_line(head, frame, count, shard, options.ids, options.solver));
    error.emplace(head, frame);
  };
  options.found = [&](const AuditFrame& frame, const ClassVerdict& verdict) {
    begin(frame);
    store.add(verdict.i, auditing::certificate_line(verdict, *error));
  };
  const AuditResult result = audit(head, options);
  begin(result.frame);
  store.flush();
  judged.frame = result.frame;
  checking::CertificateHeader header;
  header.frame = result.frame;
  for (const std::string& line : store.lines()) {
    judged.verdicts.push_back(token_verdict_of(checking::parse_certificate(line, header)));
    judged.resumed += judged.verdicts.back().i < options.from ? 1 : 0;
  }
  store.finish();
  return judged;
}

}  // namespace

Judged judge(const OutputHead& head, AuditOptions options, const auditing::Shard& shard, const std::string& file) {
  const auto start = Clock::now();
  if (shard.parts > 1) {
    const auditing::Problem problem(head, options.radius);
    go_as_whole(options, problem);
    options.ids = shard_ids(problem, shard);
    if (options.ids.empty()) throw std::invalid_argument("[audit] --shard: more shards than groups of equal rows");
  }
  Judged judged;
  if (!file.empty()) {
    judged = judge_to_file(head, options, shard, file);
  } else {
    const AuditResult result = audit(head, options);
    judged.frame = result.frame;
    const auditing::MarginError error(head, result.frame);
    for (const ClassVerdict& verdict : result.verdicts) {
      judged.verdicts.push_back(token_verdict_of(verdict));
      judged.verdicts.back().margin = auditing::certified_margin(verdict, error);
    }
  }
  judged.seconds = std::chrono::duration<double>(Clock::now() - start).count();
  return judged;
}

Judged judge_together(const OutputHead& head, const AuditOptions& options, const MpiWorld& world,
                      const std::string& file) {
  namespace fs = std::filesystem;
  const auto start = Clock::now();
  std::vector<fs::path> parts;
  for (int rank = 0; rank < world.size(); ++rank)
    parts.emplace_back(fmt::format("{}.part-{}-of-{}", file, rank + 1, world.size()));
  const fs::path& own = parts[static_cast<std::size_t>(world.rank())];
  // What cannot be written at the end is better known now. Which audit FILE is of is only known by its frame.
  if (world.rank() == 0) auditing::spare_other_head(file, head);
  // A part that was finished before a run was cut short is taken up like one that was not.
  if (fs::exists(own) && !fs::exists(own.string() + ".partial") && auditing::begins_like_certificates(own))
    fs::rename(own, own.string() + ".partial");
  Judged judged = judge(head, options, {world.rank(), world.size()}, own);
  judged.resumed = world.sum(judged.resumed);
  if (world.rank() > 0) return judged;
  auditing::merge_certificates(parts, file);
  for (const fs::path& part : parts) fs::remove(part);
  judged.verdicts = read_verdicts(file);
  judged.seconds = std::chrono::duration<double>(Clock::now() - start).count();
  return judged;
}

std::vector<TokenVerdict> read_verdicts(const std::string& file) {
  checking::CertificateReader reader(file);
  std::vector<TokenVerdict> verdicts;
  while (const std::optional<ClassVerdict> verdict = reader.next()) verdicts.push_back(token_verdict_of(*verdict));
  return verdicts;
}

}  // namespace tuiqiao::cli
