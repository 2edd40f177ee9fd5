#include "text/covered_text.h"

#include <fmt/format.h>

#include <algorithm>
#include <limits>
#include <stdexcept>
#include <utility>

namespace tuiqiao {

namespace {

constexpr std::size_t kMostRows = 64;   // of one batch: each is as wide as the vocabulary
constexpr std::size_t kOneChunk = 512;  // tokens that are read at once
constexpr std::size_t kShared = 16;     // of longer texts: the last tokens, which a branch and its forks read at once

bool begins(std::span<const Token> tokens, std::span<const Token> with) {
  return with.size() <= tokens.size() && std::equal(with.begin(), with.end(), tokens.begin());
}

/// Tails that no other goes on from, in order: one chain weighs all that it begins with.
std::vector<std::vector<Token>> chains_of(std::vector<std::vector<Token>> tails) {
  std::sort(tails.begin(), tails.end());
  std::vector<std::vector<Token>> chains;
  for (std::size_t i = 0; i < tails.size(); ++i) {
    if (tails[i].empty() || (i + 1 < tails.size() && begins(tails[i + 1], tails[i]))) continue;
    chains.push_back(std::move(tails[i]));
  }
  return chains;
}

/// Brief forks of a branch, closed in the end.
class Forks {
 public:
  Forks(Decoder& decoder, Branch of, std::size_t count) : decoder_(decoder) {
    try {
      for (std::size_t i = 0; i < count; ++i) branches_.push_back(decoder.fork_briefly(of));
    } catch (...) {
      close();
      throw;
    }
  }
  ~Forks() { close(); }
  Forks(const Forks&) = delete;
  Forks& operator=(const Forks&) = delete;
  std::span<const Branch> branches() const { return branches_; }

 private:
  void close() {
    for (const Branch branch : branches_) decoder_.close(branch);
  }
  Decoder& decoder_;
  std::vector<Branch> branches_;
};

void keep_row(const Row& row, Weighed& of) {
  of.scores.assign(row.scores.begin(), row.scores.end());
  of.log_total = row.log_total;
}

/// Log-probability of a token in a row; a row that gives nothing any probability gives none to this.
double logprob_of(const Row& row, Token token) {
  return std::isfinite(row.log_total) ? row[token] : -std::numeric_limits<double>::infinity();
}

}  // namespace

Trunk::Trunk(Decoder& decoder, Branch branch, int forks) : decoder_(decoder), branch_(branch) {
  if (forks == 0) forks = decoder.max_branches() - 1;
  if (forks < 1) throw std::invalid_argument("[heal] the decoder keeps a single branch: healing forks it");
  forks_ = static_cast<std::size_t>(forks);
}

void Trunk::grow(std::span<const Token> tokens) {
  if (!tokens.empty()) decoder_.extend({branch_, tokens, Rows::last});
  keep_own(decoder_.row(branch_));
}

void Trunk::keep_own(const Row& row) {
  scores_.assign(row.scores.begin(), row.scores.end());
  log_total_ = row.log_total;
}

double Trunk::grow_counting(std::span<const Token> tokens, std::size_t uncounted) {
  double logprob = 0;
  for (std::size_t done = 0; done < tokens.size();) {
    const std::size_t end = done < uncounted ? uncounted : std::min(tokens.size(), done + kMostRows);
    decoder_.extend({branch_, tokens.subspan(done, end - done), done < uncounted ? Rows::last : Rows::all});
    const std::span<const Row> rows = decoder_.rows(branch_);
    for (std::size_t i = std::max(done, uncounted); i < end; ++i) {
      logprob += logprob_of(i == done ? Row{scores_, log_total_} : rows[i - done - 1], tokens[i]);
    }
    keep_own(rows.back());
    done = end;
  }
  return logprob;
}

bool Trunk::fits(std::size_t tokens) const {
  return static_cast<std::int64_t>(tokens) + decoder_.length(branch_) <= decoder_.window();
}

std::vector<Weighed> Trunk::weigh(std::vector<std::vector<Token>> tails) {
  std::vector<Weighed> weighed;
  for (const std::vector<Token>& tail : tails) weighed.emplace_back().tail = tail;
  keep_rows({}, {}, weighed);
  const auto read = [&](std::span<const std::vector<Token>> chains, std::span<const Branch> forks) {
    keep_rows(chains, forks, weighed);
  };
  in_batches(chains_of(std::move(tails)), Rows::all, read);
  return weighed;
}

void Trunk::keep_rows(std::span<const std::vector<Token>> chains, std::span<const Branch> forks,
                      std::vector<Weighed>& of) const {
  for (Weighed& tail : of) {
    if (tail.tail.empty()) keep_row({scores_, log_total_}, tail);
  }
  for (std::size_t i = 0; i < chains.size(); ++i) {
    const std::span<const Row> rows = decoder_.rows(forks[i]);
    double logprob = 0;
    for (std::size_t k = 0; k < chains[i].size(); ++k) {
      const Row before = k == 0 ? Row{scores_, log_total_} : rows[k - 1];
      logprob += logprob_of(before, chains[i][k]);
      const std::span<const Token> path = std::span(chains[i]).first(k + 1);
      for (Weighed& tail : of) {
        if (!std::equal(tail.tail.begin(), tail.tail.end(), path.begin(), path.end())) continue;
        tail.logprob = logprob;
        keep_row(rows[k], tail);
      }
    }
  }
}

std::vector<Weighed> Trunk::grow_and_weigh(std::span<const Token> tokens, std::vector<std::vector<Token>> tails) {
  const std::vector<std::vector<Token>> chains = chains_of(tails);
  std::size_t count = 1;
  for (const std::vector<Token>& chain : chains) count += chain.size();
  if (tokens.empty() || chains.empty() || !decoder_.shares() || chains.size() > forks_ || count > kMostRows) {
    grow(tokens);
    return weigh(std::move(tails));
  }
  const std::size_t alone = tokens.size() + count <= kOneChunk ? 0 : tokens.size() - std::min(tokens.size(), kShared);
  if (alone > 0) decoder_.extend({branch_, tokens.first(alone), Rows::none});
  const Forks forks(decoder_, branch_, chains.size());
  std::vector<Extension> extensions{{branch_, tokens.subspan(alone), Rows::last, forks.branches()}};
  for (std::size_t i = 0; i < chains.size(); ++i) extensions.push_back({forks.branches()[i], chains[i], Rows::all});
  decoder_.extend(extensions);
  keep_own(decoder_.row(branch_));
  std::vector<Weighed> weighed;
  for (std::vector<Token>& tail : tails) weighed.emplace_back().tail = std::move(tail);
  keep_rows(chains, forks.branches(), weighed);
  return weighed;
}

std::vector<Weighed> Trunk::rows_after(std::vector<std::vector<Token>> tails) {
  std::vector<Weighed> found;
  std::vector<std::vector<Token>> read;  // tails that are not empty
  std::vector<std::size_t> at;
  for (std::vector<Token>& tail : tails) {
    found.emplace_back();
    if (tail.empty()) {
      keep_row({scores_, log_total_}, found.back());
    } else {
      at.push_back(found.size() - 1);
      read.push_back(tail);
    }
    found.back().tail = std::move(tail);
  }
  std::size_t done = 0;
  in_batches(read, Rows::last, [&](std::span<const std::vector<Token>>, std::span<const Branch> forks) {
    for (const Branch fork : forks) keep_row(decoder_.row(fork), found[at[done++]]);
  });
  return found;
}

void Trunk::in_batches(std::span<const std::vector<Token>> tails, Rows rows,
                       const std::function<void(std::span<const std::vector<Token>>, std::span<const Branch>)>& read) {
  const auto rows_of = [&](const std::vector<Token>& tail) { return rows == Rows::all ? tail.size() : 1; };
  for (std::size_t i = 0; i < tails.size();) {
    std::size_t end = i, count = 0;
    while (end < tails.size() && end - i < forks_ && (end == i || count + rows_of(tails[end]) <= kMostRows))
      count += rows_of(tails[end++]);
    const auto together = tails.subspan(i, end - i);
    const Forks forks(decoder_, branch_, together.size());
    std::vector<Extension> extensions;
    for (std::size_t k = 0; k < together.size(); ++k) extensions.push_back({forks.branches()[k], together[k], rows});
    decoder_.extend(extensions);
    ++batches_;
    read(together, forks.branches());
    i = end;
  }
}

CoveredText::CoveredText(Trunk& trunk, std::span<const Token> before, Coverings& coverings,
                         const CoveredTextOptions& options)
    : trunk_(trunk), coverings_(coverings) {
  const std::size_t skip = options.skip;
  for (Token token = 0; token < vocabulary().size(); ++token) {
    if (vocabulary().ends(token)) ends_.push_back(token);
  }
  const std::span<const Token> tokens = coverings.tokens();
  const bool bare = before.empty() && skip == 0 && trunk.decoder().length(trunk.branch()) == 0;
  // Without healing the last token follows the branch too, and its row is read then.
  grown_ = std::min(coverings.trunk().size(), tokens.size() - std::min<std::size_t>(1, tokens.size()));
  grown_ -= std::min(grown_, options.spare);
  const std::size_t keep = std::max<std::size_t>(options.keep, bare ? 1 : 0);  // the first token has no probability
  grown_ = std::max({grown_, skip, std::min(keep, tokens.size())});
  std::vector<Token> certain(before.begin(), before.end());
  certain.insert(certain.end(), tokens.begin() + static_cast<std::ptrdiff_t>(skip),
                 tokens.begin() + static_cast<std::ptrdiff_t>(grown_));
  std::vector<std::vector<Token>> tails;
  std::vector<std::size_t> ends;
  for (const Split& split : coverings.splits()) {
    std::vector<Token> whole(coverings.trunk().begin(), coverings.trunk().end());
    whole.insert(whole.end(), split.tail.begin(), split.tail.end());
    if (!begins(whole, grown())) continue;
    whole.erase(whole.begin(), whole.begin() + static_cast<std::ptrdiff_t>(grown_));
    if (!trunk_.fits(certain.size() + whole.size() + options.room)) {
      complete_ = false;
      continue;
    }
    tails.push_back(std::move(whole));
    ends.push_back(split.at);
  }
  double logprob = 0;
  std::vector<Weighed> weighed;
  if (options.count && !certain.empty()) {
    // What is in the branch left no row, and what is first has no probability.
    logprob = trunk_.grow_counting(certain, std::max<std::size_t>(before.size(), 1));
    weighed = trunk_.weigh(std::move(tails));
  } else {
    weighed = trunk_.grow_and_weigh(certain, std::move(tails));
  }
  for (std::size_t i = 0; i < weighed.size(); ++i) {
    weighed[i].at = ends[i];
    weighed[i].logprob += logprob;
    if (std::isfinite(weighed[i].logprob) && std::isfinite(weighed[i].log_total))
      prefixes_.push_back(std::move(weighed[i]));
  }
}

std::vector<Token> CoveredText::after_trunk(std::span<const Token> tail) const {
  // Coverings count from their own trunk, which may be longer or (where the first token is kept) shorter than ours.
  std::vector<Token> whole(grown().begin(), grown().end());
  whole.insert(whole.end(), tail.begin(), tail.end());
  whole.erase(whole.begin(), whole.begin() + static_cast<std::ptrdiff_t>(coverings_.trunk().size()));
  return whole;
}

bool CoveredText::canonical(const Weighed& prefix, Token token) {
  std::vector<Token> tail = prefix.tail;
  tail.push_back(token);
  return coverings_.canonical(after_trunk(tail));
}

double CoveredText::end_after(const Weighed& prefix) {
  double sum = 0;
  for (const Token token : ends_) sum += std::exp(prefix.with(token) - prefix.logprob);
  if (sum == 0 || !coverings_.may_end(after_trunk(prefix.tail))) return -std::numeric_limits<double>::infinity();
  return prefix.logprob + std::log(sum);
}

double reference_of(const CoveredText& text) {
  double reference = -std::numeric_limits<double>::infinity();
  for (const Weighed& prefix : text.prefixes()) reference = std::max(reference, prefix.logprob);
  return std::isfinite(reference) ? reference : 0;
}

Candidates check_heaviest(CoveredText& text, double unchecked, double reference, double also,
                          const std::function<bool(const Weighed&)>& counts) {
  Candidates found;
  found.reference = reference;
  const auto for_each = [&](auto&& visit) {
    for (std::size_t i = 0; i < text.prefixes().size(); ++i) {
      const Weighed& prefix = text.prefixes()[i];
      if (!counts(prefix)) continue;
      for (const Token token : text.candidates(prefix)) {
        if (!text.vocabulary().ends(token)) visit(Candidate{std::exp(prefix.with(token) - reference), i, token});
      }
    }
  };
  std::size_t count = 0;
  double light = 0;  // weight of all that was not looked at
  for_each([&](const Candidate& c) {
    light += c.weight;
    ++count;
  });
  double right = 0, above = std::numeric_limits<double>::infinity();
  const auto most_open = [&](double open) { return unchecked * (right + open + also); };
  while (light > most_open(light)) {
    // What is lighter than this is half of what may stay unchecked at most: it need not be sorted. (If much that is
    // heavier turns out wrong, less may stay unchecked, and there is another round.)
    const double least = most_open(light) / (2 * static_cast<double>(count));
    std::vector<Candidate> heavy;
    light = 0;
    for_each([&](const Candidate& c) {
      if (c.weight > least && c.weight <= above) heavy.push_back(c);
      if (c.weight <= least) light += c.weight;
    });
    std::stable_sort(heavy.begin(), heavy.end(), [](const auto& a, const auto& b) { return a.weight > b.weight; });
    std::vector<double> open(heavy.size());  // from each on; sums, since differences would leave rounding
    for (std::size_t i = heavy.size(); i-- > 0;)
      open[i] = (i + 1 < heavy.size() ? open[i + 1] : light) + heavy[i].weight;
    std::size_t i = 0;
    for (; i < heavy.size() && open[i] > most_open(open[i]); ++i) {
      const Candidate& c = heavy[i];
      const bool is_right = text.canonical(text.prefixes()[c.prefix], c.token);
      right += is_right ? c.weight : 0;
      (is_right ? found.canonical : found.wrong).push_back(c);
    }
    if (i < heavy.size()) {
      light = open[i];
      break;
    }
    above = least;
  }
  found.unchecked = light;
  found.total = right + light;
  return found;
}

TextMass mass_of(CoveredText& text, double unchecked) {
  const double reference = reference_of(text);
  double whole = 0;  // of prefixes that end with the text, which are canonical
  for (const Weighed& prefix : text.prefixes()) {
    if (prefix.at == text.size()) whole += std::exp(prefix.logprob - reference);
  }
  const Candidates over =
      check_heaviest(text, unchecked, reference, whole, [&](const Weighed& prefix) { return prefix.at < text.size(); });
  const double total = whole + over.total;
  if (total == 0) return {-std::numeric_limits<double>::infinity(), 0};
  return {reference + std::log(total), over.unchecked / total};
}

}  // namespace tuiqiao
