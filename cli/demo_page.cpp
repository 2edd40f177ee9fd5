#include "demo_page.h"

#include <fmt/format.h>

#include <cstdint>
#include <fstream>
#include <iterator>

#include "text/page_style.h"
#include "text/utf8.h"

namespace tuiqiao::cli {

namespace {

constexpr std::string_view kMoreStyle = R"css(
pre { background: var(--soft); border-radius: .3rem; padding: .6rem .8rem; font-size: .82rem; line-height: 1.4; white-space: pre-wrap; overflow-wrap: anywhere; }
pre.command { border-left: .3rem solid var(--link); }
figure img { max-width: 100%; height: auto; display: block; }
figure { overflow-x: auto; }
figure img.pixels { image-rendering: pixelated; }
@media (max-width: 38rem) {
  figure img:not(.pixels) { max-width: none; width: 34rem; }
  figure:has(img:not(.pixels)) figcaption::after { content: " (goes on to the right)"; }
}
@media print { details::details-content { content-visibility: visible; block-size: auto; } h3 { break-after: avoid; } figure { break-inside: avoid; } }
figcaption { color: var(--dim); font-size: .875rem; margin-top: .3rem; }
.figures { display: flex; flex-wrap: wrap; gap: 0 1.2rem; }
.figures figure { flex: 0 1 auto; }
.problem { border-left: .35rem solid var(--dim); padding: .5rem 1rem; background: var(--soft); }
main > section > section { border: 0; margin: 0; padding: .8rem 0 0; }
@media (max-width: 38rem) { td.pale::before { content: none; } }
.pale { color: var(--dim); }
)css";

std::string base64(std::string_view bytes) {
  constexpr std::string_view kDigits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  std::string text;
  for (std::size_t i = 0; i < bytes.size(); i += 3) {
    std::uint32_t three = 0;
    for (std::size_t j = 0; j < 3; ++j)
      three = three << 8 | (i + j < bytes.size() ? static_cast<unsigned char>(bytes[i + j]) : 0U);
    for (std::size_t j = 0; j < 4; ++j) text += i + j <= bytes.size() ? kDigits[three >> (18 - 6 * j) & 63U] : '=';
  }
  return text;
}

/// As one would type it.
std::string command_of(const DemoStep& step) {
  std::string text = "tuiqiao";
  for (const std::string& argument : step.arguments) {
    const bool plain = argument.find_first_not_of(
                           "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"
                           "-_./,:=%+") == std::string::npos;
    text += plain && !argument.empty() ? " " + argument : " '" + argument + "'";
  }
  return text + (step.input.empty() ? "" : " < " + step.input);
}

}  // namespace

std::string html_text(std::string_view text) {
  std::string safe;
  for (const char c : spelled_out(text, true)) {
    if (c == '&') {
      safe += "&amp;";
    } else if (c == '<') {
      safe += "&lt;";
    } else {
      safe += c;
    }
  }
  return safe;
}

std::string content_of(const std::filesystem::path& file) {
  std::ifstream in(file, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

std::string picture_html(const std::filesystem::path& file, const std::string& caption, bool enlarged) {
  const bool vector = file.extension() == ".svg";
  return fmt::format("<figure><img{} alt=\"{}\" src=\"data:image/{};base64,{}\"><figcaption>{}</figcaption></figure>\n",
                     enlarged && !vector ? " class=\"pixels\"" : "", html_text(caption), vector ? "svg+xml" : "png",
                     base64(content_of(file)), html_text(caption));
}

std::string output_html(const std::filesystem::path& file, std::size_t lines) {
  const std::string all = content_of(file);
  std::size_t end = 0;
  for (std::size_t n = 0; n < lines && end < all.size(); ++n) end = std::min(all.find('\n', end), all.size() - 1) + 1;
  return "<pre>" + html_text(std::string_view(all).substr(0, end)) + (end < all.size() ? "...\n" : "") + "</pre>\n";
}

std::string demo_page(const std::vector<DemoResult>& results, const std::string& style, double seconds) {
  std::string page = fmt::format(
      "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" "
      "content=\"width=device-width, initial-scale=1\"><title>What tuiqiao weighs</title>\n<style>{}{}</style></head>\n"
      "<body><main><h1>What tuiqiao weighs</h1>\n<p class=\"lead\">A generative model proposes; tuiqiao weighs. All of "
      "this "
      "was made on this machine in {:.0f} s, by the commands that stand beside it; what they wrote is in "
      "<code>raw/</code>."
      "</p>\n<nav><ol>\n",
      style.empty() ? std::string(kPageStyle) : style, kMoreStyle, seconds);
  for (const DemoResult& one : results)
    page += fmt::format("<li><a href=\"#{}\">{}</a></li>\n", one.section->id, html_text(one.section->title));
  page += "</ol></nav>\n";
  for (const DemoResult& one : results) {
    const DemoSection& section = *one.section;
    page +=
        fmt::format("<section id=\"{}\"><h2>{}</h2>\n<p>{}</p>\n", section.id, html_text(section.title), section.lead);
    page +=
        one.problem.empty() ? one.html : fmt::format("<p class=\"problem\">Left out: {}</p>\n", html_text(one.problem));
    page +=
        fmt::format("<details><summary>{}, {:.0f} s; more in {}</summary>\n<pre class=\"command\">",
                    section.steps.size() == 1 ? "The command" : fmt::format("The {} commands", section.steps.size()),
                    one.seconds, html_text(section.page));
    for (const DemoStep& step : section.steps) page += html_text(command_of(step)) + "\n";
    page += "</pre></details></section>\n";
  }
  return page + "</main></body></html>\n";
}

}  // namespace tuiqiao::cli
