#pragma once

#include <complex>
#include <cstddef>
#include <cstdint>
#include <span>

#include "topk/shape_kernels.h"

/// Loops over a row of probabilities p for nodes e^{i theta} of the unit circle, with
///   factor = 1 - p + p e^{i theta},    r = p e^{i theta} / factor.
namespace tuiqiao::topk {

/// A node as the loops want it.
struct Node {
  double cosine = 1, sine = 0;
};

/// What independent entries come to.
struct OddsSums {
  double mean = 0, variance = 0;  ///< of the number that are in
  // The sum of log(1 + e^z) in parts that do not cancel: log(1 + e^-|z|), and z = (x - t) / tau where it is positive.
  double logs = 0, entries_above = 0;
  std::int64_t above = 0;
};

/// p = 1 / (1 + e^-z), z = (x - t) / tau
OddsSums take_odds(std::span<const double> x, Threshold at, std::span<double> p);

/// The product of all factors at each node, as logarithms: adds log |.| and the angle.
void add_log_factors(std::span<const double> p, std::span<const Node> nodes, std::span<double> log_size,
                     std::span<double> angle);

/// out[i] = sum over nodes of Re(weight r_i)
void weighted_tilts(std::span<const double> p, std::span<const Node> nodes,
                    std::span<const std::complex<double>> weights, std::span<double> out);

/// sums[j] += sum over entries of v_i r_i(node j)
void add_tilt_sums(std::span<const double> p, std::span<const double> v, std::span<const Node> nodes,
                   std::span<std::complex<double>> sums);

/// out[i] = sum over nodes of Re(weight (r_i (sum - v_i r_i) + v_i r_i))
void weighted_pairs(std::span<const double> p, std::span<const double> v, std::span<const Node> nodes,
                    std::span<const std::complex<double>> weights, std::span<const std::complex<double>> sums,
                    std::span<double> out);

}  // namespace tuiqiao::topk
