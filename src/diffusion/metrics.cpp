#include "tuiqiao/diffusion/metrics.h"

#include <cblas.h>
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <stdexcept>

#include "lapack.h"
#include "tuiqiao/diffusion/noise.h"

namespace tuiqiao {

namespace {

/// The eigenvalues of a symmetric matrix, rising, and in its place its eigenvectors, one a row.
std::vector<double> eigen(std::vector<double>& matrix, std::size_t n) {
  std::vector<double> values(n);
  const int size = static_cast<int>(n), most = 64 * size + 64;
  std::vector<double> work(static_cast<std::size_t>(most));
  int info = 0;
  dsyev_("V", "U", &size, matrix.data(), &size, values.data(), work.data(), &most, &info);
  if (info != 0) throw std::invalid_argument("[frechet_distance] a covariance has no eigenvalues");
  return values;
}

/// a b of square matrices.
std::vector<double> product(const std::vector<double>& a, const std::vector<double>& b, std::size_t n) {
  std::vector<double> result(n * n);
  const int size = static_cast<int>(n);
  cblas_dgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, size, size, size, 1, a.data(), size, b.data(), size, 0,
              result.data(), size);
  return result;
}

/// The symmetric square root of a matrix without negative eigenvalues but for rounding.
std::vector<double> root_of(std::vector<double> matrix, std::size_t n) {
  const std::vector<double> values = eigen(matrix, n);
  std::vector<double> scaled = matrix;
  for (std::size_t k = 0; k < n; ++k) {
    const double factor = std::sqrt(std::sqrt(std::max(values[k], 0.0)));
    for (std::size_t j = 0; j < n; ++j) scaled[k * n + j] *= factor;
  }
  std::vector<double> root(n * n);
  const int size = static_cast<int>(n);
  cblas_dgemm(CblasRowMajor, CblasTrans, CblasNoTrans, size, size, size, 1, scaled.data(), size, scaled.data(), size, 0,
              root.data(), size);
  return root;
}

/// `count` different rows of `of`, in the order they were drawn.
std::vector<std::size_t> drawn_rows(std::size_t of, std::size_t count, std::uint64_t seed, std::uint64_t stream) {
  std::vector<std::size_t> rows(of);
  std::iota(rows.begin(), rows.end(), 0);
  for (std::size_t i = 0; i < count; ++i) std::swap(rows[i], rows[i + random_below(seed, stream, i, of - i)]);
  rows.resize(count);
  return rows;
}

std::vector<double> taken(std::span<const float> features, std::size_t width, const std::vector<std::size_t>& rows) {
  std::vector<double> values;
  for (const std::size_t row : rows)
    values.insert(values.end(), features.begin() + static_cast<std::ptrdiff_t>(row * width),
                  features.begin() + static_cast<std::ptrdiff_t>((row + 1) * width));
  return values;
}

/// Mean of the kernel over pairs of rows, without those of a row with itself where both are the same rows.
double mean_kernel(const std::vector<double>& a, const std::vector<double>& b, std::size_t width, bool same) {
  const std::size_t n = a.size() / width, m = b.size() / width;
  std::vector<double> products(n * m);
  cblas_dgemm(CblasRowMajor, CblasNoTrans, CblasTrans, static_cast<int>(n), static_cast<int>(m),
              static_cast<int>(width), 1 / static_cast<double>(width), a.data(), static_cast<int>(width), b.data(),
              static_cast<int>(width), 0, products.data(), static_cast<int>(m));
  double sum = 0;
  for (std::size_t i = 0; i < n; ++i) {
    for (std::size_t j = 0; j < m; ++j) {
      const double x = products[i * m + j] + 1;
      if (!same || i != j) sum += x * x * x;
    }
  }
  return sum / static_cast<double>(same ? n * (n - 1) : n * m);
}

}  // namespace

FeatureMoments feature_moments(std::span<const float> features, std::int64_t width) {
  const auto d = static_cast<std::size_t>(std::max<std::int64_t>(width, 1));
  if (width < 1 || features.size() % d != 0 || features.size() < 2 * d)
    throw std::invalid_argument(
        fmt::format("[feature_moments] {} numbers are no two rows of {} or more", features.size(), width));
  const std::size_t n = features.size() / d;
  FeatureMoments moments{static_cast<std::int64_t>(n), std::vector<double>(d, 0), std::vector<double>(d * d, 0)};
  for (std::size_t i = 0; i < features.size(); ++i) {
    if (!std::isfinite(features[i]))
      throw std::invalid_argument(fmt::format("[feature_moments] row {} is not finite", i / d));
    moments.mean[i % d] += static_cast<double>(features[i]) / static_cast<double>(n);
  }
  constexpr std::size_t kPart = 1024;
  std::vector<double> part;
  for (std::size_t from = 0; from < n; from += kPart) {
    const std::size_t count = std::min(kPart, n - from);
    part.resize(count * d);
    for (std::size_t i = 0; i < part.size(); ++i)
      part[i] = static_cast<double>(features[from * d + i]) - moments.mean[i % d];
    cblas_dgemm(CblasRowMajor, CblasTrans, CblasNoTrans, static_cast<int>(d), static_cast<int>(d),
                static_cast<int>(count), 1 / static_cast<double>(n - 1), part.data(), static_cast<int>(d), part.data(),
                static_cast<int>(d), 1, moments.covariance.data(), static_cast<int>(d));
  }
  return moments;
}

double frechet_distance(const FeatureMoments& a, const FeatureMoments& b) {
  const std::size_t d = a.mean.size();
  if (d != b.mean.size() || a.covariance.size() != d * d || b.covariance.size() != d * d)
    throw std::invalid_argument(fmt::format("[frechet_distance] widths {} and {}", d, b.mean.size()));
  const std::vector<double> root = root_of(a.covariance, d);
  std::vector<double> middle = product(product(root, b.covariance, d), root, d);
  double sum = 0;
  for (const double value : eigen(middle, d)) sum -= 2 * std::sqrt(std::max(value, 0.0));
  for (std::size_t j = 0; j < d; ++j) {
    sum += a.covariance[j * d + j] + b.covariance[j * d + j];
    sum += (a.mean[j] - b.mean[j]) * (a.mean[j] - b.mean[j]);
  }
  return std::max(sum, 0.0);
}

KernelDistance kernel_distance(std::span<const float> a, std::span<const float> b, std::int64_t width,
                               std::uint64_t seed, int subsets, std::int64_t subset) {
  const auto d = static_cast<std::size_t>(std::max<std::int64_t>(width, 1));
  const std::size_t rows = std::min(a.size(), b.size()) / d;
  if (width < 1 || a.size() % d != 0 || b.size() % d != 0 || rows < 2 || subsets < 1 || subset < 2)
    throw std::invalid_argument(fmt::format("[kernel_distance] {} and {} numbers as rows of {}, {} subsets of {}",
                                            a.size(), b.size(), width, subsets, subset));
  const std::size_t count = std::min(rows, static_cast<std::size_t>(subset));
  std::vector<double> values;
  for (int s = 0; s < subsets; ++s) {
    const auto stream = 2 * static_cast<std::uint64_t>(s);
    const std::vector<double> x = taken(a, d, drawn_rows(a.size() / d, count, seed, stream));
    const std::vector<double> y = taken(b, d, drawn_rows(b.size() / d, count, seed, stream + 1));
    values.push_back(mean_kernel(x, x, d, true) + mean_kernel(y, y, d, true) - 2 * mean_kernel(x, y, d, false));
  }
  KernelDistance found;
  for (const double value : values) found.value += value / subsets;
  for (const double value : values) found.error += (value - found.value) * (value - found.value);
  found.error = subsets > 1 ? std::sqrt(found.error / (subsets - 1.0) / subsets) : 0;
  return found;
}

double area_under_curve(std::span<const double> own, std::span<const double> other) {
  const auto has_nan = [](std::span<const double> scores) {
    return std::any_of(scores.begin(), scores.end(), [](double x) { return std::isnan(x); });
  };
  if (own.empty() || other.empty()) throw std::invalid_argument("[area_under_curve] no scores");
  if (has_nan(own) || has_nan(other)) throw std::invalid_argument("[area_under_curve] a score is NaN");
  std::vector<double> sorted(own.begin(), own.end());
  std::sort(sorted.begin(), sorted.end());
  double sum = 0;
  for (const double score : other) {
    const auto [begin, end] = std::equal_range(sorted.begin(), sorted.end(), score);
    sum += static_cast<double>(begin - sorted.begin()) + static_cast<double>(end - begin) / 2;
  }
  return sum / (static_cast<double>(own.size()) * static_cast<double>(other.size()));
}

}  // namespace tuiqiao
