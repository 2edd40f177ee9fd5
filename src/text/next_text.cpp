#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <set>
#include <stdexcept>
#include <utility>

#include "text/byte_tokenizer.h"
#include "text/covered_text.h"
#include "text/roll_back.h"
#include "text/utf8.h"
#include "tuiqiao/error.h"
#include "tuiqiao/text/healing.h"

// What follows a text that may end anywhere, and how probable it is.

namespace tuiqiao {

namespace {

constexpr double kNever = -std::numeric_limits<double>::infinity();

/// The logarithm of e^a + e^b.
double log_sum(double a, double b) {
  if (a < b) std::swap(a, b);
  return b == kNever ? a : a + std::log1p(std::exp(b - a));
}

/// All that may come after a text, looked at as far as `unchecked` asks for.
struct Following {
  Candidates candidates;
  double end = 0;  // weight of the text's end

  double total() const { return candidates.total + end; }
  double unchecked_share() const { return total() > 0 ? candidates.unchecked / total() : 0; }
};

Following following(CoveredText& text, double unchecked) {
  Following all;
  const double reference = reference_of(text);
  for (const Weighed& prefix : text.prefixes()) {
    if (text.spells_all(prefix)) all.end += std::exp(text.end_after(prefix) - reference);
  }
  all.candidates = check_heaviest(text, unchecked, reference, all.end, [](const Weighed&) { return true; });
  return all;
}

/// A CoveredText and what it needs.
struct Reader {
  Coverings coverings;
  Trunk trunk;
  CoveredText text;

  Reader(Decoder& decoder, Branch branch, std::span<const Token> before, std::string_view bytes,
         const HealOptions& options, bool count = false, std::size_t skip = 0)
      : coverings(decoder.vocabulary(), bytes, options.covers),
        trunk(decoder, branch, options.max_forks),
        text(trunk, before, coverings, {.skip = skip, .keep = options.keep_first ? 1U : 0U, .count = count}) {
    if (!text.complete())
      throw Error(fmt::format("a window of {} tokens is too small for all ways to spell the text", decoder.window()));
  }

  std::string_view beyond(const Candidate& c) const {
    return text.vocabulary().bytes(c.token).substr(text.size() - text.prefixes()[c.prefix].at);
  }
};

/// Weights as probabilities, most probable first; `unchecked` is a part of `total`.
Continuations sorted(const std::map<std::string, double>& weights, double total, double unchecked) {
  Continuations all;
  for (const auto& [bytes, weight] : weights) {
    if (weight > 0) all.ways.push_back({bytes, weight / total});
  }
  std::stable_sort(all.ways.begin(), all.ways.end(),
                   [](const auto& a, const auto& b) { return a.probability > b.probability; });
  all.unchecked_mass = total > 0 ? unchecked / total : 0;
  return all;
}

/// The bytes that complete the first character after a text that ended with `begun`; nothing if `bytes` do not reach
/// its end.
std::string completing(std::string begun, std::string_view bytes) {
  const std::size_t before = begun.size();
  begun += bytes;
  const Utf8Character c = first_character(begun);
  if (c.state == Utf8Character::State::unfinished) return "";
  return begun.substr(before, std::max(c.bytes, before + 1) - before);
}

TextScore bounds_of(const TextMass& mass) { return {mass.logprob + std::log1p(-mass.unchecked), mass.logprob}; }

}  // namespace

NextBytes next_bytes(Decoder& decoder, Branch branch, std::span<const Token> before, std::string_view text,
                     const HealOptions& options) {
  check_options(options);
  Reader reader(decoder, branch, before, text, options);
  const Following all = following(reader.text, options.unchecked);
  NextBytes next;
  if (!(all.total() > 0)) return next;
  std::set<std::pair<std::size_t, Token>> wrong;
  for (const Candidate& c : all.candidates.wrong) wrong.insert({c.prefix, c.token});
  double total = all.end, mass = 0;  // mass: of the text, as score_text has it
  for (std::size_t i = 0; i < reader.text.prefixes().size(); ++i) {
    const Weighed& prefix = reader.text.prefixes()[i];
    const bool ends = prefix.at == reader.text.size();
    if (ends) mass += std::exp(prefix.logprob - all.candidates.reference);
    for (const Token token : reader.text.candidates(prefix)) {
      if (decoder.vocabulary().ends(token) || wrong.contains({i, token})) continue;
      const double weight = std::exp(prefix.with(token) - all.candidates.reference);
      total += weight;
      mass += ends ? 0 : weight;
      next.probability[static_cast<unsigned char>(reader.beyond({weight, i, token}).front())] += weight;
    }
  }
  for (double& p : next.probability) p /= total;
  next.end = all.end / total;
  next.unchecked_mass = all.unchecked_share();
  next.stray_mass = mass > 0 ? std::clamp(1 - total / mass, 0.0, 1.0) : 0;
  return next;
}

Continuations completions(Decoder& decoder, Branch branch, std::span<const Token> before, std::string_view text,
                          int count, const HealOptions& options) {
  check_options(options);
  if (count < 0) throw std::invalid_argument("[completions] count is below 0");
  Reader reader(decoder, branch, before, text, options);
  const Following all = following(reader.text, options.unchecked);
  std::map<std::string, double> weights;
  for (const Candidate& c : all.candidates.canonical) weights[std::string(reader.beyond(c))] += c.weight;
  Continuations found = sorted(weights, all.total(), all.candidates.unchecked);
  if (found.ways.size() > static_cast<std::size_t>(count)) found.ways.resize(static_cast<std::size_t>(count));
  return found;
}

Continuations next_characters(Decoder& decoder, Branch branch, std::span<const Token> before, std::string_view text,
                              const HealOptions& options) {
  check_options(options);
  Reader reader(decoder, branch, before, text, options);
  const Following all = following(reader.text, options.unchecked);
  std::map<std::string, double> weights;
  if (all.end > 0) weights[""] = all.end;
  const std::string begun(text.substr(text.size() - unfinished_bytes(text)));
  double open = all.candidates.unchecked;

  // Tokens that end inside the character are read on, until all do not.
  struct Part {
    std::vector<Token> tail;
    std::string bytes;
    double logprob = 0;
  };
  std::vector<Part> parts;
  const double reference = all.candidates.reference;
  const double least = options.unchecked * (all.total() - all.candidates.unchecked) / 1000;
  const auto add = [&](const Weighed& prefix, Token token, const std::string& bytes, double logprob) {
    const double weight = std::exp(logprob - reference);
    const std::string character = completing(begun, bytes);
    if (!character.empty()) {
      weights[character] += weight;
    } else if (weight > least && reader.trunk.fits(prefix.tail.size() + 1)) {
      Part& part = parts.emplace_back(Part{prefix.tail, bytes, logprob});
      part.tail.push_back(token);
    } else {
      open += weight;
    }
  };
  for (const Candidate& c : all.candidates.canonical) {
    const Weighed& prefix = reader.text.prefixes()[c.prefix];
    add(prefix, c.token, std::string(reader.beyond(c)), prefix.with(c.token));
  }
  while (!parts.empty()) {
    const std::vector<Part> unfinished = std::exchange(parts, {});
    std::vector<std::vector<Token>> tails;
    for (const Part& part : unfinished) tails.push_back(part.tail);
    const std::vector<Weighed> read = reader.trunk.weigh(tails);
    for (std::size_t i = 0; i < read.size(); ++i) {
      const double whole = std::exp(read[i].logprob - reference);
      double seen = 0;
      for (const Token token : reader.text.vocabulary().trie().starting_with("")) {
        const std::string_view bytes = reader.text.vocabulary().bytes(token);
        if ((static_cast<unsigned char>(bytes.front()) & 0xC0U) != 0x80) continue;  // completes nothing
        const double logprob = read[i].with(token), weight = std::exp(logprob - reference);
        if (!(weight > least) && options.unchecked > 0) continue;
        if (!(weight > 0) || !reader.text.canonical(read[i], token)) continue;
        seen += weight;
        add(read[i], token, unfinished[i].bytes + std::string(bytes), logprob);
      }
      open += std::max(0.0, whole - seen);
    }
  }
  if (options.unchecked == 0) open = 0;
  double total = open;
  for (const auto& [bytes, weight] : weights) total += weight;
  return sorted(weights, total, open);
}

TextScore score_text(Decoder& decoder, Branch branch, std::span<const Token> before, std::string_view text,
                     const HealOptions& options) {
  check_options(options);
  if (text.empty()) return {0, 0};
  Reader reader(decoder, branch, before, text, options, true);
  return bounds_of(mass_of(reader.text, options.unchecked));
}

namespace {

/// P(both) / P(prompt).
TextScore score_exactly(Decoder& decoder, Branch branch, std::span<const Token> before, std::string_view prompt,
                        const std::string& both, const HealOptions& options) {
  if (prompt.empty()) return score_text(decoder, branch, before, both, options);
  std::size_t skip = 0;
  {
    const Coverings first(decoder.vocabulary(), prompt, options.covers);
    const Coverings second(decoder.vocabulary(), both, options.covers);
    const auto a = first.trunk(), b = second.trunk();
    const auto common =
        static_cast<std::size_t>(std::mismatch(a.begin(), a.end(), b.begin(), b.end()).first - a.begin());
    if (before.empty() && decoder.length(branch) == 0 && first.tokens().front() != second.tokens().front())
      throw Error("nothing comes before the prompt, and its first token is another without the continuation");
    skip = common - std::min<std::size_t>(common, 2);  // each reads on, and so gets a row
    std::vector<Token> certain(before.begin(), before.end());
    certain.insert(certain.end(), a.begin(), a.begin() + static_cast<std::ptrdiff_t>(skip));
    if (skip > 0) decoder.extend({branch, certain, Rows::none});
  }
  const auto read = [&](std::string_view text) {
    const Branch fork = decoder.fork(branch);
    HealOptions with = options;
    with.max_forks = (options.max_forks > 0 ? options.max_forks : decoder.max_branches() - 1) - 1;
    if (with.max_forks < 1)
      throw std::invalid_argument("[score_continuation] the decoder keeps less than three branches");
    try {
      Reader reader(decoder, fork, skip > 0 ? std::span<const Token>() : before, text, with, true, skip);
      // Both masses have their bound: the quotient has that of both together.
      const TextScore bounds = bounds_of(mass_of(reader.text, options.unchecked / 2));
      decoder.close(fork);
      return bounds;
    } catch (...) {
      decoder.close(fork);
      throw;
    }
  };
  const TextScore x = read(prompt), xy = read(both);
  if (!std::isfinite(x.upper) || !std::isfinite(xy.upper)) return {kNever, kNever};
  return {xy.lower - x.upper, std::min(0.0, xy.upper - x.lower)};
}

constexpr std::size_t kTogether = 8;  // token sequences that are gone on from in one batch
constexpr double kNatsPerByte = 2;    // more than most texts need: what has spelled more of a target comes first

/// A token sequence that spells the beginning of a target.
struct Begun {
  std::vector<Token> tail;
  std::size_t spelled = 0;
  double logprob = 0;
};

/// Sums over the token sequences that spell `target`, of which the first `forced` bytes were dropped from the prompt:
/// until they are spelled only tokens count that agree with them, renormalised. `parts` as in heal_back.
TextScore sum_over_sequences(Trunk& trunk, const std::string& target, std::size_t forced, bool parts, double unchecked,
                             int most, const std::stop_token& stop) {
  const Vocabulary& vocabulary = trunk.decoder().vocabulary();
  std::vector<Begun> open{{}};
  double found = kNever, given_up = kNever;  // logarithms: long continuations have probabilities that no double has
  // One way to the end first; then the heaviest, which leaves least between the bounds.
  const auto priority = [&](const Begun& b) {
    return found > kNever ? b.logprob : b.logprob + kNatsPerByte * static_cast<double>(b.spelled);
  };
  const auto open_mass = [&] {
    double sum = given_up;
    for (const Begun& b : open) sum = log_sum(sum, b.logprob);
    return sum;
  };
  const auto limit = static_cast<std::size_t>(most);
  for (std::size_t expanded = 0; !open.empty() && expanded < limit && open_mass() > std::log(unchecked) + found;) {
    if (stop.stop_requested()) throw Interrupted();
    std::stable_sort(open.begin(), open.end(),
                     [&](const Begun& a, const Begun& b) { return priority(a) > priority(b); });
    const std::size_t count = std::min({open.size(), kTogether, limit - expanded});
    const std::vector<Begun> now(open.begin(), open.begin() + static_cast<std::ptrdiff_t>(count));
    open.erase(open.begin(), open.begin() + static_cast<std::ptrdiff_t>(count));
    expanded += count;
    std::vector<std::vector<Token>> tails;
    for (const Begun& b : now) tails.push_back(b.tail);
    const std::vector<Weighed> read = trunk.rows_after(std::move(tails));
    for (std::size_t i = 0; i < now.size(); ++i) {
      const Begun& b = now[i];
      const auto logprob = [&](Token t) { return vocabulary.ends(t) ? kNever : read[i].with(t); };
      const std::string_view rest = std::string_view(target).substr(b.spelled);
      const std::size_t must =
          forced > b.spelled ? forced - b.spelled : 0;  // bytes that the next token must agree with
      double allowed = 0;
      if (must > 0) {
        allowed = kNever;
        for (const Token t : vocabulary.trie().starting_with(rest.substr(0, must)))
          allowed = log_sum(allowed, logprob(t));
        if (parts) {
          for (const Token t : vocabulary.trie().prefixes_of(rest.substr(0, must))) {
            if (vocabulary.bytes(t).size() < must) allowed = log_sum(allowed, logprob(t));
          }
        }
        if (allowed == kNever) {
          given_up = log_sum(given_up, b.logprob);
          continue;
        }
      }
      for (const Token t : vocabulary.trie().starting_with(rest))
        found = log_sum(found, b.logprob + logprob(t) - allowed);
      for (const Token t : vocabulary.trie().prefixes_of(rest)) {
        const std::size_t bytes = vocabulary.bytes(t).size();
        if (bytes == rest.size() || (bytes < must && !parts) || logprob(t) == kNever) continue;
        Begun next{b.tail, b.spelled + bytes, b.logprob + logprob(t) - allowed};
        next.tail.push_back(t);
        if (trunk.fits(next.tail.size())) {
          open.push_back(std::move(next));
        } else {
          given_up = log_sum(given_up, next.logprob);
        }
      }
    }
  }
  return {std::min(0.0, found), std::min(0.0, log_sum(found, open_mass()))};
}

}  // namespace

TextScore score_continuation(Decoder& decoder, Branch branch, std::span<const Token> before, std::string_view prompt,
                             std::string_view continuation, const HealOptions& options) {
  check_options(options);
  if (continuation.empty()) return {0, 0};
  if (options.mode == HealMode::exact)
    return score_exactly(decoder, branch, before, prompt, std::string(prompt).append(continuation), options);

  ByteTokenizer tokenizer(decoder.vocabulary());
  const bool bare = options.keep_first || (before.empty() && decoder.length(branch) == 0);
  const RolledBack back = roll_back(tokenizer, prompt, options, bare);
  std::vector<Token> certain(before.begin(), before.end());
  certain.insert(certain.end(), back.kept.begin(), back.kept.end());
  Trunk trunk(decoder, branch, options.max_forks);
  trunk.grow(certain);
  return sum_over_sequences(trunk, std::string(back.bytes).append(continuation), back.bytes.size(),
                            options.mode == HealMode::back, options.unchecked, options.most_sequences, options.stop);
}

}  // namespace tuiqiao
