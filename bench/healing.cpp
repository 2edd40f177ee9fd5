// What healing is worth and what it costs. Real texts are cut at random bytes: bits of what comes next for each way to
// go on, beside cuts at token ends. Then the time to the first token with `exact` over that with `off`.
#include <fmt/format.h>
#define XXH_INLINE_ALL
#include <xxhash.h>

#include <array>
#include <chrono>
#include <cmath>
#include <filesystem>
#include <fstream>

#include "file_output.h"
#include "fixed_shape.h"
#include "healing_cuts.h"
#include "healing_tables.h"
#include "text/utf8.h"
#include "timing.h"
#include "tuiqiao/text/generate.h"
#include "tuiqiao/text/healing.h"

namespace {

using namespace tuiqiao;
using bench::Cut;
using bench::FixedShape;
using bench::Place;
using nlohmann::json;

constexpr int kMostExpanded = 64;  // that a score goes on from
constexpr double kOpen = 0.05;     // of what it found, else: 0.07 bits
constexpr int kRounds = 41;
constexpr std::size_t kPromptTokens = 512;

struct Settings {
  std::string model, documents, sources, out;
  int cuts = 110;  // a language
  int threads = 0;
};

std::vector<Token> beginning(const Vocabulary& vocabulary) {
  return vocabulary.begin() ? std::vector<Token>{*vocabulary.begin()} : std::vector<Token>();
}

HealOptions with_mode(const std::string& mode) {
  HealOptions options;
  options.mode = heal_mode_from_name(mode, options.back);
  options.max_forks = FixedShape::kBranches - 4;
  options.most_sequences = kMostExpanded;
  if (options.mode != HealMode::exact) options.unchecked = kOpen;
  return options;
}

json score(FixedShape& decoder, const Cut& cut, const std::string& mode) {
  const Branch branch = decoder.open();
  const auto start = std::chrono::steady_clock::now();
  const TextScore score =
      score_continuation(decoder, branch, beginning(decoder.vocabulary()), cut.prompt, cut.next, with_mode(mode));
  decoder.close(branch);
  // JSON has no infinity: null.
  return {{"lower", score.lower},
          {"upper", score.upper},
          {"seconds", std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count()}};
}

json healing_of(FixedShape& decoder, const std::string& prompt) {
  const Branch branch = decoder.open();
  const HealResult result = heal(decoder, branch, beginning(decoder.vocabulary()), prompt, with_mode("exact"));
  decoder.close(branch);
  std::size_t characters = 0;
  for_each_character(result.bytes, [&](char32_t, std::string_view) { ++characters; });
  const HealStatistics& s = result.statistics;
  return {{"tokenisations", s.tokenisations},   {"branches", s.branches},     {"batches", s.batches},
          {"tokens_removed", s.tokens_removed}, {"bits_saved", s.bits_saved}, {"characters_gained", characters}};
}

json results_at(FixedShape& decoder, const Place& place) {
  json result = {{"anywhere", json::object()}, {"token_end", json::object()}};
  for (const std::string& mode : bench::healing_modes())
    result["anywhere"][mode] = score(decoder, place.anywhere, mode);
  result["token_end"]["off"] = score(decoder, place.token_end, "off");
  result["healing"] = healing_of(decoder, place.anywhere.prompt);
  result["at_token_end"] = place.anywhere.prompt == place.token_end.prompt;
  decoder.forget();
  return result;
}

/// A token's row must be the same whatever it is evaluated with.
void check_shape(FixedShape& decoder, const std::string& text) {
  const std::vector<Token> tokens = decoder.vocabulary().tokenize(text);
  const std::span<const Token> start = std::span(tokens).first(40);
  std::vector<std::vector<float>> rows;  // of the same text, by itself and among others
  for (const std::size_t among : {0, 3}) {
    const Branch branch = decoder.open();
    decoder.extend({branch, start, Rows::last});
    std::vector<Branch> forks;
    std::vector<Extension> extensions;
    for (std::size_t i = 0; i <= 2 * among; ++i) {
      forks.push_back(decoder.fork(branch));
      const bool same = i == among;
      extensions.push_back(
          {forks.back(), std::span(tokens).subspan(same ? 40 : 60 + i, 3), same ? Rows::last : Rows::all});
    }
    decoder.extend(extensions);
    const Row row = decoder.row(forks[among]);
    rows.emplace_back(row.scores.begin(), row.scores.end());
    for (const Branch fork : forks) decoder.close(fork);
    decoder.close(branch);
    decoder.forget();
  }
  if (rows[0] != rows[1]) throw std::runtime_error("a row depends on what it is evaluated with");
}

void run_cuts(const LlamaModel& model, const Settings& settings, const std::vector<bench::Corpus>& corpora,
              json& results) {
  std::vector<std::vector<Place>> places;
  std::size_t longest = 0;
  for (const bench::Corpus& corpus : corpora) {
    places.push_back(bench::draw_places(corpus, model.vocabulary(), settings.cuts));
    for (const Place& place : places.back()) {
      longest = std::max(longest, model.vocabulary().tokenize(valid_utf8(place.anywhere.prompt)).size());
    }
  }
  FixedShape decoder(model, static_cast<int>(longest) + 64, settings.threads);
  check_shape(decoder, corpora.front().texts.front());

  json& cuts = results["cuts"];  // by language and number: those of an earlier run are kept
  const std::size_t total = corpora.size() * static_cast<std::size_t>(settings.cuts), before = cuts.size();
  const auto start = std::chrono::steady_clock::now();
  double told = 0;
  for (std::size_t i = 0; i < total; ++i) {  // languages in turn
    const std::size_t language = i % corpora.size(), number = i / corpora.size();
    const std::string name = fmt::format("{} {}", corpora[language].language, number);
    if (cuts.contains(name)) continue;
    json result = results_at(decoder, places[language][number]);
    result["language"] = corpora[language].language;
    cuts[name] = std::move(result);
    write_file_atomically(settings.out, results.dump(1) + "\n");
    const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    if (seconds - told < 30 && cuts.size() < total) continue;
    told = seconds;
    const double left = seconds / static_cast<double>(cuts.size() - before) * static_cast<double>(total - cuts.size());
    fmt::print(stderr, "cuts: {}/{}, {:.0f} s, about {:.0f} s left\n", cuts.size(), total, seconds, left);
  }
}

/// Prompts of kPromptTokens with the begin token, cut wherever that many bytes end.
std::vector<std::string> long_prompts(const Vocabulary& vocabulary, const bench::Corpus& corpus, int count) {
  std::string text;
  for (const std::string& one : corpus.texts) text += one;
  const std::vector<Token> tokens = vocabulary.tokenize(text);
  std::mt19937_64 random(5);
  std::vector<std::string> prompts;
  for (int i = 0; i < count; ++i) {
    const std::size_t from = random() % (tokens.size() - 2 * kPromptTokens);
    std::string prompt = vocabulary.detokenize(std::span(tokens).subspan(from, 2 * kPromptTokens));
    std::size_t first = 0;
    while ((static_cast<unsigned char>(prompt[first]) & 0xC0U) == 0x80) ++first;
    prompt.erase(0, first);
    std::size_t low = 1, high = prompt.size();
    while (low < high) {
      const std::size_t middle = (low + high + 1) / 2;
      const std::size_t size = vocabulary.tokenize(valid_utf8(prompt.substr(0, middle))).size();
      (size + beginning(vocabulary).size() <= kPromptTokens ? low : high) =
          size + beginning(vocabulary).size() <= kPromptTokens ? middle : middle - 1;
    }
    prompts.push_back(prompt.substr(0, low));
  }
  return prompts;
}

/// A way to the first token: what it took.
struct FirstTokens {
  const char* name;
  const char* mode;
  double temperature;
  std::vector<double> seconds = {}, ratio = {}, batches = {}, branches = {},
                      tokenisations = {};  ///< ratio: to the first way's

  void take(LlamaDecoder& decoder, const std::string& prompt) {
    HealOptions options = with_mode(mode);
    options.max_forks = 0;
    options.temperature = temperature;
    const Branch branch = decoder.open();
    HealResult result;
    seconds.push_back(bench::seconds_of([&] {
      result = heal(decoder, branch, beginning(decoder.vocabulary()), prompt, options);
      if (options.mode != HealMode::off && !result.bytes.empty()) return;
      decoder.extend({branch, result.tokens, Rows::last});
      choose(decoder.row(branch), temperature, 0.5);
    }));
    decoder.close(branch);
    batches.push_back(result.statistics.batches);
    branches.push_back(result.statistics.branches);
    tokenisations.push_back(static_cast<double>(result.statistics.tokenisations));
  }
};

/// Time to the first token after a prompt of kPromptTokens, unhealed and healed in turn.
json run_cost(const LlamaModel& model, const Settings& settings, const std::vector<bench::Corpus>& corpora) {
  LlamaDecoderOptions with;
  with.max_branches = 64;
  with.window = kPromptTokens + 64;
  with.cells = std::int64_t{with.window} * 40;
  with.threads = settings.threads;
  LlamaDecoder decoder(model, with);
  json all = json::array();
  fmt::print("\nTime to the first token after a prompt of {} tokens, {} rounds in turn, median [least, most]\n",
             kPromptTokens, kRounds);
  const auto shown = [](const std::vector<double>& values, int digits) {
    const bench::Spread s = bench::Spread::of(values);
    return fmt::format("{:.{}f} [{:.{}f}, {:.{}f}]", s.median, digits, s.least, digits, s.most, digits);
  };
  for (const bench::Corpus& corpus : corpora) {
    std::array<FirstTokens, 3> ways{{{"off", "off", 0}, {"exact, greedy", "exact", 0}, {"exact, drawn", "exact", 1}}};
    const std::vector<std::string> prompts = long_prompts(model.vocabulary(), corpus, kRounds);
    for (FirstTokens way : ways) way.take(decoder, prompts.front());  // warms up
    for (const std::string& prompt : prompts) {
      for (FirstTokens& way : ways) {
        way.take(decoder, prompt);
        way.ratio.push_back(way.seconds.back() / ways.front().seconds.back());
      }
    }
    for (const FirstTokens& way : ways) {
      fmt::print("{:8} {:14} {} s, over off {}; extra batches {}, prefixes {}, tokenisations {}\n", corpus.language,
                 way.name, shown(way.seconds, 3), shown(way.ratio, 3), shown(way.batches, 0), shown(way.branches, 0),
                 shown(way.tokenisations, 0));
      all.push_back({{"language", corpus.language},
                     {"way", way.name},
                     {"seconds", bench::Spread::of(way.seconds).json()},
                     {"ratio", bench::Spread::of(way.ratio).json()},
                     {"batches", bench::Spread::of(way.batches).json()},
                     {"branches", bench::Spread::of(way.branches).json()},
                     {"tokenisations", bench::Spread::of(way.tokenisations).json()}});
    }
  }
  return all;
}

json run_trie(const LlamaModel& model) {
  const Vocabulary& vocabulary = model.vocabulary();
  std::vector<std::string> bytes;
  std::vector<TokenKind> kinds;
  for (Token t = 0; t < vocabulary.size(); ++t) {
    bytes.emplace_back(vocabulary.bytes(t));
    kinds.push_back(vocabulary.kind(t));
  }
  std::vector<double> seconds;
  for (int i = 0; i < 9; ++i) {
    std::size_t size = 0;
    seconds.push_back(bench::seconds_of([&] { size = ByteTrie(bytes, kinds).starting_with("").size(); }));
    if (size == 0) throw std::runtime_error("an empty trie");
  }
  const auto spread = bench::Spread::of(seconds);
  fmt::print("\nThe trie of V = {}, built once a model: {:.3f} s [{:.3f}, {:.3f}]\n", vocabulary.size(), spread.median,
             spread.least, spread.most);
  return {{"vocabulary", vocabulary.size()}, {"seconds", spread.json()}};
}

int run(const Settings& settings) {
  const LlamaModel model(settings.model);
  const std::vector<bench::Corpus> corpora = bench::read_corpora(settings.documents, settings.sources);
  std::string everything;
  std::vector<std::string> languages;
  for (const bench::Corpus& corpus : corpora) {
    languages.push_back(corpus.language);
    std::size_t bytes = 0;
    for (const std::string& text : corpus.texts) {
      everything += text;
      bytes += text.size();
    }
    const auto tokens = std::accumulate(
        corpus.texts.begin(), corpus.texts.end(), std::size_t{0},
        [&](std::size_t sum, const std::string& text) { return sum + model.vocabulary().tokenize(text).size(); });
    fmt::print("{}: {} texts, {} bytes, {:.2f} bytes a token\n", corpus.language, corpus.texts.size(), bytes,
               static_cast<double>(bytes) / static_cast<double>(tokens));
  }
  const json head = {{"model", model.description()},
                     {"cuts_a_language", settings.cuts},
                     {"context_bytes", bench::kContextBytes},
                     {"batch_tokens", FixedShape::kTokens},
                     {"texts_xxh3", fmt::format("{:016x}", XXH3_64bits(everything.data(), everything.size()))}};
  json results = {{"settings", head}, {"cuts", json::object()}};
  if (std::ifstream in(settings.out); in) {
    const json earlier = json::parse(in, nullptr, false);
    if (earlier.is_object() && earlier.value("settings", json()) == head) results = earlier;
  }
  fmt::print("{}, texts {}\n", model.description(), head["texts_xxh3"].get<std::string>());
  const std::string chart = std::filesystem::path(settings.out).replace_extension(".svg").string();
  if (settings.cuts > 0) {
    run_cuts(model, settings, corpora, results);
    const std::vector<bench::Results> all = bench::results_of(languages, results["cuts"]);
    const bool met = bench::print_healing_tables(all);
    fmt::print("the target (exact better than off by 2 bits, and not worse than one) is {}\n", met ? "met" : "missed");
    write_file_atomically(chart, bench::healing_chart(all));
  }
  results["load"] = bench::warn_of_load();
  results["cost"] = run_cost(model, settings, corpora);
  results["trie"] = run_trie(model);
  write_file_atomically(settings.out, results.dump(1) + "\n");
  fmt::print("\n{} and {}\n", settings.out, chart);
  return 0;
}

}  // namespace

int main(int argc, char** argv) try {
  if (argc < 5) {
    fmt::print(stderr, "usage: {} MODEL DOCUMENTS SOURCES OUT.json [CUTS [THREADS]]\n", argv[0]);
    return 2;
  }
  Settings settings{argv[1], argv[2], argv[3], argv[4]};
  if (argc > 5) settings.cuts = std::stoi(argv[5]);
  if (argc > 6) settings.threads = std::stoi(argv[6]);
  return run(settings);
} catch (const std::exception& error) {
  fmt::print(stderr, "healing: {}\n", error.what());
  return 1;
}
