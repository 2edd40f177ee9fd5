#include <fmt/format.h>
#include <omp.h>
#include <sys/resource.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <fstream>
#include <map>
#include <nlohmann/json.hpp>
#include <stdexcept>

#include "audit/certificate_store.h"
#include "audit/certificates.h"
#include "audit/problem.h"
#include "audit_check/certificate_file.h"
#include "audit_report.h"
#include "audit_source.h"
#include "audit_table.h"
#include "bytes_text.h"
#include "commands.h"
#include "file_output.h"
#include "terminal.h"
#include "tuiqiao/audit_check.h"
#include "tuiqiao/error.h"

namespace tuiqiao::cli {

namespace {

using nlohmann::ordered_json;
using Clock = std::chrono::steady_clock;

constexpr const char* kExamples = R"(Examples:
  tuiqiao audit model.gguf --out certificates.jsonl
  tuiqiao audit model.gguf --verify certificates.jsonl
  tuiqiao audit head.npy --bias bias.npy --radius 10 --json
  tuiqiao audit model.gguf --against model-q4.gguf --mask mask.json --html report.html)";

struct Arguments {
  AuditSourceOptions source;
  std::string out, verify, norm, solver = "active-set", ids, shard, memory, html, mask, against, unused;
  std::vector<std::string> merge;
  double radius = 0;
  std::int64_t top = 20, words = 0;
  int threads = 0;
  bool json = false, brute = false, has_radius = false, has_words = false;
};

double seconds_since(Clock::time_point start) { return std::chrono::duration<double>(Clock::now() - start).count(); }

std::int64_t peak_bytes() {
  rusage usage{};
  return ::getrusage(RUSAGE_SELF, &usage) == 0 ? static_cast<std::int64_t>(usage.ru_maxrss) * 1024 : 0;
}

// ---- What was typed
// --------------------------------------------------------------------------------------------------

std::int64_t whole_number(const std::string& text, const std::string& option) {
  const bool digits = !text.empty() && text.size() <= 15 && text.find_first_not_of("0123456789") == std::string::npos;
  if (!digits) throw std::invalid_argument(fmt::format("[audit] {}: '{}' is no number", option, shortened(text)));
  return std::strtoll(text.c_str(), nullptr, 10);
}

/// "3,7,10-20" in order, each once.
std::vector<std::int64_t> ids_of(const std::string& text, std::int64_t classes, const std::string& option) {
  std::vector<std::int64_t> ids;
  for (std::size_t at = 0; at < text.size();) {
    const std::size_t end = std::min(text.find(',', at), text.size());
    const std::string word = text.substr(at, end - at);
    const std::size_t dash = word.find('-');
    const std::int64_t first = whole_number(word.substr(0, dash), option);
    const std::int64_t last = dash == std::string::npos ? first : whole_number(word.substr(dash + 1), option);
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

/// "500M", "2G" and such.
std::int64_t bytes_of(const std::string& text) {
  if (text.empty()) return 0;
  static const std::map<char, int> kShifts{{'K', 10}, {'M', 20}, {'G', 30}, {'T', 40}};
  const auto unit = kShifts.find(static_cast<char>(std::toupper(static_cast<unsigned char>(text.back()))));
  const bool has_unit = unit != kShifts.end();
  const std::int64_t number = whole_number(has_unit ? text.substr(0, text.size() - 1) : text, "--memory");
  const int shift = has_unit ? unit->second : 0;
  if (number == 0 || number > std::int64_t{1} << (62 - shift))
    throw std::invalid_argument(fmt::format("[audit] --memory {}", text));
  return number << shift;
}

AuditSolver solver_of(const std::string& word) {
  if (word == "active-set") return AuditSolver::active_set;
  if (word == "frank-wolfe") return AuditSolver::frank_wolfe;
  throw std::invalid_argument(fmt::format("[audit] --solver {}: active-set or frank-wolfe", word));
}

/// Progress with the time that is left.
class Watch {
 public:
  explicit Watch(const std::stop_token& stop)
      : progress{[this](std::string_view what, std::int64_t done, std::int64_t total) { show(what, done, total); },
                 stop} {}
  Watch(const Watch&) = delete;
  Watch& operator=(const Watch&) = delete;
  void clear() { bar_.clear(); }

 private:
  void show(std::string_view what, std::int64_t done, std::int64_t total) {
    if (what != what_) {
      what_ = what;
      start_ = Clock::now();
    }
    const double spent = seconds_since(start_);
    std::string left;
    if (done > 0 && total > done && spent > 1) {
      const auto seconds =
          static_cast<std::int64_t>(spent / static_cast<double>(done) * static_cast<double>(total - done));
      left = fmt::format(", {}:{:02} left", seconds / 60, seconds % 60);
    }
    bar_.show(what_ + left, done, total);
  }

  ProgressBar bar_;
  std::string what_;
  Clock::time_point start_;

 public:
  Progress progress;
};

// ---- Auditing
// --------------------------------------------------------------------------------------------------------

struct Judged {
  AuditFrame frame;
  std::vector<TokenVerdict> verdicts;
  double seconds = 0;
  std::int64_t resumed = 0;  ///< verdicts of an earlier run

  std::int64_t count(Verdict verdict) const {
    return std::count_if(verdicts.begin(), verdicts.end(), [&](const TokenVerdict& v) { return v.verdict == verdict; });
  }
};

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

/// Thrown where what an earlier run left behind is of another audit.
struct Stale {};

/// Audits while certificates go to a file, from where an earlier run stopped.
Judged judge_to_file(const OutputHead& head, AuditOptions options, const auditing::Shard& shard,
                     const std::string& file) {
  auditing::CertificateStore store(file);
  const std::int64_t count = options.ids.empty() ? head.classes : static_cast<std::int64_t>(options.ids.size());
  for (;;) {
    Judged judged;
    options.from = store.next();
    if (options.from > 0) go_as_whole(options, auditing::Problem(head, options.radius));
    std::optional<auditing::MarginError> error;
    const auto begin = [&](const AuditFrame& frame) {
      if (error) return;
      if (!store.begin(auditing::header_line(head, frame, count, shard)) && options.from > 0) throw Stale();
      error.emplace(head, frame);
    };
    options.found = [&](const AuditFrame& frame, const ClassVerdict& verdict) {
      begin(frame);
      store.add(verdict.i, auditing::certificate_line(verdict, *error));
    };
    try {
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
    } catch (const Stale&) {
      continue;
    }
  }
}

Judged judge(const OutputHead& head, const AuditOptions& options, const auditing::Shard& shard,
             const std::string& file) {
  const auto start = Clock::now();
  Judged judged;
  if (!file.empty()) {
    judged = judge_to_file(head, options, shard, file);
  } else {
    const AuditResult result = audit(head, options);
    judged.frame = result.frame;
    for (const ClassVerdict& verdict : result.verdicts) judged.verdicts.push_back(token_verdict_of(verdict));
  }
  judged.seconds = seconds_since(start);
  return judged;
}

bool is_certificate_file(const std::string& file) {
  std::ifstream in(file, std::ios::binary);
  std::string start(17, '\0');
  in.read(start.data(), 17);
  return start == "{\"tuiqiao_audit\":";
}

std::vector<TokenVerdict> read_verdicts(const std::string& file) {
  checking::CertificateReader reader(file);
  std::vector<TokenVerdict> verdicts;
  while (const std::optional<ClassVerdict> verdict = reader.next()) verdicts.push_back(token_verdict_of(*verdict));
  return verdicts;
}

// ---- Output
// ----------------------------------------------------------------------------------------------------------

std::string domain_of(const OutputHead& head, const AuditFrame& frame) {
  const std::string norm = head.norm == HeadNorm::none ? "" : fmt::format("norm {}, ", name(head.norm));
  if (!frame.has_ball) return fmt::format("{}any hidden vector", norm);
  return fmt::format("{}hidden vectors shorter than {:.6g}{}", norm, frame.radius,
                     head.norm == HeadNorm::none ? "" : " before gain and shift");
}

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
  if (facts.near_zero) line += "  (near zero)";
  return line + "\n";
}

/// Tokens that must not win and are not proven to lose.
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

void print_lists(const Arguments& a, const Judged& judged, const std::vector<TokenFacts>& facts) {
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
  return text + fmt::format("  rows:          {} near zero, {} equal to another, {} near another\n", zero, equal, near);
}

void print_text(const Arguments& a, const OutputHead& head, const Judged& judged,
                const std::vector<TokenFacts>& facts) {
  std::string text = fmt::format("{}{}{}: {} x {}, {}{}\n", a.source.file, head.tensor.empty() ? "" : ": ", head.tensor,
                                 head.classes, head.columns, domain_of(head, judged.frame),
                                 head.softcapped ? ", softcapped (changes no verdict)" : "");
  if (head.rounded) text += "  the weights are float64: what is audited are the nearest float32 numbers\n";
  for (const Verdict verdict : {Verdict::argmaxable, Verdict::tie_only, Verdict::unargmaxable, Verdict::unknown})
    text += fmt::format("  {:<14} {}\n", fmt::format("{}:", name(verdict)), judged.count(verdict));
  print(terminal_text(text + category_counts(facts)));
  print_lists(a, judged, facts);
}

void print_json(const Arguments& a, const OutputHead& head, const Judged& judged, const std::vector<TokenFacts>& facts,
                bool words) {
  const bool terminal = is_terminal_stdout();
  std::string text;
  const auto add = [&](const ordered_json& json) {
    const std::string line = json.dump(-1, ' ', false, ordered_json::error_handler_t::replace);
    text += (terminal ? terminal_json(line) : line) + "\n";
    if (text.size() < (std::size_t{1} << 16)) return;
    print(text);
    text.clear();
  };
  add(header_json(a.source.file, head, judged.frame));
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

/// Tokens whose verdict is another in the other file.
std::vector<VerdictChange> changes_between(const std::vector<TokenVerdict>& before,
                                           const std::vector<TokenVerdict>& after) {
  std::vector<VerdictChange> changes;
  std::map<std::int64_t, Verdict> first;
  for (const TokenVerdict& one : before) first[one.i] = one.verdict;
  for (const TokenVerdict& one : after) {
    const auto it = first.find(one.i);
    if (it != first.end() && it->second != one.verdict) changes.push_back({one.i, it->second, one.verdict});
  }
  return changes;
}

void print_changes(const Arguments& a, const std::vector<VerdictChange>& changes,
                   const std::vector<TokenFacts>& facts) {
  if (a.json) {
    for (const VerdictChange& one : changes)
      print(ordered_json{{"changed", one.i}, {"from", name(one.before)}, {"to", name(one.after)}}.dump() + "\n");
    return;
  }
  print(terminal_text(fmt::format("Another verdict in {}: {}\n", a.against, changes.size())));
  for (std::size_t c = 0; c < std::min(changes.size(), static_cast<std::size_t>(a.top)); ++c) {
    const VerdictChange& one = changes[c];
    print(fmt::format("{:>8}  {} -> {}  {}\n", one.i, name(one.before), name(one.after),
                      one_line(facts[static_cast<std::size_t>(one.i)].text)));
  }
}

// ---- The three ways to run
// -------------------------------------------------------------------------------------------

int run_merge(const Arguments& a) {
  if (a.out.empty()) throw std::invalid_argument("[audit] --merge wants --out");
  auditing::merge_certificates({a.merge.begin(), a.merge.end()}, a.out);
  return kDone;
}

int run_verify(const Arguments& a, const std::stop_token& stop) {
  const CertificateSubject subject = read_certificate_subject(a.verify);
  AuditSourceOptions options = a.source;
  options.words = false;
  if (options.tensor.empty() && !subject.tensor.ends_with(".npy")) options.tensor = subject.tensor;
  const bool chosen = options.norm.has_value();
  if (!chosen) options.norm = subject.norm;
  const AuditSource source = read_audit_source(options);
  if (a.has_radius && (!subject.has_ball || subject.norm != HeadNorm::none || subject.radius != a.radius))
    throw Error(fmt::format("{}: {}, not --radius {}", a.verify,
                            subject.has_ball ? fmt::format("of radius {}", subject.radius) : "of no ball", a.radius));
  Watch watch(stop);
  const auto start = Clock::now();
  const CertificateCheck found = check_certificates(source.head, a.verify, {a.brute, watch.progress});
  watch.clear();
  const double seconds = seconds_since(start);
  const auto faults = static_cast<std::int64_t>(found.faults.size());
  const std::int64_t unknown = found.counts[static_cast<int>(Verdict::unknown)];
  if (a.json) {
    ordered_json json = {{"verified", a.verify}, {"classes", subject.classes}, {"count", subject.count}};
    for (int v = 0; v < 4; ++v) json[std::string(name(static_cast<Verdict>(v)))] = found.counts[v];
    json["faults"] = ordered_json::array();
    for (const CertificateFault& fault : found.faults)
      json["faults"].push_back({{"i", fault.i}, {"problem", fault.problem}});
    json["seconds"] = seconds;
    json["peak_rss_bytes"] = peak_bytes();
    print(json.dump() + "\n");
  } else {
    AuditFrame frame;
    frame.has_ball = subject.has_ball;
    frame.radius = subject.radius;
    std::string text = fmt::format("{}: {} of {} classes, {}\n", a.verify, subject.count, subject.classes,
                                   domain_of(source.head, frame));
    for (int v = 0; v < 4; ++v)
      text += fmt::format("  {:<14} {}\n", fmt::format("{}:", name(static_cast<Verdict>(v))), found.counts[v]);
    text +=
        faults == 0 ? fmt::format("  {} proven\n", subject.count - unknown) : fmt::format("  {} NOT proven\n", faults);
    for (std::int64_t f = 0; f < std::min(faults, a.top); ++f) {
      const CertificateFault& fault = found.faults[static_cast<std::size_t>(f)];
      text += fmt::format("{:>8}  {}\n", fault.i, fault.problem);
    }
    print(terminal_text(text));
    tell(fmt::format("{:.1f} s, peak memory {}\n", seconds, bytes_text(peak_bytes())));
  }
  if (faults > 0) return kBadInput;
  return unknown > 0 ? kUnknownVerdicts : kDone;
}

int run_audit(const Arguments& a, const std::stop_token& stop) {
  for (const std::string& file : {a.out, a.html, a.mask}) {
    const std::string problem = file.empty() ? "" : why_not_writable(file);
    if (!problem.empty()) throw Error(fmt::format("cannot write {}: {}", file, problem));
  }
  Watch watch(stop);
  AuditOptions options;
  options.solver = solver_of(a.solver);
  options.memory = bytes_of(a.memory);
  options.progress = watch.progress;
  const auditing::Shard shard = shard_of(a.shard);
  const AuditSource source = read_audit_source(a.source);
  const OutputHead& head = source.head;
  if (!source.note.empty()) tell(one_line(source.note) + "\n");
  if (a.has_radius) options.radius = a.radius;
  options.ids = ids_of(a.ids, head.classes, "--ids");
  if (shard.parts > 1) {
    const auditing::Problem problem(head, options.radius);
    go_as_whole(options, problem);
    options.ids = shard_ids(problem, shard);
  }
  std::optional<std::int64_t> words;
  if (a.has_words) words = a.words;
  if (words && *words > head.classes)
    throw std::invalid_argument(fmt::format("[audit] --words {}: the matrix has {} rows", *words, head.classes));
  const std::vector<std::int64_t> unused = ids_of(a.unused, head.classes, "--unused");

  Judged judged;
  const bool empty_shard = shard.parts > 1 && options.ids.empty();
  if (empty_shard) throw std::invalid_argument(fmt::format("[audit] --shard {}: no class is in it", a.shard));
  try {
    judged = judge(head, options, shard, a.out);
  } catch (const Interrupted&) {
    watch.clear();
    if (!a.out.empty())
      tell(one_line(fmt::format("{}.partial keeps what is done: run it again to go on", a.out)) + "\n");
    throw;
  } catch (const Error& error) {
    throw Error(fmt::format("{}: {}", a.source.file, error.what()));
  }
  const std::vector<TokenFacts> facts = token_facts(head, source.vocabulary, words, unused, watch.progress);
  std::optional<std::vector<VerdictChange>> changes;
  if (!a.against.empty()) {
    std::vector<TokenVerdict> others;
    if (is_certificate_file(a.against)) {
      others = read_verdicts(a.against);
    } else {
      AuditSourceOptions other = a.source;
      other.file = a.against;
      other.words = false;
      others = judge(read_audit_source(other).head, options, {}, "").verdicts;
    }
    changes = changes_between(judged.verdicts, others);
  }
  watch.clear();
  if (!a.mask.empty()) write_file_atomically(a.mask, mask_json(masked(judged, facts)));
  if (!a.html.empty())
    write_file_atomically(a.html, audit_html({a.source.file, domain_of(head, judged.frame), head, judged.verdicts,
                                              facts, a.against, changes}));
  if (a.json) {
    print_json(a, head, judged, facts, source.vocabulary != nullptr);
  } else {
    print_text(a, head, judged, facts);
  }
  if (changes) print_changes(a, *changes, facts);
  if (!a.json) {
    if (judged.resumed > 0) tell(fmt::format("{} verdicts were there from an earlier run\n", judged.resumed));
    tell(fmt::format("{:.1f} s, peak memory {}\n", judged.seconds, bytes_text(peak_bytes())));
  }
  return judged.count(Verdict::unknown) > 0 ? kUnknownVerdicts : kDone;
}

int run(Arguments& a, const std::stop_token& stop) {
  if (a.threads > 0) omp_set_num_threads(a.threads);
  if (!a.merge.empty()) return run_merge(a);
  if (a.source.file.empty()) throw std::invalid_argument("[audit] no FILE");
  if (!a.norm.empty()) a.source.norm = head_norm_from_name(a.norm);
  if (a.brute && a.verify.empty()) throw std::invalid_argument("[audit] --brute belongs to --verify");
  if (!a.shard.empty() && a.out.empty()) throw std::invalid_argument("[audit] --shard wants --out");
  if (!a.shard.empty() && !a.ids.empty()) throw std::invalid_argument("[audit] --shard and --ids exclude each other");
  return a.verify.empty() ? run_audit(a, stop) : run_verify(a, stop);
}

}  // namespace

Run add_audit(CLI::App& app) {
  auto arguments = std::make_shared<Arguments>();
  Arguments& a = *arguments;
  app.footer(kExamples);
  app.get_formatter()->column_width(34);
  const auto option = [&app](const char* names, auto& value, const char* type, const char* text) {
    return app.add_option(names, value, text)->type_name(type);
  };
  option("file", a.source.file, "FILE", "Weights: .gguf, .safetensors, .npy or .npz, told apart by their content");
  option("--out", a.out, "FILE", "Write a certificate of every token here; a run that was cut short goes on");
  option("--verify", a.verify, "FILE", "Prove the certificates of an earlier --out anew from the weights");
  app.add_flag("--brute", a.brute, "With --verify: multiply every witness by every row");
  option("--norm", a.norm, "NAME", "The norm before the layer: none, rms or layer [the file's; none]");
  auto* radius = option("--radius", a.radius, "R", "Hidden vectors shorter than R only; matters with biases [any]");
  option("--bias", a.source.bias, "FILE", "Biases: a .npy file, or a tensor of a .safetensors file [the file's]");
  option("--tensor", a.source.tensor, "NAME", "Tensor of the rows [found by its usual names]");
  option("--gain", a.source.gain, "FILE", "The norm's gain, as --bias [the file's; 1]");
  option("--shift", a.source.shift, "FILE", "LayerNorm's shift, as --bias [the file's; 0]");
  option("--solver", a.solver, "NAME", "For what simple witnesses leave: active-set or frank-wolfe [active-set]");
  option("--ids", a.ids, "IDS", "Tokens to judge, as 3,7,10-20 [all]");
  option("--top", a.top, "N", "Most tokens that a list shows [20]")->check(CLI::Range(0, 1 << 30));
  option("--words", a.words, "N", "Words of the tokenizer: rows beyond are padding [the file's]")
      ->check(CLI::Range(std::int64_t{1}, std::int64_t{1} << 40));
  option("--unused", a.unused, "IDS", "Tokens known to be untrained [unused ones of the file, and padding]");
  option("--mask", a.mask, "FILE",
         "Write [[id,false],...] of tokens that must not win but can: llama-server's logit_bias");
  option("--against", a.against, "FILE", "List tokens whose verdict is another there; weights, or certificates");
  option("--html", a.html, "FILE", "Write a report with the margins and the lost tokens");
  option("--shard", a.shard, "PART/PARTS", "Judge one part of the tokens, as 1/4; needs --out");
  option("--merge", a.merge, "FILE...", "Join the certificates of all shards into --out")->expected(1, 1 << 20);
  option("--memory", a.memory, "SIZE", "Most memory beside the weights, as 500M or 2G [as is fast]");
  option("--threads", a.threads, "N", "Processor threads, at most 512; 0 for all [0]")->check(CLI::Range(0, 512));
  app.add_flag(
      "--json", a.json,
      "One JSON object a token (i, token, category, verdict, margin, ...), a header before them and a summary behind");
  return [arguments, radius, words = app.get_option("--words")](const std::stop_token& stop) {
    arguments->has_radius = radius->count() > 0;
    arguments->has_words = words->count() > 0;
    return run(*arguments, stop);
  };
}

}  // namespace tuiqiao::cli
