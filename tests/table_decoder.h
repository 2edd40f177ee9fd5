#pragma once

#include <cmath>
#include <functional>
#include <memory>
#include <random>
#include <stdexcept>
#include <string>
#include <vector>

#include "tuiqiao/text/decoder.h"

namespace tuiqiao::test {

/// Ten words, the last of which ends a text. Tokenises by longest match, so that "ab" is one token and not two.
inline std::shared_ptr<const Vocabulary> ten_words() {
  static const std::vector<std::string> kWords{"a", "b", "ab", "abc", "c", " ", "服", "服务", "\xe5\x8a", ""};
  std::vector<Vocabulary::Entry> entries;
  for (const std::string& word : kWords) entries.push_back({word, "", TokenKind::text, false});
  entries.back() = {"", "<end>", TokenKind::control, true};
  const auto tokenize = [](std::string_view text, bool special) {
    std::vector<Token> tokens;
    while (!text.empty()) {
      if (special && text.starts_with("<end>")) {
        tokens.push_back(9);
        text.remove_prefix(5);
        continue;
      }
      std::size_t best = kWords.size();
      for (std::size_t i = 0; i + 1 < kWords.size(); ++i) {
        if (text.starts_with(kWords[i]) && (best == kWords.size() || kWords[i].size() > kWords[best].size())) best = i;
      }
      if (best == kWords.size()) throw std::invalid_argument("no such word");
      tokens.push_back(static_cast<Token>(best));
      text.remove_prefix(kWords[best].size());
    }
    return tokens;
  };
  return std::make_shared<const Vocabulary>(std::move(entries), tokenize, std::nullopt);
}

/// A Decoder whose rows are a known function of the branch's text: probabilities of the next token.
class TableDecoder final : public Decoder {
 public:
  using Table = std::function<std::vector<double>(std::span<const Token> text)>;

  explicit TableDecoder(Table table, int max_branches = 8, int window = 64,
                        std::shared_ptr<const Vocabulary> vocabulary = ten_words())
      : vocabulary_(std::move(vocabulary)),
        table_(std::move(table)),
        window_(window),
        branches_(static_cast<std::size_t>(max_branches)) {}

  Branch open() {
    for (std::size_t i = 0; i < branches_.size(); ++i) {
      if (branches_[i].lives) continue;
      branches_[i] = {true, {}, {}, {}};
      return static_cast<Branch>(i);
    }
    throw std::invalid_argument("[TableDecoder::open] all branches live already");
  }

  const Vocabulary& vocabulary() const override { return *vocabulary_; }
  int max_branches() const override { return static_cast<int>(branches_.size()); }
  int window() const override { return window_; }
  int length(Branch branch) const override { return static_cast<int>(at(branch).text.size()); }
  bool shares() const override { return shares_; }
  void share(bool shares) { shares_ = shares; }
  Branch fork(Branch branch) override {
    const std::vector<Token> text = at(branch).text;
    const Branch copy = open();
    at(copy).text = text;
    return copy;
  }
  void close(Branch branch) override { at(branch) = {}; }
  using Decoder::extend;
  void extend(std::span<const Extension> extensions) override {
    ++extends;
    for (auto& branch : branches_) branch.rows.clear();
    for (const Extension& e : extensions) {
      State& branch = at(e.branch);
      if (branch.text.size() + e.tokens.size() > static_cast<std::size_t>(window_))
        throw std::invalid_argument("[TableDecoder::extend] window");
      branch.scores.clear();
      for (std::size_t i = 0; i < e.tokens.size(); ++i) {
        branch.text.push_back(e.tokens[i]);
        if (e.rows == Rows::none || (e.rows == Rows::last && i + 1 < e.tokens.size())) continue;
        auto& scores = branch.scores.emplace_back();
        // An offset per row: nobody may take scores for log-probabilities.
        for (const double p : table_(branch.text)) scores.push_back(static_cast<float>(std::log(p) + kOffset));
      }
      for (const Branch also : e.also) {
        if (!shares_) throw std::invalid_argument("[TableDecoder::extend] shares nothing");
        const std::vector<Token> before(branch.text.begin(),
                                        branch.text.end() - static_cast<std::ptrdiff_t>(e.tokens.size()));
        if (at(also).text != before) throw std::invalid_argument("[TableDecoder::extend] another text");
        at(also).text = branch.text;
      }
      for (const auto& scores : branch.scores) branch.rows.push_back({scores, log_total(scores)});
    }
  }
  std::span<const Row> rows(Branch branch) const override {
    if (at(branch).rows.empty()) throw std::invalid_argument("[TableDecoder::rows] no row");
    return at(branch).rows;
  }

  const std::vector<Token>& text(Branch branch) const { return at(branch).text; }

  int extends = 0;

 private:
  static constexpr double kOffset = 3.5;
  struct State {
    bool lives = false;
    std::vector<Token> text;
    std::vector<std::vector<float>> scores;
    std::vector<Row> rows;
  };
  static double log_total(const std::vector<float>& scores) {
    double sum = 0;
    for (const float score : scores) sum += std::exp(static_cast<double>(score));
    return std::log(sum);
  }
  const State& at(Branch branch) const {
    if (branch < 0 || branch >= max_branches() || !branches_[static_cast<std::size_t>(branch)].lives)
      throw std::invalid_argument("[TableDecoder] dead branch");
    return branches_[static_cast<std::size_t>(branch)];
  }
  State& at(Branch branch) { return const_cast<State&>(std::as_const(*this).at(branch)); }

  std::shared_ptr<const Vocabulary> vocabulary_;
  Table table_;
  int window_;
  bool shares_ = false;
  std::vector<State> branches_;
};

/// Probabilities that depend on the whole text, all above zero, the same for the same seed and text.
inline TableDecoder::Table random_table(unsigned seed) {
  return [seed](std::span<const Token> text) {
    std::vector<unsigned> key{seed};
    for (const Token token : text) key.push_back(static_cast<unsigned>(token));
    std::seed_seq sequence(key.begin(), key.end());
    std::mt19937 random(sequence);
    std::vector<double> p(10);
    double sum = 0;
    for (double& value : p) sum += value = std::exp(-0.3 * static_cast<double>(random() % 20));
    for (double& value : p) value /= sum;
    return p;
  };
}

}  // namespace tuiqiao::test
