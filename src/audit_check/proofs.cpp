#include "audit_check/proofs.h"

#include <cblas.h>
#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "tuiqiao/error.h"

extern "C" {
void dgetrf_(const int* m, const int* n, double* a, const int* lda, int* pivots, int* info);
void dgetri_(const int* n, double* a, const int* lda, const int* pivots, double* work, const int* lwork, int* info);
}

namespace tuiqiao::checking {

namespace {

constexpr double kUnit = 0x1p-53, kOutward = 1 + 1e-8;
constexpr std::size_t kLongestFraction =
    100'000;                            // a determinant of 48 columns, entries squared, has fewer than 20,000
constexpr std::size_t kMostExact = 64;  // columns up to which doubtful simplices are solved in rationals

using Fractions = std::vector<mpq_class>;

/// x_k - x_i, or for -1 the unit vector of the bias column.
Fractions exact_vertex(const CheckedRows& rows, const Fractions& own, std::int64_t i) {
  Fractions vertex(rows.columns());
  if (i < 0) {
    vertex.back() = 1;
    return vertex;
  }
  const Fractions other = rows.exact(i);
  for (std::size_t j = 0; j < vertex.size(); ++j) vertex[j] = own[j] - other[j];
  return vertex;
}

bool is_zero(const Fractions& x) {
  return std::all_of(x.begin(), x.end(), [](const mpq_class& entry) { return entry == 0; });
}

// ---- Simplex
// ---------------------------------------------------------------------------------------------------------

/// The vertices of a simplex, over a row of ones, as columns of a square matrix.
struct Simplex {
  std::size_t n = 0;
  std::vector<double> m;       ///< column after column
  std::vector<double> errors;  ///< bound on the error of a column's entries
};

/// Of centred rows one linear column follows from the others.
std::size_t left_out_column(const CheckedRows& rows) {
  return rows.centred() ? rows.linear_columns() - 1 : rows.columns();
}

Simplex simplex_of(const CheckedRows& rows, std::int64_t k, const std::vector<std::int64_t>& vertices) {
  Simplex made;
  made.n = vertices.size();
  made.m.resize(made.n * made.n);
  made.errors.resize(made.n);
  const std::size_t left_out = left_out_column(rows);
  std::vector<double> own(rows.columns()), other(rows.columns());
  const double own_error = rows.row(k, own.data());
  double largest = 0;
  for (std::size_t v = 0; v < made.n; ++v) {
    double* column = made.m.data() + v * made.n;
    column[made.n - 1] = 1;
    if (vertices[v] < 0) continue;
    const double error = rows.row(vertices[v], other.data()) + own_error;
    double most = 0;
    for (std::size_t j = 0, at = 0; j < rows.columns(); ++j) {
      if (j == left_out) continue;
      column[at] = own[j] - other[j];
      most = std::max(most, std::abs(column[at++]));
    }
    made.errors[v] = (error + kUnit * most) * kOutward;
    largest = std::max(largest, most);
  }
  if (!(largest > 0)) return made;
  const int exponent = -std::ilogb(largest);
  for (std::size_t v = 0; v < made.n; ++v) {
    double* column = made.m.data() + v * made.n;
    if (vertices[v] < 0) {
      column[made.n - 2] = 1;  // of any length: its cone counts
      continue;
    }
    for (std::size_t j = 0; j + 1 < made.n; ++j) column[j] = std::ldexp(column[j], exponent);
    made.errors[v] = std::ldexp(made.errors[v], exponent) + 1e-300;
  }
  return made;
}

/// Whether M w = (0, ..., 0, 1) surely has one solution and it is positive. With R near M's inverse, and
/// |1 - R M| < 1 in the norm of row sums, |w - v| <= |R (M v - e)| / (1 - |1 - R M|) for any v.
bool is_surely_inside(const Simplex& simplex) {
  const std::size_t n = simplex.n;
  const int size = static_cast<int>(n), room = 64 * size;
  std::vector<double> inverse = simplex.m, work(static_cast<std::size_t>(room));
  std::vector<int> pivots(n);
  int info = 0;
  dgetrf_(&size, &size, inverse.data(), &size, pivots.data(), &info);
  if (info == 0) dgetri_(&size, inverse.data(), &size, pivots.data(), work.data(), &room, &info);
  if (info != 0) return false;
  std::vector<double> product(n * n), plain(n * n);
  std::transform(inverse.begin(), inverse.end(), plain.begin(), [](double x) { return std::abs(x); });
  cblas_dgemm(CblasColMajor, CblasNoTrans, CblasNoTrans, size, size, size, 1, inverse.data(), size, simplex.m.data(),
              size, 0, product.data(), size);
  const double gamma = static_cast<double>(n + 4) * 2 * kUnit;
  // |R| (|M| 1) bounds the sizes of the terms of R M, row by row, and |R| 1 those of R times M's own errors.
  std::vector<double> sums(n, 0), rho(n, 0);
  double all_errors = 0;
  for (std::size_t v = 0; v < n; ++v) {
    all_errors += simplex.errors[v];
    for (std::size_t j = 0; j < n; ++j) {
      sums[j] += std::abs(simplex.m[v * n + j]);
      rho[j] += std::abs(product[v * n + j] - (j == v ? 1 : 0));
    }
  }
  for (std::size_t l = 0; l < n; ++l) {
    for (std::size_t j = 0; j < n; ++j) rho[j] += plain[l * n + j] * (gamma * sums[l] + all_errors);
  }
  const auto are_finite = [](const std::vector<double>& all) {
    return std::all_of(all.begin(), all.end(), [](double x) { return std::isfinite(x); });
  };
  if (!are_finite(inverse) || !are_finite(rho)) return false;  // the largest of some is no bound where one is none
  const double most = (*std::max_element(rho.begin(), rho.end()) + gamma) * kOutward;
  if (!(most < 0.9)) return false;
  const double* weights = inverse.data() + (n - 1) * n;
  std::vector<double> residual(n, 0), bound(n, 0), away(n, 0);
  residual[n - 1] = -1;
  bound[n - 1] = gamma;
  for (std::size_t v = 0; v < n; ++v) {
    for (std::size_t j = 0; j < n; ++j) {
      const double term = simplex.m[v * n + j] * weights[v];
      residual[j] += term;
      bound[j] += std::abs(term) * gamma + simplex.errors[v] * std::abs(weights[v]);
    }
  }
  for (std::size_t l = 0; l < n; ++l) {
    const double entry = std::abs(residual[l]) + bound[l] + 4 * kUnit;
    for (std::size_t j = 0; j < n; ++j) away[j] += plain[l * n + j] * entry;
  }
  if (!are_finite(away)) return false;
  const double error = *std::max_element(away.begin(), away.end()) * kOutward / (1 - most);
  return *std::min_element(weights, weights + n) > error;
}

/// Solves the same system in rationals.
bool is_exactly_inside(const CheckedRows& rows, std::int64_t k, const std::vector<std::int64_t>& vertices) {
  const std::size_t n = vertices.size(), left_out = left_out_column(rows);
  const Fractions own = rows.exact(k);
  std::vector<Fractions> table(n, Fractions(n + 1));
  for (std::size_t v = 0; v < n; ++v) {
    const Fractions vertex = exact_vertex(rows, own, vertices[v]);
    for (std::size_t j = 0, at = 0; j < vertex.size(); ++j) {
      if (j != left_out) table[at++][v] = vertex[j];
    }
    table[n - 1][v] = 1;
  }
  table[n - 1][n] = 1;
  for (std::size_t c = 0; c < n; ++c) {
    std::size_t pivot = c;
    while (pivot < n && table[pivot][c] == 0) ++pivot;
    if (pivot == n) return false;
    std::swap(table[c], table[pivot]);
    for (std::size_t r = 0; r < n; ++r) {
      if (r == c || table[r][c] == 0) continue;
      const mpq_class factor = table[r][c] / table[c][c];
      for (std::size_t j = c; j <= n; ++j) table[r][j] -= factor * table[c][j];
    }
  }
  for (std::size_t c = 0; c < n; ++c) {
    if (sgn(table[c][n]) * sgn(table[c][c]) <= 0) return false;
  }
  return true;
}

std::string check_simplex(const CheckedRows& rows, const ClassVerdict& verdict) {
  if (verdict.rows.size() != rows.dimension() + 1 || rows.dimension() == 0)
    return fmt::format("a simplex has {} vertices, not {}", rows.dimension() + 1, verdict.rows.size());
  if (is_surely_inside(simplex_of(rows, verdict.i, verdict.rows))) return "";
  if (rows.columns() <= kMostExact && is_exactly_inside(rows, verdict.i, verdict.rows)) return "";
  return "it is not proven to lie inside the simplex of its rows";
}

// ---- Ball
// ------------------------------------------------------------------------------------------------------------

constexpr const char* kNotBelow = "its weights do not keep it down in the ball";

/// r |s| + b <= 0 > b for the weighted sum (s, b), in rationals. The ball is open: at r |s| = -b it stays below too.
std::string check_ball_exactly(const CheckedRows& rows, const ClassVerdict& verdict, const Fractions& weights) {
  const Fractions own = rows.exact(verdict.i);
  Fractions sum(rows.columns());
  for (std::size_t s = 0; s < weights.size(); ++s) {
    if (verdict.rows[s] < 0 || weights[s] <= 0) return "weights must be positive, and of classes";
    const Fractions vertex = exact_vertex(rows, own, verdict.rows[s]);
    for (std::size_t j = 0; j < sum.size(); ++j) sum[j] += weights[s] * vertex[j];
  }
  const mpq_class bias = sum.back();
  sum.pop_back();
  return bias < 0 && rows.radius_squared() * dot(sum, sum) <= bias * bias ? "" : kNotBelow;
}

std::string check_ball(const CheckedRows& rows, const ClassVerdict& verdict) {
  if (!rows.has_ball()) return "a proof for a ball, but there is none";
  if (verdict.rows.empty()) return "a proof without rows";
  if (verdict.weights.empty()) {
    const Fractions weights = fractions_of(verdict.exact_weights);
    return weights.size() == verdict.rows.size() ? check_ball_exactly(rows, verdict, weights)
                                                 : "a proof without weights";
  }
  if (verdict.weights.size() != verdict.rows.size()) return "a proof without weights";
  const std::size_t n = rows.columns();
  std::vector<double> own(n), other(n), sum(n, 0);
  const double own_error = rows.row(verdict.i, own.data());
  // Only their ratios count: the largest is made about 1, so that products underflow by no more than `least`.
  constexpr double kSmallest = 0x1p-500, kLeast = 0x1p-1072;
  const double heaviest = *std::max_element(verdict.weights.begin(), verdict.weights.end());
  if (!(heaviest > 0)) return "weights must be positive, and of classes";
  const int down_by = -std::ilogb(heaviest);
  double size = 0, error = 0;
  for (std::size_t s = 0; s < verdict.rows.size(); ++s) {
    if (verdict.rows[s] < 0 || !(verdict.weights[s] > 0)) return "weights must be positive, and of classes";
    const double weight = std::ldexp(verdict.weights[s], down_by);
    if (weight < kSmallest) return "weights of too different sizes";
    error += weight * (rows.row(verdict.rows[s], other.data()) + own_error);
    double squares = 0;
    for (std::size_t j = 0; j < n; ++j) {
      const double difference = own[j] - other[j];
      sum[j] += weight * difference;
      squares += difference * difference;
    }
    size += weight * std::sqrt(squares);
  }
  double squares = 0;
  for (std::size_t j = 0; j + 1 < n; ++j) squares += sum[j] * sum[j];
  const double terms = static_cast<double>(n) * static_cast<double>(verdict.rows.size());
  const double rounding =
      (error + static_cast<double>(n + verdict.rows.size() + 8) * 2 * kUnit * size + terms * kLeast) * kOutward +
      kLeast;
  const double radius = std::sqrt(rows.radius_squared().get_d()) * kOutward;
  if (radius * (std::sqrt(squares) * kOutward + rounding) + sum.back() + rounding < 0) return "";
  return n > 4 * kMostExact ? kNotBelow
                            : check_ball_exactly(rows, verdict, {verdict.weights.begin(), verdict.weights.end()});
}

// ---- Rationals
// -------------------------------------------------------------------------------------------------------

/// A basis in echelon form.
class Span {
 public:
  void add(Fractions x) {
    reduce(x);
    const auto it = std::find_if(x.begin(), x.end(), [](const mpq_class& entry) { return entry != 0; });
    if (it == x.end()) return;
    pivots_.push_back(static_cast<std::size_t>(it - x.begin()));
    const mpq_class lead = *it;
    for (mpq_class& entry : x) entry /= lead;
    basis_.push_back(std::move(x));
  }
  bool holds(Fractions x) const {
    reduce(x);
    return is_zero(x);
  }
  std::size_t rank() const { return basis_.size(); }

 private:
  void reduce(Fractions& x) const {
    for (std::size_t b = 0; b < basis_.size(); ++b) {
      const mpq_class factor = x[pivots_[b]];
      if (factor == 0) continue;
      for (std::size_t j = 0; j < x.size(); ++j) x[j] -= factor * basis_[b][j];
    }
  }
  std::vector<Fractions> basis_;
  std::vector<std::size_t> pivots_;
};

/// That positive weights on differences x_k - x_i (and the bias column's unit vector) sum to 0.
std::string check_combination(const CheckedRows& rows, const ClassVerdict& verdict) {
  const Fractions weights = fractions_of(verdict.exact_weights);
  if (weights.size() != verdict.rows.size() || weights.empty()) return "a proof without exact weights";
  const Fractions own = rows.exact(verdict.i);
  Fractions sum(rows.columns());
  Span span;
  bool lifts = false, others = false;
  for (std::size_t s = 0; s < weights.size(); ++s) {
    if (weights[s] <= 0) return "weights must be positive";
    const Fractions vertex = exact_vertex(rows, own, verdict.rows[s]);
    lifts = lifts || verdict.rows[s] < 0;
    others = others || (verdict.rows[s] >= 0 && !is_zero(vertex));
    for (std::size_t j = 0; j < sum.size(); ++j) sum[j] += weights[s] * vertex[j];
    if (verdict.proof == "inside") span.add(vertex);
  }
  if (!is_zero(sum)) return "its weights do not reproduce its row";
  if (!others) return "its proof names no other row";
  if (verdict.proof == "below" && !lifts) return "its weights do not reproduce a larger bias";
  if (verdict.proof == "face" && lifts) return "a larger bias is no tie";
  if (verdict.proof != "inside") return "";
  if (lifts) return "a larger bias is another proof";
  if (span.rank() == rows.dimension()) return "";
  for (std::int64_t i = 0; i < rows.classes(); ++i) {
    if (!span.holds(exact_vertex(rows, own, i))) return fmt::format("class {} lies outside of the face it is on", i);
  }
  return "";
}

}  // namespace

Fractions fractions_of(const std::vector<std::string>& texts) {
  Fractions made;
  for (const std::string& text : texts) {
    const std::size_t slash = text.find('/');
    const std::size_t from = text.starts_with('-') ? 1 : 0, to = std::min(slash, text.size());
    const auto digits = [&](std::size_t first, std::size_t last) {
      return first < last &&
             std::all_of(text.begin() + static_cast<std::ptrdiff_t>(first),
                         text.begin() + static_cast<std::ptrdiff_t>(last), [](char c) { return c >= '0' && c <= '9'; });
    };
    const bool fine = text.size() <= kLongestFraction && digits(from, to) &&
                      (slash == std::string::npos || digits(slash + 1, text.size()));
    mpq_class value;
    if (!fine || value.set_str(text, 10) != 0 || sgn(value.get_den()) == 0)
      throw Error(fmt::format("'{:.40}' is no fraction", text));
    value.canonicalize();
    made.push_back(std::move(value));
  }
  return made;
}

std::string check_proof(const CheckedRows& rows, const ClassVerdict& verdict) {
  if (std::find(verdict.rows.begin(), verdict.rows.end(), verdict.i) != verdict.rows.end())
    return "its proof rests on the class itself";
  if (!rows.has_bias() && std::find(verdict.rows.begin(), verdict.rows.end(), -1) != verdict.rows.end())
    return "a proof from biases, but there are none";
  const bool loses = verdict.verdict == Verdict::unargmaxable;
  if (loses && verdict.proof == "simplex") return check_simplex(rows, verdict);
  if (loses && verdict.proof == "ball") return check_ball(rows, verdict);
  if (loses ? verdict.proof == "inside" || verdict.proof == "below" : verdict.proof == "face")
    return check_combination(rows, verdict);
  return fmt::format("no proof '{:.40}' of {}", verdict.proof, name(verdict.verdict));
}

}  // namespace tuiqiao::checking
