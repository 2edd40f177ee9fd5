#include <fmt/format.h>
#include <omp.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <exception>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <numeric>
#include <set>
#include <span>
#include <stdexcept>

#include "audit/certificate_store.h"
#include "audit_judge.h"
#include "audit_options.h"
#include "audit_output.h"
#include "audit_report.h"
#include "audit_source.h"
#include "audit_table.h"
#include "bytes_text.h"
#include "commands.h"
#include "file_output.h"
#include "mpi_world.h"
#include "program.h"
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
  mpirun -n 4 tuiqiao audit model.gguf --out certificates.jsonl
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

/// Progress with the time that is left.
class Watch {
 public:
  /// `shown`: else it only stops.
  explicit Watch(const std::stop_token& stop, bool shown = true) : progress{{}, stop} {
    if (!shown) return;
    progress.report = [this](std::string_view what, std::int64_t done, std::int64_t total) { show(what, done, total); };
  }
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

/// No file that is read is written, and none is a pipe, which might never begin.
void check_files(const Arguments& a) {
  namespace fs = std::filesystem;
  std::vector<std::string> taken{a.source.file, a.source.bias, a.source.gain, a.source.shift, a.verify, a.against};
  taken.insert(taken.end(), a.merge.begin(), a.merge.end());
  for (const std::string& file : taken) {
    std::error_code problem;
    if (fs::is_fifo(file, problem) || fs::is_socket(file, problem))
      throw Error(fmt::format("{}: not a regular file", file));
  }
  for (const auto& [option, file] : {std::pair{"--out", a.out}, {"--html", a.html}, {"--mask", a.mask}}) {
    if (file.empty()) continue;
    for (const std::string& other : taken) {
      std::error_code problem;
      const bool same =
          !other.empty() && (fs::equivalent(file, other, problem) ||
                             fs::absolute(file).lexically_normal() == fs::absolute(other).lexically_normal());
      if (same && !fs::is_character_file(file, problem))
        throw std::invalid_argument(fmt::format("[audit] {} {}: the file is read", option, file));
    }
  }
}

/// What is given empty, or beside --merge or --verify and without meaning there, must not seem to have had one.
void check_options(const CLI::App& app) {
  for (const CLI::Option* one : app.get_options()) {
    const std::vector<std::string>& given = one->results();
    if (one->get_type_size() > 0 && std::find(given.begin(), given.end(), "") != given.end())
      throw std::invalid_argument(fmt::format("[audit] {}: nothing is named", one->get_name()));
  }
  const auto check = [&app](const char* with, const std::set<std::string>& fitting) {
    if (app.count(with) == 0) return;
    for (const CLI::Option* one : app.get_options()) {
      const std::string name = one->get_positional() ? "FILE" : one->get_name();
      if (one->count() > 0 && name != with && !fitting.contains(name))
        throw std::invalid_argument(fmt::format("[audit] {} does not go with {}", name, with));
    }
  };
  check("--merge", {"--out", "--json"});
  check("--verify", {"FILE", "--brute", "--norm", "--radius", "--bias", "--tensor", "--gain", "--shift", "--top",
                     "--threads", "--json"});
}

std::string verdict_lines(std::span<const std::int64_t, 4> counts) {
  std::string text;
  for (std::size_t v = 0; v < 4; ++v)
    text += fmt::format("  {:<14} {}\n", fmt::format("{}:", name(static_cast<Verdict>(v))), counts[v]);
  return text;
}

int run_merge(const Arguments& a) {
  if (a.out.empty()) throw std::invalid_argument("[audit] --merge wants --out");
  const auto counts = auditing::merge_certificates({a.merge.begin(), a.merge.end()}, a.out);
  const std::int64_t all = std::accumulate(counts.begin(), counts.end(), std::int64_t{0});
  if (a.json) {
    ordered_json json = {{"merged", a.out}, {"count", all}};
    for (std::size_t v = 0; v < 4; ++v) json[std::string(name(static_cast<Verdict>(v)))] = counts[v];
    json["peak_rss_bytes"] = peak_bytes();
    print(json.dump(-1, ' ', false, ordered_json::error_handler_t::replace) + "\n");
  } else {
    print(terminal_text(
        fmt::format("{}: {} classes of {} shards\n{}", a.out, all, a.merge.size(), verdict_lines(counts))));
  }
  return counts[static_cast<std::size_t>(Verdict::unknown)] > 0 ? kUnknownVerdicts : kDone;
}

int run_verify(const Arguments& a, const std::stop_token& stop) {
  const CertificateSubject subject = read_certificate_subject(a.verify);
  AuditSourceOptions options = a.source;
  options.words = false;
  if (!subject.tensor.ends_with(".npy")) options.tensor_otherwise = subject.tensor;
  options.norm_otherwise = subject.norm;
  const AuditSource source = read_audit_source(options);
  // What is proven is what is asked for, not what the certificates would like to be asked.
  if (source.head.norm != subject.norm)
    throw Error(fmt::format("{}: of norm {}; {} has norm {} (--norm {} asks for the other)", a.verify,
                            name(subject.norm), a.source.file, name(source.head.norm), name(subject.norm)));
  if (!subject.tensor.empty() && !source.head.tensor.empty() && subject.tensor != source.head.tensor)
    throw Error(fmt::format("{}: of tensor {}; the output layer of {} is {} (--tensor {} asks for the other)", a.verify,
                            subject.tensor, a.source.file, source.head.tensor, subject.tensor));
  if (subject.has_ball && subject.norm == HeadNorm::none && !a.has_radius)
    throw Error(fmt::format("{}: of hidden vectors shorter than {} only (--radius {} asks for them)", a.verify,
                            subject.radius, subject.radius));
  const bool matters = subject.has_ball || subject.has_bias;  // without biases z may be scaled
  if (a.has_radius && matters && (!subject.has_ball || subject.norm != HeadNorm::none || subject.radius != a.radius))
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
    ordered_json json = {
        {"verified", a.verify},       {"tensor", source.head.tensor},
        {"norm", name(subject.norm)}, {"radius", subject.has_ball ? ordered_json(subject.radius) : ordered_json()},
        {"classes", subject.classes}, {"count", subject.count}};
    for (int v = 0; v < 4; ++v) json[std::string(name(static_cast<Verdict>(v)))] = found.counts[v];
    json["faults"] = ordered_json::array();
    for (const CertificateFault& fault : found.faults)
      json["faults"].push_back({{"i", fault.i}, {"problem", fault.problem}});
    json["seconds"] = seconds;
    json["peak_rss_bytes"] = peak_bytes();
    print(json.dump(-1, ' ', false, ordered_json::error_handler_t::replace) + "\n");
  } else {
    AuditFrame frame;
    frame.has_ball = subject.has_ball;
    frame.radius = subject.radius;
    std::string text =
        fmt::format("{}: {} of {} classes{}{}, {}\n", a.verify, subject.count, subject.classes,
                    source.head.tensor.empty() ? "" : " of ", source.head.tensor, domain_of(source.head, frame));
    text += verdict_lines(found.counts);
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

int run_audit(const Arguments& a, const std::stop_token& stop, const MpiWorld& world) {
  const bool first = world.rank() == 0;
  if (first) check_outputs({{"--out", a.out}, {"--html", a.html}, {"--mask", a.mask}});
  Watch watch(stop, first);
  AuditOptions options;
  options.solver = solver_of(a.solver);
  options.memory = bytes_of(a.memory);
  options.progress = watch.progress;
  const auditing::Shard shard = shard_of(a.shard);
  const AuditSource source = read_audit_source(a.source);
  const OutputHead& head = source.head;
  if (first && !source.note.empty()) tell(one_line(source.note) + "\n");
  if (a.has_radius) options.radius = a.radius;
  options.ids = ids_of(a.ids, head.classes, "--ids");
  std::optional<std::int64_t> words;
  if (a.has_words) words = a.words;
  if (words && *words > head.classes)
    throw std::invalid_argument(fmt::format("[audit] --words {}: the matrix has {} rows", *words, head.classes));
  const std::vector<std::int64_t> unused = ids_of(a.unused, head.classes, "--unused");

  Judged judged;
  try {
    judged = world.size() > 1 ? judge_together(head, options, world, a.out) : judge(head, options, shard, a.out);
    if (!first) return kDone;
  } catch (const Interrupted&) {
    watch.clear();
    if (first && !a.out.empty() && std::filesystem::exists(real_place(a.out).string() + ".partial"))
      tell(one_line(fmt::format("{}.partial keeps what is done: run it again to go on", a.out)) + "\n");
    throw;
  } catch (const Error& error) {
    const std::string what = error.what();
    const bool names_file = !a.out.empty() && what.find(real_place(a.out).string()) != std::string::npos;
    throw Error(names_file ? what : fmt::format("{}: {}", a.source.file, what));
  }
  const std::vector<TokenFacts> facts = token_facts(head, source.vocabulary, words, unused, watch.progress);
  std::optional<std::vector<VerdictChange>> changes;
  std::int64_t compared = 0;
  if (!a.against.empty()) {
    std::vector<TokenVerdict> others;
    std::int64_t classes = 0;
    if (auditing::begins_like_certificates(a.against)) {
      others = read_verdicts(a.against);
      classes = read_certificate_subject(a.against).classes;
    } else {
      AuditSourceOptions other = a.source;
      other.file = a.against;
      other.words = false;
      const OutputHead with = read_audit_source(other).head;
      classes = with.classes;
      if (classes == head.classes) others = judge(with, options, {}, "").verdicts;
    }
    if (classes != head.classes)
      throw Error(fmt::format("{}: {} tokens; {} has {}", a.against, classes, a.source.file, head.classes));
    changes = changes_between(judged.verdicts, others, compared);
  }
  watch.clear();
  if (!a.mask.empty()) write_file_atomically(a.mask, mask_json(masked(judged, facts)));
  if (!a.html.empty())
    write_file_atomically(a.html, audit_html({a.source.file, domain_of(head, judged.frame), head, judged.verdicts,
                                              facts, a.against, changes}));
  const AuditOutput output{a.source.file, a.against, a.top, a.json};
  if (a.json) {
    print_json(output, head, judged, facts, source.vocabulary != nullptr);
  } else {
    print_text(output, head, judged, facts);
  }
  if (changes) print_changes(output, *changes, compared, facts);
  if (!a.json) {
    if (judged.resumed > 0) tell(fmt::format("{} verdicts were there from an earlier run\n", judged.resumed));
    tell(fmt::format("{:.1f} s, peak memory {}\n", judged.seconds, bytes_text(peak_bytes())));
  }
  return judged.count(Verdict::unknown) > 0 ? kUnknownVerdicts : kDone;
}

int run(Arguments& a, const std::stop_token& stop) {
  if (a.threads > 0) omp_set_num_threads(a.threads);
  check_files(a);
  if (!a.merge.empty()) return run_merge(a);
  if (a.source.file.empty()) throw std::invalid_argument("[audit] no FILE");
  if (!a.norm.empty()) a.source.norm = head_norm_from_name(a.norm);
  if (a.brute && a.verify.empty()) throw std::invalid_argument("[audit] --brute belongs to --verify");
  if (!a.shard.empty() && a.out.empty()) throw std::invalid_argument("[audit] --shard wants --out");
  if (!a.mask.empty() && !(a.ids.empty() && a.shard.empty()))
    throw std::invalid_argument("[audit] --mask is about all tokens: without --ids and --shard");
  if (!a.shard.empty() && !a.ids.empty()) throw std::invalid_argument("[audit] --shard and --ids exclude each other");
  const MpiWorld world;
  if (world.size() == 1) return a.verify.empty() ? run_audit(a, stop, world) : run_verify(a, stop);
  // Whatever ends one process must end the others, which would wait for it.
  int code = kDone;
  const auto together = [&] {
    if (a.out.empty() || !a.verify.empty() || !a.shard.empty() || !a.ids.empty())
      throw std::invalid_argument("[audit] under mpirun: --out, and neither --verify, --shard nor --ids");
    return run_audit(a, stop, world);
  };
  try {
    code = carry_out(together);
  } catch (const OutputClosed&) {
    world.abort(kOutputClosed);
  } catch (const std::exception& error) {  // what main would say, who comes too late
    world.abort(say(kBadInput, error.what()));
  }
  if (code != kDone && code != kUnknownVerdicts) world.abort(code);
  return code;
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
  option("--bias", a.source.bias, "FILE",
         "Biases: a .npy file, or a tensor's name in a .safetensors or .npz FILE [a GGUF's; 0]");
  option("--tensor", a.source.tensor, "NAME", "Tensor of the rows [found by its usual names]");
  option("--gain", a.source.gain, "FILE", "The norm's gain, as --bias [a GGUF's; 1]");
  option("--shift", a.source.shift, "FILE", "LayerNorm's shift, as --bias [a GGUF's; 0]");
  option("--solver", a.solver, "NAME",
         "For what simple witnesses leave: active-set, or frank-wolfe, slow, to compare [active-set]");
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
  return [arguments, radius, words = app.get_option("--words"), &app](const std::stop_token& stop) {
    check_options(app);
    arguments->has_radius = radius->count() > 0;
    arguments->has_words = words->count() > 0;
    return run(*arguments, stop);
  };
}

}  // namespace tuiqiao::cli
