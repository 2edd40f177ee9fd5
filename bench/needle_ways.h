#pragma once

#include <algorithm>
#include <array>
#include <functional>
#include <map>
#include <span>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "needle_data.h"
#include "tuiqiao/text/generate.h"
#include "tuiqiao/text/llama.h"
#include "tuiqiao/text/pooling.h"

// The ways to answer that the needles compare, and one evaluation for all of them.

namespace tuiqiao::bench {

inline constexpr std::array kCounts{1, 2, 4, 8, 16, 32};
inline constexpr int kMostContexts = 32;
inline constexpr int kAnswerTokens = 16;
inline constexpr std::size_t kMinPassageTokens = 250;

struct Method {
  std::string name;
  PoolingOptions options;
};

inline std::vector<Method> methods() {
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

inline PoolingOptions for_count(PoolingOptions options, int n) {
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

inline bool is_right(const std::string& text, const Fact& fact, bool primed) {
  const std::size_t at = text.find(fact.value);
  return primed ? at != std::string::npos && text.find_first_not_of(' ') == at : at < text.find_first_of(".\n");
}

/// Whether more text could change the verdict.
inline bool is_settled(const std::string& text, const Fact& fact, bool primed) {
  const std::size_t from = text.find_first_not_of(' ');
  if (is_right(text, fact, primed) || text.find_first_of(".\n") != std::string::npos) return true;
  return primed && from != std::string::npos && !fact.value.starts_with(std::string_view(text).substr(from));
}

inline std::vector<Branch> extended(LlamaDecoder& decoder, std::vector<Branch> branches,
                                    std::span<const Token> tokens) {
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

inline std::vector<Way> all_ways() {
  std::vector<Way> ways;
  const std::vector<Method> list = methods();
  for (const int n : kCounts) {
    for (std::size_t m = 0; m < list.size(); ++m) ways.push_back({n, m, Pooler(for_count(list[m].options, n)), -1, ""});
  }
  return ways;
}

}  // namespace tuiqiao::bench
