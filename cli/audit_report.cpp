#include "audit_report.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>

#include "chart.h"
#include "text/utf8.h"

namespace tuiqiao::cli {

namespace {

constexpr std::size_t kMostListed = 5000, kMostPoints = 1500;

constexpr std::string_view kStyle = R"css(
:root { color-scheme: light dark; --line: #d5d8de; --dim: #5b606b; }
@media (prefers-color-scheme: dark) { :root { --line: #3a3d46; --dim: #a2a7b3; } }
body { margin: 0; font: 1rem/1.5 system-ui, "Noto Sans", "Noto Sans CJK SC", sans-serif; }
main { max-width: 56rem; margin: 0 auto; padding: 1.5rem 1rem 3rem; overflow-wrap: anywhere; }
h1 { font-size: 1.6rem; line-height: 1.25; margin: 0 0 .3rem; }
h2 { font-size: 1.2rem; margin: 2rem 0 .5rem; }
.lead, .more { color: var(--dim); margin: 0; }
table { border-collapse: collapse; width: 100%; font-size: .9rem; }
th, td { padding: .3rem .5rem; text-align: left; vertical-align: top; border-bottom: 1px solid var(--line); }
td.n, th.n { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
svg { max-width: 100%; height: auto; }
)css";

std::string escaped(std::string_view text) {
  std::string safe;
  for (const char c : spelled_out(text, false)) {
    switch (c) {
      case '&':
        safe += "&amp;";
        break;
      case '<':
        safe += "&lt;";
        break;
      case '>':
        safe += "&gt;";
        break;
      case '"':
        safe += "&quot;";
        break;
      default:
        safe += c;
    }
  }
  return safe;
}

/// Least margins first; as many points as a chart needs.
std::string margins_chart(const std::vector<TokenVerdict>& verdicts) {
  std::vector<double> margins;
  for (const TokenVerdict& one : verdicts) {
    if (one.verdict == Verdict::argmaxable && one.margin > 0) margins.push_back(one.margin);
  }
  if (margins.size() < 2) return "";
  std::sort(margins.begin(), margins.end());
  Series series{"", {}, true};
  const std::size_t step = std::max<std::size_t>(1, margins.size() / kMostPoints);
  for (std::size_t at = 0; at < margins.size(); at += step)
    series.points.emplace_back(100 * static_cast<double>(at + 1) / static_cast<double>(margins.size()), margins[at]);
  return svg_of({{"Proven margin of the witness, least first",
                  {"share of argmaxable tokens (%)"},
                  {"margin at least", Scale::logarithmic},
                  {series}}});
}

std::string row_of(const TokenVerdict& verdict, const TokenFacts& facts) {
  std::string remarks;
  const auto remark = [&](const std::string& text) { remarks += (remarks.empty() ? "" : ", ") + text; };
  if (verdict.twin) remark(fmt::format("same row as {}", *verdict.twin));
  if (facts.near_zero) remark("near zero");
  if (facts.near_to) remark(fmt::format("near {}", *facts.near_to));
  return fmt::format(
      "<tr><td class=\"n\">{}</td><td><bdi>{}</bdi></td><td>{}</td><td>{}</td><td>{}</td><td>{}</td></tr>\n", verdict.i,
      escaped(facts.text), facts.category ? name(*facts.category) : "", name(verdict.verdict),
      escaped(verdict.certificate), remarks);
}

template <class Wanted>
std::string table(const AuditReport& report, const std::string& title, const Wanted& wanted) {
  std::string rows;
  std::size_t found = 0;
  for (const TokenVerdict& verdict : report.verdicts) {
    const TokenFacts& facts = report.facts[static_cast<std::size_t>(verdict.i)];
    if (!wanted(verdict, facts)) continue;
    if (found++ < kMostListed) rows += row_of(verdict, facts);
  }
  if (found == 0) return "";
  std::string text = fmt::format(
      "<h2>{}: {}</h2>\n<table><thead><tr><th class=\"n\">id</th><th>token</th><th>category</th><th>verdict</th>"
      "<th>certificate</th><th></th></tr></thead><tbody>\n{}</tbody></table>\n",
      title, found, rows);
  if (found > kMostListed) text += fmt::format("<p class=\"more\">and {} more</p>\n", found - kMostListed);
  return text;
}

std::string changes_table(const AuditReport& report) {
  std::string text =
      fmt::format("<h2>Another verdict in {}: {}</h2>\n", escaped(report.against), report.changes->size());
  if (report.changes->empty()) return text;
  text += "<table><thead><tr><th class=\"n\">id</th><th>token</th><th>here</th><th>there</th></tr></thead><tbody>\n";
  for (std::size_t c = 0; c < std::min(kMostListed, report.changes->size()); ++c) {
    const VerdictChange& one = (*report.changes)[c];
    text += fmt::format("<tr><td class=\"n\">{}</td><td><bdi>{}</bdi></td><td>{}</td><td>{}</td></tr>\n", one.i,
                        escaped(report.facts[static_cast<std::size_t>(one.i)].text), name(one.before), name(one.after));
  }
  return text + "</tbody></table>\n";
}

}  // namespace

std::string audit_html(const AuditReport& report) {
  std::array<std::int64_t, 4> counts{};
  for (const TokenVerdict& one : report.verdicts) ++counts[static_cast<std::size_t>(one.verdict)];
  std::string page = fmt::format(
      "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" "
      "content=\"width=device-width, initial-scale=1\"><title>Audit of "
      "{0}</title><style>{1}</style></head><body><main>\n"
      "<h1>Which tokens can be chosen</h1>\n<p class=\"lead\">{0}{2}: {3} x {4}, {5}</p>\n",
      escaped(report.file), kStyle, report.head.tensor.empty() ? "" : ", " + escaped(report.head.tensor),
      report.head.classes, report.head.columns, escaped(report.domain));
  page += "<h2>Verdicts</h2>\n<table><tbody>\n";
  for (std::size_t v = 0; v < counts.size(); ++v)
    page += fmt::format("<tr><th>{}</th><td class=\"n\">{}</td></tr>\n", name(static_cast<Verdict>(v)), counts[v]);
  page += "</tbody></table>\n";
  if (const std::string chart = margins_chart(report.verdicts); !chart.empty())
    page += "<h2>Margins</h2>\n" + chart.substr(chart.find("<svg")) + "\n";
  page += table(report, "Never alone on top", [](const TokenVerdict& v, const TokenFacts&) {
    return v.verdict == Verdict::tie_only || v.verdict == Verdict::unargmaxable;
  });
  page +=
      table(report, "Unknown", [](const TokenVerdict& v, const TokenFacts&) { return v.verdict == Verdict::unknown; });
  page += table(report, "Must not win, but can", [](const TokenVerdict& v, const TokenFacts& f) {
    return f.must_not_win && v.verdict != Verdict::unargmaxable;
  });
  page += table(report, "Text that becomes other tokens",
                [](const TokenVerdict&, const TokenFacts& f) { return f.category == TokenCategory::unreachable; });
  if (report.changes) page += changes_table(report);
  return page + "</main></body></html>\n";
}

}  // namespace tuiqiao::cli
