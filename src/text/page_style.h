#pragma once

#include <string_view>

namespace tuiqiao {

/// The style of pages that are read on a screen or on paper, light or dark, wide or narrow.
// --b is a document's background behind text, --m its mark in bars; both are set by colour_rules().
inline constexpr std::string_view kPageStyle = R"css(
:root {
  color-scheme: light dark; --page: #fff; --ink: #17181c; --soft: #eceef1; --dim: #5b606b; --line: #d5d8de;
  --link: #1d4f9e;
}
@media screen and (prefers-color-scheme: dark) {
  :root { --page: #15161a; --ink: #f1f2f5; --soft: #2c2e35; --dim: #a2a7b3; --line: #3a3d46; --link: #8db8ff; }
}
* { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; }
body {
  margin: 0; background: var(--page); color: var(--ink);
  font: 1rem/1.5 system-ui, "Noto Sans", "Noto Sans CJK SC", sans-serif;
}
main { max-width: 56rem; margin: 0 auto; padding: 1.5rem 1rem 3rem; overflow-wrap: anywhere; }
h1 { font-size: 1.6rem; line-height: 1.25; margin: 0 0 .3rem; }
h2 { font-size: 1.2rem; line-height: 1.35; margin: 0 0 .8rem; white-space: pre-wrap; }
a { color: var(--link); }
.lead, .facts, .settings, summary, .id { color: var(--dim); }
.lead { margin: 0; }
nav { margin: 1.2rem 0 0; }
nav ol { margin: 0; padding-left: 1.6rem; }
section { margin-top: 2rem; padding-top: 1.5rem; border-top: 1px solid var(--line); }
.answer { font-size: 1.1rem; line-height: 1.95; white-space: pre-wrap; }
.t {
  background: var(--b); padding: .12em 0; border-radius: .15em; -webkit-box-decoration-break: clone;
  box-decoration-break: clone;
}
.t:hover { outline: 2px solid var(--m); }
.t sup {
  font-size: .62em; line-height: 0; font-weight: 700; padding: 0 .15em 0 .2em; -webkit-user-select: none;
  user-select: none;
}
.t sup a { color: inherit; text-decoration: none; }
.n { --b: var(--soft); --m: var(--dim); }
.abstained {
  border: 1px solid var(--line); border-left: .35rem solid var(--dim); border-radius: .3rem; padding: .7rem 1rem;
  margin: 0;
}
.abstained strong { display: block; font-size: 1.1rem; }
figure { margin: 1.1rem 0 0; }
.strip { display: block; width: 100%; height: 4.5rem; border-bottom: 1px solid var(--line); }
.hit { fill: transparent; }
.strip g:hover .hit { fill: var(--soft); }
.bar { fill: var(--m); background: var(--m); }
.runs { display: flex; height: 1.15rem; font-size: .7rem; font-weight: 700; line-height: 1.15rem; text-align: center; }
.runs span {
  background: var(--b); border-right: 1px solid var(--page); min-width: 0; overflow: hidden; white-space: nowrap;
}
.facts, .settings, details { font-size: .875rem; }
.facts { margin: .6rem 0 0; }
table { width: 100%; border-collapse: collapse; margin-top: 1rem; font-size: .9rem; }
th, td { padding: .35rem .5rem; text-align: left; vertical-align: top; border-bottom: 1px solid var(--line); }
th { color: var(--dim); font-weight: 600; }
td:first-child, th, .swatch { white-space: nowrap; }
td.v, th.v { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
tr:target { outline: 2px solid var(--link); }
.swatch {
  display: inline-block; min-width: 2.1rem; padding: 0 .4rem; border-radius: .25rem; background: var(--b);
  border: 1px solid var(--m); font-weight: 700; text-align: center;
}
.id { font-size: .85em; }
.share { min-width: 8rem; white-space: nowrap; font-variant-numeric: tabular-nums; }
.track { display: inline-block; width: 4.5rem; height: .7rem; background: var(--soft); vertical-align: -.05em; }
.percent { display: inline-block; min-width: 3.8em; text-align: right; }
.track .bar { display: block; height: 100%; }
details { margin-top: .8rem; }
summary { cursor: pointer; }
details ul { margin: .4rem 0 0; padding-left: 1.4rem; }
.settings { display: flex; flex-wrap: wrap; gap: .15rem 1.2rem; margin: 1rem 0 0; }
.settings div { display: flex; gap: .4rem; }
.settings dt { white-space: nowrap; }
.settings dd { margin: 0; color: var(--ink); }
@media (max-width: 38rem) {
  table, tbody { display: block; }
  thead { display: none; }
  tr {
    display: flex; flex-wrap: wrap; gap: .1rem .6rem; padding: .5rem 0; font-size: .8rem;
    border-bottom: 1px solid var(--line);
  }
  td { border: 0; padding: 0; }
  td.v { text-align: left; }
  td.name { flex: 1 0 calc(100% - 4rem); width: min-content; font-size: .9rem; }
  td.share { display: flex; flex: 1 0 100%; align-items: center; }
  .track { flex: 1; }
  td[data-label]::before { content: attr(data-label) " "; color: var(--dim); }
}
@media print {
  * { -webkit-print-color-adjust: exact; print-color-adjust: exact; }
  main { max-width: none; padding: 0; }
  h2 { break-after: avoid-page; }
  .answer, tr, figure { break-inside: avoid-page; }
}
)css";

}  // namespace tuiqiao
