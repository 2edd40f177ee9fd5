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
/// tokenizer makes of the texts, so that no other token sequence has any probability; or a share `leak` of each row
/// goes to tokens that no tokenizer puts there, as real models do a little.
class TextDistribution {
 public:
  TextDistribution(const LearntVocabulary& learnt, const std::vector<std::string>& texts, unsigned seed,
                   double leak = 0)
      : learnt_(learnt), leak_(leak) {
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
    if (leak > 0) find_wrong_tokens();
    // As the decoder's rows have it: their scores are floats.
    TableDecoder decoder = make_decoder();
    reached_[{}] = 1;
    for (const auto& [path, next] : next_) {  // a path comes after its beginnings
      const Branch branch = decoder.open();
      std::vector<Token> tokens{learnt.begin()};
      tokens.insert(tokens.end(), path.begin(), path.end());
      decoder.extend({branch, tokens, Rows::last});
      for (const auto& [token, weight] : next) {
        std::vector<Token> longer = path;
        longer.push_back(token);
        reached_[longer] = reached_.at(path) * std::exp(decoder.row(branch)[token]);
      }
      decoder.close(branch);
    }
    for (const std::string& text : texts) {
      std::vector<Token> tokens = learnt.tokenize(text);
      tokens.push_back(learnt.end());
      texts_.push_back({text, tokens, reached_.at(tokens)});
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

  /// Of tokens, the beginning of what the tokenizer makes of a text and its end, after the begin token.
  double probability_of(const std::vector<Token>& tokens) const { return reached_.at(tokens); }
  /// Tokens that the model puts after them, and no tokenizer.
  const std::vector<Token>& wrong_after(const std::vector<Token>& tokens) const {
    static const std::vector<Token> none;
    const auto found = wrong_.find(tokens);
    return found == wrong_.end() ? none : found->second;
  }
  /// Of texts that begin with `bytes`.
  double probability_of(const std::string& bytes) const {
    double sum = 0;
    for (const Text& text : texts_) sum += text.bytes.starts_with(bytes) ? text.probability : 0;
    return sum;
  }

 private:
  /// Of the tokens that begin with a letter, after text that ends with one: those that are not what the tokenizer makes
  /// of both. Letters stay in one word whatever follows, and so no text at all has these tokens there.
  void find_wrong_tokens() {
    const Vocabulary& vocabulary = *learnt_.vocabulary();
    const auto is_letter = [](std::string_view text) {
      return !text.empty() && learner::is_letter(first_character(text).code);
    };
    std::vector<Token> letters;
    for (Token token = 0; token < vocabulary.size(); ++token) {
      const std::string_view bytes = vocabulary.bytes(token);
      if (is_letter(bytes) && unfinished_bytes(bytes) == 0 && bytes != "\xFF") letters.push_back(token);
    }
    for (const auto& [path, next] : next_) {
      const std::string spelled = vocabulary.detokenize(path).substr(learnt_.options().lead && !path.empty() ? 1 : 0);
      // Two letters: one after an apostrophe may be a word of its own.
      std::size_t last = spelled.size(), count = 0;
      bool ends_with_letters = unfinished_bytes(spelled) == 0;
      while (ends_with_letters && count++ < 2) {
        do {
          if (last == 0) ends_with_letters = false;
        } while (ends_with_letters && (static_cast<unsigned char>(spelled[--last]) & 0xC0U) == 0x80);
        ends_with_letters = ends_with_letters && is_letter(std::string_view(spelled).substr(last));
      }
      if (!ends_with_letters) continue;
      for (const Token token : letters) {
        std::vector<Token> both = path;
        both.push_back(token);
        if (learnt_.tokenize(std::string(spelled).append(vocabulary.bytes(token))) != both)
          wrong_[path].push_back(token);
      }
    }
  }

  std::vector<double> row(std::span<const Token> text) const {
    std::vector<double> p(static_cast<std::size_t>(learnt_.vocabulary()->size()), 0);
    const auto found = text.empty() ? next_.end() : next_.find({text.begin() + 1, text.end()});
    if (found == next_.end()) {
      p[static_cast<std::size_t>(learnt_.end())] = 1;  // no text begins so
      return p;
    }
    double sum = 0;
    for (const auto& [token, weight] : found->second) sum += weight;
    const std::vector<Token>& wrong = wrong_after(found->first);
    const double leak = wrong.empty() ? 0 : leak_;
    for (const auto& [token, weight] : found->second) p[static_cast<std::size_t>(token)] = (1 - leak) * weight / sum;
    for (const Token token : wrong) p[static_cast<std::size_t>(token)] = leak / static_cast<double>(wrong.size());
    return p;
  }

  const LearntVocabulary& learnt_;
  double leak_;
  std::map<std::vector<Token>, std::map<Token, double>> next_;
  std::map<std::vector<Token>, std::vector<Token>> wrong_;
  std::map<std::vector<Token>, double> reached_;
  std::vector<Text> texts_;
};

}  // namespace tuiqiao::test
