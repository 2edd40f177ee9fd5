#include "text/choose_covering.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <map>
#include <numeric>
#include <set>
#include <utility>

namespace tuiqiao {

namespace {

/// Draws an index by weight; the last of some weight where rounding leaves a little.
std::optional<std::size_t> draw(std::span<const double> weights, double uniform) {
  double total = 0;
  for (const double w : weights) total += w;
  double left = uniform * total;
  std::optional<std::size_t> last;
  for (std::size_t i = 0; i < weights.size(); ++i) {
    if (!(weights[i] > 0)) continue;
    last = i;
    if ((left -= weights[i]) < 0) break;
  }
  return last;
}

constexpr std::size_t kEnd = 256;         // beside the 256 bytes: the text ends
constexpr std::size_t kMostBytes = 1024;  // followed at most; then the heaviest covering is taken

constexpr double kWorthReading = 0.1;  // as a share of what may go unchecked

/// Coverings of the bytes followed so far that have a prefix in common.
struct Bundle {
  std::size_t node = 0;          // the prefix
  std::span<const Token> range;  // what may follow it: tokens that agree with those bytes and go on
  std::size_t depth = 0;         // bytes of theirs that are spelled
  int group = -1;                // of coverings with the same token beyond the text; -1: each token of `range` is one
};

/// A token after a prefix, or the end of the text there (token -1).
struct Next {
  double weight = 0;
  std::size_t node = 0;
  Token token = -1;
};

/// Weights of what is left.
struct Tally {
  std::array<double, 257> next{};  // by the byte that comes next
  std::map<int, double> groups;
  Next heaviest;  // of the coverings that are in no group
  double total = 0;
  int positive = 0;  // groups, and coverings in none, with any weight
};

class Follower {
 public:
  Follower(CoveredText& text, double unchecked)
      : text_(text), vocabulary_(text.vocabulary()), unchecked_(unchecked), reference_(reference_of(text)) {
    for (const Weighed& prefix : text.prefixes()) {
      bundles_.push_back({nodes_.size(), text.candidates(prefix), text.size() - prefix.at, -1});
      nodes_.push_back(prefix);
    }
  }

  std::optional<Covering> run() {
    for (std::size_t i = 0; i < kMostBytes; ++i) {
      Tally t = tally();
      if (const auto agreed = agreement(unchecked_, t)) return agreed;
      const auto next = best_next(t);
      if (!next) break;
      follow(*next);
      if (settled_) return settled_;
      if (*next == kEnd) break;
    }
    Tally t = tally();
    return agreement(1, t);
  }

 private:
  double weight(std::size_t node, Token token) const {
    if (vocabulary_.ends(token) || wrong_.contains({node, token})) return 0;
    return std::exp(nodes_[node].with(token) - reference_);
  }
  /// Of the end of the text after a bundle's prefix, if that is where the bytes followed so far end.
  double end_weight(const Bundle& bundle) {
    const Weighed& node = nodes_[bundle.node];
    const bool here = bundle.depth == 0 || (node.at + bundle.depth == text_.size() && text_.spells_all(node));
    return here ? std::exp(text_.end_after(node) - reference_) : 0;
  }
  bool canonical(std::size_t node, Token token) {
    if (token < 0 || text_.canonical(nodes_[node], token)) return true;
    wrong_.insert({node, token});
    return false;
  }
  Covering covering(const Next& next) {
    const Weighed& node = nodes_[next.node];
    if (next.token < 0) return {node.tail, node.at, std::nullopt, text_.end_after(node)};
    return {node.tail, node.at, next.token, node.with(next.token)};
  }

  Tally tally() {
    Tally t;
    for (const Bundle& bundle : bundles_) {
      double sum = 0;
      const auto add = [&](std::size_t symbol, double w, Token token) {
        t.next[symbol] += w;
        sum += w;
        if (bundle.group >= 0 || !(w > 0)) return;
        ++t.positive;
        if (w > t.heaviest.weight) t.heaviest = {w, bundle.node, token};
      };
      for (const Token token : bundle.range) {
        const auto byte = static_cast<unsigned char>(vocabulary_.bytes(token)[bundle.depth]);
        add(byte, weight(bundle.node, token), token);
      }
      add(kEnd, end_weight(bundle), -1);
      t.total += sum;
      if (bundle.group >= 0) t.groups[bundle.group] += sum;
    }
    for (const auto& [group, w] : t.groups) t.positive += w > 0 ? 1 : 0;
    return t;
  }

  /// The covering, or group of them, that holds all but a fraction of what is left; any fraction from 1 on: the
  /// heaviest. `t` is what is left, and stays so.
  std::optional<Covering> agreement(double but, Tally& t) {
    for (;; t = tally()) {
      const auto best = std::max_element(t.groups.begin(), t.groups.end(),
                                         [](const auto& a, const auto& b) { return a.second < b.second; });
      const bool grouped = best != t.groups.end() && best->second > t.heaviest.weight;
      const double most = grouped ? best->second : t.heaviest.weight;
      if (!(most > 0)) return std::nullopt;
      if (t.positive > 1 && t.total - most > but * t.total) return std::nullopt;
      if (grouped) return groups_[static_cast<std::size_t>(best->first)];
      if (canonical(t.heaviest.node, t.heaviest.token)) return covering(t.heaviest);
    }
  }

  /// Tokens whose next byte is `symbol`, heaviest first.
  std::vector<Next> tokens_with(std::size_t symbol) const {
    std::vector<Next> found;
    for (const Bundle& bundle : bundles_) {
      for (const Token token : vocabulary_.trie().narrowed(bundle.range, bundle.depth, static_cast<char>(symbol))) {
        if (const double w = weight(bundle.node, token); w > 0) found.push_back({w, bundle.node, token});
      }
    }
    std::stable_sort(found.begin(), found.end(), [](const Next& a, const Next& b) { return a.weight > b.weight; });
    return found;
  }

  /// The byte of largest weight, or the end. Only as many tokens are looked at as settle it.
  std::optional<std::size_t> best_next(const Tally& t) {
    std::array<double, 257> most = t.next;  // without what was found not to be canonical
    std::array<std::optional<std::vector<Next>>, 256> tokens;
    std::array<std::size_t, 257> looked{};
    std::array<double, 257> sure{};
    while (true) {
      const auto best = static_cast<std::size_t>(std::max_element(most.begin(), most.end()) - most.begin());
      if (!(most[best] > 0)) return std::nullopt;
      if (best == kEnd) return best;
      double second = 0, total = 0;
      for (std::size_t i = 0; i < most.size(); ++i) {
        total += most[i];
        second = i == best ? second : std::max(second, most[i]);
      }
      if (!tokens[best]) tokens[best] = tokens_with(best);
      const std::vector<Next>& list = *tokens[best];
      std::size_t& at = looked[best];
      const auto settled = [&] {
        return sure[best] > 0 && (sure[best] >= second || most[best] - sure[best] <= unchecked_ * total);
      };
      while (at < list.size() && !settled()) {
        const Next& next = list[at++];
        if (canonical(next.node, next.token)) {
          sure[best] += next.weight;
          continue;
        }
        most[best] -= next.weight;
        if (most[best] < second) break;
      }
      if (at == list.size()) most[best] = sure[best];
      if (most[best] < second || !(most[best] > 0)) continue;
      least_ = kWorthReading * unchecked_ * most[best];
      return best;
    }
  }

  /// Keeps what agrees with one more byte.
  void follow(std::size_t symbol) {
    if (symbol == kEnd) {
      std::erase_if(bundles_, [&](const Bundle& bundle) { return end_weight(bundle) == 0; });
      for (Bundle& bundle : bundles_) bundle.range = {};
      return;
    }
    std::vector<Bundle> kept;
    std::vector<int> groups;  // of coverings that end here
    std::vector<Next> last;   // their last tokens
    for (const Bundle& bundle : bundles_) {
      auto range = vocabulary_.trie().narrowed(bundle.range, bundle.depth, static_cast<char>(symbol));
      while (!range.empty() && vocabulary_.bytes(range.front()).size() == bundle.depth + 1) {
        const Next next{weight(bundle.node, range.front()), bundle.node, range.front()};
        range = range.subspan(1);
        if (!(next.weight > least_) || !canonical(next.node, next.token)) continue;
        groups.push_back(bundle.group);
        last.push_back(next);
      }
      if (!range.empty()) kept.push_back({bundle.node, range, bundle.depth + 1, bundle.group});
    }
    bundles_ = std::move(kept);
    for (std::size_t i = 0; i < last.size(); ++i) {
      if (groups[i] >= 0) continue;
      groups[i] = static_cast<int>(groups_.size());
      groups_.push_back(covering(last[i]));
    }
    if (!last.empty()) read_on(groups, last);
  }

  /// Reads the rows after coverings that end where the bytes followed so far do.
  void read_on(const std::vector<int>& groups, const std::vector<Next>& last) {
    std::vector<std::vector<Token>> tails;
    bool room = true;
    for (const Next& next : last) {
      tails.push_back(nodes_[next.node].tail);
      tails.back().push_back(next.token);
      room = room && text_.trunk().fits(tails.back().size() + 1);
    }
    const bool same = std::all_of(groups.begin(), groups.end(), [&](int group) { return group == groups.front(); });
    if (!room || (bundles_.empty() && same)) {  // no way, or no need, to tell them apart
      const auto best =
          std::max_element(last.begin(), last.end(), [](const Next& a, const Next& b) { return a.weight < b.weight; });
      settled_ = groups_[static_cast<std::size_t>(groups[static_cast<std::size_t>(best - last.begin())])];
      return;
    }
    std::vector<Weighed> read = text_.trunk().weigh(tails);
    for (std::size_t i = 0; i < read.size(); ++i) {
      read[i].at = nodes_[last[i].node].at + vocabulary_.bytes(last[i].token).size();
      bundles_.push_back({nodes_.size(), vocabulary_.trie().starting_with(""), 0, groups[i]});
      nodes_.push_back(std::move(read[i]));
    }
  }

  CoveredText& text_;
  const Vocabulary& vocabulary_;
  double unchecked_;
  double reference_;
  std::vector<Weighed> nodes_;
  std::vector<Bundle> bundles_;
  std::vector<Covering> groups_;
  std::optional<Covering> settled_;
  double least_ = 0;  // weight that is worth a look at what follows
  std::set<std::pair<std::size_t, Token>> wrong_;
};

}  // namespace

std::optional<Covering> follow_text(CoveredText& text, double unchecked) { return Follower(text, unchecked).run(); }

std::optional<Covering> draw_covering(CoveredText& text, double temperature, const std::function<double()>& uniform) {
  constexpr double kNone = -std::numeric_limits<double>::infinity();
  std::set<std::pair<std::size_t, Token>> wrong;
  const auto logprob = [&](std::size_t at, Token token) {
    const bool out = text.vocabulary().ends(token) || wrong.contains({at, token});
    return out ? kNone : text.prefixes()[at].with(token);
  };
  std::vector<std::span<const Token>> ranges;
  std::vector<double> ends;
  for (const Weighed& prefix : text.prefixes()) {
    ranges.push_back(text.candidates(prefix));
    ends.push_back(text.spells_all(prefix) ? text.end_after(prefix) : kNone);
  }
  double reference = kNone;
  const auto weights_of = [&](std::size_t at) {  // the last is that of the end
    std::vector<double> weights;
    for (const Token token : ranges[at]) weights.push_back(std::exp((logprob(at, token) - reference) / temperature));
    weights.push_back(std::exp((ends[at] - reference) / temperature));
    return weights;
  };
  const auto sum = [](const std::vector<double>& weights) {
    return std::accumulate(weights.begin(), weights.end(), 0.0);
  };
  std::vector<double> totals;
  while (true) {
    if (std::none_of(totals.begin(), totals.end(), [](double total) { return total > 0; })) {
      // Relative to the heaviest that is left: at low temperatures all others may be 0 beside one that was rejected.
      reference = kNone;
      for (std::size_t i = 0; i < ranges.size(); ++i) {
        reference = std::max(reference, ends[i]);
        for (const Token token : ranges[i]) reference = std::max(reference, logprob(i, token));
      }
      if (!std::isfinite(reference)) return std::nullopt;
      totals.clear();
      for (std::size_t i = 0; i < ranges.size(); ++i) totals.push_back(sum(weights_of(i)));
    }
    const std::size_t at = *draw(totals, uniform());
    const Weighed& prefix = text.prefixes()[at];
    std::vector<double> weights = weights_of(at);
    const std::size_t which = *draw(weights, uniform());
    if (which == ranges[at].size()) return Covering{prefix.tail, prefix.at, std::nullopt, ends[at]};
    const Token token = ranges[at][which];
    if (text.canonical(prefix, token)) return Covering{prefix.tail, prefix.at, token, prefix.with(token)};
    wrong.insert({at, token});
    weights[which] = 0;
    totals[at] = sum(weights);  // a difference would leave rounding where nothing is left
  }
}

}  // namespace tuiqiao
