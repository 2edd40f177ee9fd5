#include "tuiqiao/text/pooling.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <functional>
#include <limits>
#include <numeric>
#include <stdexcept>
#include <string>
#include <utility>

#include "parallel.h"
#include "row_kernels.h"

namespace tuiqiao {

namespace {

constexpr double kImpossible = -std::numeric_limits<double>::infinity();
/// A cut that only impossible tokens miss.
constexpr float kKeepAll = std::numeric_limits<float>::lowest();

constexpr std::array<std::pair<Pooling, std::string_view>, 6> kNames{{{Pooling::min_entropy, "min_entropy"},
                                                                      {Pooling::entropy_weighted, "entropy_weighted"},
                                                                      {Pooling::mean, "mean"},
                                                                      {Pooling::max, "max"},
                                                                      {Pooling::mixture, "mixture"},
                                                                      {Pooling::weights, "weights"}}};

/// The lowest of `values` with less than `mass` lying above it; probabilities are exp(value - log_total).
/// Quickselect by mass: each round halves the values in question.
float lowest_within(std::vector<float>& values, std::vector<float>& masses, double log_total, double mass) {
  auto first = values.begin(), last = values.end();
  while (last - first > 1) {
    const auto middle = first + (last - first) / 2;
    std::nth_element(first, middle, last, std::greater<>());
    const float pivot = *middle;
    // All that is above the pivot, with equals of it moved behind.
    const auto equal = std::partition(first, middle, [&](float v) { return v > pivot; });
    masses.resize(static_cast<std::size_t>(equal - first));
    exp_scores({first, equal}, log_total, masses);
    const double above = std::accumulate(masses.begin(), masses.end(), 0.0);
    if (above >= mass) {
      last = equal;  // the pivot is out, and all below it
    } else if (std::none_of(middle, last, [&](float v) { return v < pivot; })) {
      return pivot;  // the pivot is in, and nothing is below it
    } else {
      const auto below = std::partition(equal, last, [&](float v) { return v == pivot; });
      const double at = static_cast<double>(below - equal) * std::exp(static_cast<double>(pivot) - log_total);
      if (above + at >= mass) return pivot;
      mass -= above + at;
      first = below;
    }
  }
  return *first;
}

/// The same by a histogram of mass over the scores first, so that only the bin in which the mass is reached is selected
/// from. `masses` are those of `values`, all of at least `cut`.
float lowest_within_bins(const std::vector<float>& values, const std::vector<float>& masses, float cut,
                         double log_total, double mass) {
  constexpr std::size_t kBins = 1024;
  const float top = *std::max_element(values.begin(), values.end());
  const float scale = top > cut ? static_cast<float>(kBins - 1) / (top - cut) : 0;
  const auto bin_of = [&](float value) { return std::min(kBins - 1, static_cast<std::size_t>((top - value) * scale)); };
  std::array<double, kBins> bins{};
  for (std::size_t i = 0; i < values.size(); ++i) bins[bin_of(values[i])] += static_cast<double>(masses[i]);
  std::size_t last = 0;
  for (; last + 1 < kBins && bins[last] < mass; ++last) mass -= bins[last];
  thread_local std::vector<float> within, scratch;
  within.clear();
  for (const float value : values) {
    if (bin_of(value) == last) within.push_back(value);
  }
  // Rounding may leave the last bin empty: then all is kept.
  return within.empty() ? *std::min_element(values.begin(), values.end())
                        : lowest_within(within, scratch, log_total, mass);
}

/// What top-p leaves of a row: the score from which tokens are kept, and the entropy of what is kept.
struct Nucleus {
  float cut = kKeepAll;
  double entropy_nats = 0;
};

/// A log-probability below which a sample of the row has less than `mass`, at least `least`, in steps of half a nat.
double guess_cut(const Row& row, double least, double mass) {
  constexpr std::size_t kPieces = 64, kPiece = 16, kBins = 32;
  if (row.scores.size() < 16 * kPieces * kPiece) return least;
  const std::size_t stride = row.scores.size() / kPieces;
  std::array<float, kPiece> masses;
  std::array<double, kBins> bins{};
  for (std::size_t piece = 0; piece < kPieces; ++piece) {
    const std::span<const float> scores = row.scores.subspan(piece * stride, kPiece);
    exp_scores(scores, row.log_total, masses);
    for (std::size_t i = 0; i < kPiece; ++i) {
      const double bin = 2 * (static_cast<double>(scores[i]) - row.log_total - least);
      bins[bin > 0 ? std::min(kBins - 1, static_cast<std::size_t>(bin)) : 0] += static_cast<double>(masses[i]);
    }
  }
  double below = 0, cut = least;
  for (const double bin : bins) {
    below += bin * static_cast<double>(stride) / kPiece;
    if (below >= mass) break;
    cut += 0.5;
  }
  return cut;
}

/// Scores that may lie in the nucleus: all of at least the returned cut.
float gather_candidates(const Row& row, double top_p, std::vector<float>& kept, std::vector<float>& masses) {
  // Tokens less probable than (1 - top_p) / V cannot lie in it: all of them together have less than 1 - top_p. Most
  // rows need far fewer, so a higher cut is guessed first: it holds the nucleus if it holds the mass.
  const double safe = std::log((1 - top_p) / static_cast<double>(row.scores.size()));
  kept.resize(row.scores.size() + kGatherSlack);
  for (const double log_cut : {guess_cut(row, safe, 0.7 * (1 - top_p)), safe}) {
    const auto cut = std::max(kKeepAll, static_cast<float>(log_cut + row.log_total));
    const std::size_t count = gather_kept(row.scores, cut, kept.data());
    masses.resize(count);
    exp_scores({kept.data(), count}, row.log_total, masses);
    if (log_cut == safe || std::accumulate(masses.begin(), masses.end(), 0.0) >= top_p) {
      kept.resize(count);
      return cut;
    }
  }
  return kKeepAll;
}

Nucleus nucleus_of(const Row& row, double top_p) {
  if (top_p >= 1) return {kKeepAll, kept_entropy(row.scores, row.log_total, kKeepAll)};
  thread_local std::vector<float> kept, masses;
  const float cut = gather_candidates(row, top_p, kept, masses);
  Nucleus nucleus;
  if (kept.empty()) return nucleus;  // only where rounding ate the whole row
  nucleus.cut = lowest_within_bins(kept, masses, cut, row.log_total, top_p);
  nucleus.entropy_nats = kept_entropy(kept, row.log_total, nucleus.cut);
  return nucleus;
}

std::vector<double> softmax(std::vector<double> logs) {
  const double largest = *std::max_element(logs.begin(), logs.end());
  double sum = 0;
  for (double& x : logs) sum += x = std::exp(x - largest);
  for (double& x : logs) x /= sum;
  return logs;
}

/// The context of most weight, of equals the one of least entropy, of those the first.
int heaviest(const std::vector<double>& weights, const std::vector<double>& entropies) {
  std::size_t best = 0;
  for (std::size_t k = 1; k < weights.size(); ++k) {
    if (weights[k] > weights[best] || (weights[k] == weights[best] && entropies[k] < entropies[best])) best = k;
  }
  return static_cast<int>(best);
}

/// The context that gave the most probable token of a pooled row its value.
int giver_of_best(std::span<const Row> contexts, const std::vector<double>& added, const std::vector<Nucleus>& nuclei,
                  std::span<const float> out) {
  const auto token = static_cast<std::size_t>(std::find(out.begin(), out.end(), largest_of(out)) - out.begin());
  int giver = -1;
  double best = kImpossible;
  for (std::size_t k = 0; k < contexts.size(); ++k) {
    const double value = added[k] + contexts[k][static_cast<Token>(token)];
    if (contexts[k].scores[token] < nuclei[k].cut || value <= best) continue;
    best = value;
    giver = static_cast<int>(k);
  }
  return giver;
}

enum class Kind {
  log_linear,           // of tokens that all contexts keep
  log_linear_of_union,  // of tokens that one of them keeps, with the values that all give them
  max,
  mixture
};

/// A pooling of rows, settled for one step: terms of weight 0 are left out (but for max, where it is an addend).
struct Plan {
  Kind kind = Kind::log_linear;
  std::vector<PoolTerm> terms;
  PoolTerm empty;
};

constexpr std::size_t kBlock = 4096;  // tokens pooled together, so that sums stay in the first cache

void pool_block(const Plan& plan, double beta, double shift, std::size_t offset, std::span<float> out) {
  std::array<double, kBlock> buffer;
  const std::span<double> pool(buffer.data(), out.size());
  const bool all_count = plan.kind == Kind::log_linear || plan.kind == Kind::mixture;
  std::fill(pool.begin(), pool.end(), all_count ? 0 : kImpossible);
  if (plan.kind == Kind::log_linear_of_union) {
    for (const PoolTerm& term : plan.terms) pool_open(term, offset, pool);
  }
  for (PoolTerm term : plan.terms) {
    switch (plan.kind) {
      case Kind::log_linear_of_union:
        term.cut = kKeepAll;
        [[fallthrough]];
      case Kind::log_linear:
        pool_add_log(term, offset, pool);
        break;
      case Kind::max:
        pool_max(term, offset, pool);
        break;
      case Kind::mixture:
        pool_add(term, offset, pool);
        break;
    }
  }
  if (plan.kind == Kind::mixture) pool_log(pool);
  contrast(pool, plan.empty, beta, shift, offset, out);
}

/// Pools all tokens, less `shift`; returns the log of the sum of exp(out).
double pool_shifted(const Plan& plan, double beta, double shift, std::span<float> out) {
  const std::size_t blocks = (out.size() + kBlock - 1) / kBlock;
  parallel_for(static_cast<std::int64_t>(blocks), [&](std::int64_t i) {
    const std::size_t offset = static_cast<std::size_t>(i) * kBlock;
    pool_block(plan, beta, shift, offset, out.subspan(offset, std::min(kBlock, out.size() - offset)));
  });
  return log_sum_exp(out);
}

/// Pools all tokens into a row of float; returns what its scores must lose to be normalised.
double pool_row(const Plan& plan, double beta, std::span<float> out) {
  // Beyond this a float of the size of the total would be too coarse for kPoolingError: with beta = 254 rows lie
  // thousands of nats from their normalised place.
  constexpr double kMostTotal = 16;
  const double total = pool_shifted(plan, beta, 0, out);
  return std::isfinite(total) && std::abs(total) > kMostTotal ? pool_shifted(plan, beta, total, out) : total;
}

void require(bool ok, const std::string& problem) {
  if (!ok) throw std::invalid_argument("[Pooler] " + problem);
}

void check(const PoolingOptions& o) {
  require(o.beta_auto || (std::isfinite(o.beta) && o.beta >= -1),
          fmt::format("beta = {} is no finite number of at least -1", o.beta));
  require(std::isfinite(o.eta), fmt::format("eta = {} is not finite", o.eta));
  require(o.top_p > 0 && o.top_p <= 1, fmt::format("top_p = {} outside (0, 1]", o.top_p));
  require(std::isfinite(o.gamma), fmt::format("gamma = {} is not finite", o.gamma));
  const auto finite = [](double x) { return std::isfinite(x); };
  require(std::all_of(o.scores.begin(), o.scores.end(), finite), "a score is not finite");
  require(std::all_of(o.weights.begin(), o.weights.end(), finite), "a weight is not finite");
  if (o.pooling == Pooling::weights) {
    require(!o.weights.empty(), "pooling 'weights' needs weights, one a context");
    require(std::any_of(o.weights.begin(), o.weights.end(), [](double w) { return w != 0; }), "all weights are 0");
  }
}

void check(const PoolingOptions& o, std::span<const Row> contexts, const Row& empty, int previous, std::size_t out) {
  const std::size_t n = contexts.size();
  require(n > 0, "no contexts");
  require(out > 0, "rows without tokens");
  for (const Row& row : contexts)
    require(row.scores.size() == out, fmt::format("a row has {} scores, out {}", row.scores.size(), out));
  require(empty.scores.size() == out, fmt::format("the empty row has {} scores, out {}", empty.scores.size(), out));
  require(previous >= -1 && previous < static_cast<int>(n), fmt::format("previous = {} with {} contexts", previous, n));
  require(o.scores.empty() || o.scores.size() == n, fmt::format("{} scores for {} contexts", o.scores.size(), n));
  require(o.pooling != Pooling::weights || o.weights.size() == n,
          fmt::format("{} weights for {} contexts", o.weights.size(), n));
}

/// The weight of each context: of its log-probabilities (log-linear), of its probabilities (mixture), or what is added
/// to its log-probabilities (max).
std::vector<double> weights_of(const PoolingOptions& o, const std::vector<double>& entropies, int previous) {
  const std::size_t n = entropies.size();
  std::vector<double> lowered = entropies;
  if (previous >= 0) lowered[static_cast<std::size_t>(previous)] -= o.eta;
  switch (o.pooling) {
    case Pooling::min_entropy: {
      std::vector<double> one(n, 0);
      one[static_cast<std::size_t>(std::min_element(lowered.begin(), lowered.end()) - lowered.begin())] = 1;
      return one;
    }
    case Pooling::entropy_weighted:
      for (double& h : lowered) h = -h;
      return softmax(std::move(lowered));
    case Pooling::mean:
      return std::vector<double>(n, 1 / static_cast<double>(n));
    case Pooling::max: {
      std::vector<double> added(n, 0);
      for (std::size_t k = 0; k < o.scores.size(); ++k) added[k] = o.gamma * o.scores[k];
      return added;
    }
    case Pooling::mixture:
      return softmax(o.scores.empty() ? std::vector<double>(n, 0) : o.scores);
    case Pooling::weights:
      return o.weights;
  }
  return {};
}

}  // namespace

Pooling pooling_from_name(std::string_view name) {
  for (const auto& [pooling, known] : kNames) {
    if (known == name) return pooling;
  }
  throw std::invalid_argument(fmt::format(
      "[pooling_from_name] no pooling is called '{}': min_entropy, entropy_weighted, mean, max, mixture, weights",
      name));
}

std::string_view name(Pooling pooling) { return kNames[static_cast<std::size_t>(pooling)].second; }

double entropy_nats(const Row& row) { return kept_entropy(row.scores, row.log_total, kKeepAll); }

double nucleus_threshold(const Row& row, double top_p) {
  if (!(top_p > 0 && top_p <= 1))
    throw std::invalid_argument(fmt::format("[nucleus_threshold] top_p = {} outside (0, 1]", top_p));
  return top_p == 1 ? kImpossible : static_cast<double>(nucleus_of(row, top_p).cut) - row.log_total;
}

Pooler::Pooler(PoolingOptions options) : options_(std::move(options)) { check(options_); }

PoolingResult Pooler::pool(std::span<const Row> contexts, const Row& empty, int previous, std::span<float> out) const {
  check(options_, contexts, empty, previous, out.size());
  const std::size_t n = contexts.size();
  std::vector<Nucleus> nuclei(n + 1);  // the empty row's last
  parallel_for(static_cast<std::int64_t>(n) + 1, [&](std::int64_t i) {
    const auto k = static_cast<std::size_t>(i);
    nuclei[k] = nucleus_of(k < n ? contexts[k] : empty, options_.top_p);
  });

  PoolingResult result;
  for (std::size_t k = 0; k < n; ++k) result.entropies_nats.push_back(nuclei[k].entropy_nats);
  const std::vector<double> weights = weights_of(options_, result.entropies_nats, previous);
  result.context = heaviest(weights, result.entropies_nats);

  Plan plan;
  plan.kind = options_.pooling == Pooling::max       ? Kind::max
              : options_.pooling == Pooling::mixture ? Kind::mixture
                                                     : Kind::log_linear;
  plan.empty = {empty.scores.data(), empty.log_total, 0, nuclei[n].cut};
  for (std::size_t k = 0; k < n; ++k) {
    if (plan.kind != Kind::max && weights[k] == 0) continue;
    plan.terms.push_back({contexts[k].scores.data(), contexts[k].log_total, weights[k], nuclei[k].cut});
  }

  const auto pool = [&] {
    result.beta = options_.beta;
    if (options_.beta_auto) {
      const double total = pool_row(plan, 0, out);
      result.beta = std::isfinite(total) ? jensen_shannon_bits({out, total}, empty) : 0;
    }
    return pool_row(plan, result.beta, out);
  };
  double total = pool();
  if (!std::isfinite(total)) {
    result.fallback = true;
    if (plan.kind == Kind::log_linear) plan.kind = Kind::log_linear_of_union;
    total = pool();
  }
  if (!std::isfinite(total)) {  // no token is possible in all of them: the row of least entropy stands alone
    const auto least =
        std::min_element(result.entropies_nats.begin(), result.entropies_nats.end()) - result.entropies_nats.begin();
    const auto k = static_cast<std::size_t>(least);
    result.context = static_cast<int>(least);
    plan.kind = Kind::log_linear;
    plan.terms = {{contexts[k].scores.data(), contexts[k].log_total, 1, nuclei[k].cut}};
    total = pool();
  }
  for (float& x : out) x -= static_cast<float>(total);
  if (plan.kind == Kind::max) result.context = giver_of_best(contexts, weights, nuclei, out);
  return result;
}

}  // namespace tuiqiao
