#include "audit/screen.h"

#include <cblas.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "audit/kernels.h"
#include "audit/scan_kernels.h"
#include "audit/spread.h"

namespace tuiqiao::auditing {

namespace {

constexpr double kFloatUnit = 0x1p-24;
constexpr double kOutward = 1 + 1e-6;
constexpr std::size_t kSampled = 4096;  // rows from which the directions are found
constexpr std::size_t kTaskSize = 64;   // witnesses that share a walk over the rows
constexpr std::size_t kChunkRows = 4096;
constexpr std::size_t kEnough = 64;  // rows that beat a class before it is given up

/// gamma_n of float32.
double gamma(std::size_t n) {
  const double nu = static_cast<double>(n) * kFloatUnit;
  return nu / (1 - nu) * kOutward;
}

double squares_of(const float* from, std::size_t n) {
  double sum = 0;
  for (std::size_t j = 0; j < n; ++j) sum += static_cast<double>(from[j]) * static_cast<double>(from[j]);
  return sum;
}

float above(double x) { return std::nextafter(static_cast<float>(x), std::numeric_limits<float>::infinity()); }
float below(double x) { return std::nextafter(static_cast<float>(x), -std::numeric_limits<float>::infinity()); }

/// Rows of a matrix made orthonormal, twice over for float32's sake; those that vanish become 0.
void orthonormalise(std::vector<float>& rows, std::size_t count, std::size_t n) {
  const int size = static_cast<int>(n);
  for (std::size_t i = 0; i < count; ++i) {
    float* row = rows.data() + i * n;
    for (int twice = 0; twice < 2; ++twice) {
      for (std::size_t j = 0; j < i; ++j) {
        const float* other = rows.data() + j * n;
        cblas_saxpy(size, -cblas_sdot(size, row, 1, other, 1), other, 1, row, 1);
      }
      const double length = std::sqrt(squares_of(row, n));
      const float scale = length > 1e-30 ? static_cast<float>(1 / length) : 0;
      for (std::size_t j = 0; j < n; ++j) row[j] *= scale;
    }
  }
}

}  // namespace

struct Screen::Witness {
  std::int64_t k = 0;
  std::vector<double> z;  // scaled to length 1
  std::vector<float> rounded;
  std::vector<float> part;
  double scale = 1, length = 0, rest_few = 0, rest_more = 0;
  double own = 0;                                           // lower bound of z . y_k
  double slack_few = 0, slack_more = 0, slack_product = 0;  // the latter times a row's length
  std::size_t limit = 0;                                    // rows from here on are too short
};

struct Screen::Task {
  std::vector<Witness> witnesses;
  std::vector<double> best;                      // largest bound of a row that was settled
  std::vector<std::vector<std::int64_t>> close;  // rows to be compared exactly
  std::vector<std::size_t> beaten;               // rows that surely beat it
  AuditEffort effort;
};

Screen::Screen(const Problem& problem, const std::vector<std::int64_t>& groups, const std::vector<float>& shift)
    : problem_(problem), rows_(groups), shift_(shift) {
  const std::size_t n = problem.columns();
  shift_.resize(n, 0);
  few_ = std::min<std::size_t>(16, n);
  more_ = std::clamp<std::size_t>(n / 4, few_, 256);
  std::vector<double> squares(static_cast<std::size_t>(problem.classes()));
  spread(static_cast<std::int64_t>(rows_.size()), static_cast<double>(rows_.size() * n), [&](std::int64_t at) {
    const std::int64_t i = rows_[static_cast<std::size_t>(at)];
    const float* row = problem_.approximate(i);
    double sum = 0;
    for (std::size_t j = 0; j < n; ++j) {
      const double y = static_cast<double>(row[j]) - static_cast<double>(shift_[j]);
      sum += y * y;
    }
    squares[static_cast<std::size_t>(i)] = sum;
  });
  std::sort(rows_.begin(), rows_.end(), [&](std::int64_t a, std::int64_t b) {
    const double x = squares[static_cast<std::size_t>(a)], y = squares[static_cast<std::size_t>(b)];
    return x != y ? x > y : a < b;
  });
  for (const std::int64_t i : rows_)
    lengths_.push_back(std::sqrt(squares[static_cast<std::size_t>(i)]) * kOutward + problem.approximate_error(i));
  const SingleThreadBlas single;
  find_directions();
  split_rows();
  choose_few();
  pack_rows();
}

void Screen::find_directions() {
  const std::size_t n = problem_.columns();
  const std::size_t step = std::max<std::size_t>(1, rows_.size() / kSampled);
  std::vector<float> sample;
  std::size_t count = 0;
  for (std::size_t i = 0; i < rows_.size(); i += step, ++count) {
    const float* row = problem_.approximate(rows_[i]);
    for (std::size_t j = 0; j < n; ++j) sample.push_back(row[j] - shift_[j]);
  }
  // Subspace iteration from rows of the sample, and unit vectors where there are too few.
  directions_.assign(more_ * n, 0);
  for (std::size_t r = 0; r < more_; ++r) {
    if (r < count)
      std::copy_n(sample.data() + (r * (count / std::min(count, more_))) * n, n, directions_.data() + r * n);
    directions_[r * n + r] += 1e-3F * static_cast<float>(lengths_[0] + 1);
  }
  const int size = static_cast<int>(n), r = static_cast<int>(more_), samples = static_cast<int>(count);
  std::vector<float> products(count * more_);
  for (int round = 0; round < 4; ++round) {
    orthonormalise(directions_, more_, n);
    cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, samples, r, size, 1, sample.data(), size, directions_.data(),
                size, 0, products.data(), r);
    cblas_sgemm(CblasRowMajor, CblasTrans, CblasNoTrans, r, size, samples, 1, products.data(), r, sample.data(), size,
                0, directions_.data(), size);
  }
  // The most telling first: by the length of the turned direction, which is near its eigenvalue.
  std::vector<std::size_t> order(more_);
  std::iota(order.begin(), order.end(), 0);
  std::vector<double> strength(more_);
  for (std::size_t i = 0; i < more_; ++i) strength[i] = squares_of(directions_.data() + i * n, n);
  std::sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) {
    return strength[a] != strength[b] ? strength[a] > strength[b] : a < b;
  });
  std::vector<float> sorted(directions_.size());
  for (std::size_t i = 0; i < more_; ++i) std::copy_n(directions_.data() + order[i] * n, n, sorted.data() + i * n);
  directions_ = std::move(sorted);
  orthonormalise(directions_, more_, n);
  std::vector<double> exact(directions_.begin(), directions_.end()), gram(more_ * more_);
  cblas_dgemm(CblasRowMajor, CblasNoTrans, CblasTrans, r, r, size, 1, exact.data(), size, exact.data(), size, 0,
              gram.data(), r);
  double squares = 0;
  for (std::size_t i = 0; i < more_; ++i) {
    for (std::size_t j = 0; j < more_; ++j) {
      const double off = std::abs(gram[i * more_ + j] - (i == j ? 1 : 0)) + static_cast<double>(n) * 1e-15;
      squares += off * off;
    }
  }
  tilt_ = std::sqrt(squares) * kOutward;
  spill_ = (std::sqrt(static_cast<double>(more_)) * gamma(n + 2) * (1 + tilt_) + tilt_) * 1.01;
}

void Screen::split_rows() {
  const std::size_t n = problem_.columns(), count = rows_.size();
  parts_.resize(count * more_);
  rest_few_.resize(count);
  rest_more_.resize(count);
  // The roundings of the subtractions that leave a rest, and of y itself.
  const double rounding =
      (gamma(more_ + 4) * (1 + std::sqrt(static_cast<double>(more_))) * (1 + tilt_) + 2 * kFloatUnit) * 1.01;
  constexpr std::size_t kPart = 256;
  spread(static_cast<std::int64_t>((count + kPart - 1) / kPart), static_cast<double>(count * n * more_),
         [&](std::int64_t part) {
           const std::size_t from = static_cast<std::size_t>(part) * kPart, rows = std::min(kPart, count - from);
           std::vector<float> y(rows * n);
           for (std::size_t i = 0; i < rows; ++i) {
             const float* row = problem_.approximate(rows_[from + i]);
             for (std::size_t j = 0; j < n; ++j) y[i * n + j] = row[j] - shift_[j];
           }
           const int size = static_cast<int>(n), r = static_cast<int>(more_), m = static_cast<int>(rows);
           const auto few = static_cast<int>(few_);
           float* p = parts_.data() + from * more_;
           cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, m, r, size, 1, y.data(), size, directions_.data(), size,
                       0, p, r);
           const auto subtract = [&](int first, int last, std::vector<float>& rest) {
             cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, m, size, last - first, -1, p + first, r,
                         directions_.data() + static_cast<std::size_t>(first) * n, size, 1, y.data(), size);
             for (std::size_t i = 0; i < rows; ++i) {
               rest[from + i] = above(std::sqrt(squares_of(y.data() + i * n, n)) * kOutward +
                                      2 * rounding * lengths_[from + i] + problem_.approximate_error(rows_[from + i]));
             }
           };
           subtract(0, few, rest_few_);
           if (more_ > few_) subtract(few, r, rest_more_);
         });
  if (more_ == few_) rest_more_ = rest_few_;
}

void Screen::choose_few() {
  // Twice as many directions for the first look, as long as that pays on a sample of pairs of neighbours in length.
  constexpr std::size_t kPairs = 20000;
  const std::size_t count = rows_.size();
  if (count < 2) return;
  const auto share = [&](std::size_t few) {
    std::size_t left = 0;
    std::uint64_t state = 1;
    for (std::size_t s = 0; s < kPairs; ++s) {
      state = state * 6364136223846793005U + 1442695040888963407U;
      const std::size_t k = static_cast<std::size_t>(state >> 33) % count;
      state = state * 6364136223846793005U + 1442695040888963407U;
      const std::size_t i = k == 0 ? 0 : static_cast<std::size_t>(state >> 33) % k;
      if (i == k) continue;
      const float* p = parts_.data() + k * more_;
      const float* q = parts_.data() + i * more_;
      double product = 0, own = lengths_[k] * lengths_[k], other = lengths_[i] * lengths_[i];
      double rest_k = own, rest_i = other;
      for (std::size_t j = 0; j < few; ++j) {
        const auto a = static_cast<double>(p[j]), b = static_cast<double>(q[j]);
        product += a * b;
        rest_k -= a * a;
        rest_i -= b * b;
      }
      left += product + std::sqrt(std::max(rest_k, 0.0) * std::max(rest_i, 0.0)) >= own ? 1 : 0;
    }
    return static_cast<double>(left) / static_cast<double>(kPairs);
  };
  const auto cost = [&](std::size_t few) { return static_cast<double>(few) + share(few) * 1500; };
  std::size_t best = few_;
  double least = cost(few_);
  for (std::size_t few = 2 * few_; few <= more_; few *= 2) {
    if (cost(few) < least) {
      least = cost(few);
      best = few;
    }
  }
  if (best == few_) return;
  few_ = best;
  split_rows();
}

void Screen::pack_rows() {
  const std::size_t width = block_rows(), terms = few_ + 1, count = rows_.size();
  packed_.assign((count + width - 1) / width * width * terms, 0);
  for (std::size_t i = 0; i < count; ++i) {
    float* block = packed_.data() + i / width * width * terms + i % width;
    for (std::size_t t = 0; t < few_; ++t) block[t * width] = parts_[i * more_ + t];
    block[few_ * width] = rest_few_[i];
  }
}

Screen::Witness Screen::witness_of(std::int64_t k, const double* from) const {
  const std::size_t n = problem_.columns();
  Witness w;
  w.k = k;
  double squares = 0;
  for (std::size_t j = 0; j < n; ++j) squares += from[j] * from[j];
  const double scale = squares > 0 ? 1 / std::sqrt(squares) : 1;
  w.scale = scale;
  w.z.resize(n);
  w.rounded.resize(n);
  double lost = 0;
  for (std::size_t j = 0; j < n; ++j) {
    w.z[j] = from[j] * scale;
    w.rounded[j] = static_cast<float>(w.z[j]);
    lost += (w.z[j] - static_cast<double>(w.rounded[j])) * (w.z[j] - static_cast<double>(w.rounded[j]));
  }
  lost = std::sqrt(lost) * kOutward + 1e-14;
  w.length = (squares > 0 ? 1 : 0) + 1e-6;
  w.part.resize(more_);
  const int size = static_cast<int>(n);
  cblas_sgemv(CblasRowMajor, CblasNoTrans, static_cast<int>(more_), size, 1, directions_.data(), size, w.rounded.data(),
              1, 0, w.part.data(), 1);
  // Rests in float64: the parts may be any numbers.
  std::vector<double> rest(w.z);
  const auto subtract = [&](std::size_t first, std::size_t last) {
    for (std::size_t t = first; t < last; ++t) {
      const float* direction = directions_.data() + t * n;
      const auto part = static_cast<double>(w.part[t]);
      for (std::size_t j = 0; j < n; ++j) rest[j] -= part * static_cast<double>(direction[j]);
    }
    double sum = 0;
    for (const double x : rest) sum += x * x;
    return std::sqrt(sum) * kOutward + 1e-12;
  };
  w.rest_few = subtract(0, few_);
  w.rest_more = subtract(few_, more_);

  std::vector<double> own(n);
  const double error = problem_.row(k, own.data());
  double product_own = 0, size_own = 0;
  for (std::size_t j = 0; j < n; ++j) {
    const double y = own[j] - static_cast<double>(shift_[j]);
    product_own += w.z[j] * y;
    size_own += std::abs(w.z[j]) * (std::abs(own[j]) + std::abs(static_cast<double>(shift_[j])));
  }
  w.own = product_own - size_own * static_cast<double>(n + 8) * 0x1p-52 - 2 * error - 1e-290;
  const double longest = lengths_.empty() ? 0 : lengths_[0];
  // What the directions' tilt and the parts' roundings add to p . q, with y's own rounding in float32.
  const double crossing = (3 * tilt_ + 2 * spill_ + 2 * lost) * w.length * 1.05 + 2 * kFloatUnit;
  w.slack_few = (crossing + gamma(few_ + 3) * 2.2) * longest + 1e-40;
  w.slack_more = (crossing + gamma(more_ + 3) * 2.2) * longest + 1e-40;
  w.slack_product = (gamma(n + 2) + lost + 1e-12) * 1.01;
  // Rows whose length alone keeps them below; those in front of them in order are longer.
  const double short_of = w.own / w.length * (1 - 1e-9);
  w.limit = static_cast<std::size_t>(
      std::partition_point(lengths_.begin(), lengths_.end(), [&](double length) { return !(length < short_of); }) -
      lengths_.begin());
  return w;
}

bool Screen::look_closer(Task& task, std::size_t c, std::uint32_t sorted) const {
  const Witness& w = task.witnesses[c];
  const std::int64_t i = rows_[sorted];
  if (problem_.group()[static_cast<std::size_t>(i)] == problem_.group()[static_cast<std::size_t>(w.k)]) return false;
  const double bound = static_cast<double>(product(w.part.data(), parts_.data() + sorted * more_, more_)) +
                       static_cast<double>(rest_more_[sorted]) * w.rest_more * kOutward + w.slack_more;
  if (bound < w.own) {
    ++task.effort.by_more;
    task.best[c] = std::max(task.best[c], bound);
    return true;
  }
  ++task.effort.by_product;
  const std::size_t n = problem_.columns();
  // z . y_i = z . x_i - z . shift; the latter is part of own below.
  const float* row = problem_.approximate(i);
  double value = 0;
  std::vector<float>& y = task_row();
  y.resize(n);
  for (std::size_t j = 0; j < n; ++j) y[j] = row[j] - shift_[j];
  value = static_cast<double>(product(w.rounded.data(), y.data(), n));
  const double error =
      w.slack_product * lengths_[sorted] + 2 * kFloatUnit * lengths_[sorted] + problem_.approximate_error(i) * kOutward;
  if (value + error < w.own) {
    task.best[c] = std::max(task.best[c], value + error);
    return true;
  }
  task.close[c].push_back(i);
  if (value - error > w.own + 1e-6 * std::abs(w.own)) ++task.beaten[c];
  return true;
}

std::vector<float>& Screen::task_row() {
  thread_local std::vector<float> row;
  return row;
}

std::vector<WitnessOutcome> Screen::check(const std::vector<std::int64_t>& ks, const std::vector<double>& z,
                                          AuditEffort& effort) const {
  const std::size_t n = problem_.columns(), count = ks.size(), width = block_rows(), terms = few_ + 1;
  const SingleThreadBlas single;
  std::vector<Witness> all(count);
  spread(static_cast<std::int64_t>(count), static_cast<double>(count * n * more_ * 2), [&](std::int64_t c) {
    const auto at = static_cast<std::size_t>(c);
    all[at] = witness_of(ks[at], z.data() + at * n);
  });
  // Witnesses with like limits share a walk.
  std::vector<std::size_t> order(count);
  std::iota(order.begin(), order.end(), 0);
  std::sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) {
    return all[a].limit != all[b].limit ? all[a].limit > all[b].limit : a < b;
  });
  const std::size_t tasks = (count + kTaskSize - 1) / kTaskSize;
  std::vector<AuditEffort> efforts(tasks);
  std::vector<WitnessOutcome> outcomes(count);
  spread(static_cast<std::int64_t>(tasks), static_cast<double>(count * rows_.size() * terms), [&](std::int64_t part) {
    const std::size_t from = static_cast<std::size_t>(part) * kTaskSize, size = std::min(kTaskSize, count - from);
    const std::size_t padded = (size + kWitnessGroup - 1) / kWitnessGroup * kWitnessGroup;
    Task task;
    std::vector<float> witnesses(padded * terms, 0), thresholds(padded, std::numeric_limits<float>::infinity());
    std::vector<float> best(padded, -std::numeric_limits<float>::infinity());
    std::size_t limit = 0;
    for (std::size_t c = 0; c < size; ++c) {
      task.witnesses.push_back(std::move(all[order[from + c]]));
      const Witness& w = task.witnesses[c];
      std::copy_n(w.part.data(), few_, witnesses.data() + c * terms);
      witnesses[c * terms + few_] = above(w.rest_few);
      thresholds[c] = below(w.own - w.slack_few);
      limit = std::max(limit, w.limit);
    }
    task.best.assign(size, -std::numeric_limits<double>::infinity());
    task.close.resize(size);
    task.beaten.assign(size, 0);
    std::vector<Survivors> survivors;
    std::int64_t looked = 0;
    const std::size_t blocks = (limit + width - 1) / width, step = std::max<std::size_t>(1, kChunkRows / width);
    for (std::size_t block = 0; block < blocks; block += step) {
      survivors.clear();
      const std::size_t here = std::min(step, blocks - block);
      scan({packed_.data(), block, here, terms, witnesses.data(), thresholds.data(), padded, best.data()}, survivors);
      task.effort.by_few += static_cast<std::int64_t>(size * here * width);
      for (const Survivors& found : survivors) {
        const std::size_t c = found.witness;
        if (c >= size) continue;
        for (std::uint32_t bits = found.rows; bits != 0; bits &= bits - 1) {
          const std::size_t sorted = found.block * width + static_cast<std::size_t>(__builtin_ctz(bits));
          if (sorted >= rows_.size() || task.beaten[c] >= kEnough) continue;
          looked += look_closer(task, c, static_cast<std::uint32_t>(sorted)) ? 1 : 0;
        }
        // A class that is beaten often enough needs no further look.
        if (task.beaten[c] >= kEnough) thresholds[c] = std::numeric_limits<float>::infinity();
      }
    }
    task.effort.by_few -= looked;
    for (std::size_t c = 0; c < size; ++c) {
      const Witness& w = task.witnesses[c];
      WitnessOutcome& outcome = outcomes[order[from + c]];
      outcome = compare_exactly(problem_, w.k, z.data() + order[from + c] * n, task.close[c]);
      if (task.beaten[c] >= kEnough) outcome.wins = false;
      double most = std::max(task.best[c], static_cast<double>(best[c]) + w.slack_few);
      if (w.limit < rows_.size()) most = std::max(most, lengths_[w.limit] * w.length);
      outcome.margin = std::min(outcome.margin, (w.own - most) / w.scale);
    }
    task.effort.by_norm = static_cast<std::int64_t>(size * rows_.size()) - task.effort.by_few - looked;
    task.effort.pairs = static_cast<std::int64_t>(size * rows_.size());
    efforts[static_cast<std::size_t>(part)] = task.effort;
  });
  for (const AuditEffort& one : efforts) {
    effort.pairs += one.pairs;
    effort.by_norm += one.by_norm;
    effort.by_few += one.by_few;
    effort.by_more += one.by_more;
    effort.by_product += one.by_product;
  }
  return outcomes;
}

}  // namespace tuiqiao::auditing
