// How often each pooling finds a fact that one of n documents holds, beside all documents in one prompt.
//
// Two sets: `unique`, where the other documents hold no fact, and `lookalike`, where each holds one of the same form.
// Two prompts: `plain` (question only) and `primed` (the answer's beginning is given). Greedy. For each question there
// is a twin without the fact, of which only the first row is wanted: whether `--abstain` would have spoken up. The
// abstention threshold is found on questions of their own.
//
// Right is a primed answer that begins with the fact's value, and a plain one that holds it in its first sentence.
//
// A context's row depends on its document and the text so far, not on the other contexts, so all numbers of documents
// and all poolings share one evaluation of each distinct text: a tree over the texts that they choose.
#include <fmt/format.h>
#define XXH_INLINE_ALL
#include <xxhash.h>

#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>

#include "needle_data.h"
#include "needle_stages.h"
#include "needle_tables.h"

namespace {

using namespace tuiqiao;
using bench::Set;
using nlohmann::json;

struct Settings {
  std::string model, prose, out;
  int questions = 100, calibration = 50;
  int threads = 0;
};

void save(const std::string& file, const json& results) {
  std::ofstream(file + ".part") << results.dump(1, ' ', false, json::error_handler_t::replace) << "\n";
  std::filesystem::rename(file + ".part", file);
}

int run(const Settings& settings) {
  const LlamaModel model(settings.model);
  const std::vector<bench::Passage> passages =
      bench::read_passages(settings.prose, model.vocabulary(), bench::kMinPassageTokens);
  const auto questions = static_cast<std::size_t>(settings.questions),
             calibration = static_cast<std::size_t>(settings.calibration);
  const std::vector<Set> sets{bench::make_set("unique", passages, questions + calibration),
                              bench::make_set("lookalike", passages, questions + calibration)};

  std::string everything;
  for (const Set& set : sets) {
    for (const std::string& text : set.fillers) everything += text;
    for (std::size_t i = 0; i < set.facts.size(); ++i) everything += set.needles[i] + set.facts[i].question;
  }
  const json head = {{"model", model.description()},
                     {"questions", questions},
                     {"calibration", calibration},
                     {"passages", passages.size()},
                     {"prompts_xxh3", fmt::format("{:016x}", XXH3_64bits(everything.data(), everything.size()))}};
  json results = {{"settings", head}, {"stages", json::object()}};
  if (std::ifstream in(settings.out); in) {  // stages that an earlier run finished are kept
    const json earlier = json::parse(in, nullptr, false);
    if (earlier.is_object() && earlier.value("settings", json()) == head) results = earlier;
  }
  const auto stage = [&](const std::string& name, const auto& make) {
    if (results["stages"].contains(name)) return;
    results["stages"][name] = make();
    save(settings.out, results);
  };
  if (calibration > 0) {
    stage("calibration signals",
          [&] { return bench::pooled_stage(model, sets[0], true, questions, calibration, false, settings.threads); });
  }
  for (const bool primed : {true, false}) {
    for (const Set& set : sets) {
      const std::string name = fmt::format("{} {}", set.name, primed ? "primed" : "plain");
      stage(name, [&] { return bench::pooled_stage(model, set, primed, 0, questions, true, settings.threads); });
      stage(name + " signals",
            [&] { return bench::pooled_stage(model, set, primed, 0, questions, false, settings.threads); });
      stage(set.name + " concatenated",
            [&] { return bench::concatenated_stage(model, set, questions, settings.threads); });
    }
  }
  fmt::print("{}\n{} questions a cell, documents of at least {} tokens of {}, greedy, template plain, prompts {}\n",
             model.description(), questions, bench::kMinPassageTokens,
             std::filesystem::path(settings.prose).filename().string(), head["prompts_xxh3"].get<std::string>());
  bench::print_tables(results["stages"], settings.questions);
  return 0;
}

}  // namespace

int main(int argc, char** argv) try {
  if (argc < 4) {
    fmt::print(stderr, "usage: {} MODEL PROSE.txt OUT.json [QUESTIONS [CALIBRATION [THREADS]]]\n", argv[0]);
    return 2;
  }
  Settings settings{argv[1], argv[2], argv[3]};
  if (argc > 4) settings.questions = std::stoi(argv[4]);
  if (argc > 5) settings.calibration = std::stoi(argv[5]);
  if (argc > 6) settings.threads = std::stoi(argv[6]);
  return run(settings);
} catch (const std::exception& error) {
  fmt::print(stderr, "needles: {}\n", error.what());
  return 1;
}
