#pragma once

#include <cstddef>
#include <span>

/// Loops over a row of probabilities p for nodes e^{i theta} near 1, where sums over nodes are short series in
/// Chebyshev polynomials T_m(u), u = 2 p - 1. With w = i tan(theta / 4), 1 - p + p e^{i theta} is
///   e^{i theta / 2} cos^2(theta / 4) (1 + 2 w u + w^2),
/// whose logarithm and inverse are generating functions of T_m: one pass over the row serves all nodes.
namespace tuiqiao::topk {

/// moments[m] += sum of T_m(u) - 1 for even m, of T_m(u) - u for odd m: right relative to sum p (1 - p), since they
/// vanish at both ends.
void add_product_moments(std::span<const double> p, std::span<double> moments);

/// moments[m] += sum of v p T_m(u)
void add_tilt_moments(std::span<const double> p, std::span<const double> v, std::span<double> moments);

/// out = p sum of series[m] T_m(u)
void series_tilts(std::span<const double> p, std::span<const double> series, std::span<double> out);

/// out = p a(u) + v p (b(u) - p c(u)) for three series of one length
void series_pairs(std::span<const double> p, std::span<const double> v, std::span<const double> a,
                  std::span<const double> b, std::span<const double> c, std::span<double> out);

}  // namespace tuiqiao::topk
