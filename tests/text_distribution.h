#pragma once

#include <cmath>
#include <map>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "table_decoder.h"
#include "vocabulary_learner.h"

namespace tuiqiao::test {

/// A random distribution over finitely many texts, and a model that knows it: its rows are the conditionals of what the
/// tokenizer makes of the texts, so that no other token sequence has any probability.
class TextDistribution {
 public:
  TextDistribution(const LearntVocabulary& learnt, const std::vector<std::string>& texts, unsigned seed)
      : learnt_(learnt) {
    std::mt19937 random(seed);
    for (const std::string& text : texts) {
      std::vector<Token> tokens = learnt.tokenize(text);
      tokens.push_back(learnt.end());
      std::vector<Token> path;
      for (const Token token : tokens) {
        auto& next = next_[path];
        next.try_emplace(token, std::exp(-0.3 * static_cast<double>(random() % 20)));
        path.push_back(token);
      }
    }
    // As the decoder's rows have it: their scores are floats.
    TableDecoder decoder = make_decoder();
    std::map<std::vector<Token>, double> reached{{{}, 1.0}};
    for (const auto& [path, next] : next_) {  // a path comes after its beginnings
      const Branch branch = decoder.open();
      std::vector<Token> tokens{learnt.begin()};
      tokens.insert(tokens.end(), path.begin(), path.end());
      decoder.extend({branch, tokens, Rows::last});
      for (const auto& [token, weight] : next) {
        std::vector<Token> longer = path;
        longer.push_back(token);
        reached[longer] = reached.at(path) * std::exp(decoder.row(branch)[token]);
      }
      decoder.close(branch);
    }
    for (const std::string& text : texts) {
      std::vector<Token> tokens = learnt.tokenize(text);
      tokens.push_back(learnt.end());
      texts_.push_back({text, tokens, reached.at(tokens)});
    }
  }

  struct Text {
    std::string bytes;
    std::vector<Token> tokens;  ///< the last of which ends it
    double probability;
  };
  const std::vector<Text>& texts() const { return texts_; }

  /// Texts are conditioned on the begin token.
  TableDecoder make_decoder(int max_branches = 40) const {
    return TableDecoder([this](std::span<const Token> text) { return row(text); }, max_branches, 64,
                        learnt_.vocabulary());
  }

  /// Of texts that begin with `bytes`.
  double probability_of(const std::string& bytes) const {
    double sum = 0;
    for (const Text& text : texts_) sum += text.bytes.starts_with(bytes) ? text.probability : 0;
    return sum;
  }

 private:
  std::vector<double> row(std::span<const Token> text) const {
    std::vector<double> p(static_cast<std::size_t>(learnt_.vocabulary()->size()), 0);
    const auto found = text.empty() ? next_.end() : next_.find({text.begin() + 1, text.end()});
    if (found == next_.end()) {
      p[static_cast<std::size_t>(learnt_.end())] = 1;  // no text begins so
      return p;
    }
    double sum = 0;
    for (const auto& [token, weight] : found->second) sum += weight;
    for (const auto& [token, weight] : found->second) p[static_cast<std::size_t>(token)] = weight / sum;
    return p;
  }

  const LearntVocabulary& learnt_;
  std::map<std::vector<Token>, std::map<Token, double>> next_;
  std::vector<Text> texts_;
};

}  // namespace tuiqiao::test
