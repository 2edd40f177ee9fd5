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

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <functional>
#include <map>
#include <nlohmann/json.hpp>
#include <set>

#include "needle_data.h"
#include "tuiqiao/text/generate.h"
#include "tuiqiao/text/llama.h"
#include "tuiqiao/text/pooling.h"
#include "tuiqiao/text/prompt.h"

namespace {

using namespace tuiqiao;
using bench::Fact;
using nlohmann::json;

constexpr std::array kCounts{1, 2, 4, 8, 16, 32};
constexpr int kMostContexts = 32;
constexpr int kAnswerTokens = 16;
constexpr std::size_t kMinPassageTokens = 250;

struct Settings {
  std::string model, prose, out;
  int questions = 100, calibration = 50;
  int threads = 0;
};

struct Method {
  std::string name;
  PoolingOptions options;
};

std::vector<Method> methods() {
  std::vector<Method> list;
  for (const Pooling pooling :
       {Pooling::min_entropy, Pooling::entropy_weighted, Pooling::mean, Pooling::max, Pooling::mixture}) {
    PoolingOptions options;
    options.pooling = pooling;
    list.push_back({std::string(name(pooling)), options});
  }
  // Naive Bayes as it is written: all tokens, beta = n - 1 (set for each n).
  PoolingOptions bayes;
  bayes.pooling = Pooling::mean;
  bayes.top_p = 1;
  list.push_back({"naive Bayes", bayes});
  // Context-aware decoding over the average of all contexts.
  PoolingOptions weights;
  weights.pooling = Pooling::weights;
  weights.top_p = 1;
  weights.beta = 0.5;
  list.push_back({"weights 1/n, beta 0.5", weights});
  return list;
}

PoolingOptions for_count(PoolingOptions options, int n) {
  if (options.pooling == Pooling::mean && options.top_p == 1) options.beta = n - 1;
  if (options.pooling == Pooling::weights) options.weights.assign(static_cast<std::size_t>(n), 1.0 / n);
  return options;
}

/// One way to answer: a number of documents and a pooling; what it has said so far.
struct Way {
  int n = 1;
  std::size_t method = 0;
  Pooler pooler;
  int previous = -1;
  std::string text;
};

bool is_right(const std::string& text, const Fact& fact, bool primed) {
  const std::size_t at = text.find(fact.value);
  return primed ? at != std::string::npos && text.find_first_not_of(' ') == at : at < text.find_first_of(".\n");
}

/// Whether more text could change the verdict.
bool is_settled(const std::string& text, const Fact& fact, bool primed) {
  const std::size_t from = text.find_first_not_of(' ');
  if (is_right(text, fact, primed) || text.find_first_of(".\n") != std::string::npos) return true;
  return primed && from != std::string::npos && !fact.value.starts_with(std::string_view(text).substr(from));
}

std::vector<Branch> extended(LlamaDecoder& decoder, std::vector<Branch> branches, std::span<const Token> tokens) {
  std::vector<Extension> extensions;
  for (const Branch branch : branches) extensions.push_back({branch, tokens, Rows::last});
  decoder.extend(extensions);
  return branches;
}

/// Answers a question in all ways at once.
class Tree {
 public:
  explicit Tree(LlamaDecoder& decoder) : decoder_(decoder) {}

  /// Until each answer is settled. `contexts` have just read the question and have a row; the one without context
  /// first.
  void answer(std::vector<Way>& ways, const std::vector<Branch>& contexts,
              const std::function<bool(const std::string&)>& settled) {
    settled_ = settled;
    std::vector<Way*> all;
    for (Way& way : ways) all.push_back(&way);
    visit(all, 0, contexts, true);
  }

 private:
  /// Every way chooses a token from the rows of `branches`; those that agree go on together. Closes the branches unless
  /// they are to be kept.
  void visit(const std::vector<Way*>& ways, int length, std::vector<Branch> branches, bool keep) {
    std::map<Token, std::vector<Way*>> chosen;
    std::vector<float> out(static_cast<std::size_t>(decoder_.vocabulary().size()));
    for (Way* way : ways) {
      const Token token = step(*way, branches, out);
      if (!decoder_.vocabulary().ends(token) && !settled_(way->text) && length + 1 < kAnswerTokens)
        chosen[token].push_back(way);
    }
    // The largest group comes last and takes the branches over, so that few copies live at once: each of the others
    // has at most half of the ways.
    std::vector<std::pair<Token, std::vector<Way*>>> groups(chosen.begin(), chosen.end());
    std::sort(groups.begin(), groups.end(),
              [](const auto& a, const auto& b) { return a.second.size() < b.second.size(); });
    for (std::size_t i = 0; i < groups.size(); ++i) {
      const auto& [token, group] = groups[i];
      const bool last = !keep && i + 1 == groups.size();
      std::vector<Branch> mine = last ? trimmed(std::exchange(branches, {}), group) : forked(branches, group);
      visit(group, length + 1, extended(decoder_, std::move(mine), std::span(&token, 1)), false);
    }
    for (const Branch branch : branches) {
      if (!keep) decoder_.close(branch);
    }
  }

  static std::size_t needed(const std::vector<Way*>& ways) {
    int n = 0;
    for (const Way* way : ways) n = std::max(n, way->n);
    return static_cast<std::size_t>(n) + 1;
  }

  std::vector<Branch> forked(std::span<const Branch> from, const std::vector<Way*>& ways) {
    std::vector<Branch> copies;
    for (const Branch branch : from.first(needed(ways))) copies.push_back(decoder_.fork(branch));
    return copies;
  }

  std::vector<Branch> trimmed(std::vector<Branch> branches, const std::vector<Way*>& ways) {
    for (; branches.size() > needed(ways); branches.pop_back()) decoder_.close(branches.back());
    return branches;
  }

  Token step(Way& way, const std::vector<Branch>& branches, std::vector<float>& out) {
    std::vector<Row> rows;
    for (int k = 1; k <= way.n; ++k) rows.push_back(decoder_.row(branches[static_cast<std::size_t>(k)]));
    way.previous = way.pooler.pool(rows, decoder_.row(branches[0]), way.previous, out).context;
    const Token token = choose({out, 0}, 0, 0);
    if (!decoder_.vocabulary().ends(token)) way.text += decoder_.vocabulary().bytes(token);
    return token;
  }

  LlamaDecoder& decoder_;
  std::function<bool(const std::string&)> settled_;
};

/// The documents and questions of one set.
struct Set {
  std::string name;
  std::vector<std::string> fillers;  // kMostContexts of them
  std::vector<Fact> facts;
  std::vector<std::string> needles;  // one a fact
};

Set make_set(const std::string& name, const std::vector<bench::Passage>& passages, std::size_t questions) {
  constexpr std::size_t kFirstLookalike = 300;  // facts from here on belong to fillers
  if (passages.size() <= kMostContexts)
    throw std::runtime_error(fmt::format("{} passages are too few", passages.size()));
  Set set{name, {}, {}, {}};
  for (std::size_t i = 0; i < kMostContexts; ++i) {
    const std::string fact = name == "lookalike" ? bench::make_fact(kFirstLookalike + i).sentence : std::string();
    set.fillers.push_back(bench::with_fact(passages[i], fact, static_cast<unsigned>(i)));
  }
  for (std::size_t i = 0; i < questions; ++i) {
    set.facts.push_back(bench::make_fact(i));
    const bench::Passage& passage = passages[kMostContexts + i % (passages.size() - kMostContexts)];
    set.needles.push_back(bench::with_fact(passage, set.facts.back().sentence, static_cast<unsigned>(1000 + i)));
  }
  return set;
}

std::vector<Token> question_of(const Vocabulary& vocabulary, const Fact& fact, bool primed) {
  return question_prompt(plain_template("plain"), vocabulary, fact.question, primed ? fact.prefix : "");
}

std::vector<Way> all_ways() {
  std::vector<Way> ways;
  const std::vector<Method> list = methods();
  for (const int n : kCounts) {
    for (std::size_t m = 0; m < list.size(); ++m) ways.push_back({n, m, Pooler(for_count(list[m].options, n)), -1, ""});
  }
  return ways;
}

class Clock {
 public:
  double seconds() const { return std::chrono::duration<double>(std::chrono::steady_clock::now() - start_).count(); }
  /// A line every half minute.
  void tell(const std::string& what, std::size_t done, std::size_t total) {
    if (seconds() - told_ < 30 && done < total) return;
    told_ = seconds();
    fmt::print(stderr, "{}: {}/{} ({:.0f} s)\n", what, done, total, told_);
  }

 private:
  std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
  double told_ = 0;
};

/// The row that min_entropy chooses among the first n contexts: its divergence to the row without context, its entropy,
/// and the token that comes next. `branches`: the one without context first.
struct Signal {
  double divergence_bits = 0, entropy_nats = 0;
  Token token = 0;
};

Signal signal_of(const LlamaDecoder& decoder, std::span<const Branch> branches, int n) {
  std::vector<Row> rows;
  for (const Branch branch : branches.subspan(1, static_cast<std::size_t>(n))) rows.push_back(decoder.row(branch));
  std::vector<float> out(static_cast<std::size_t>(decoder.vocabulary().size()));
  const PoolingResult result = Pooler({}).pool(rows, decoder.row(branches[0]), -1, out);
  const auto k = static_cast<std::size_t>(result.context);
  return {jensen_shannon_bits(rows[k], decoder.row(branches[0])), result.entropies_nats[k], choose({out, 0}, 0, 0)};
}

/// What abstention goes by, for each list of branches and each number of documents: the signals where the first token
/// is decided that is no white space. The branches have read the question; they are left without rows.
json first_signals(LlamaDecoder& decoder, const std::vector<std::vector<Branch>>& lists) {
  const auto is_blank = [&](Token token) {
    return !decoder.vocabulary().ends(token) &&
           decoder.vocabulary().bytes(token).find_first_not_of(" \t\r\n") == std::string_view::npos;
  };
  std::vector<std::vector<Signal>> signals(lists.size());
  std::set<Token> blanks;
  for (std::size_t l = 0; l < lists.size(); ++l) {
    for (const int n : kCounts) {
      signals[l].push_back(signal_of(decoder, lists[l], n));
      if (is_blank(signals[l].back().token)) blanks.insert(signals[l].back().token);
    }
  }
  const std::set<Branch> all = [&] {
    std::set<Branch> branches;
    for (const auto& list : lists) branches.insert(list.begin(), list.end());
    return branches;
  }();
  for (const Token blank : blanks) {
    std::map<Branch, Branch> copies;
    for (const Branch branch : all) copies[branch] = decoder.fork(branch);
    std::vector<Branch> later;
    for (const auto& [branch, copy] : copies) later.push_back(copy);
    extended(decoder, later, std::span(&blank, 1));
    for (std::size_t l = 0; l < lists.size(); ++l) {
      std::vector<Branch> list;
      for (const Branch branch : lists[l]) list.push_back(copies[branch]);
      for (std::size_t at = 0; at < kCounts.size(); ++at) {
        if (signals[l][at].token == blank) signals[l][at] = signal_of(decoder, list, kCounts[at]);
      }
    }
    for (const Branch branch : later) decoder.close(branch);
  }
  json result = json::array();
  for (const auto& list : signals) {
    json entry = json::array();
    for (const Signal& signal : list) entry.push_back({signal.divergence_bits, signal.entropy_nats});
    result.push_back(entry);
  }
  return result;
}

/// Right answers by method and number of documents; or, where no answers are wanted, the signals for abstention with
/// the fact and without.
json pooled_stage(const LlamaModel& model, const Set& set, bool primed, std::size_t first, std::size_t count,
                  bool answers, int threads) {
  const Vocabulary& vocabulary = model.vocabulary();
  const PromptTemplate plain = plain_template("plain");
  std::vector<std::vector<Token>> texts{empty_prompt(plain, vocabulary)};
  for (const std::string& filler : set.fillers) texts.push_back(document_prompt(plain, vocabulary, filler));
  std::size_t longest = 0;
  for (const auto& text : texts) longest = std::max(longest, text.size());
  for (const std::string& needle : set.needles)
    longest = std::max(longest, document_prompt(plain, vocabulary, needle).size());

  LlamaDecoderOptions options;
  options.max_branches = kMaxLlamaBranches;
  options.threads = threads;
  options.streams = true;  // else every token would pass over the cells of all documents
  options.window = static_cast<int>(longest) + 64 + kAnswerTokens;
  LlamaDecoder decoder(model, options);
  const std::vector<Branch> fixed = decoder.read(texts);

  json stage = {{"right", json::object()},
                {"min_entropy", json::array()},
                {"samples", json::array()},
                {"present", json::array()},
                {"absent", json::array()}};
  for (const Method& method : methods()) stage["right"][method.name] = std::vector<int>(kCounts.size(), 0);
  Clock clock;
  for (std::size_t i = first; i < first + count; ++i) {
    const Fact& fact = set.facts[i];
    // Without context, the document with the fact, the others.
    const std::vector<std::vector<Token>> needle{document_prompt(plain, vocabulary, set.needles[i])};
    std::vector<Branch> branches{decoder.fork(fixed[0]), decoder.read(needle).front()};
    for (std::size_t k = 1; k < fixed.size(); ++k) branches.push_back(decoder.fork(fixed[k]));
    extended(decoder, branches, question_of(vocabulary, fact, primed));
    if (answers) {
      std::vector<Way> ways = all_ways();
      Tree(decoder).answer(ways, branches, [&](const std::string& text) { return is_settled(text, fact, primed); });
      json rights = json::array();  // of min_entropy, by number of documents
      for (const Way& way : ways) {
        const auto at = static_cast<std::size_t>(std::find(kCounts.begin(), kCounts.end(), way.n) - kCounts.begin());
        const bool right = is_right(way.text, fact, primed);
        json& sum = stage["right"][methods()[way.method].name][at];
        sum = sum.get<int>() + (right ? 1 : 0);
        if (way.method != 0) continue;
        rights.push_back(right);
        if (i < first + 3) stage["samples"].push_back({way.n, fact.question, fact.value, way.text});
      }
      stage["min_entropy"].push_back(rights);
    } else {
      std::vector<Branch> absent = branches;
      absent.erase(absent.begin() + 1);
      const json signals = first_signals(decoder, {branches, absent});
      stage["present"].push_back(signals[0]);
      stage["absent"].push_back(signals[1]);
    }
    for (const Branch branch : branches) decoder.close(branch);
    clock.tell(fmt::format("{}, {}{}", set.name, primed ? "primed" : "plain", answers ? "" : ", signals"),
               i - first + 1, count);
  }
  stage["seconds"] = clock.seconds();
  return stage;
}

std::string generate_answer(LlamaDecoder& decoder, Branch branch, const Fact& fact, bool primed) {
  std::string text;
  GenerateOptions options;
  options.max_tokens = kAnswerTokens;
  options.stop_when = [&](std::string_view so_far) { return is_settled(std::string(so_far), fact, primed); };
  generate(decoder, branch, options, [&](const Choice& choice) { text += decoder.vocabulary().bytes(choice.token); });
  return text;
}

/// All documents in one prompt, then one question.
class Concatenation {
 public:
  Concatenation(const LlamaModel& model, std::size_t longest_prompt, int threads)
      : vocabulary_(model.vocabulary()), decoder_(model, options_for(model, longest_prompt, threads)) {}

  /// A branch that holds nothing but what a text begins with.
  Branch start() {
    const Branch branch = decoder_.open();
    if (vocabulary_.begin()) decoder_.extend({branch, std::vector<Token>{*vocabulary_.begin()}, Rows::none});
    return branch;
  }
  void add(Branch branch, const std::string& document) {
    decoder_.extend({branch, vocabulary_.tokenize(document + "\n\n"), Rows::none});
  }
  Branch fork(Branch branch) { return decoder_.fork(branch); }
  void close(Branch branch) { decoder_.close(branch); }

  bool answers(Branch documents, const Fact& fact, bool primed) {
    const Branch branch = decoder_.fork(documents);
    std::vector<Token> tokens = vocabulary_.tokenize("Question:");
    const std::vector<Token> question = question_of(vocabulary_, fact, primed);
    tokens.insert(tokens.end(), question.begin(), question.end());
    decoder_.extend({branch, tokens, Rows::last});
    const bool right = is_right(generate_answer(decoder_, branch, fact, primed), fact, primed);
    decoder_.close(branch);
    return right;
  }

 private:
  static LlamaDecoderOptions options_for(const LlamaModel& model, std::size_t longest_prompt, int threads) {
    LlamaDecoderOptions options;
    options.max_branches = kMostContexts + 4;
    options.threads = threads;
    options.window = std::min(model.trained_window(), static_cast<int>(longest_prompt));
    options.streams = true;  // else every token would pass over the cells of all prefixes
    return options;
  }

  const Vocabulary& vocabulary_;
  LlamaDecoder decoder_;
};

/// The document with the fact stands at a drawn place among the first n - 1 others (`unique`); or the n documents are
/// those of n questions, each of which is asked (`lookalike`: each document holds a fact of the same form, and the
/// places are all places in turn). What prompts share is evaluated once.
json concatenated_stage(const LlamaModel& model, const Set& set, std::size_t count, int threads) {
  std::size_t longest = 0;
  for (const auto* texts : {&set.fillers, &set.needles}) {
    for (const std::string& text : *texts) longest = std::max(longest, model.vocabulary().tokenize(text).size() + 4);
  }
  const std::size_t longest_prompt = (kMostContexts + 1) * longest + 256;
  json stage = {{"plain", std::vector<int>(kCounts.size(), 0)}, {"primed", std::vector<int>(kCounts.size(), 0)}};
  Clock clock;
  const auto ask = [&](Concatenation& prompt, Branch documents, std::size_t question, std::size_t at) {
    for (const bool primed : {false, true}) {
      json& right = stage[primed ? "primed" : "plain"][at];
      right = right.get<int>() + (prompt.answers(documents, set.facts[question], primed) ? 1 : 0);
    }
  };
  Concatenation prompt(model, longest_prompt, threads);
  if (set.name == "lookalike") {
    for (std::size_t at = 0; at < kCounts.size(); ++at) {
      const auto n = static_cast<std::size_t>(kCounts[at]);
      for (std::size_t first = 0; first < count; first += n) {
        const Branch documents = prompt.start();
        for (std::size_t k = 0; k < n; ++k) prompt.add(documents, set.needles[(first + k) % set.needles.size()]);
        for (std::size_t k = first; k < std::min(first + n, count); ++k) ask(prompt, documents, k, at);
        prompt.close(documents);
        clock.tell(fmt::format("{}, concatenated, n = {}", set.name, n), std::min(first + n, count), count);
      }
    }
  } else {
    std::vector<Branch> prefixes{prompt.start()};  // prefixes[j]: the first j fillers
    for (const std::string& filler : set.fillers) {
      prefixes.push_back(prompt.fork(prefixes.back()));
      prompt.add(prefixes.back(), filler);
    }
    std::mt19937 random(77);
    for (std::size_t i = 0; i < count; ++i) {
      for (std::size_t at = 0; at < kCounts.size(); ++at) {
        const auto n = static_cast<std::size_t>(kCounts[at]);
        const std::size_t place = random() % n;
        const Branch documents = prompt.fork(prefixes[place]);
        prompt.add(documents, set.needles[i]);
        for (std::size_t k = place; k + 1 < n; ++k) prompt.add(documents, set.fillers[k]);
        ask(prompt, documents, i, at);
        prompt.close(documents);
      }
      clock.tell(fmt::format("{}, concatenated", set.name), i + 1, count);
    }
  }
  stage["seconds"] = clock.seconds();
  return stage;
}

// ---- What is found ----

/// Wilson's 95% interval of k out of n, as text.
std::string share(int k, int n) {
  constexpr double z = 1.959964;
  const double p = static_cast<double>(k) / n, zz = z * z / n;
  const double middle = (p + zz / 2) / (1 + zz), half = z / (1 + zz) * std::sqrt(p * (1 - p) / n + zz / (4 * n));
  return fmt::format("{:.2f} [{:.2f}, {:.2f}]", p, middle - half, middle + half);
}

/// The divergence below which to abstain: the best difference between answers given where the fact is there and where
/// it is not, over all numbers of documents.
double best_threshold(const json& prompt) {
  const auto given = [](const json& questions, double threshold) {
    int count = 0;
    for (const json& question : questions) {
      for (std::size_t at = 0; at < kCounts.size(); ++at) count += question[at][0].get<double>() >= threshold ? 1 : 0;
    }
    return count;
  };
  double best = 0;
  int best_gain = -1;
  for (int i = 0; i <= 100; ++i) {
    const int gain = given(prompt["present"], i / 100.0) - given(prompt["absent"], i / 100.0);
    if (gain > best_gain) best_gain = gain, best = i / 100.0;
  }
  return best;
}

/// Answers given at a threshold for the `at`-th number of documents; of those only the right ones, where `rights` says.
int count_given(const json& questions, std::size_t at, double threshold, const json* rights = nullptr) {
  int count = 0;
  for (std::size_t i = 0; i < questions.size(); ++i) {
    if (questions[i][at][0].get<double>() < threshold) continue;
    count += !rights || (*rights)[i][at].get<bool>() ? 1 : 0;
  }
  return count;
}

void print_header(const std::string& title) {
  fmt::print("\n{}\n{:24}", title, "");
  for (const int n : kCounts) fmt::print("{:>20}", fmt::format("n = {}", n));
  fmt::print("\n");
}

void print_row(const std::string& name, int questions, const std::function<int(std::size_t)>& count) {
  fmt::print("{:24}", name);
  for (std::size_t at = 0; at < kCounts.size(); ++at) fmt::print("{:>20}", share(count(at), questions));
  fmt::print("\n");
}

void print_tables(const json& stages, int questions) {
  for (const char* set : {"unique", "lookalike"}) {
    for (const char* prompt : {"primed", "plain"}) {
      const std::string key = fmt::format("{} {}", set, prompt);
      if (!stages.contains(key)) continue;
      const json& stage = stages[key];
      print_header(fmt::format("{}, {}: share of right answers, 95% Wilson intervals", set, prompt));
      for (const Method& method : methods()) {
        print_row(method.name, questions, [&](std::size_t at) { return stage["right"][method.name][at].get<int>(); });
      }
      const std::string concatenated = std::string(set) + " concatenated";
      if (stages.contains(concatenated)) {
        print_row("concatenated", questions,
                  [&](std::size_t at) { return stages[concatenated][prompt][at].get<int>(); });
      }
      if (!stages.contains("calibration signals") || !stages.contains(key + " signals")) continue;
      const json& signals = stages[key + " signals"];
      const double threshold = best_threshold(stages["calibration signals"]);
      fmt::print("min_entropy with --abstain below {:.2f} bits (found on other questions: unique, primed)\n",
                 threshold);
      print_row("absent: wrong, no rule", questions,
                [&](std::size_t at) { return count_given(signals["absent"], at, 0); });
      print_row("absent: wrong", questions,
                [&](std::size_t at) { return count_given(signals["absent"], at, threshold); });
      print_row("present: right", questions,
                [&](std::size_t at) { return count_given(signals["present"], at, threshold, &stage["min_entropy"]); });
    }
  }
}

void save(const std::string& file, const json& results) {
  std::ofstream(file + ".part") << results.dump(1, ' ', false, json::error_handler_t::replace) << "\n";
  std::filesystem::rename(file + ".part", file);
}

int run(const Settings& settings) {
  const LlamaModel model(settings.model);
  const std::vector<bench::Passage> passages =
      bench::read_passages(settings.prose, model.vocabulary(), kMinPassageTokens);
  const auto questions = static_cast<std::size_t>(settings.questions),
             calibration = static_cast<std::size_t>(settings.calibration);
  const std::vector<Set> sets{make_set("unique", passages, questions + calibration),
                              make_set("lookalike", passages, questions + calibration)};

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
          [&] { return pooled_stage(model, sets[0], true, questions, calibration, false, settings.threads); });
  }
  for (const bool primed : {true, false}) {
    for (const Set& set : sets) {
      const std::string name = fmt::format("{} {}", set.name, primed ? "primed" : "plain");
      stage(name, [&] { return pooled_stage(model, set, primed, 0, questions, true, settings.threads); });
      stage(name + " signals", [&] { return pooled_stage(model, set, primed, 0, questions, false, settings.threads); });
      stage(set.name + " concatenated", [&] { return concatenated_stage(model, set, questions, settings.threads); });
    }
  }
  fmt::print("{}\n{} questions a cell, documents of at least {} tokens of {}, greedy, template plain, prompts {}\n",
             model.description(), questions, kMinPassageTokens,
             std::filesystem::path(settings.prose).filename().string(), head["prompts_xxh3"].get<std::string>());
  print_tables(results["stages"], settings.questions);
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
