#include "tuiqiao/text/healing.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <functional>
#include <optional>
#include <random>
#include <stdexcept>
#include <utility>

#include "text/byte_tokenizer.h"
#include "text/choose_covering.h"
#include "text/covered_text.h"
#include "text/roll_back.h"
#include "tuiqiao/error.h"
#include "tuiqiao/text/generate.h"

namespace tuiqiao {

namespace {

constexpr double kNone = -std::numeric_limits<double>::infinity();

/// A uniform number in [0, 1), not one that generate draws from the same seed.
class Uniform {
 public:
  explicit Uniform(std::uint64_t seed) : random_(seed ^ 0x9E3779B97F4A7C15ULL) {}
  double operator()() { return static_cast<double>(random_() >> 11) * 0x1p-53; }

 private:
  std::mt19937_64 random_;
};

/// Tokens and bytes that are left of a result if it goes on after the prompt as it is.
void leave_as_is(CoveredText& text, HealResult& result) {
  result.tokens.assign(text.rest().begin(), text.rest().end());
  if (result.tokens.empty()) throw Error("the model gives no continuation of the prompt any probability");
  result.statistics.chosen_split = static_cast<std::int64_t>(text.size() - text.coverings().lead());
}

HealResult heal_exactly(Decoder& decoder, Branch branch, std::span<const Token> before, std::string_view bytes,
                        const HealOptions& options) {
  Coverings coverings(decoder.vocabulary(), bytes, options.covers);
  Trunk trunk(decoder, branch, options.max_forks);
  CoveredText text(
      trunk, before, coverings,
      {.keep = options.keep_first ? 1U : 0U, .spare = static_cast<std::size_t>(options.spare_tokens), .room = 1});
  HealResult result;
  HealStatistics& s = result.statistics;
  s.branches = static_cast<int>(text.prefixes().size());

  const TextMass mass = mass_of(text, options.unchecked);
  s.prefix_logprob = mass.logprob;
  s.unchecked_mass = mass.unchecked;
  double naive = kNone;
  for (const Weighed& prefix : text.prefixes()) {
    if (std::equal(prefix.tail.begin(), prefix.tail.end(), text.rest().begin(), text.rest().end()))
      naive = prefix.logprob;
  }
  s.bits_saved = std::max(0.0, (mass.logprob - naive) / std::log(2.0));

  Uniform uniform(options.seed);
  const std::optional<Covering> chosen = options.temperature > 0
                                             ? draw_covering(text, options.temperature, std::ref(uniform))
                                             : follow_text(text, options.unchecked);
  if (chosen) {
    result.tokens = chosen->prefix;
    result.ended = !chosen->token;
    result.logprob = std::min(0.0, chosen->logprob - mass.logprob);
    if (chosen->token) {
      result.tokens.push_back(*chosen->token);
      result.bytes = decoder.vocabulary().bytes(*chosen->token).substr(text.size() - chosen->at);
    }
    const auto kept =
        std::mismatch(chosen->prefix.begin(), chosen->prefix.end(), text.rest().begin(), text.rest().end());
    s.tokens_removed = static_cast<int>(text.rest().end() - kept.second);
    s.chosen_split = static_cast<std::int64_t>(chosen->at) - static_cast<std::int64_t>(coverings.lead());
    s.chosen_split = std::max<std::int64_t>(0, s.chosen_split);
    s.bytes = static_cast<int>(static_cast<std::int64_t>(bytes.size()) - s.chosen_split);
  } else {
    leave_as_is(text, result);
  }
  s.batches = trunk.batches();
  s.tokenisations = coverings.tokenisations();
  return result;
}

/// Drops tokens and constrains the next ones until their bytes are spelled; `parts`: also by tokens that spell a part.
HealResult heal_back(Decoder& decoder, Branch branch, std::span<const Token> before, std::string_view bytes,
                     const HealOptions& options) {
  const Vocabulary& vocabulary = decoder.vocabulary();
  ByteTokenizer tokenizer(vocabulary);
  const bool bare = options.keep_first || (before.empty() && decoder.length(branch) == 0);
  const RolledBack back = roll_back(tokenizer, bytes, options, bare);
  HealResult result;
  HealStatistics& s = result.statistics;
  s.chosen_split = static_cast<std::int64_t>(bytes.size());

  std::vector<Token> certain(before.begin(), before.end());
  certain.insert(certain.end(), back.kept.begin(), back.kept.end());
  std::vector<Token> unhealed = back.dropped;
  std::string left = back.bytes;
  if (unhealed.empty()) {
    result.tokens = certain;
    s.tokenisations = tokenizer.calls();
    return result;
  }
  Uniform uniform(options.seed);
  if (!certain.empty()) decoder.extend({branch, certain, Rows::last});
  std::vector<Token> next;  // to append
  while (true) {
    if (!next.empty()) {
      decoder.extend({branch, next, Rows::last});
      ++s.batches;
    }
    const Row row = decoder.row(branch);
    const auto range = vocabulary.trie().starting_with(left);
    std::vector<Token> allowed(range.begin(), range.end());
    if (options.mode == HealMode::back) {
      for (const Token t : vocabulary.trie().prefixes_of(left)) {
        if (vocabulary.bytes(t).size() < left.size()) allowed.push_back(t);
      }
    }
    std::erase_if(allowed, [&](Token t) { return vocabulary.ends(t); });
    std::sort(allowed.begin(), allowed.end());
    std::vector<float> scores;
    for (const Token t : allowed) scores.push_back(row.scores[static_cast<std::size_t>(t)]);
    double total = 0;
    for (const Token t : allowed) total += std::exp(row[t]);
    if (!(total > 0)) {  // nothing that spells it has any probability: as without healing
      result.tokens = unhealed;
      break;
    }
    const Token token =
        allowed[static_cast<std::size_t>(choose(Row{scores, row.log_total}, options.temperature, uniform()))];
    result.logprob += row[token] - std::log(total);
    const std::string_view spelled = vocabulary.bytes(token);
    if (spelled.size() >= left.size()) {
      s.bytes = static_cast<int>(std::min(bytes.size(), back.bytes.size()));
      s.chosen_split = static_cast<std::int64_t>(bytes.size() - std::min(bytes.size(), left.size()));
      s.tokens_removed = static_cast<int>(back.dropped.size());
      result.tokens = {token};
      result.bytes = spelled.substr(left.size());
      break;
    }
    left.erase(0, spelled.size());
    next = {token};
    unhealed = tokenizer.spell(left);
  }
  s.tokenisations = tokenizer.calls();
  return result;
}

}  // namespace

HealMode heal_mode_from_name(std::string_view name, int& back) {
  if (name == "off") return HealMode::off;
  if (name == "one") return HealMode::one;
  if (name == "exact") return HealMode::exact;
  if (name.starts_with("back=")) {
    name.remove_prefix(5);
    int number = 0;
    const auto [end, error] = std::from_chars(name.data(), name.data() + name.size(), number);
    if (error == std::errc() && end == name.data() + name.size() && number >= 1) {
      back = number;
      return HealMode::back;
    }
    throw std::invalid_argument(fmt::format("[heal_mode_from_name] back={}: N is a whole number of at least 1", name));
  }
  throw std::invalid_argument(
      fmt::format("[heal_mode_from_name] no way to heal is called '{}': off, one, back=N, exact", name));
}

std::string name(HealMode mode, int back) {
  switch (mode) {
    case HealMode::off:
      return "off";
    case HealMode::one:
      return "one";
    case HealMode::back:
      return fmt::format("back={}", back);
    case HealMode::exact:
      return "exact";
  }
  return "";
}

void check_options(const HealOptions& options) {
  const auto require = [](bool ok, std::string_view field, auto value, std::string_view domain) {
    if (!ok) throw std::invalid_argument(fmt::format("[heal] {} = {} {}", field, value, domain));
  };
  require(options.back >= 1, "back", options.back, "is not at least 1");
  require(options.temperature >= 0 && std::isfinite(options.temperature), "temperature", options.temperature,
          "is not a finite number of at least 0");
  require(options.unchecked >= 0 && options.unchecked < 1, "unchecked", options.unchecked, "outside [0, 1)");
  require(options.max_forks >= 0, "max_forks", options.max_forks, "is below 0");
  require(options.spare_tokens >= 0, "spare_tokens", options.spare_tokens, "is below 0");
  require(options.most_sequences >= 1, "most_sequences", options.most_sequences, "is not at least 1");
}

HealResult heal(Decoder& decoder, Branch branch, std::span<const Token> before, std::string_view text,
                const HealOptions& options) {
  check_options(options);
  HealResult result;
  const Vocabulary& vocabulary = decoder.vocabulary();
  if (text.empty() || (options.mode == HealMode::off && vocabulary.tokenization() == Tokenization::normalises)) {
    result.tokens.assign(before.begin(), before.end());
    const std::vector<Token> tokens = vocabulary.tokenize(text);
    result.tokens.insert(result.tokens.end(), tokens.begin(), tokens.end());
    result.statistics.chosen_split = static_cast<std::int64_t>(text.size());
  } else if (options.mode == HealMode::exact) {
    result = heal_exactly(decoder, branch, before, text, options);
  } else {
    result = heal_back(decoder, branch, before, text, options);
  }
  result.statistics.mode = options.mode;
  return result;
}

}  // namespace tuiqiao
