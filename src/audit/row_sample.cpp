#include "audit/row_sample.h"

#include <cblas.h>

#include <algorithm>

namespace tuiqiao::auditing {

namespace {

std::size_t size_of_sample(const Problem& problem) { return 9 * problem.columns() / 4 + 64; }

}  // namespace

bool RowSample::is_possible(const Problem& problem, const std::vector<std::int64_t>& groups) {
  return groups.size() >= 2 * size_of_sample(problem);
}

RowSample::RowSample(const Problem& problem, const std::vector<std::int64_t>& groups, const std::vector<float>& centre)
    : problem_(problem), centre_(centre) {
  const std::size_t m = size_of_sample(problem), n = problem.columns();
  for (std::size_t s = 0; s < m; ++s) rows_.push_back(groups[s * groups.size() / m]);
  values_.resize(m * n);
  for (std::size_t s = 0; s < m; ++s) write(rows_[s], values_.data() + s * n);
  products_.resize(m * m);
  const int size = static_cast<int>(m);
  cblas_dsyrk(CblasRowMajor, CblasLower, CblasNoTrans, size, static_cast<int>(n), 1, values_.data(),
              static_cast<int>(n), 0, products_.data(), size);
  for (std::size_t i = 0; i < m; ++i) {
    for (std::size_t j = 0; j < i; ++j) products_[j * m + i] = products_[i * m + j];
  }
}

void RowSample::write(std::int64_t i, double* to) const {
  problem_.row(i, to);
  for (std::size_t j = 0; j < centre_.size(); ++j) to[j] -= static_cast<double>(centre_[j]);
}

std::vector<std::int64_t> RowSample::rows_but(std::int64_t k) const {
  std::vector<std::int64_t> rows = rows_;
  std::erase(rows, k);
  return rows;
}

bool RowSample::has(std::int64_t i) const { return std::binary_search(rows_.begin(), rows_.end(), i); }

void RowSample::write_products(std::int64_t k, double factor, double* to, std::size_t step) const {
  const std::size_t m = rows_.size(), n = problem_.columns();
  const int size = static_cast<int>(n);
  std::vector<double> own(n), across(m);
  write(k, own.data());
  cblas_dgemv(CblasRowMajor, CblasNoTrans, static_cast<int>(m), size, 1, values_.data(), size, own.data(), 1, 0,
              across.data(), 1);
  const double squared = cblas_ddot(size, own.data(), 1, own.data(), 1);
  const auto skip = static_cast<std::size_t>(std::find(rows_.begin(), rows_.end(), k) - rows_.begin());
  for (std::size_t i = 0; i < m; ++i) {
    if (i == skip) continue;
    const double* from = products_.data() + i * m;
    for (std::size_t j = 0; j < skip; ++j) to[j] = factor * (squared - across[i] - across[j] + from[j]);
    for (std::size_t j = skip + 1; j < m; ++j) to[j - 1] = factor * (squared - across[i] - across[j] + from[j]);
    to += step;
  }
}

}  // namespace tuiqiao::auditing
