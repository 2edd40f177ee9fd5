#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <iterator>
#include <numbers>
#include <set>

#include "bytes_text.h"
#include "file_output.h"
#include "text/page_style.h"
#include "text/utf8.h"
#include "tuiqiao/text/answer.h"

namespace tuiqiao {

namespace {

/// Text from outside, for content and attributes: markup escaped, broken bytes and control characters made visible.
std::string escaped(std::string_view text) {
  std::string html;
  for_each_character(text, [&](char32_t code, std::string_view bytes) {
    if (code == '&') {
      html += "&amp;";
    } else if (code == '<') {
      html += "&lt;";
    } else if (code == '>') {
      html += "&gt;";
    } else if (code == '"') {
      html += "&quot;";
    } else if (code == '\'') {
      html += "&#39;";
    } else if (code == 0x7F || (code < 0x20 && code != '\n' && code != '\t')) {
      html += fmt::format("&#x{:X};", code == 0x7F ? 0x2421U : 0x2400U + static_cast<unsigned>(code));
    } else if (code >= 0x80 && code < 0xA0) {
      html += kReplacement;
    } else {
      html += bytes;
    }
  });
  return html;
}

std::string counted(std::size_t count, std::string_view one, std::string_view several) {
  return fmt::format("{} {}", count, count == 1 ? one : several);
}
std::string counted(std::size_t count, std::string_view one) { return counted(count, one, std::string(one) + "s"); }

// --- Colours -------------------------------------------------------------------------------------------------------

/// A colour of OKLCH as sRGB; where the screen has no such colour, the strongest of that hue and lightness.
/// Source: B. Ottosson, "A perceptual color space for image processing" (2020).
std::string srgb(double lightness, double chroma, double hue) {
  const auto gamma = [](double x) { return x <= 0.0031308 ? 12.92 * x : 1.055 * std::pow(x, 1 / 2.4) - 0.055; };
  for (;; chroma -= 0.004) {
    const double a = std::max(chroma, 0.0) * std::cos(hue), b = std::max(chroma, 0.0) * std::sin(hue);
    const double l = std::pow(lightness + 0.3963377774 * a + 0.2158037573 * b, 3);
    const double m = std::pow(lightness - 0.1055613458 * a - 0.0638541728 * b, 3);
    const double s = std::pow(lightness - 0.0894841775 * a - 1.2914855480 * b, 3);
    const std::array<double, 3> rgb{4.0767416621 * l - 3.3077115913 * m + 0.2309699292 * s,
                                    -1.2684380046 * l + 2.6097574011 * m - 0.3413193965 * s,
                                    -0.0041960863 * l - 0.7034186147 * m + 1.7076147010 * s};
    const bool shown = std::all_of(rgb.begin(), rgb.end(), [](double x) { return x >= 0 && x <= 1; });
    if (!shown && chroma > 0) continue;
    std::string hex = "#";
    for (const double x : rgb) hex += fmt::format("{:02x}", std::lround(255 * gamma(std::clamp(x, 0.0, 1.0))));
    return hex;
  }
}

/// Hues a golden angle apart, so that neighbours differ most; three levels of lightness tell similar hues apart.
std::string colour_rule(int context, const std::array<double, 3>& back, const std::array<double, 3>& mark) {
  constexpr double kFirstHue = 255 * std::numbers::pi / 180;
  const double hue = kFirstHue + context * 2 * std::numbers::pi * (2 - std::numbers::phi);
  const auto level = static_cast<std::size_t>(context % 3);
  return fmt::format(".c{}{{--b:{};--m:{}}}\n", context, srgb(back[level], 0.105, hue), srgb(mark[level], 0.16, hue));
}

std::string colour_rules(const std::set<int>& contexts) {
  std::string light, dark;
  for (const int context : contexts) {
    light += colour_rule(context, {0.89, 0.83, 0.77}, {0.60, 0.54, 0.48});
    dark += colour_rule(context, {0.34, 0.39, 0.45}, {0.82, 0.76, 0.70});
  }
  return light + "@media screen and (prefers-color-scheme: dark) {\n" + dark + "}\n";
}

// --- Tokens --------------------------------------------------------------------------------------------------------

/// A token as it is shown: with the characters that it completes.
struct Piece {
  const AnswerToken* token = nullptr;
  int context = -1;
  std::string text;  ///< valid UTF-8; empty if the token ends inside its first character
};

std::vector<Piece> pieces_of(const Answer& answer) {
  std::vector<Piece> pieces;
  std::string pending;
  for (const AnswerToken& token : answer.tokens) {
    const bool known = token.context >= 0 && static_cast<std::size_t>(token.context) < answer.contexts.size();
    pieces.push_back({&token, known ? token.context : -1, completed_characters(pending, token.bytes)});
  }
  if (!pending.empty()) pieces.back().text += kReplacement;
  return pieces;
}

std::string colour_class(int context) { return context < 0 ? "n" : fmt::format("c{}", context); }

std::string plain_name(const AnswerContext& context) {
  constexpr std::size_t kMost = 80;
  const std::string name = shortened(context.title.empty() ? context.id : context.title, kMost);
  return context.part > 0 ? fmt::format("{} (part {})", name, context.part) : name;
}

std::string tooltip(const Answer& answer, const Piece& piece) {
  std::string lines;
  if (piece.context >= 0) {
    const AnswerContext& context = answer.contexts[static_cast<std::size_t>(piece.context)];
    lines = fmt::format("{} \u00b7 {}\n", piece.context + 1, plain_name(context));
  }
  lines += fmt::format("entropy {:.2f} nats\n", piece.token->entropy_nats);
  const double logprob = piece.token->logprob;
  lines += fmt::format("log-probability {:.2f} ({:.1f} %)", logprob, 100 * std::exp(logprob));
  return escaped(lines);
}

/// A token's text inside a tooltip, where white space would not be seen.
std::string quoted(const std::string& text) {
  if (text.empty()) return "(part of a character)";
  std::string shown = "\u201c";
  for (const char c : text) c == '\n' ? shown += "\u21b5" : shown += c;
  return escaped(shown + "\u201d");
}

/// The colours change between tokens; a number stands where they do, for eyes and printers that see none.
void add_tokens(std::string& page, const Answer& answer, const std::vector<Piece>& pieces, std::size_t section) {
  int before = -1;
  for (const Piece& piece : pieces) {
    if (piece.text.empty()) continue;
    const bool numbered = piece.context != before && piece.context >= 0;
    // Spaces before a new source stay uncoloured: they would hang at the end of a line as a stripe of the next colour.
    const std::size_t spaces = numbered ? std::min(piece.text.find_first_not_of(' '), piece.text.size()) : 0;
    page.append(piece.text, 0, spaces);
    page += fmt::format("<span class=\"t {}\" title=\"{}\">", colour_class(piece.context), tooltip(answer, piece));
    if (numbered)
      page += fmt::format("<sup><a href=\"#q{}d{}\">{}</a></sup>", section, piece.context + 1, piece.context + 1);
    page += escaped(std::string_view(piece.text).substr(spaces)) + "</span>";
    before = piece.context;
  }
}

void add_answer(std::string& page, const Answer& answer, const std::vector<Piece>& pieces, std::size_t section) {
  if (answer.abstained) {
    page += fmt::format(
        "<p class=\"abstained\"><strong>No document answers.</strong> With the documents the model's next token "
        "differs "
        "by {:.3f} bits from that without them, and the deciding document leaves an entropy of {:.2f} nats.</p>\n",
        answer.first_divergence_bits, answer.first_entropy_nats);
  }
  if (answer.abstained && pieces.empty()) return;
  page += "<div class=\"answer\" dir=\"auto\" lang=\"\">";
  if (!answer.prefix.empty()) page += "<span class=\"prefix\">" + escaped(answer.prefix) + "</span>";
  add_tokens(page, answer, pieces, section);
  if (pieces.empty()) page += " <em class=\"id\">(ended without a token)</em>";
  page += "</div>\n";
}

// --- Strip ---------------------------------------------------------------------------------------------------------

double finite(double value) { return std::isfinite(value) ? std::max(value, 0.0) : 0.0; }

double highest_entropy(const Answer& answer) {
  double highest = 0;
  for (const AnswerToken& token : answer.tokens) highest = std::max(highest, finite(token.entropy_nats));
  return highest;
}

void add_bars(std::string& page, const Answer& answer, const std::vector<Piece>& pieces) {
  constexpr double kLeast = 3;                                 // of 100: a sure token still shows its colour
  const double full = std::max(highest_entropy(answer), 0.5);  // nats; what is sure all along stays low
  page += fmt::format(
      "<svg class=\"strip\" viewBox=\"0 0 {} 100\" preserveAspectRatio=\"none\" role=\"img\" aria-label=\"Entropy and "
      "source of each token\">\n",
      pieces.size());
  for (std::size_t i = 0; i < pieces.size(); ++i) {
    const double height = kLeast + (100 - kLeast) * finite(pieces[i].token->entropy_nats) / full;
    page += fmt::format(
        "<g class=\"{}\"><title>{}\n{}</title><rect class=\"hit\" x=\"{}\" width=\"1\" height=\"100\"/>"
        "<rect class=\"bar\" x=\"{}.05\" y=\"{:.1f}\" width=\"0.9\" height=\"{:.1f}\"/></g>\n",
        colour_class(pieces[i].context), quoted(pieces[i].text), tooltip(answer, pieces[i]), i, i, 100 - height,
        height);
  }
  page += "</svg>\n";
}

/// Under the bars: who decided, with a number wherever it fits.
void add_runs(std::string& page, const std::vector<Piece>& pieces) {
  page += "<div class=\"runs\" aria-hidden=\"true\">";
  std::size_t end = 0;
  for (std::size_t begin = 0; begin < pieces.size(); begin = end) {
    const int context = pieces[begin].context;
    for (end = begin; end < pieces.size() && pieces[end].context == context; ++end) {
    }
    const std::string number = std::to_string(context + 1);
    const double width = static_cast<double>(end - begin) / static_cast<double>(pieces.size());
    const bool fits = width >= 0.015 + 0.022 * static_cast<double>(number.size());
    page += fmt::format("<span class=\"{}\" style=\"flex:{} 0 0\">{}</span>", colour_class(context), end - begin,
                        fits ? number : "");
  }
  page += "</div>\n";
}

void add_strip(std::string& page, const Answer& answer, const std::vector<Piece>& pieces) {
  page += fmt::format("<figure style=\"max-width:{}rem\">\n", std::max<std::size_t>(pieces.size() * 3 / 2, 3));
  add_bars(page, answer, pieces);
  if (!answer.contexts.empty()) add_runs(page, pieces);
  page += "</figure>\n";
}

// --- Legend --------------------------------------------------------------------------------------------------------

std::string name_html(const AnswerContext& context) {
  std::string html = "<bdi lang=\"\">" + escaped(context.title.empty() ? context.id : context.title) + "</bdi>";
  if (context.part > 0) html += fmt::format(" (part {})", context.part);
  if (!context.title.empty() && context.title != context.id) {
    html += " <bdi class=\"id\" lang=\"\">" + escaped(context.id) + "</bdi>";
  }
  return html;
}

void add_legend_row(std::string& page, const AnswerContext& context, const ContextShare& share, std::size_t section,
                    std::size_t index) {
  page +=
      fmt::format("<tr id=\"q{}d{}\" class=\"c{}\"><td><span class=\"swatch\">{}</span></td><td class=\"name\">{}</td>",
                  section, index + 1, index, index + 1, name_html(context));
  page += fmt::format(
      "<td class=\"share\"><span class=\"track\"><span class=\"bar\" style=\"width:{:.1f}%\"></span></span>"
      "<span class=\"percent\">{:.0f} %</span></td>",
      100 * share.share, 100 * share.share);
  page += fmt::format(
      "<td class=\"v\" data-label=\"decided\">{}</td><td class=\"v\" data-label=\"entropy\">{:.2f}</td>"
      "<td class=\"v\" data-label=\"length\">{}</td></tr>\n",
      share.tokens, share.mean_entropy_nats, context.tokens);
}

void add_silent(std::string& page, const Answer& answer, const std::vector<ContextShare>& shares) {
  std::string list;
  std::size_t silent = 0;
  for (std::size_t i = 0; i < shares.size(); ++i) {
    if (shares[i].tokens > 0) continue;
    ++silent;
    list += fmt::format("<li>{}: {}, {}</li>\n", i + 1, name_html(answer.contexts[i]),
                        counted(static_cast<std::size_t>(answer.contexts[i].tokens), "token"));
  }
  if (silent == 0) return;
  const bool others = silent < shares.size();
  page += fmt::format("<details><summary>{} decided no token</summary>\n<ul>\n{}</ul></details>\n",
                      counted(silent, others ? "other document" : "document"), list);
}

void add_legend(std::string& page, const Answer& answer, std::size_t section) {
  const std::vector<ContextShare> shares = context_shares(answer);
  if (std::any_of(shares.begin(), shares.end(), [](const ContextShare& s) { return s.tokens > 0; })) {
    page +=
        "<table>\n<thead><tr><th>No.</th><th>Document</th><th>Share</th><th class=\"v\" title=\"tokens of the answer "
        "that it decided\">Decided</th><th class=\"v\" title=\"over the tokens that it decided, in nats\">Mean "
        "entropy</th><th class=\"v\" title=\"tokens given to the model\">Length</th></tr></thead>\n<tbody>\n";
    for (std::size_t i = 0; i < shares.size(); ++i) {
      if (shares[i].tokens > 0) add_legend_row(page, answer.contexts[i], shares[i], section, i);
    }
    page += "</tbody></table>\n";
  }
  add_silent(page, answer, shares);
}

// --- Page ----------------------------------------------------------------------------------------------------------

std::string finish_text(const Answer& answer) {
  if (answer.finish == "end") return "ended by the model";
  if (answer.finish == "length") return "cut at the limit of tokens";
  return escaped(answer.finish);
}

void add_facts(std::string& page, const Answer& answer) {
  const bool documents = !answer.contexts.empty();
  const auto switches = static_cast<std::size_t>(count_switches(answer));
  page += fmt::format("<p class=\"facts\">Bars: entropy{} at each token, up to {:.2f} nats. {}",
                      documents ? " of the deciding document" : "", highest_entropy(answer),
                      counted(answer.tokens.size(), "token"));
  if (documents) page += ", <strong>" + counted(switches, "switch", "switches") + "</strong> between documents";
  if (!answer.finish.empty()) page += "; " + finish_text(answer);
  page += ".";
  if (documents) {
    page += fmt::format(" At the first token: entropy {:.2f} nats, {:.2f} bits from the model without documents.",
                        answer.first_entropy_nats, answer.first_divergence_bits);
  }
  page += "</p>\n";
}

void add_settings(std::string& page, const Answer& answer) {
  const auto item = [&](std::string_view name, const std::string& value) {
    page += fmt::format("<div><dt>{}</dt><dd>{}</dd></div>\n", name, value);
  };
  page += "<dl class=\"settings\">\n";
  if (!answer.model.empty()) item("Model", escaped(answer.model));
  if (!answer.pooling.empty() && !answer.contexts.empty()) item("Pooling", escaped(answer.pooling));
  item("Reading", fmt::format("{:.2f} s", answer.prefill_seconds));
  item("First token after", fmt::format("{:.2f} s", answer.first_token_seconds));
  if (answer.tokens_per_second > 0) item("Then", fmt::format("{:.1f} tokens/s", answer.tokens_per_second));
  if (answer.peak_rss_bytes > 0) item("Peak memory", bytes_text(answer.peak_rss_bytes));
  page += "</dl>\n";
}

void add_section(std::string& page, const Answer& answer, std::size_t section) {
  page += fmt::format("<section id=\"q{}\">\n<h2 dir=\"auto\" lang=\"\">{}</h2>\n", section, escaped(answer.question));
  const std::vector<Piece> pieces = pieces_of(answer);
  add_answer(page, answer, pieces, section);
  if (!pieces.empty()) {
    add_strip(page, answer, pieces);
    add_facts(page, answer);
  }
  add_legend(page, answer, section);
  add_settings(page, answer);
  page += "</section>\n";
}

void add_contents(std::string& page, const std::vector<Answer>& answers) {
  constexpr std::size_t kMost = 160;
  page += "<nav aria-label=\"Questions\"><ol>\n";
  for (std::size_t i = 0; i < answers.size(); ++i) {
    page += fmt::format("<li><a href=\"#q{}\" lang=\"\">{}</a>{}</li>\n", i + 1,
                        escaped(shortened(answers[i].question, kMost)),
                        answers[i].abstained ? " <span class=\"id\">no document answers</span>" : "");
  }
  page += "</ol></nav>\n";
}

std::set<int> deciding_contexts(const std::vector<Answer>& answers) {
  std::set<int> contexts;
  for (const Answer& answer : answers) {
    for (const Piece& piece : pieces_of(answer)) {
      if (piece.context >= 0) contexts.insert(piece.context);
    }
  }
  return contexts;
}

std::string page_of(const std::string& title, const std::vector<Answer>& answers) {
  const bool sources = std::any_of(answers.begin(), answers.end(), [](const Answer& a) { return !a.contexts.empty(); });
  std::string page = fmt::format(
      "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n"
      "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n"
      "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">\n"
      "<title>{}</title>\n<style>{}{}</style>\n</head>\n<body>\n<main>\n<header>\n<h1>{}</h1>\n<p "
      "class=\"lead\">{}</p>\n",
      escaped(title), kPageStyle, colour_rules(deciding_contexts(answers)), escaped(title),
      sources ? "Each token has the colour and number of the document that decided it; point at one for its source, "
                "entropy and probability."
              : "Point at a token for its entropy and probability.");
  if (answers.size() > 1) add_contents(page, answers);
  page += "</header>\n";
  for (std::size_t i = 0; i < answers.size(); ++i) add_section(page, answers[i], i + 1);
  return page += "</main>\n</body>\n</html>\n";
}

}  // namespace

void write_answers_html(const std::filesystem::path& file, const std::string& title,
                        const std::vector<Answer>& answers) {
  write_file_atomically(file, page_of(title, answers));
}

}  // namespace tuiqiao
