#pragma once

#include <cstdint>
#include <span>

#include "tuiqiao/topk.h"

/// Loops over a row for the functions f of the threshold methods, in the row's own precision with sums in float64.
/// All take z = (x - t) / tau; x - t keeps the precision of z near t, whatever x's size.
namespace tuiqiao::topk {

/// How a row lies about a threshold: sum f = above - tail_above + tail_below.
struct Sides {
  std::int64_t above = 0;                  ///< entries with z > 0
  double tail_above = 0, slope_above = 0;  ///< sums of 1 - f and of f' over them
  double tail_below = 0, slope_below = 0;  ///< sums of f and of f' over the others

  double sum() const { return static_cast<double>(above) - tail_above + tail_below; }
  double slope() const { return slope_above + slope_below; }
};

/// t = base + offset, so that a threshold next to entries that are large against tau keeps its digits.
struct Threshold {
  double base = 0, offset = 0, inverse_tau = 1;

  double t() const { return base + offset; }
};

Sides sides_of(TopkMethod shape, std::span<const float> x, Threshold at);
Sides sides_of(TopkMethod shape, std::span<const double> x, Threshold at);

/// p[i] = f(z_i); p may be x.
void shape_values(TopkMethod shape, std::span<const float> x, Threshold at, std::span<float> p);
void shape_values(TopkMethod shape, std::span<const double> x, Threshold at, std::span<double> p);

/// Sums over the entries of f' alone, with v, with z, with both. From z, not from p, which is 1 where f' still counts.
struct SlopeSums {
  double slope = 0, slope_v = 0;
  double slope_z = 0, slope_v_z = 0;
};
SlopeSums slope_sums(TopkMethod shape, std::span<const float> x, std::span<const float> v, Threshold at);
SlopeSums slope_sums(TopkMethod shape, std::span<const double> x, std::span<const double> v, Threshold at);

/// out[i] = f'(z_i) (v_i - centre) scale
void slope_values(TopkMethod shape, std::span<const float> x, std::span<const float> v, Threshold at, double centre,
                  double scale, std::span<float> out);
void slope_values(TopkMethod shape, std::span<const double> x, std::span<const double> v, Threshold at, double centre,
                  double scale, std::span<double> out);

/// What a row holds.
struct Contents {
  double least = 0, most = 0;  ///< of the finite entries; least > most where there is none
  std::int64_t finite = 0, masked = 0, infinite = 0;
  bool has_nan = false;
};
Contents contents_of(std::span<const float> x);
Contents contents_of(std::span<const double> x);

}  // namespace tuiqiao::topk
