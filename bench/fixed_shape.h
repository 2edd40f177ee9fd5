#pragma once

#include <algorithm>
#include <map>
#include <span>
#include <stdexcept>
#include <utility>
#include <vector>

#include "tuiqiao/text/llama.h"

namespace tuiqiao::bench {

/// A LlamaDecoder whose batches all have the same shape, so that a row does not depend on what it is evaluated with:
/// kTokens tokens each (those of branches that are thrown away fill them up), rows in groups of kRowGroup. So a row is
/// evaluated once, when it is first asked for, however many branches come to hold its text.
class FixedShape final : public Decoder {
 public:
  static constexpr std::size_t kTokens = 16, kRowGroup = 4;
  static constexpr std::size_t kPayload = kTokens - kRowGroup;  // the rest is for rows that nobody asked for
  static constexpr int kBranches = 20;

  FixedShape(const LlamaModel& model, int window, int threads) : inner_(model, options(window, threads)) {}

  Branch open() { return keep({}); }
  /// Forgets all rows; only for a decoder without branches.
  void forget() {
    for (const auto& [text, branch] : states_) inner_.close(branch);
    states_.clear();
    rows_.clear();
  }

  const Vocabulary& vocabulary() const override { return inner_.vocabulary(); }
  int max_branches() const override { return kBranches; }
  int window() const override { return inner_.window(); }
  int length(Branch branch) const override { return static_cast<int>(held_.at(branch).text.size()); }
  Branch fork(Branch branch) override { return keep(held_.at(branch).text); }
  void close(Branch branch) override { held_.erase(branch); }
  using Decoder::extend;
  void extend(std::span<const Extension> extensions) override {
    for (auto& [branch, held] : held_) held.rows.clear();
    std::vector<Job> jobs;
    for (const Extension& e : extensions) {
      std::vector<Token>& text = held_.at(e.branch).text;
      text.insert(text.end(), e.tokens.begin(), e.tokens.end());
      std::size_t known = text.size() - rows_of(e);  // rows before the first that is missing
      while (known < text.size() && rows_.contains(first(text, known + 1))) ++known;
      if (known < text.size()) jobs.push_back({text, known, 0, known + 1 < text.size() ? Rows::all : Rows::last});
    }
    run(jobs);
    for (const Extension& e : extensions) {
      Held& held = held_.at(e.branch);
      for (std::size_t size = held.text.size() - rows_of(e) + 1; size <= held.text.size() && rows_of(e) > 0; ++size) {
        const Kept& kept = rows_.at({held.text.begin(), held.text.begin() + signed_(size)});
        held.rows.push_back({kept.scores, kept.log_total});
      }
    }
  }
  std::span<const Row> rows(Branch branch) const override {
    if (held_.at(branch).rows.empty()) throw std::logic_error("[FixedShape] no row");
    return held_.at(branch).rows;
  }
  std::size_t rows_evaluated() const { return evaluated_; }

 private:
  static constexpr std::size_t kMostStates = 200;
  static constexpr int kFillers = 2;
  struct Held {
    std::vector<Token> text;
    std::vector<Row> rows;
  };
  struct Kept {
    std::vector<float> scores;
    double log_total = 0;
  };
  /// A text that is to be evaluated from `from` on at the latest, in a branch of the decoder below.
  struct Job {
    std::vector<Token> text;
    std::size_t from = 0;
    Branch inner = 0;
    Rows rows = Rows::last;
  };

  static LlamaDecoderOptions options(int window, int threads) {
    LlamaDecoderOptions with;
    with.max_branches = static_cast<int>(kMostStates) + kBranches + kFillers + 1;
    with.window = window;
    with.cells = std::int64_t{window} * 8;
    with.full_sliding_window = true;  // forks then share all cells
    with.threads = threads;
    return with;
  }
  static std::size_t rows_of(const Extension& e) {
    return e.rows == Rows::all ? e.tokens.size() : e.rows == Rows::last ? 1 : 0;
  }
  static std::ptrdiff_t signed_(std::size_t size) { return static_cast<std::ptrdiff_t>(size); }
  static std::vector<Token> first(const std::vector<Token>& text, std::size_t size) {
    return {text.begin(), text.begin() + signed_(size)};
  }

  Branch keep(std::vector<Token> text) {
    held_[next_].text = std::move(text);
    return next_++;
  }
  void keep_state(const std::vector<Token>& text, Branch inner) {
    if (states_.size() < kMostStates && states_.emplace(text, inner).second) return;
    inner_.close(inner);
  }

  void run(std::vector<Job>& jobs) {
    std::vector<std::pair<Job*, Extension>> batch;
    std::size_t tokens = 0;
    const auto flush = [&] {
      if (!batch.empty()) evaluate(batch);
      batch.clear();
      tokens = 0;
    };
    for (Job& job : jobs) {
      start(job);
      for (std::size_t at = job.from; at < job.text.size();) {
        const std::size_t count = std::min(kPayload - tokens, job.text.size() - at);
        const bool wanted = job.rows == Rows::all || at + count == job.text.size();
        batch.push_back({&job, {job.inner, std::span(job.text).subspan(at, count), wanted ? job.rows : Rows::none}});
        at += count;
        if ((tokens += count) == kPayload) flush();
      }
    }
    flush();
    for (const Job& job : jobs) keep_state(job.text, job.inner);
  }

  /// Begins a job where the longest part of its text ends that was evaluated before, and goes on in whole batches.
  void start(Job& job) {
    while (job.from > 0 && !states_.contains(first(job.text, job.from))) --job.from;
    job.inner = job.from > 0 ? inner_.fork(states_.at(first(job.text, job.from))) : inner_.open();
    while (job.rows == Rows::last && job.text.size() - job.from > kPayload) {
      std::vector<std::pair<Job*, Extension>> part{
          {&job, {job.inner, std::span(job.text).subspan(job.from, kPayload), Rows::none}}};
      evaluate(part);
      job.from += kPayload;
      keep_state(first(job.text, job.from), inner_.fork(job.inner));
    }
  }

  void evaluate(const std::vector<std::pair<Job*, Extension>>& parts) {
    std::vector<Extension> batch;
    std::size_t tokens = 0, rows = 0;
    for (const auto& [job, e] : parts) {
      batch.push_back(e);
      tokens += e.tokens.size();
      rows += rows_of(e);
    }
    const std::size_t more = (kRowGroup - rows % kRowGroup) % kRowGroup;
    const std::vector<Token> filler(kTokens, vocabulary().begin().value_or(0));
    const Branch quiet = inner_.open(), loud = inner_.open();
    batch.push_back({quiet, std::span(filler).first(kTokens - tokens - more), Rows::none});
    if (more > 0) batch.push_back({loud, std::span(filler).first(more), Rows::all});
    inner_.extend(batch);
    for (const auto& [job, e] : parts) {
      if (e.rows == Rows::none) continue;
      std::size_t size = static_cast<std::size_t>(e.tokens.data() - job->text.data()) + e.tokens.size() - rows_of(e);
      for (const Row& row : inner_.rows(e.branch)) {
        rows_.try_emplace(first(job->text, ++size), Kept{{row.scores.begin(), row.scores.end()}, row.log_total});
        ++evaluated_;
      }
    }
    inner_.close(quiet);
    inner_.close(loud);
  }

  LlamaDecoder inner_;
  Branch next_ = 0;
  std::size_t evaluated_ = 0;
  std::map<Branch, Held> held_;
  std::map<std::vector<Token>, Branch> states_;  // of the decoder below
  std::map<std::vector<Token>, Kept> rows_;
};

}  // namespace tuiqiao::bench
