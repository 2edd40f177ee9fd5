#include "text/choose_covering.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <functional>
#include <limits>
#include <map>
#include <numeric>
#include <set>
#include <string>
#include <string_view>
#include <tuple>
#include <utility>

#include "parallel.h"

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

/// A prefix and the weight of each token that may follow it.
struct Node {
  Weighed prefix;
  std::span<const Token> tokens;  // in the trie's order
  std::vector<double> weights;    // of `tokens`; 0 where one was found not to be canonical
};

/// Coverings of the bytes followed so far that have a prefix in common.
struct Bundle {
  std::size_t node = 0;
  std::size_t begin = 0, end = 0;  // of the node's tokens: those that agree with those bytes and go on
  std::size_t depth = 0;           // bytes of theirs that are spelled
  int group = -1;                  // of coverings with the same token beyond the text; -1: each token is one
};

constexpr std::size_t kNoToken = static_cast<std::size_t>(-1);

/// A token after a prefix, by its place among the node's, or the end of the text there (kNoToken).
struct Next {
  double weight = 0;
  std::size_t node = 0;
  std::size_t at = kNoToken;
};

/// A covering that ends where `from` bytes were followed. While what comes after it is not read, any part of its weight
/// may go to any byte that follows.
struct Ended {
  Next last;
  int group = 0;
  std::size_t from = 0;
};

/// Weights of what is left.
struct Tally {
  std::array<double, 257> next{};  // by the byte that comes next
  std::map<int, double> groups;    // what was read of them
  std::map<int, double> ended;     // what was not, by group
  Next heaviest;                   // of the coverings that are in no group
  double total = 0;                // with `open`
  double open = 0;                 // of all that ended
  int positive = 0;                // groups, and coverings in none, with any weight
};

class Follower {
 public:
  Follower(CoveredText& text, double unchecked)
      : text_(text), vocabulary_(text.vocabulary()), unchecked_(unchecked), reference_(reference_of(text)) {
    for (const Weighed& prefix : text.prefixes()) {
      const std::span<const Token> tokens = text.candidates(prefix);
      bundles_.push_back({nodes_.size(), 0, tokens.size(), text.size() - prefix.at, -1});
      add_node(prefix, tokens);
    }
  }

  std::optional<Covering> run() {
    while (followed_.size() < kMostBytes) {
      Tally t = tally();
      if (auto agreed = agreement(unchecked_, t)) return agreed;
      const auto best = best_next(t);
      // Read only where what ended could tip the choice: until then it waits for others, and all take one batch.
      if (!ended_.empty() && (!best || best->symbol == kEnd || !(best->lead > t.open))) {
        if (!read_on()) return heaviest(t);
        continue;
      }
      if (!best) break;
      follow(best->symbol);
      if (best->symbol == kEnd) break;
    }
    Tally t = tally();
    return heaviest(t);
  }

 private:
  void add_node(Weighed prefix, std::span<const Token> tokens) {
    Node& node = nodes_.emplace_back(Node{std::move(prefix), tokens, {}});
    node.weights.resize(tokens.size());
    constexpr std::size_t kTogether = 8192;
    parallel_for(static_cast<std::int64_t>((tokens.size() + kTogether - 1) / kTogether), [&](std::int64_t block) {
      const std::size_t begin = static_cast<std::size_t>(block) * kTogether;
      for (std::size_t i = begin; i < std::min(begin + kTogether, tokens.size()); ++i)
        node.weights[i] = vocabulary_.ends(tokens[i]) ? 0 : std::exp(node.prefix.with(tokens[i]) - reference_);
    });
  }
  Token token_of(const Next& next) const { return nodes_[next.node].tokens[next.at]; }
  std::string_view bytes_of(const Next& next) const { return vocabulary_.bytes(token_of(next)); }
  /// The part of a bundle's tokens from `begin` on that has `byte` next, by its ends.
  std::pair<std::size_t, std::size_t> narrowed(const Bundle& bundle, std::size_t begin, char byte) const {
    const std::span<const Token> tokens = nodes_[bundle.node].tokens;
    const auto range = vocabulary_.trie().narrowed(tokens.subspan(begin, bundle.end - begin), bundle.depth, byte);
    if (range.empty()) return {begin, begin};
    const auto first = static_cast<std::size_t>(range.data() - tokens.data());
    return {first, first + range.size()};
  }

  /// Of the end of the text after a bundle's prefix, if that is where the bytes followed so far end.
  double end_weight(const Bundle& bundle) {
    const Weighed& prefix = nodes_[bundle.node].prefix;
    const bool here = bundle.depth == 0 || (prefix.at + bundle.depth == text_.size() && text_.spells_all(prefix));
    return here ? std::exp(text_.end_after(prefix) - reference_) : 0;
  }
  bool canonical(const Next& next) {
    if (next.at == kNoToken || text_.canonical(nodes_[next.node].prefix, token_of(next))) return true;
    nodes_[next.node].weights[next.at] = 0;
    return false;
  }
  Covering covering(const Next& next) {
    const Weighed& prefix = nodes_[next.node].prefix;
    if (next.at == kNoToken) return {prefix.tail, prefix.at, std::nullopt, text_.end_after(prefix)};
    return {prefix.tail, prefix.at, token_of(next), prefix.with(token_of(next))};
  }

  Tally tally() {
    Tally t;
    for (const Bundle& bundle : bundles_) {
      double sum = 0;
      const auto add = [&](double w, std::size_t at) {
        sum += w;
        if (bundle.group >= 0 || !(w > 0)) return;
        ++t.positive;
        if (w > t.heaviest.weight) t.heaviest = {w, bundle.node, at};
      };
      const Node& node = nodes_[bundle.node];
      for (std::size_t at = bundle.begin; at < bundle.end;) {
        const char byte = vocabulary_.bytes(node.tokens[at])[bundle.depth];
        const std::size_t end = narrowed(bundle, at, byte).second;
        const double before = sum;
        for (; at < end; ++at) add(node.weights[at], at);
        t.next[static_cast<unsigned char>(byte)] += sum - before;
      }
      const double end = end_weight(bundle);
      t.next[kEnd] += end;
      add(end, kNoToken);
      t.total += sum;
      if (bundle.group >= 0) t.groups[bundle.group] += sum;
    }
    for (const Ended& e : ended_) {
      t.ended[e.group] += e.last.weight;
      t.open += e.last.weight;
    }
    t.total += t.open;
    for (const auto& [group, w] : t.groups) t.positive += w > 0 && !t.ended.contains(group) ? 1 : 0;
    t.positive += static_cast<int>(t.ended.size());
    return t;
  }

  /// The covering, or group of them, that holds all but a fraction of what is left. `t` is what is left, and stays so.
  std::optional<Covering> agreement(double but, Tally& t) {
    for (;; t = tally()) {
      if (t.positive == 1 && !t.ended.empty())  // whatever becomes of what ended
        return groups_[static_cast<std::size_t>(t.ended.begin()->first)];
      const auto best = std::max_element(t.groups.begin(), t.groups.end(),
                                         [](const auto& a, const auto& b) { return a.second < b.second; });
      const bool grouped = best != t.groups.end() && best->second > t.heaviest.weight;
      const double most = grouped ? best->second : t.heaviest.weight;
      if (!(most > 0)) return std::nullopt;
      // At worst nothing that ended goes on so in the best group, and all of it in the others.
      const double own = grouped && t.ended.contains(best->first) ? t.ended.at(best->first) : 0;
      if (t.positive > 1 && t.total - own - most > but * (t.total - own)) return std::nullopt;
      if (grouped) return groups_[static_cast<std::size_t>(best->first)];
      if (canonical(t.heaviest)) return covering(t.heaviest);
    }
  }

  /// Tokens with one next byte, heaviest first, and the weight of those too light to be looked at.
  struct Tokens {
    std::vector<Next> heavy;
    double light = 0;
    std::size_t looked = 0;  // at so many of `heavy`
    double sure = 0;         // weight of those that are canonical
  };
  /// `least`: the weight of all that may be too light.
  Tokens tokens_with(char byte, double least) const {
    std::size_t count = 0;
    std::vector<std::pair<std::size_t, std::pair<std::size_t, std::size_t>>> ranges;
    for (const Bundle& bundle : bundles_) {
      ranges.emplace_back(bundle.node, narrowed(bundle, bundle.begin, byte));
      count += ranges.back().second.second - ranges.back().second.first;
    }
    Tokens found;
    for (const auto& [node, range] : ranges) {
      for (std::size_t at = range.first; at < range.second; ++at) {
        const double w = nodes_[node].weights[at];
        if (w * static_cast<double>(count) > least) {
          found.heavy.push_back({w, node, at});
        } else {
          found.light += w;
        }
      }
    }
    std::stable_sort(found.heavy.begin(), found.heavy.end(),
                     [](const Next& a, const Next& b) { return a.weight > b.weight; });
    return found;
  }

  struct Best {
    std::size_t symbol = 0;  // a byte, or the end
    double lead = 0;         // before the next one
  };

  /// The byte of largest weight among what was read. Only as many tokens are looked at as settle it.
  std::optional<Best> best_next(const Tally& t) {
    std::array<double, 257> most = t.next;  // without what was found not to be canonical
    std::array<std::optional<Tokens>, 256> tokens;
    while (true) {
      const auto best = static_cast<std::size_t>(std::max_element(most.begin(), most.end()) - most.begin());
      if (!(most[best] > 0)) return std::nullopt;
      double second = 0, total = 0;
      for (std::size_t i = 0; i < most.size(); ++i) {
        total += most[i];
        second = i == best ? second : std::max(second, most[i]);
      }
      if (best == kEnd) return Best{best, most[best] - second};
      if (!tokens[best]) tokens[best] = tokens_with(static_cast<char>(best), unchecked_ * total / 2);
      Tokens& own = *tokens[best];
      const auto settled = [&] {
        return own.sure > 0 && (own.sure >= second + t.open || most[best] - own.sure <= unchecked_ * total);
      };
      while (own.looked < own.heavy.size() && !settled()) {
        const Next& next = own.heavy[own.looked++];
        if (canonical(next)) {
          own.sure += next.weight;
          continue;
        }
        most[best] -= next.weight;
        if (most[best] < second) break;
      }
      if (own.looked == own.heavy.size()) {
        most[best] = own.sure + own.light;
        // Where much turned out wrong the light ones are no small part any more: then they are looked at too.
        double left = 0;
        for (const double w : most) left += w;
        if (own.light > 0 && most[best] >= second && (own.sure == 0 || own.light > unchecked_ * left)) {
          tokens[best] = tokens_with(static_cast<char>(best), std::min(unchecked_ * left, own.light) / 2);
          continue;
        }
      }
      if (most[best] < second || !(most[best] > 0)) continue;
      least_ = kWorthReading * unchecked_ * most[best];
      return Best{best, own.sure - second};
    }
  }

  /// Keeps what agrees with one more byte.
  void follow(std::size_t symbol) {
    if (symbol == kEnd) {
      std::erase_if(bundles_, [&](const Bundle& bundle) { return end_weight(bundle) == 0; });
      for (Bundle& bundle : bundles_) bundle.end = bundle.begin;
      return;
    }
    followed_.push_back(static_cast<char>(symbol));
    std::vector<Bundle> kept;
    for (Bundle& bundle : bundles_) {
      if (narrow(bundle, followed_.size())) kept.push_back(bundle);
    }
    bundles_ = std::move(kept);
    open_read();
  }

  /// Narrows a bundle by the last of the first `bytes` followed; what ends there goes to those that ended. Whether any
  /// is left.
  bool narrow(Bundle& bundle, std::size_t bytes) {
    std::tie(bundle.begin, bundle.end) = narrowed(bundle, bundle.begin, followed_[bytes - 1]);
    ++bundle.depth;
    for (; bundle.begin < bundle.end; ++bundle.begin) {
      const Next next{nodes_[bundle.node].weights[bundle.begin], bundle.node, bundle.begin};
      if (bytes_of(next).size() > bundle.depth) break;
      if (!(next.weight > least_) || !canonical(next)) continue;
      int group = bundle.group;
      if (group < 0) {
        group = static_cast<int>(groups_.size());
        groups_.push_back(covering(next));
      }
      ended_.push_back({next, group, bytes});
    }
    return bundle.begin < bundle.end;
  }

  /// Reads the rows after all coverings that ended, and after those that are likely to, in one batch; false if none
  /// fits.
  bool read_on() {
    std::vector<Next> read;
    std::vector<std::vector<Token>> tails;
    const auto add = [&](const Next& next) {
      std::vector<Token> tail = nodes_[next.node].prefix.tail;
      tail.push_back(token_of(next));
      if (!text_.trunk().fits(tail.size() + 1)) return;
      read.push_back(next);
      tails.push_back(std::move(tail));
    };
    for (const Ended& e : ended_) add(e.last);
    if (read.empty()) return false;
    for (const Next& next : likely_to_end()) {
      if (read.size() < text_.trunk().forks()) add(next);
    }
    std::vector<Weighed> weighed = text_.trunk().rows_after(std::move(tails));
    for (std::size_t i = 0; i < read.size(); ++i) {
      // As it was weighed before: the same tokens in another batch would round otherwise.
      weighed[i].logprob = nodes_[read[i].node].prefix.with(token_of(read[i]));
      weighed[i].at = nodes_[read[i].node].prefix.at + bytes_of(read[i]).size();
      after_[{read[i].node, read[i].at}] = nodes_.size();
      add_node(std::move(weighed[i]), vocabulary_.trie().starting_with(""));
    }
    open_read();
    return true;
  }

  /// Tokens that will end next if the text goes on with them, the few that are not light beside what ended, and those
  /// that end on the way there.
  std::vector<Next> likely_to_end() {
    constexpr std::size_t kMost = 3;
    constexpr double kNotLight = 1.0 / 32;
    double ended = 0;
    for (const Ended& e : ended_) ended += e.last.weight;
    struct Coming {
      Next next;
      std::string_view bytes;  // that are not spelled yet
    };
    std::vector<Coming> coming;
    for (const Bundle& bundle : bundles_) {
      for (std::size_t at = bundle.begin; at < bundle.end; ++at) {
        const Next next{nodes_[bundle.node].weights[at], bundle.node, at};
        if (!(next.weight > kNotLight * ended) || after_.contains({bundle.node, at})) continue;
        coming.push_back({next, bytes_of(next).substr(bundle.depth)});
      }
    }
    std::stable_sort(coming.begin(), coming.end(),
                     [](const Coming& a, const Coming& b) { return a.next.weight > b.next.weight; });
    std::vector<Coming> likely;
    std::vector<Next> read;
    for (const Coming& c : coming) {
      const bool on_the_way = std::any_of(likely.begin(), likely.end(), [&](const Coming& to) {
        return to.bytes.starts_with(c.bytes) && c.next.weight > kNotLight * to.next.weight;
      });
      if ((!on_the_way && likely.size() == kMost) || !canonical(c.next)) continue;
      if (!on_the_way) likely.push_back(c);
      read.push_back(c.next);
    }
    return read;
  }

  /// Follows what comes after coverings that ended and were read, as far as the text was followed.
  void open_read() {
    const auto is_read = [&](const Ended& e) { return after_.contains({e.last.node, e.last.at}); };
    const auto first = std::stable_partition(ended_.begin(), ended_.end(), std::not_fn(is_read));
    const std::vector<Ended> read(first, ended_.end());
    ended_.erase(first, ended_.end());
    for (const Ended& e : read) {
      const std::size_t node = after_.at({e.last.node, e.last.at});
      Bundle bundle{node, 0, nodes_[node].tokens.size(), 0, e.group};
      bool left = true;
      for (std::size_t at = e.from; left && at < followed_.size(); ++at) left = narrow(bundle, at + 1);
      if (left) bundles_.push_back(bundle);
    }
  }

  /// The heaviest covering, or group of them, where no more can be read.
  std::optional<Covering> heaviest(Tally& t) {
    for (;; t = tally()) {
      int best = -1;
      double most = t.heaviest.weight;
      for (const auto& [group, w] : t.groups) t.ended[group] += w;
      for (const auto& [group, w] : t.ended) {
        if (!(w > most)) continue;
        most = w;
        best = group;
      }
      if (best >= 0) return groups_[static_cast<std::size_t>(best)];
      if (!(most > 0)) return std::nullopt;
      if (canonical(t.heaviest)) return covering(t.heaviest);
    }
  }

  CoveredText& text_;
  const Vocabulary& vocabulary_;
  double unchecked_;
  double reference_;
  std::vector<Node> nodes_;
  std::vector<Bundle> bundles_;
  std::vector<Covering> groups_;
  std::vector<Ended> ended_;
  std::map<std::pair<std::size_t, std::size_t>, std::size_t> after_;  // node after a node's token, where it was read
  std::string followed_;                                              // bytes beyond the text
  double least_ = 0;                                                  // weight that is worth a look at what follows
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
