#include "audit/hull_witness.h"

#include <cblas.h>

#include <algorithm>
#include <cmath>

#include "audit/min_norm.h"
#include "lapack.h"

namespace tuiqiao::auditing {

namespace {

constexpr double kNearOrigin = 1e-7;  // squared length over that of the longest point
// Differences of rows are brought to this many times the length of x_k - centre: the shortest vector then leads the
// rows taken in by so much less than the centre, where the other rows are.
constexpr double kLead = 16;

}  // namespace

std::vector<double> factor_of(const AuditFrame& frame) {
  const std::size_t n = frame.has_bias ? 0 : static_cast<std::size_t>(frame.columns);
  if (frame.whitening.size() != n * n || n == 0) return {};
  std::vector<double> factor(frame.whitening.begin(), frame.whitening.end());
  const int size = static_cast<int>(n);
  int info = 0;
  dpotrf_("U", &size, factor.data(), &size, &info);  // the upper triangle by columns is the lower one by rows
  if (info != 0) return {};
  for (std::size_t i = 0; i < n; ++i)
    std::fill(factor.begin() + static_cast<std::ptrdiff_t>(i * n + i + 1),
              factor.begin() + static_cast<std::ptrdiff_t>((i + 1) * n), 0.0);
  return factor;
}

HullWitness::HullWitness(const Problem& problem, const AuditFrame& frame, const std::vector<double>& factor,
                         std::int64_t k)
    : problem_(problem), factor_(factor), own_(problem.columns()) {
  problem.row(k, own_.data());
  std::vector<double> difference(own_);
  for (std::size_t j = 0; j < difference.size(); ++j) difference[j] -= static_cast<double>(frame.centre[j]);
  add_points(std::move(difference));
}

void HullWitness::add(std::span<const std::int64_t> rows) {
  const std::size_t n = own_.size();
  std::vector<double> differences(rows.size() * n);
  for (std::size_t r = 0; r < rows.size(); ++r) {
    double* to = differences.data() + r * n;
    problem_.row(rows[r], to);
    for (std::size_t j = 0; j < n; ++j) to[j] = own_[j] - to[j];
  }
  add_points(std::move(differences));
}

void HullWitness::add_points(std::vector<double> differences) {
  const std::size_t n = own_.size();
  const int size = static_cast<int>(n), count = static_cast<int>(differences.size() / n);
  if (count == 0) return;
  if (!factor_.empty())
    cblas_dtrmm(CblasRowMajor, CblasRight, CblasLower, CblasNoTrans, CblasNonUnit, count, size, 1, factor_.data(), size,
                differences.data(), size);
  for (int r = 0; r < count; ++r) {
    double* point = differences.data() + static_cast<std::size_t>(r) * n;
    const double length = cblas_dnrm2(size, point, 1);
    if (points_.empty()) {
      reach_ = kLead * length;
    } else if (length > 0) {
      cblas_dscal(size, reach_ / length, point, 1);
    }
  }
  points_.insert(points_.end(), differences.begin(), differences.end());
}

std::vector<double> HullWitness::solve() {
  const std::size_t n = own_.size(), count = points_.size() / n, known = known_;
  std::vector<double> gram(count * count);
  for (std::size_t i = 0; i < known; ++i) std::copy_n(gram_.data() + i * known, known, gram.data() + i * count);
  if (count > known) {
    cblas_dgemm(CblasRowMajor, CblasNoTrans, CblasTrans, static_cast<int>(count - known), static_cast<int>(count),
                static_cast<int>(n), 1, points_.data() + known * n, static_cast<int>(n), points_.data(),
                static_cast<int>(n), 0, gram.data() + known * count, static_cast<int>(count));
    for (std::size_t i = 0; i < known; ++i) {
      for (std::size_t j = known; j < count; ++j) gram[i * count + j] = gram[j * count + i];
    }
  }
  gram_ = std::move(gram);
  known_ = count;
  double longest = 0;
  for (std::size_t i = 0; i < count; ++i) longest = std::max(longest, gram_[i * count + i]);
  found_ = min_norm_point(gram_, static_cast<int>(count), points_.data(), n, problem_.dimension(), found_);
  const MinNorm& found = found_;
  lead_ = gram_[0] > 0 ? std::sqrt(found.squared / gram_[0]) : 0;
  if (found.is_zero || !(found.squared > kNearOrigin * longest)) return {};
  std::vector<double> z(n, 0);
  for (const int s : found.support)
    cblas_daxpy(static_cast<int>(n), found.weights[static_cast<std::size_t>(s)],
                points_.data() + static_cast<std::size_t>(s) * n, 1, z.data(), 1);
  if (!factor_.empty())
    cblas_dtrmv(CblasRowMajor, CblasLower, CblasNoTrans, CblasNonUnit, static_cast<int>(n), factor_.data(),
                static_cast<int>(n), z.data(), 1);
  const double length = cblas_dnrm2(static_cast<int>(n), z.data(), 1);
  if (!(length > 0 && std::isfinite(length))) return {};
  for (double& entry : z) entry = static_cast<double>(static_cast<float>(entry / length));
  return z;
}

}  // namespace tuiqiao::auditing
