#include "topk/subsets.h"

#include <algorithm>
#include <cmath>
#include <complex>
#include <limits>
#include <numbers>
#include <vector>

#include "parallel.h"
#include "topk/node_kernels.h"
#include "topk/threshold.h"

namespace tuiqiao::topk {

namespace {

using Complex = std::complex<double>;

constexpr double kQuadratureError = 1e-17;  // of aliasing, and of the nodes left out
constexpr std::size_t kBlock = 1 << 15;     // entries a thread takes

/// The tilted row and the nodes at which its coefficients are taken.
struct Tilted {
  std::vector<double> p;
  double log_scale = 0;          ///< log Z_k = log_scale + log P(number = k)
  std::vector<Node> nodes;       ///< angles from 0 to pi; each but 0 stands for itself and its mirror
  std::vector<Complex> weights;  ///< of each node, so that sums give probabilities given that the number is k
  double log_chance = 0;         ///< log P(number = k)
};

/// body(from, size) for blocks of the row, on OpenMP's threads where there are several.
template <class Body>
void for_each_block(std::size_t n, const Body& body) {
  const std::size_t blocks = (n + kBlock - 1) / kBlock;
  const auto one = [&](std::int64_t i) {
    const std::size_t from = static_cast<std::size_t>(i) * kBlock;
    body(static_cast<std::size_t>(i), from, std::min(kBlock, n - from));
  };
  if (blocks == 1) {
    one(0);
  } else {
    parallel_for(static_cast<std::int64_t>(blocks), one);
  }
}

/// The least odd number of nodes whose aliasing is small enough for numbers up to `away` from the mean; more than n are
/// never needed.
std::size_t node_count(double variance, std::size_t n, double away) {
  const double wanted = std::log(2 * (4 * std::sqrt(variance) + 1) / (0.75 * kQuadratureError));
  // D^2 = 2 wanted (V + D / 3) for the distance D; two entries less move the mean by less than 2.
  const double a = wanted / 3, distance = a + std::sqrt(a * a + 2 * wanted * variance);
  const double most = static_cast<double>(n) + 1;
  const auto count = static_cast<std::size_t>(std::min(std::ceil(distance + away) + 2, most));
  return count | 1;
}

/// The nodes that count for a row, with the logarithm of the product of all factors at each.
struct Nodes {
  std::size_t count = 0;   ///< of all of them, on the whole circle
  std::vector<Node> kept;  ///< angles from 0 to pi
  std::vector<double> log_size, angle;

  /// Of the j-th node, for the coefficient of z^k: weighted so that their sum is the chance of k. Each node but the
  /// first stands for its mirror too.
  Complex term(std::size_t j, std::int64_t k) const {
    // e^{-i k theta}, with k j taken modulo the number of nodes.
    const auto n = static_cast<std::int64_t>(count);
    const std::int64_t turns = (k % n + n) % n * static_cast<std::int64_t>(j) % n;
    const double back = 2 * std::numbers::pi * static_cast<double>(turns) / static_cast<double>(count);
    return std::polar((j == 0 ? 1.0 : 2.0) / static_cast<double>(count) * std::exp(log_size[j]), angle[j] - back);
  }
};

Nodes nodes_of(std::span<const double> p, double variance, double away = 0) {
  Nodes nodes;
  nodes.count = node_count(variance, p.size(), away);
  const double least = std::log(2 * (4 * std::sqrt(variance) + 1) / (0.75 * kQuadratureError));
  for (std::size_t j = 0; j <= nodes.count / 2; ++j) {
    const double angle = 2 * std::numbers::pi * static_cast<double>(j) / static_cast<double>(nodes.count);
    if ((variance - 0.5) * (1 - std::cos(angle)) > least) break;
    nodes.kept.push_back({std::cos(angle), std::sin(angle)});
  }
  const std::size_t kept = nodes.kept.size(), blocks = (p.size() + kBlock - 1) / kBlock;
  std::vector<std::vector<double>> sizes(blocks), angles(blocks);
  for_each_block(p.size(), [&](std::size_t block, std::size_t from, std::size_t size) {
    sizes[block].assign(kept, 0);
    angles[block].assign(kept, 0);
    add_log_factors(p.subspan(from, size), nodes.kept, sizes[block], angles[block]);
  });
  nodes.log_size.assign(kept, 0);
  nodes.angle.assign(kept, 0);
  for (std::size_t block = 0; block < blocks; ++block) {
    for (std::size_t j = 0; j < kept; ++j) {
      nodes.log_size[j] += sizes[block][j];
      nodes.angle[j] += angles[block][j];
    }
  }
  return nodes;
}

void take_nodes(Tilted& tilted, int k, double variance) {
  Nodes nodes = nodes_of(tilted.p, variance);
  double chance = 0;
  for (std::size_t j = 0; j < nodes.kept.size(); ++j) {
    tilted.weights.push_back(nodes.term(j, k));
    chance += tilted.weights.back().real();
  }
  for (Complex& weight : tilted.weights) weight /= chance;
  tilted.nodes = std::move(nodes.kept);
  tilted.log_chance = std::log(chance);
}

/// Chances of each entry to be in and to be out, independent of each other, for which k are in on average.
struct Odds {
  std::vector<double> in, out;
  double variance = 0;   ///< of the number that are in
  double log_scale = 0;  ///< log Z_k = log_scale + log P(number = k)
};

Odds odds_of(std::span<const double> x, int k, double tau) {
  const Threshold at = find_threshold(TopkMethod::sigmoid, x, contents_of(x), k, tau);
  Odds odds;
  odds.in.resize(x.size());
  odds.out.resize(x.size());
  const std::size_t blocks = (x.size() + kBlock - 1) / kBlock;
  std::vector<double> variances(blocks, 0), sums(blocks, 0);
  for_each_block(x.size(), [&](std::size_t block, std::size_t from, std::size_t size) {
    for (std::size_t i = from; i < from + size; ++i) {
      const double z = (x[i] - at.base - at.offset) * at.inverse_tau, e = std::exp(-std::abs(z));
      const double most = 1 / (1 + e), least = e / (1 + e);
      odds.in[i] = z > 0 ? most : least;
      odds.out[i] = z > 0 ? least : most;
      variances[block] += most * least;
      sums[block] += std::max(z, 0.0) + std::log1p(e);  // log(1 + e^z)
    }
  });
  double sum = 0;
  for (std::size_t block = 0; block < blocks; ++block) odds.variance += variances[block], sum += sums[block];
  odds.log_scale = sum + static_cast<double>(k) * (at.base / tau + at.offset / tau);
  return odds;
}

Tilted tilt(std::span<const double> x, int k, double tau) {
  Odds odds = odds_of(x, k, tau);
  Tilted tilted;
  tilted.p = std::move(odds.in);
  tilted.log_scale = odds.log_scale;
  take_nodes(tilted, k, odds.variance);
  return tilted;
}

}  // namespace

double subset_marginals(std::span<const double> x, int k, double tau, std::span<double> out) {
  const Tilted tilted = tilt(x, k, tau);
  std::vector<double> found(x.size());
  for_each_block(x.size(), [&](std::size_t, std::size_t from, std::size_t size) {
    weighted_tilts(std::span(tilted.p).subspan(from, size), tilted.nodes, tilted.weights,
                   std::span(found).subspan(from, size));
  });
  bool is_relative = true;
  for (std::size_t i = 0; i < found.size(); ++i) {
    found[i] = std::clamp(found[i], 0.0, 1.0);
    is_relative = is_relative && (found[i] > 1e-5 * tilted.p[i] || tilted.p[i] < 1e-290);
  }
  if (!is_relative && static_cast<double>(x.size()) * k <= kMostRecursion)
    return subset_marginals_by_recursion(x, k, tau, out);
  std::copy(found.begin(), found.end(), out.begin());
  return tilted.log_scale + tilted.log_chance;
}

void subset_vjp(std::span<const double> x, int k, double tau, std::span<const double> v, std::span<double> out) {
  const Tilted tilted = tilt(x, k, tau);
  const std::size_t n = x.size(), blocks = (n + kBlock - 1) / kBlock, kept = tilted.nodes.size();
  std::vector<double> found(n), centred(v.begin(), v.end());
  const auto part = [&](auto& row, std::size_t from, std::size_t size) { return std::span(row).subspan(from, size); };
  for_each_block(n, [&](std::size_t, std::size_t from, std::size_t size) {
    weighted_tilts(part(tilted.p, from, size), tilted.nodes, tilted.weights, part(found, from, size));
  });
  // sum v over S moves by k c with v + c, and its covariances do not: without its mean less cancels.
  double mean = 0;
  for (std::size_t i = 0; i < n; ++i) mean += v[i] * found[i] / k;
  for (double& value : centred) value -= mean;
  std::vector<std::vector<Complex>> parts(blocks);
  for_each_block(n, [&](std::size_t block, std::size_t from, std::size_t size) {
    parts[block].assign(kept, 0);
    add_tilt_sums(part(tilted.p, from, size), part(centred, from, size), tilted.nodes, parts[block]);
  });
  std::vector<Complex> sums(kept, 0);
  for (const auto& some : parts) {
    for (std::size_t j = 0; j < kept; ++j) sums[j] += some[j];
  }
  double total = 0;  // the mean of sum v over S, 0 but for rounding
  for (std::size_t i = 0; i < n; ++i) total += centred[i] * found[i];
  for_each_block(n, [&](std::size_t, std::size_t from, std::size_t size) {
    const auto mine = out.subspan(from, size);
    weighted_pairs(part(tilted.p, from, size), part(centred, from, size), tilted.nodes, tilted.weights, sums, mine);
    for (std::size_t i = 0; i < size; ++i) mine[i] = (mine[i] - found[from + i] * total) / tau;
  });
}

void count_distribution(std::span<const double> p, std::int64_t least, std::span<double> out) {
  double variance = 0, mean = 0;
  for (const double chance : p) variance += chance * (1 - chance), mean += chance;
  const auto first = static_cast<double>(least), last = first + static_cast<double>(out.size()) - 1;
  const Nodes nodes = nodes_of(p, variance, std::max(std::abs(first - mean), std::abs(last - mean)));
  for (std::size_t i = 0; i < out.size(); ++i) {
    double sum = 0;
    for (std::size_t j = 0; j < nodes.kept.size(); ++j)
      sum += nodes.term(j, least + static_cast<std::int64_t>(i)).real();
    out[i] = std::max(sum, 0.0);
  }
}

std::vector<double> tilted_chances(std::span<const double> x, int k, double tau) { return odds_of(x, k, tau).in; }

double subset_marginals_by_recursion(std::span<const double> x, int k, double tau, std::span<double> out) {
  const Odds odds = odds_of(x, k, tau);
  const std::size_t n = x.size(), width = static_cast<std::size_t>(k) + 1;
  // first[j][m]: the chance that m of the first j entries are in; no logarithms, whose size would cost digits.
  std::vector<double> first((n + 1) * width, 0);
  first[0] = 1;
  for (std::size_t j = 0; j < n; ++j) {
    const double* before = &first[j * width];
    double* now = &first[(j + 1) * width];
    now[0] = odds.out[j] * before[0];
    for (std::size_t m = 1; m < width; ++m) now[m] = odds.out[j] * before[m] + odds.in[j] * before[m - 1];
  }
  const double chance = first[n * width + width - 1];
  std::vector<double> last(width, 0), found(n);  // last[m]: that m of the entries behind are in
  last[0] = 1;
  for (std::size_t j = n; j-- > 0;) {
    double others = 0;  // that k - 1 of the others are in
    for (std::size_t m = 0; m + 1 < width; ++m) others += first[j * width + m] * last[width - 2 - m];
    found[j] = std::min(1.0, odds.in[j] * (others / chance));
    for (std::size_t m = width - 1; m > 0; --m) last[m] = odds.out[j] * last[m] + odds.in[j] * last[m - 1];
    last[0] *= odds.out[j];
  }
  std::copy(found.begin(), found.end(), out.begin());
  return odds.log_scale + std::log(chance);
}

}  // namespace tuiqiao::topk
