#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace tuiqiao {

/// Mean and covariance of rows of features.
struct FeatureMoments {
  std::int64_t count = 0;
  std::vector<double> mean;        ///< [d]
  std::vector<double> covariance;  ///< [d, d], unbiased
};

/// Shapes: features: rows of `width`. Domain: at least two rows, all finite.
/// Throws: std::invalid_argument "[feature_moments] ...". Cost: O(n d^2).
FeatureMoments feature_moments(std::span<const float> features, std::int64_t width);

/// The Frechet distance between Gaussians of these moments, |m - m'|^2 + tr(C + C' - 2 (C C')^(1/2)); the square root
/// by eigenvalues of the symmetric C^(1/2) C' C^(1/2). In whose features it is taken belongs to its name. Error: some
/// 1e-10 of tr(C + C'). Throws: std::invalid_argument "[frechet_distance] ..." on different widths. Cost: O(d^3).
/// Source: Dowson and Landau 1982; arXiv 1706.08500.
double frechet_distance(const FeatureMoments& a, const FeatureMoments& b);

/// The squared maximum mean discrepancy for the kernel (x y / d + 1)^3, of which the mean is 0 where the laws are
/// equal.
struct KernelDistance {
  double value = 0;  ///< mean over subsets
  double error = 0;  ///< its standard error over subsets
};

/// Unbiased, over `subsets` subsets of `subset` rows each (all rows where there are fewer), drawn by `seed`.
/// Shapes: rows of `width`. Throws: std::invalid_argument "[kernel_distance] ...". Cost: O(subsets subset^2 d).
/// Source: arXiv 1801.01401.
KernelDistance kernel_distance(std::span<const float> a, std::span<const float> b, std::int64_t width,
                               std::uint64_t seed = 0, int subsets = 50, std::int64_t subset = 1000);

/// The chance that a score of `other` is above one of `own`, equal ones counting half: the area under the curve of a
/// detector's true over false alarms; 1/2 where the scores tell nothing.
/// Domain: neither empty, no NaN. Throws: std::invalid_argument "[area_under_curve] ...". Cost: O(n log n).
/// Source: Mann and Whitney 1947.
double area_under_curve(std::span<const double> own, std::span<const double> other);

}  // namespace tuiqiao
