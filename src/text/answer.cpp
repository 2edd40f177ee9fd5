#include "tuiqiao/text/answer.h"

#include <fmt/format.h>

#include <array>
#include <cmath>
#include <nlohmann/json.hpp>

#include "bytes_text.h"
#include "text/utf8.h"

namespace tuiqiao {

namespace {

using Json = nlohmann::ordered_json;  // keys in the order written; numbers that are not finite become null

bool has_context(const Answer& answer, const AnswerToken& token) {
  return token.context >= 0 && static_cast<std::size_t>(token.context) < answer.contexts.size();
}

std::string text_of(const std::vector<AnswerToken>& tokens) {
  std::string bytes;
  for (const AnswerToken& token : tokens) bytes += token.bytes;
  return valid_utf8(bytes);
}

std::string printable_name(const AnswerContext& context) {
  constexpr std::size_t kMost = 80;  // characters of an id or a title
  std::string name = spelled_out(shortened(context.id, kMost), false);
  if (context.part > 0) name += fmt::format(", part {}", context.part);
  if (!context.title.empty() && context.title != context.id)
    name += ": " + spelled_out(shortened(context.title, kMost), false);
  return name;
}

Json context_json(std::size_t index, const AnswerContext& context, const ContextShare& share) {
  Json json;
  json["index"] = index;
  json["id"] = valid_utf8(context.id);
  json["title"] = valid_utf8(context.title);
  json["part"] = context.part;
  json["tokens"] = share.tokens;
  json["prompt_tokens"] = context.tokens;
  json["share"] = share.share;
  json["mean_entropy_nats"] = share.mean_entropy_nats;
  return json;
}

Json cache_json(const StateStore::Statistics& cache) {
  Json json;
  json["hits"] = cache.hits;
  json["misses"] = cache.misses;
  json["rejected"] = cache.rejected;
  json["evicted"] = cache.evicted;
  json["loaded_bytes"] = cache.loaded_bytes;
  json["saved_bytes"] = cache.saved_bytes;
  return json;
}

}  // namespace

std::vector<ContextShare> context_shares(const Answer& answer) {
  std::vector<ContextShare> shares(answer.contexts.size());
  for (const AnswerToken& token : answer.tokens) {
    if (!has_context(answer, token)) continue;
    ContextShare& share = shares[static_cast<std::size_t>(token.context)];
    ++share.tokens;
    share.mean_entropy_nats += token.entropy_nats;
  }
  for (ContextShare& share : shares) {
    if (share.tokens == 0) continue;
    share.share = static_cast<double>(share.tokens) / static_cast<double>(answer.tokens.size());
    share.mean_entropy_nats /= share.tokens;
  }
  return shares;
}

int count_switches(const Answer& answer) {
  int switches = 0;
  for (std::size_t i = 1; i < answer.tokens.size(); ++i) {
    if (answer.tokens[i].context != answer.tokens[i - 1].context) ++switches;
  }
  return switches;
}

std::string token_json(const Answer& answer, const AnswerToken& token, std::string& pending) {
  Json json;
  json["id"] = token.id;
  json["text"] = completed_characters(pending, token.bytes);
  json["bytes"] = Json::array();
  for (const char byte : token.bytes) json["bytes"].push_back(static_cast<unsigned char>(byte));
  json["logprob"] = token.logprob;
  json["context"] = nullptr;
  json["context_index"] = nullptr;
  if (has_context(answer, token)) {
    json["context_index"] = token.context;
    json["context"] = valid_utf8(answer.contexts[static_cast<std::size_t>(token.context)].id);
  }
  json["entropy_nats"] = token.entropy_nats;
  json["switched"] = token.switched;
  return json.dump();
}

namespace {

Json healing_json(const HealStatistics& healing, int back) {
  const auto number = [](double value) { return std::isfinite(value) ? Json(value) : Json(); };
  Json json;
  json["mode"] = name(healing.mode, back);
  json["tokens_removed"] = healing.tokens_removed;
  json["bytes"] = healing.bytes;
  json["branches"] = healing.branches;
  json["batches"] = healing.batches;
  json["chosen_split"] = healing.chosen_split;
  json["prefix_logprob"] = number(healing.prefix_logprob);
  json["unchecked_mass"] = healing.unchecked_mass;
  json["bits_saved"] = number(healing.bits_saved);
  json["tokenisations"] = healing.tokenisations;
  return json;
}

}  // namespace

std::string summary_json(const Answer& answer) {
  Json summary;
  summary["question"] = valid_utf8(answer.question);
  summary["prefix"] = valid_utf8(answer.prefix);
  summary["answer"] = text_of(answer.tokens);
  summary["tokens"] = answer.tokens.size();
  summary["finish"] = valid_utf8(answer.finish);
  summary["abstained"] = answer.abstained;
  summary["switches"] = count_switches(answer);
  const bool pooled = !answer.contexts.empty();
  summary["first_entropy_nats"] = pooled ? Json(answer.first_entropy_nats) : Json();
  summary["first_divergence_bits"] = pooled ? Json(answer.first_divergence_bits) : Json();
  summary["contexts"] = Json::array();
  const std::vector<ContextShare> shares = context_shares(answer);
  for (std::size_t i = 0; i < shares.size(); ++i) {
    summary["contexts"].push_back(context_json(i, answer.contexts[i], shares[i]));
  }
  summary["model"] = valid_utf8(answer.model);
  summary["pooling"] = valid_utf8(answer.pooling);
  summary["prefill_seconds"] = answer.prefill_seconds;
  summary["first_token_seconds"] = answer.first_token_seconds;
  summary["tokens_per_second"] = answer.tokens_per_second;
  summary["peak_rss_bytes"] = answer.peak_rss_bytes;
  summary["cache"] = answer.cache ? cache_json(*answer.cache) : Json();
  summary["healing"] = answer.healing ? healing_json(*answer.healing, answer.heal_back) : Json();
  Json json;
  json["summary"] = std::move(summary);
  return json.dump();
}

std::string cache_line(const StateStore::Statistics& cache) {
  return fmt::format("cache: {} loaded ({}), {} not there, {} damaged, {} evicted, {} saved\n", cache.hits,
                     bytes_text(static_cast<std::int64_t>(cache.loaded_bytes)), cache.misses, cache.rejected,
                     cache.evicted, bytes_text(static_cast<std::int64_t>(cache.saved_bytes)));
}

std::string terminal_colour(int context) {
  // Of the 6 x 6 x 6 cube, with a contrast of at least 3.3 on black and on white.
  constexpr std::array<int, 12> kColours{33, 166, 28, 163, 136, 30, 99, 160, 67, 64, 132, 94};
  if (context < 0) return "";
  return fmt::format("\x1b[38;5;{}m", kColours[static_cast<std::size_t>(context) % kColours.size()]);
}

std::string legend(const Answer& answer, bool colour) {
  if (answer.contexts.empty()) return "";
  std::string lines;
  const std::vector<ContextShare> shares = context_shares(answer);
  for (std::size_t i = 0; i < shares.size(); ++i) {
    if (shares[i].tokens == 0) continue;
    const std::string line = fmt::format("{:>4} {:<6} {:>3.0f} %  entropy {:.2f}  {}", shares[i].tokens,
                                         shares[i].tokens == 1 ? "token" : "tokens", 100 * shares[i].share,
                                         shares[i].mean_entropy_nats, printable_name(answer.contexts[i]));
    lines += colour ? terminal_colour(static_cast<int>(i)) + line + kTerminalReset + "\n" : line + "\n";
  }
  const int switches = count_switches(answer);
  return lines + fmt::format("{:>4} {}\n", switches, switches == 1 ? "switch" : "switches");
}

}  // namespace tuiqiao
