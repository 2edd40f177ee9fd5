#include "audit_output.h"

#include <fmt/format.h>
#include <sys/resource.h>

#include <algorithm>
#include <map>
#include <nlohmann/json.hpp>

#include "terminal.h"

namespace tuiqiao::cli {

namespace {

using nlohmann::ordered_json;

ordered_json header_json(const std::string& file, const OutputHead& head, const AuditFrame& frame) {
  ordered_json json = {{"audit", file},           {"tensor", head.tensor},   {"classes", head.classes},
                       {"columns", head.columns}, {"norm", name(head.norm)}, {"bias", frame.has_bias}};
  json["radius"] = frame.has_ball ? ordered_json(frame.radius) : ordered_json();
  json["softcapped"] = head.softcapped;
  if (head.rounded) json["rounded_to_float32"] = true;
  return json;
}

ordered_json token_json(const TokenVerdict& verdict, const TokenFacts& facts, bool words) {
  ordered_json json = {{"i", verdict.i}};
  if (words) json["token"] = valid_utf8(facts.text);
  if (facts.category) json["category"] = name(*facts.category);
  json["verdict"] = name(verdict.verdict);
  if (verdict.margin > 0) json["margin"] = verdict.margin;
  if (!verdict.certificate.empty()) json["certificate"] = verdict.certificate;
  if (verdict.twin) json["twin"] = *verdict.twin;
  if (verdict.lead) {
    json["lead"] = {nullptr, verdict.lead->most};
    if (verdict.lead->least) json["lead"][0] = *verdict.lead->least;
  }
  json["length"] = facts.length;
  if (facts.near_zero) json["near_zero"] = true;
  if (facts.equal_to) json["equal_to"] = *facts.equal_to;
  if (facts.near_to) json["near_to"] = *facts.near_to;
  if (facts.unused_distance) json["unused_distance"] = *facts.unused_distance;
  if (facts.must_not_win) json["must_not_win"] = true;
  return json;
}

std::string token_line(const TokenVerdict& verdict, const TokenFacts& facts) {
  std::string line = fmt::format("{:>8}  {:<12}  {:<12}", verdict.i, name(verdict.verdict),
                                 facts.category ? name(*facts.category) : "");
  if (!facts.text.empty()) line += "  " + one_line(facts.text);
  if (verdict.twin) line += fmt::format("  (same row as {})", *verdict.twin);
  if (verdict.lead) {
    const std::string least = verdict.lead->least ? fmt::format("{:.3g}", *verdict.lead->least) : "?";
    line += fmt::format("  (leads by {} to {:.3g} at most)", least, verdict.lead->most);
  }
  if (facts.near_zero) line += "  (near zero)";
  return line + "\n";
}

/// Of those that no simple witness settled, whose margin is a bound from all rows.
void list_hardest(const AuditOutput& a, const Judged& judged, const std::vector<TokenFacts>& facts) {
  std::vector<const TokenVerdict*> hard;
  for (const TokenVerdict& one : judged.verdicts) {
    if (one.certificate == name(WitnessRule::vector) && one.margin > 0) hard.push_back(&one);
  }
  if (hard.empty()) return;
  std::stable_sort(hard.begin(), hard.end(),
                   [](const TokenVerdict* x, const TokenVerdict* y) { return x->margin < y->margin; });
  std::string text = fmt::format("Hardest to choose, of {} that only the solver settled:\n", hard.size());
  for (std::size_t h = 0; h < std::min(hard.size(), static_cast<std::size_t>(a.top)); ++h) {
    std::string line = token_line(*hard[h], facts[static_cast<std::size_t>(hard[h]->i)]);
    line.insert(line.size() - 1, fmt::format("  (leads by {:.3g})", hard[h]->margin));
    text += line;
  }
  print(text);
}

void print_lists(const AuditOutput& a, const Judged& judged, const std::vector<TokenFacts>& facts) {
  const auto list = [&](const std::string& title, const auto& wanted) {
    std::int64_t found = 0;
    std::string text;
    for (const TokenVerdict& verdict : judged.verdicts) {
      const TokenFacts& one = facts[static_cast<std::size_t>(verdict.i)];
      if (!wanted(verdict, one)) continue;
      if (found++ < a.top) text += token_line(verdict, one);
    }
    if (found == 0) return;
    if (found > a.top) text += fmt::format("  and {} more (--top, --json)\n", found - a.top);
    print(fmt::format("{}: {}\n{}", title, found, text));
  };
  list("Never alone on top", [](const TokenVerdict& v, const TokenFacts&) {
    return v.verdict == Verdict::tie_only || v.verdict == Verdict::unargmaxable;
  });
  list("Unknown", [](const TokenVerdict& v, const TokenFacts&) { return v.verdict == Verdict::unknown; });
  list_hardest(a, judged, facts);
  list("Must not win, but can",
       [](const TokenVerdict& v, const TokenFacts& f) { return f.must_not_win && v.verdict != Verdict::unargmaxable; });
}

std::string category_counts(const std::vector<TokenFacts>& facts) {
  std::map<std::string_view, std::int64_t> counts;
  std::int64_t zero = 0, equal = 0, near = 0;
  for (const TokenFacts& one : facts) {
    if (one.category) ++counts[name(*one.category)];
    zero += one.near_zero ? 1 : 0;
    equal += one.equal_to ? 1 : 0;
    near += one.near_to ? 1 : 0;
  }
  std::string text;
  for (const auto& [category, count] : counts)
    text += fmt::format("{}{} {}", text.empty() ? "" : ", ", count, category);
  if (!text.empty()) text = "  words:         " + text + "\n";
  return text +
         fmt::format("  rows:          {} near zero, {} equal to an earlier one, {} near another\n", zero, equal, near);
}

}  // namespace

std::string domain_of(const OutputHead& head, const AuditFrame& frame) {
  const std::string norm = head.norm == HeadNorm::none ? "" : fmt::format("norm {}, ", name(head.norm));
  if (!frame.has_ball) return fmt::format("{}any hidden vector", norm);
  return fmt::format("{}hidden vectors shorter than {:.6g}{}", norm, frame.radius,
                     head.norm == HeadNorm::none ? "" : " before gain and shift");
}

std::vector<std::int64_t> masked(const Judged& judged, const std::vector<TokenFacts>& facts) {
  std::vector<std::int64_t> ids;
  for (const TokenVerdict& verdict : judged.verdicts) {
    if (facts[static_cast<std::size_t>(verdict.i)].must_not_win && verdict.verdict != Verdict::unargmaxable)
      ids.push_back(verdict.i);
  }
  return ids;
}

std::string mask_json(const std::vector<std::int64_t>& ids) {
  ordered_json list = ordered_json::array();
  for (const std::int64_t i : ids) list.push_back(ordered_json::array({i, false}));
  return list.dump() + "\n";
}

void print_text(const AuditOutput& a, const OutputHead& head, const Judged& judged,
                const std::vector<TokenFacts>& facts) {
  std::string text = fmt::format("{}{}{}: {} x {}, {}{}\n", a.file, head.tensor.empty() ? "" : ": ", head.tensor,
                                 head.classes, head.columns, domain_of(head, judged.frame),
                                 head.softcapped ? ", softcapped (changes no verdict)" : "");
  if (head.rounded) text += "  not all weights are float32 numbers: what is audited are the nearest ones\n";
  for (const Verdict verdict : {Verdict::argmaxable, Verdict::tie_only, Verdict::unargmaxable, Verdict::unknown})
    text += fmt::format("  {:<14} {}\n", fmt::format("{}:", name(verdict)), judged.count(verdict));
  print(terminal_text(text + category_counts(facts)));
  print_lists(a, judged, facts);
}

void print_json(const AuditOutput& a, const OutputHead& head, const Judged& judged,
                const std::vector<TokenFacts>& facts, bool words) {
  const bool terminal = is_terminal_stdout();
  std::string text;
  const auto add = [&](const ordered_json& json) {
    const std::string line = json.dump(-1, ' ', false, ordered_json::error_handler_t::replace);
    text += (terminal ? terminal_json(line) : line) + "\n";
    if (text.size() < (std::size_t{1} << 16)) return;
    print(text);
    text.clear();
  };
  add(header_json(a.file, head, judged.frame));
  for (const TokenVerdict& verdict : judged.verdicts)
    add(token_json(verdict, facts[static_cast<std::size_t>(verdict.i)], words));
  ordered_json summary = ordered_json::object();
  for (const Verdict verdict : {Verdict::argmaxable, Verdict::tie_only, Verdict::unargmaxable, Verdict::unknown})
    summary[std::string(name(verdict))] = judged.count(verdict);
  summary["must_not_win_but_can"] = masked(judged, facts).size();
  summary["resumed"] = judged.resumed;
  summary["seconds"] = judged.seconds;
  summary["peak_rss_bytes"] = peak_bytes();
  add({{"summary", summary}});
  print(text);
}

std::vector<VerdictChange> changes_between(const std::vector<TokenVerdict>& before,
                                           const std::vector<TokenVerdict>& after, std::int64_t& compared) {
  std::vector<VerdictChange> changes;
  std::map<std::int64_t, Verdict> first;
  for (const TokenVerdict& one : before) first[one.i] = one.verdict;
  compared = 0;
  for (const TokenVerdict& one : after) {
    const auto it = first.find(one.i);
    if (it == first.end()) continue;
    ++compared;
    if (it->second != one.verdict) changes.push_back({one.i, it->second, one.verdict});
  }
  return changes;
}

void print_changes(const AuditOutput& a, const std::vector<VerdictChange>& changes, std::int64_t compared,
                   const std::vector<TokenFacts>& facts) {
  if (a.json) {
    for (const VerdictChange& one : changes)
      print(ordered_json{{"changed", one.i}, {"from", name(one.before)}, {"to", name(one.after)}}.dump() + "\n");
    print(ordered_json{{"compared", compared}, {"different", changes.size()}}.dump() + "\n");
    return;
  }
  print(terminal_text(
      fmt::format("Another verdict in {}: {} of {} tokens compared\n", a.against, changes.size(), compared)));
  for (std::size_t c = 0; c < std::min(changes.size(), static_cast<std::size_t>(a.top)); ++c) {
    const VerdictChange& one = changes[c];
    print(fmt::format("{:>8}  {} -> {}  {}\n", one.i, name(one.before), name(one.after),
                      one_line(facts[static_cast<std::size_t>(one.i)].text)));
  }
}

std::int64_t peak_bytes() {
  rusage usage{};
  return ::getrusage(RUSAGE_SELF, &usage) == 0 ? static_cast<std::int64_t>(usage.ru_maxrss) * 1024 : 0;
}

}  // namespace tuiqiao::cli
