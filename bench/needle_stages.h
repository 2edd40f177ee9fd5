#pragma once

#include <fmt/format.h>

#include <chrono>
#include <cstdio>
#include <map>
#include <nlohmann/json.hpp>
#include <random>
#include <set>
#include <string>
#include <vector>

#include "needle_data.h"
#include "needle_ways.h"
#include "tuiqiao/text/prompt.h"

// What is evaluated of the needles: sets of documents and questions, pooled and concatenated.

namespace tuiqiao::bench {

using nlohmann::json;

/// The documents and questions of one set.
struct Set {
  std::string name;
  std::vector<std::string> fillers;  // kMostContexts of them
  std::vector<Fact> facts;
  std::vector<std::string> needles;  // one a fact
};

inline Set make_set(const std::string& name, const std::vector<Passage>& passages, std::size_t questions) {
  constexpr std::size_t kFirstLookalike = 300;  // facts from here on belong to fillers
  if (passages.size() <= kMostContexts)
    throw std::runtime_error(fmt::format("{} passages are too few", passages.size()));
  Set set{name, {}, {}, {}};
  for (std::size_t i = 0; i < kMostContexts; ++i) {
    const std::string fact = name == "lookalike" ? make_fact(kFirstLookalike + i).sentence : std::string();
    set.fillers.push_back(with_fact(passages[i], fact, static_cast<unsigned>(i)));
  }
  for (std::size_t i = 0; i < questions; ++i) {
    set.facts.push_back(make_fact(i));
    const Passage& passage = passages[kMostContexts + i % (passages.size() - kMostContexts)];
    set.needles.push_back(with_fact(passage, set.facts.back().sentence, static_cast<unsigned>(1000 + i)));
  }
  return set;
}

inline std::vector<Token> question_of(const Vocabulary& vocabulary, const Fact& fact, bool primed) {
  return question_prompt(plain_template("plain"), vocabulary, fact.question, primed ? fact.prefix : "");
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

inline Signal signal_of(const LlamaDecoder& decoder, std::span<const Branch> branches, int n) {
  std::vector<Row> rows;
  for (const Branch branch : branches.subspan(1, static_cast<std::size_t>(n))) rows.push_back(decoder.row(branch));
  std::vector<float> out(static_cast<std::size_t>(decoder.vocabulary().size()));
  const PoolingResult result = Pooler({}).pool(rows, decoder.row(branches[0]), -1, out);
  const auto k = static_cast<std::size_t>(result.context);
  return {jensen_shannon_bits(rows[k], decoder.row(branches[0])), result.entropies_nats[k], choose({out, 0}, 0, 0)};
}

/// What abstention goes by, for each list of branches and each number of documents: the signals where the first token
/// is decided that is no white space. The branches have read the question; they are left without rows.
inline json first_signals(LlamaDecoder& decoder, const std::vector<std::vector<Branch>>& lists) {
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
inline json pooled_stage(const LlamaModel& model, const Set& set, bool primed, std::size_t first, std::size_t count,
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

inline std::string generate_answer(LlamaDecoder& decoder, Branch branch, const Fact& fact, bool primed) {
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
inline json concatenated_stage(const LlamaModel& model, const Set& set, std::size_t count, int threads) {
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

}  // namespace tuiqiao::bench
