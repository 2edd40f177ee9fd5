#include "topk/subsets.h"

#include <algorithm>
#include <cmath>
#include <complex>
#include <limits>
#include <numbers>
#include <numeric>
#include <vector>

#include "parallel.h"
#include "topk/limits.h"
#include "topk/node_kernels.h"
#include "topk/series_kernels.h"
#include "topk/threshold.h"

namespace tuiqiao::topk {

namespace {

using Complex = std::complex<double>;

constexpr std::size_t kBlock = 1 << 15;  // entries a thread takes

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

/// How many times e an error must be below 2 P(number = k), whose least is 0.75 / (4 sqrt V + 1).
double log_of_precision(double variance) { return std::log(2 * (4 * std::sqrt(variance) + 1) / (0.75 * kNodeError)); }

/// The least odd number of nodes whose aliasing is small enough for numbers up to `away` from the mean; more than n are
/// never needed.
std::int64_t node_count(double variance, std::size_t n, double away) {
  const double wanted = log_of_precision(variance);
  // D^2 = 2 wanted (V + D / 3) for the distance D; two entries less move the mean by less than 2.
  const double a = wanted / 3, distance = a + std::sqrt(a * a + 2 * wanted * variance);
  const double most = static_cast<double>(n) + 1;
  const auto count = static_cast<std::int64_t>(std::min(std::ceil(distance + away) + 2, most));
  return count | 1;
}

/// The nodes that count for a row of independent entries, with the product of all factors at each.
struct Nodes {
  std::int64_t count = 0;   ///< of all of them, on the whole circle
  std::vector<Node> kept;   ///< angles from 0 to pi
  std::size_t degree = 0;   ///< of the series in T_m(2 p - 1) that serve them all; 0 where there is none
  std::int64_t centre = 0;  ///< the mean number, rounded: angles are relative to e^{i centre theta}
  std::vector<double> log_size, angle;

  double theta(std::size_t j) const {
    return 2 * std::numbers::pi * static_cast<double>(j) / static_cast<double>(count);
  }
  /// tan(theta / 4)
  double quarter(std::size_t j) const { return std::tan(theta(j) / 4); }
  /// e^{i m theta}, with m j taken modulo the number of nodes.
  double turned(std::int64_t m, std::size_t j) const {
    const std::int64_t turns = (m % count + count) % count * static_cast<std::int64_t>(j) % count;
    return 2 * std::numbers::pi * static_cast<double>(turns) / static_cast<double>(count);
  }
  /// Of the j-th node, for the coefficient of z^k: weighted so that their sum is the chance of k. Each node but the
  /// first stands for its mirror too.
  Complex term(std::size_t j, std::int64_t k) const {
    return std::polar((j == 0 ? 1.0 : 2.0) / static_cast<double>(count) * std::exp(log_size[j]),
                      angle[j] - turned(k - centre, j));
  }
};

/// The degree at which all series are cut, for the largest tan(theta / 4) = t: with |T_m - 1| and |T_m - u| at most
/// (1 - u^2) m^2 / 2 a logarithm loses at most 4 V sum over m > degree of m t^m; the others lose less. 0 where the
/// nodes themselves cost less.
std::size_t series_degree(double t, double variance, std::size_t nodes) {
  constexpr std::size_t kNodeOverTerm = 4;  // a division and some ten operations, over three operations
  for (std::size_t degree = 2; degree <= kNodeOverTerm * nodes && t < 0.75; ++degree) {
    const double next = static_cast<double>(degree) + 1;
    if (4 * (variance + 1) * next * std::pow(t, next) / ((1 - t) * (1 - t)) < kNodeError) return degree;
  }
  return 0;
}

/// log of the product of the factors at each node, from one pass over the entries:
///   sum over m >= 2 of 2 (-1)^{m+1} (i t)^m / m moments[m] + i theta sum p,   t = tan(theta / 4).
void take_products_by_series(Nodes& nodes, std::span<const double> p, double mean) {
  const std::size_t blocks = (p.size() + kBlock - 1) / kBlock;
  std::vector<std::vector<double>> parts(blocks);
  for_each_block(p.size(), [&](std::size_t block, std::size_t from, std::size_t size) {
    parts[block].assign(nodes.degree + 1, 0);
    add_product_moments(p.subspan(from, size), parts[block]);
  });
  std::vector<double> moments(nodes.degree + 1, 0);
  for (const auto& part : parts) {
    for (std::size_t m = 0; m < moments.size(); ++m) moments[m] += part[m];
  }
  for (std::size_t j = 0; j < nodes.kept.size(); ++j) {
    Complex sum = 0, power = Complex(0, nodes.quarter(j));  // -(-i t)^m
    for (std::size_t m = 2; m < moments.size(); ++m) {
      power *= Complex(0, -nodes.quarter(j));
      sum += 2 * moments[m] / static_cast<double>(m) * power;
    }
    nodes.log_size[j] = sum.real();
    nodes.angle[j] = sum.imag() + nodes.theta(j) * (mean - static_cast<double>(nodes.centre));
  }
}

void take_products_by_nodes(Nodes& nodes, std::span<const double> p) {
  const std::size_t kept = nodes.kept.size(), blocks = (p.size() + kBlock - 1) / kBlock;
  std::vector<std::vector<double>> sizes(blocks), angles(blocks);
  for_each_block(p.size(), [&](std::size_t block, std::size_t from, std::size_t size) {
    sizes[block].assign(kept, 0);
    angles[block].assign(kept, 0);
    add_log_factors(p.subspan(from, size), nodes.kept, sizes[block], angles[block]);
  });
  for (std::size_t j = 0; j < kept; ++j) {
    for (std::size_t block = 0; block < blocks; ++block) {
      nodes.log_size[j] += sizes[block][j];
      nodes.angle[j] += angles[block][j];
    }
    nodes.angle[j] -= nodes.turned(nodes.centre, j);
  }
}

Nodes nodes_of(std::span<const double> p, double mean, double variance, double away = 0) {
  Nodes nodes;
  nodes.count = node_count(variance, p.size(), away);
  nodes.centre = std::llround(mean);
  const double least = log_of_precision(variance);
  for (std::size_t j = 0; static_cast<std::int64_t>(j) <= nodes.count / 2; ++j) {
    const double theta = nodes.theta(j);
    if ((variance - 0.5) * (1 - std::cos(theta)) > least) break;
    nodes.kept.push_back({std::cos(theta), std::sin(theta)});
  }
  nodes.log_size.assign(nodes.kept.size(), 0);
  nodes.angle.assign(nodes.kept.size(), 0);
  nodes.degree = series_degree(nodes.quarter(nodes.kept.size() - 1), variance, nodes.kept.size());
  if (nodes.degree > 0) {
    take_products_by_series(nodes, p, mean);
  } else {
    take_products_by_nodes(nodes, p);
  }
  return nodes;
}

/// A row as independent entries, in with chance p each, of which k are in on average, and the nodes for the law of
/// those that are in, given that they are k.
struct Tilted {
  Threshold at;
  std::vector<double> p;
  double log_z = 0;
  Nodes nodes;
  std::vector<Complex> weights;  ///< of each node, so that sums give probabilities given that the number is k

  std::span<const double> part(std::size_t from, std::size_t size) const { return std::span(p).subspan(from, size); }
};

OddsSums take_odds_in_blocks(std::span<const double> x, Threshold at, std::span<double> p) {
  std::vector<OddsSums> parts((x.size() + kBlock - 1) / kBlock);
  for_each_block(x.size(), [&](std::size_t block, std::size_t from, std::size_t size) {
    parts[block] = take_odds(x.subspan(from, size), at, p.subspan(from, size));
  });
  OddsSums sums;
  for (const OddsSums& part : parts) {
    sums.mean += part.mean, sums.variance += part.variance, sums.logs += part.logs;
    sums.entries_above += part.entries_above, sums.above += part.above;
  }
  return sums;
}

/// The sum of log(1 + e^z) + k t / tau, of which t cancels but for k less the number of entries above it.
double log_of_weights(const OddsSums& sums, Threshold at, int k, double tau) {
  const double left = static_cast<double>(k) - static_cast<double>(sums.above);
  return sums.entries_above / tau + left * (at.base / tau) + left * (at.offset / tau) + sums.logs;
}

Tilted tilt(std::span<const double> x, int k, double tau) {
  const Threshold at = find_threshold(TopkMethod::sigmoid, x, contents_of(x), k, tau);
  Tilted tilted;
  tilted.p.resize(x.size());
  const OddsSums sums = take_odds_in_blocks(x, at, tilted.p);
  tilted.nodes = nodes_of(tilted.p, sums.mean, sums.variance);
  double chance = 0;
  for (std::size_t j = 0; j < tilted.nodes.kept.size(); ++j) {
    tilted.weights.push_back(tilted.nodes.term(j, k));
    chance += tilted.weights.back().real();
  }
  for (Complex& weight : tilted.weights) weight /= chance;
  tilted.at = at;
  tilted.log_z = log_of_weights(sums, at, k, tau) + std::log(chance);
  return tilted;
}

/// r = p e^{i theta} / (1 - p + p e^{i theta}) of a node as p e^{i theta / 2} (1 + 2 sum over m > 0 of (-i t)^m
/// T_m(u)).
std::vector<Complex> tilt_series(const Nodes& nodes, std::size_t j) {
  std::vector<Complex> series(nodes.degree + 1);
  Complex power = std::polar(1.0, nodes.theta(j) / 2);
  for (std::size_t m = 0; m < series.size(); ++m) {
    series[m] = m == 0 ? power : 2.0 * power;
    power *= Complex(0, -nodes.quarter(j));
  }
  return series;
}

/// (r / p)^2: with P = (1 - w^2) / (1 - 2 w u + w^2), P^2 is a combination of P and w dP/dw.
std::vector<Complex> squared_series(const Nodes& nodes, std::size_t j) {
  std::vector<Complex> series(nodes.degree + 1);
  const double half = std::cos(nodes.theta(j) / 2);
  const Complex turn(0, -nodes.quarter(j));
  Complex power = std::polar(1.0, nodes.theta(j));
  for (std::size_t m = 0; m < series.size(); ++m) {
    series[m] = m == 0 ? half * power : 2 * (static_cast<double>(m) + half) * power;
    power *= turn;
  }
  return series;
}

/// Adds the real part of weight times a series, cut to the length of the sum.
void add_weighted(std::vector<double>& sum, Complex weight, const std::vector<Complex>& series) {
  for (std::size_t m = 0; m < sum.size(); ++m) sum[m] += (weight * series[m]).real();
}

std::vector<double> marginal_series(const Tilted& tilted) {
  std::vector<double> sum(tilted.nodes.degree + 1, 0);
  for (std::size_t j = 0; j < tilted.weights.size(); ++j)
    add_weighted(sum, tilted.weights[j], tilt_series(tilted.nodes, j));
  return sum;
}

/// Chances of each entry to be in, given that k are. Returns whether all have their digits: none is far below its p.
bool take_marginals(const Tilted& tilted, std::span<double> out) {
  const std::vector<double> series = tilted.nodes.degree > 0 ? marginal_series(tilted) : std::vector<double>();
  std::vector<char> is_relative((out.size() + kBlock - 1) / kBlock, 1);
  for_each_block(out.size(), [&](std::size_t block, std::size_t from, std::size_t size) {
    const auto p = tilted.part(from, size);
    const auto mine = out.subspan(from, size);
    if (series.empty()) {
      weighted_tilts(p, tilted.nodes.kept, tilted.weights, mine);
    } else {
      series_tilts(p, series, mine);
    }
    bool all = true;
    for (std::size_t i = 0; i < size; ++i) {
      mine[i] = std::clamp(mine[i], 0.0, 1.0);
      all = all && (mine[i] > 1e-5 * p[i] || p[i] < 1e-290);
    }
    is_relative[block] = all ? 1 : 0;
  });
  return std::all_of(is_relative.begin(), is_relative.end(), [](char is) { return is != 0; });
}

/// The sums of v r over the entries, for each node.
std::vector<Complex> tilt_sums(const Tilted& tilted, std::span<const double> v) {
  const Nodes& nodes = tilted.nodes;
  const std::size_t n = v.size(), blocks = (n + kBlock - 1) / kBlock;
  std::vector<Complex> sums(nodes.kept.size(), 0);
  if (nodes.degree == 0) {
    std::vector<std::vector<Complex>> parts(blocks, sums);
    for_each_block(n, [&](std::size_t block, std::size_t from, std::size_t size) {
      add_tilt_sums(tilted.part(from, size), v.subspan(from, size), nodes.kept, parts[block]);
    });
    for (const auto& part : parts) {
      for (std::size_t j = 0; j < sums.size(); ++j) sums[j] += part[j];
    }
    return sums;
  }
  std::vector<double> moments(nodes.degree + 1, 0);
  std::vector<std::vector<double>> parts(blocks, moments);
  for_each_block(n, [&](std::size_t block, std::size_t from, std::size_t size) {
    add_tilt_moments(tilted.part(from, size), v.subspan(from, size), parts[block]);
  });
  for (const auto& part : parts) {
    for (std::size_t m = 0; m < moments.size(); ++m) moments[m] += part[m];
  }
  for (std::size_t j = 0; j < sums.size(); ++j) {
    const std::vector<Complex> series = tilt_series(nodes, j);
    for (std::size_t m = 0; m < moments.size(); ++m) sums[j] += series[m] * moments[m];
  }
  return sums;
}

/// The mean of the sum of v over S times each entry of S: sum over nodes of Re(weight (r (sum - v r) + v r)).
void take_pairs(const Tilted& tilted, std::span<const double> v, std::span<double> out) {
  const Nodes& nodes = tilted.nodes;
  const std::vector<Complex> sums = tilt_sums(tilted, v);
  if (nodes.degree == 0) {
    for_each_block(v.size(), [&](std::size_t, std::size_t from, std::size_t size) {
      weighted_pairs(tilted.part(from, size), v.subspan(from, size), nodes.kept, tilted.weights, sums,
                     out.subspan(from, size));
    });
    return;
  }
  std::vector<double> with_sum(nodes.degree + 1, 0), square(nodes.degree + 1, 0);
  for (std::size_t j = 0; j < sums.size(); ++j) {
    const std::vector<Complex> series = tilt_series(nodes, j);
    add_weighted(with_sum, tilted.weights[j] * sums[j], series);
    add_weighted(square, tilted.weights[j], squared_series(nodes, j));
  }
  const std::vector<double> alone = marginal_series(tilted);
  for_each_block(v.size(), [&](std::size_t, std::size_t from, std::size_t size) {
    series_pairs(tilted.part(from, size), v.subspan(from, size), with_sum, alone, square, out.subspan(from, size));
  });
}

/// Chances of each entry to be in by itself, and what they are multiplied by, given that k are in.
struct Recursion {
  std::vector<double> in, ratio;
  double log_z = 0;
};

Recursion recursion_of(std::span<const double> x, int k, double tau) {
  const Threshold at = find_threshold(TopkMethod::sigmoid, x, contents_of(x), k, tau);
  const std::size_t n = x.size(), width = static_cast<std::size_t>(k) + 1;
  Recursion result{std::vector<double>(n), std::vector<double>(n)};
  std::vector<double>&in = result.in, out_of(n);
  OddsSums sums;
  for (std::size_t i = 0; i < n; ++i) {
    const double z = (x[i] - at.base - at.offset) * at.inverse_tau, e = std::exp(-std::abs(z));
    const double most = 1 / (1 + e), least = e / (1 + e);
    in[i] = z > 0 ? most : least;
    out_of[i] = z > 0 ? least : most;
    sums.logs += std::log1p(e);
    if (z > 0) ++sums.above, sums.entries_above += x[i];
  }
  // first[j][m]: the chance that m of the first j entries are in; no logarithms, whose size would cost digits.
  std::vector<double> first((n + 1) * width, 0);
  first[0] = 1;
  for (std::size_t j = 0; j < n; ++j) {
    const double* before = &first[j * width];
    double* now = &first[(j + 1) * width];
    now[0] = out_of[j] * before[0];
    for (std::size_t m = 1; m < width; ++m) now[m] = out_of[j] * before[m] + in[j] * before[m - 1];
  }
  const double chance = first[n * width + width - 1];
  std::vector<double> last(width, 0);  // last[m]: that m of the entries behind are in
  last[0] = 1;
  for (std::size_t j = n; j-- > 0;) {
    double others = 0;  // that k - 1 of the others are in
    for (std::size_t m = 0; m + 1 < width; ++m) others += first[j * width + m] * last[width - 2 - m];
    result.ratio[j] = others / chance;
    for (std::size_t m = width - 1; m > 0; --m) last[m] = out_of[j] * last[m] + in[j] * last[m - 1];
    last[0] *= out_of[j];
  }
  result.log_z = log_of_weights(sums, at, k, tau) + std::log(chance);
  return result;
}

}  // namespace

double subset_marginals(std::span<const double> x, int k, double tau, std::span<double> out) {
  const Tilted tilted = tilt(x, k, tau);
  if (!take_marginals(tilted, out) && static_cast<double>(x.size()) * k <= kMostRecursion)
    return subset_marginals_by_recursion(x, k, tau, out);
  return tilted.log_z;
}

void subset_vjp(std::span<const double> x, int k, double tau, std::span<const double> v, std::span<double> out) {
  const Tilted tilted = tilt(x, k, tau);
  const std::size_t n = x.size(), blocks = (n + kBlock - 1) / kBlock;
  std::vector<double> marginals(n), centred(n);
  take_marginals(tilted, marginals);
  const auto mean_of = [&](std::span<const double> of) {
    std::vector<double> parts(blocks, 0);
    for_each_block(n, [&](std::size_t block, std::size_t from, std::size_t size) {
      for (std::size_t i = from; i < from + size; ++i) parts[block] += of[i] * marginals[i];
    });
    return std::accumulate(parts.begin(), parts.end(), 0.0);
  };
  // sum v over S moves by k c with v + c, and its covariances do not: without its mean less cancels.
  const double mean = mean_of(v) / k;
  for_each_block(n, [&](std::size_t, std::size_t from, std::size_t size) {
    for (std::size_t i = from; i < from + size; ++i) centred[i] = v[i] - mean;
  });
  const double total = mean_of(centred);  // the mean of sum v over S, 0 but for rounding
  take_pairs(tilted, centred, out);
  for_each_block(n, [&](std::size_t, std::size_t from, std::size_t size) {
    for (std::size_t i = from; i < from + size; ++i) out[i] = (out[i] - marginals[i] * total) / tau;
  });
}

void count_distribution(std::span<const double> p, std::int64_t least, std::span<double> out) {
  double variance = 0, mean = 0;
  for (const double chance : p) variance += chance * (1 - chance), mean += chance;
  const auto first = static_cast<double>(least), last = first + static_cast<double>(out.size()) - 1;
  const Nodes nodes = nodes_of(p, mean, variance, std::max(std::abs(first - mean), std::abs(last - mean)));
  for (std::size_t i = 0; i < out.size(); ++i) {
    double sum = 0;
    for (std::size_t j = 0; j < nodes.kept.size(); ++j)
      sum += nodes.term(j, least + static_cast<std::int64_t>(i)).real();
    out[i] = std::max(sum, 0.0);
  }
}

std::vector<double> tilted_chances(std::span<const double> x, int k, double tau) {
  std::vector<double> p(x.size());
  take_odds_in_blocks(x, find_threshold(TopkMethod::sigmoid, x, contents_of(x), k, tau), p);
  return p;
}

double subset_marginals_by_recursion(std::span<const double> x, int k, double tau, std::span<double> out) {
  const Recursion recursion = recursion_of(x, k, tau);
  for (std::size_t i = 0; i < out.size(); ++i) out[i] = std::min(1.0, recursion.in[i] * recursion.ratio[i]);
  return recursion.log_z;
}

double subset_log_marginals(std::span<const double> x, int k, double tau, std::span<double> out) {
  Tilted tilted = tilt(x, k, tau);
  // The ratio of a chance to its tilted one is smooth in that: a stand-in where it underflows.
  for (double& p : tilted.p) p = std::max(p, 1e-300);
  std::vector<double> ratio(x.size());
  double log_z = tilted.log_z;
  if (!take_marginals(tilted, ratio) && static_cast<double>(x.size()) * k <= kMostRecursion) {
    Recursion recursion = recursion_of(x, k, tau);
    ratio = std::move(recursion.ratio);
    log_z = recursion.log_z;
  } else {
    for (std::size_t i = 0; i < ratio.size(); ++i) ratio[i] /= tilted.p[i];
  }
  const Threshold at = tilted.at;
  for (std::size_t i = 0; i < out.size(); ++i) {
    const double z = (x[i] - at.base - at.offset) * at.inverse_tau;
    const double log_tilted = std::min(z, 0.0) - std::log1p(std::exp(-std::abs(z)));
    out[i] = std::min(0.0, log_tilted + std::log(ratio[i]));
  }
  return log_z;
}

}  // namespace tuiqiao::topk
