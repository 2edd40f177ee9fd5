#include "audit/screen.h"

#include <cblas.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "audit/rules.h"
#include "audit/scan_kernels.h"
#include "audit/spread.h"
#include "serial_blas.h"

namespace tuiqiao::auditing {

namespace {

constexpr std::size_t kSampled = 4096;  // rows from which the directions are found
constexpr std::size_t kTaskSize = 64;   // witnesses that share a walk over the rows
constexpr std::size_t kChunkRows = 4096;
constexpr std::size_t kEnough = 64;       // rows that beat a class before it is given up
constexpr double kScannedLength = 32000;  // of rows and witnesses in whole numbers, which rounding makes no longer than
                                          // kMostScanned
constexpr double kInfinity = std::numeric_limits<double>::infinity();

double squares_of(const float* from, std::size_t n) {
  double sum = 0;
  for (std::size_t j = 0; j < n; ++j) sum += static_cast<double>(from[j]) * static_cast<double>(from[j]);
  return sum;
}

float above(double x) { return std::nextafter(static_cast<float>(x), std::numeric_limits<float>::infinity()); }

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

/// A class's row as the direction of length 1 that it is a witness by.
struct Screen::Witness {
  std::size_t at = 0;     // among the rows
  double own = 0;         // lower bound of its product with its own row, and bias
  std::size_t limit = 0;  // rows from here on are too short
  double rest_few = 0, rest_more = 0;
  std::vector<float> part, y;
};

struct Screen::Task {
  std::vector<Witness> witnesses;
  std::vector<double> best;                      // largest bound of a row that was settled
  std::vector<std::vector<std::int64_t>> close;  // rows to be compared exactly
  std::vector<std::size_t> beaten;               // rows that beat it, to all appearance
  std::vector<float> row;
  AuditEffort effort;
};

Screen::Screen(const Problem& problem, const std::vector<std::int64_t>& groups, const std::vector<float>& shift,
               double reach, std::size_t most_directions)
    : problem_(problem), rows_(problem, groups, shift, problem.linear_columns()), reach_(reach) {
  if (!is_usable()) return;
  const SerialBlas single;
  order_rows();
  more_ = std::clamp(rows_.columns() / 4, std::min<std::size_t>(16, rows_.columns()), most_directions);
  find_directions();
  find_bounds();
  find_parts();
  choose_few();
  pack_rows();
}

void Screen::order_rows() {
  const std::size_t count = rows_.size();
  bias_.assign(count, 0);
  if (problem_.has_bias()) {
    const double scale = rows_.unit() * (1 + 0x1p-10) / reach_;  // as witness_of has it
    std::vector<double> errors(count);
    spread(static_cast<std::int64_t>(count), static_cast<double>(count * rows_.columns()), [&](std::int64_t i) {
      const auto at = static_cast<std::size_t>(i);
      std::vector<double> row(problem_.columns());
      const double error = problem_.row(rows_.name(at), row.data());
      bias_[at] = row.back() * scale;
      errors[at] = error * scale * kOutward + std::abs(bias_[at]) * 1e-12;
    });
    bias_blur_ = *std::max_element(errors.begin(), errors.end());
    const double first = bias_[0];
    for (double& bias : bias_) bias -= first;
  }
  std::vector<std::size_t> order(count);
  std::iota(order.begin(), order.end(), 0);
  const auto height = [&](std::size_t at) { return rows_.length(at) + bias_[at]; };
  std::sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) {
    const double x = height(a), y = height(b);
    return x != y ? x > y : rows_.name(a) < rows_.name(b);
  });
  std::vector<double> bias(count);
  for (std::size_t at = 0; at < count; ++at) {
    bias[at] = bias_[order[at]];
    heights_.push_back(height(order[at]));
  }
  bias_ = std::move(bias);
  rows_.sort(order);
  place_.resize(static_cast<std::size_t>(problem_.classes()));
  for (std::size_t at = 0; at < count; ++at) place_[static_cast<std::size_t>(rows_.name(at))] = at;
}

void Screen::find_directions() {
  const std::size_t n = rows_.columns(), step = std::max<std::size_t>(1, rows_.size() / kSampled);
  const std::size_t count = (rows_.size() + step - 1) / step;
  std::vector<float> sample(count * n);
  for (std::size_t i = 0; i < count; ++i) rows_.write(i * step, sample.data() + i * n);
  // Subspace iteration from rows of the sample, and unit vectors where there are too few.
  directions_.assign(more_ * n, 0);
  for (std::size_t r = 0; r < more_; ++r) {
    if (r < count)
      std::copy_n(sample.data() + (r * (count / std::min(count, more_))) * n, n, directions_.data() + r * n);
    directions_[r * n + r] += 1e-3F;
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
}

void Screen::find_bounds() {
  const std::size_t n = rows_.columns();
  const int size = static_cast<int>(n), r = static_cast<int>(more_);
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
  spill_ = (std::sqrt(static_cast<double>(more_)) * float_gamma(n + 2) * (1 + tilt_) + tilt_ + 2 * kFloatUnit) * 1.01;
}

void Screen::find_parts() {
  const std::size_t n = rows_.columns(), count = rows_.size();
  parts_.resize(count * more_);
  norms_.resize(count);
  constexpr std::size_t kPart = 256;
  spread(static_cast<std::int64_t>((count + kPart - 1) / kPart), static_cast<double>(count * n * more_),
         [&](std::int64_t part) {
           const std::size_t from = static_cast<std::size_t>(part) * kPart, rows = std::min(kPart, count - from);
           std::vector<float> y(rows * n);
           for (std::size_t i = 0; i < rows; ++i) rows_.write(from + i, y.data() + i * n);
           for (std::size_t i = 0; i < rows; ++i) norms_[from + i] = std::sqrt(squares_of(y.data() + i * n, n));
           const int size = static_cast<int>(n), r = static_cast<int>(more_);
           cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, static_cast<int>(rows), r, size, 1, y.data(), size,
                       directions_.data(), size, 0, parts_.data() + from * more_, r);
         });
}

double Screen::rest(std::size_t at, std::size_t directions) const {
  const double squares = norms_[at] * norms_[at];
  return std::sqrt(std::max(0.0, squares - squares_of(part(at), directions)) + (2 * spill_ + tilt_) * 1.1 * squares) *
         kOutward;
}

void Screen::choose_few() {
  // Work of a pair in sixteenths of a cycle: multiplying in pairs, comparing, and a closer look at what is left.
  constexpr double kCompare = 3, kLook = 4000;
  constexpr std::size_t kPairs = 20000;
  const std::size_t count = rows_.size();
  struct Pair {
    std::size_t k, i;
  };
  std::vector<Pair> pairs;
  std::uint64_t state = 1;
  const auto random = [&](std::size_t below) {
    state = state * 6364136223846793005U + 1442695040888963407U;
    return static_cast<std::size_t>(state >> 33) % below;
  };
  for (std::size_t s = 0; s < kPairs; ++s) {
    const std::size_t k = random(count), limit = limit_of(own(k));
    if (limit == 0) continue;
    if (const std::size_t i = random(limit); i != k && norms_[k] > 0) pairs.push_back({k, i});
  }
  double least = kInfinity;
  for (const std::size_t few : {8, 16, 24, 32, 48, 64, 96, 128, 192, 256}) {
    if (few > more_) break;
    std::size_t left = 0;
    for (const Pair& pair : pairs) {
      const double bound =
          static_cast<double>(product(part(pair.k), part(pair.i), few)) + rest(pair.k, few) * rest(pair.i, few);
      left += bound / norms_[pair.k] + bias_[pair.i] >= own(pair.k) ? 1 : 0;
    }
    const double share = pairs.empty() ? 0 : static_cast<double>(left) / static_cast<double>(pairs.size());
    const double cost = static_cast<double>(few + 2) / 2 + kCompare + share * kLook;
    if (cost >= least) continue;
    least = cost;
    few_ = few;
  }
  if (few_ == 0) few_ = more_;
}

void Screen::pack_rows() {
  const std::size_t count = rows_.size();
  const bool biased = problem_.has_bias();
  const std::size_t terms = few_ + 1 + (biased ? 1 : 0);
  pairs_ = (terms + 1) / 2;
  rest_few_.resize(count);
  rest_more_.resize(count);
  double longest = 0;
  for (std::size_t at = 0; at < count; ++at) {
    rest_few_[at] = above(rest(at, few_));
    rest_more_[at] = above(rest(at, more_));
    longest = std::max(longest, std::hypot(norms_[at] * std::sqrt(1 + (2 * spill_ + tilt_) * 1.1), bias_[at]));
  }
  unit_few_ = longest * kOutward / kScannedLength;
  unit_z_ = std::sqrt(1 + (2 * spill_ + tilt_) * 1.1 + (biased ? 1 : 0)) * kOutward / kScannedLength;
  const double quantised = kQuantiseError * std::sqrt(static_cast<double>(terms));
  const double lost_row = unit_few_ * quantised, lost_z = unit_z_ * quantised;
  const double crossing = (3 * tilt_ + 2 * spill_ + 8 * kFloatUnit) * 1.1 * rows_.longest();
  slack_more_ = crossing + rows_.blur() + bias_blur_ + float_gamma(more_ + 3) * 1.1 * rows_.longest();
  slack_few_ =
      crossing + rows_.blur() + bias_blur_ + 1.05 * (lost_row * (biased ? 1.5 : 1) + (longest + lost_row) * lost_z);
  packed_.assign(packed_size(count, pairs_), 0);
  std::vector<std::int16_t> row(2 * pairs_, 0);
  const auto scale = static_cast<float>(1 / unit_few_);
  for (std::size_t at = 0; at < count; ++at) {
    quantise(part(at), few_, scale, row.data());
    row[few_] = static_cast<std::int16_t>(std::ceil(static_cast<double>(rest_few_[at]) / unit_few_) + 1);
    if (biased) row[few_ + 1] = static_cast<std::int16_t>(std::lrint(bias_[at] / unit_few_));
    pack_row(row.data(), pairs_, at, packed_.data());
  }
}

double Screen::own(std::size_t at) const { return norms_[at] * (1 - 1e-12) - rows_.blur() + bias_[at] - bias_blur_; }

std::size_t Screen::limit_of(double own) const {
  const double short_of = own - bias_blur_;
  return static_cast<std::size_t>(
      std::partition_point(heights_.begin(), heights_.end(), [&](double height) { return height >= short_of; }) -
      heights_.begin());
}

Screen::Witness Screen::witness_of(std::size_t at) const {
  Witness w;
  w.at = at;
  w.own = own(at);
  w.limit = limit_of(w.own);
  const double scale = 1 / norms_[at];
  w.rest_few = static_cast<double>(rest_few_[at]) * scale * kOutward;
  w.rest_more = static_cast<double>(rest_more_[at]) * scale * kOutward;
  w.part.resize(more_);
  for (std::size_t t = 0; t < more_; ++t) w.part[t] = static_cast<float>(static_cast<double>(part(at)[t]) * scale);
  return w;
}

void Screen::look_closer(Task& task, std::size_t c, std::size_t at) const {
  Witness& w = task.witnesses[c];
  const double bound = static_cast<double>(product(w.part.data(), part(at), more_)) +
                       static_cast<double>(rest_more_[at]) * w.rest_more * kOutward + bias_[at] + slack_more_;
  if (bound < w.own) {
    ++task.effort.by_more;
    task.best[c] = std::max(task.best[c], bound);
    return;
  }
  ++task.effort.by_product;
  const std::size_t n = rows_.columns();
  if (w.y.empty()) {
    w.y.resize(n);
    rows_.write(w.at, w.y.data());
    const double scale = 1 / norms_[w.at];
    for (float& entry : w.y) entry = static_cast<float>(static_cast<double>(entry) * scale);
  }
  const float* plain = rows_.plain(at);
  if (!plain) {
    task.row.resize(n);
    rows_.write(at, task.row.data());
  }
  const double scaled = plain ? static_cast<double>(product(w.y.data(), plain, n)) * rows_.unit()
                              : static_cast<double>(product(w.y.data(), task.row.data(), n));
  const double value = scaled + bias_[at];
  const double error = (float_gamma(n + 2) + 2 * kFloatUnit) * 1.01 * rows_.length(at) + rows_.blur() + bias_blur_;
  if (value + error < w.own) {
    task.best[c] = std::max(task.best[c], value + error);
    return;
  }
  task.close[c].push_back(rows_.name(at));
  if (value > w.own) ++task.beaten[c];
}

/// Compares the witnesses of a task, those with the highest limits first, with all rows before their limits. Which
/// rows a class is compared with depends on its own limit alone.
void Screen::walk(Task& task) const {
  const std::size_t size = task.witnesses.size(), width = block_rows();
  const std::size_t padded = (size + kWitnessGroup - 1) / kWitnessGroup * kWitnessGroup;
  std::vector<std::int16_t> witnesses(padded * pairs_ * 2, 0);
  std::vector<std::int32_t> thresholds(padded, std::numeric_limits<std::int32_t>::max()), best(padded);
  const double product_unit = unit_few_ * unit_z_;
  for (std::size_t c = 0; c < size; ++c) {
    const Witness& w = task.witnesses[c];
    std::int16_t* to = witnesses.data() + c * pairs_ * 2;
    quantise(w.part.data(), few_, static_cast<float>(1 / unit_z_), to);
    to[few_] = static_cast<std::int16_t>(std::ceil(w.rest_few / unit_z_) + 1);
    if (problem_.has_bias()) to[few_ + 1] = static_cast<std::int16_t>(std::lrint(1 / unit_z_));
    thresholds[c] =
        static_cast<std::int32_t>(std::clamp(std::floor((w.own - slack_few_) / product_unit) - 1, -0x1p31, 0x1p31 - 1));
  }
  task.best.assign(size, -kInfinity);
  task.close.resize(size);
  task.beaten.assign(size, 0);
  std::vector<Survivors> survivors;
  std::int64_t looked = 0;
  std::size_t active = size;
  const std::size_t blocks = (rows_.size() + width - 1) / width, step = kChunkRows / width;
  for (std::size_t block = 0; block < blocks; block += step) {
    while (active > 0 && task.witnesses[active - 1].limit <= block * width) --active;
    if (active == 0) break;
    survivors.clear();
    const std::size_t here = std::min(step, blocks - block);
    std::fill(best.begin(), best.end(), std::numeric_limits<std::int32_t>::min());
    scan({packed_.data() + block * width * pairs_ * 2, here, pairs_, witnesses.data(), thresholds.data(),
          (active + kWitnessGroup - 1) / kWitnessGroup * kWitnessGroup, best.data()},
         survivors);
    task.effort.by_few +=
        static_cast<std::int64_t>(active * (std::min((block + here) * width, rows_.size()) - block * width));
    for (std::size_t c = 0; c < active; ++c)
      task.best[c] = std::max(task.best[c], static_cast<double>(best[c]) * product_unit + slack_few_);
    for (const Survivors& found : survivors) {
      const std::size_t c = found.witness;
      if (c >= active) continue;
      for (std::uint32_t bits = found.rows; bits != 0; bits &= bits - 1) {
        const std::size_t at = (block + found.block) * width + static_cast<std::size_t>(__builtin_ctz(bits));
        if (at >= rows_.size() || at == task.witnesses[c].at || task.beaten[c] >= kEnough) continue;
        look_closer(task, c, at);
        ++looked;
      }
      // A class that is beaten often enough needs no further look.
      if (task.beaten[c] >= kEnough) thresholds[c] = std::numeric_limits<std::int32_t>::max();
    }
  }
  task.effort.by_few -= looked;
  task.effort.pairs = static_cast<std::int64_t>(size * rows_.size());
  task.effort.by_norm = task.effort.pairs - task.effort.by_few - looked;
}

std::vector<WitnessOutcome> Screen::check(const AuditFrame& frame, WitnessRule rule,
                                          const std::vector<std::int64_t>& ks, const std::stop_token& stop,
                                          AuditEffort& effort) const {
  const SerialBlas single;
  // Witnesses with like limits share a walk: the rows' order is nearly that of their limits.
  std::vector<std::pair<std::size_t, std::size_t>> order;
  std::vector<WitnessOutcome> outcomes(ks.size());
  for (std::size_t c = 0; c < ks.size(); ++c) {
    const std::size_t at = place_[static_cast<std::size_t>(ks[c])];
    if (norms_[at] > 0) order.emplace_back(limit_of(own(at)), c);
  }
  std::sort(order.begin(), order.end(),
            [](const auto& a, const auto& b) { return a.first != b.first ? a.first > b.first : a.second < b.second; });
  const std::size_t tasks = (order.size() + kTaskSize - 1) / kTaskSize;
  std::vector<AuditEffort> efforts(tasks);
  spread(static_cast<std::int64_t>(tasks), static_cast<double>(order.size() * rows_.size() * pairs_),
         [&](std::int64_t part) {
           if (stop.stop_requested()) return;
           const std::size_t from = static_cast<std::size_t>(part) * kTaskSize;
           const std::size_t size = std::min(kTaskSize, order.size() - from);
           Task task;
           for (std::size_t c = 0; c < size; ++c)
             task.witnesses.push_back(witness_of(place_[static_cast<std::size_t>(ks[order[from + c].second])]));
           walk(task);
           for (std::size_t c = 0; c < size; ++c) {
             const Witness& w = task.witnesses[c];
             const std::int64_t k = rows_.name(w.at);
             WitnessOutcome& outcome = outcomes[order[from + c].second];
             outcome.wins = true;
             outcome.margin = kInfinity;
             if (!task.close[c].empty())
               outcome =
                   compare_exactly(problem_, k, auditing::witness_of(problem_, frame, rule, k).data(), task.close[c]);
             if (task.beaten[c] >= kEnough) outcome.wins = false;
             double most = task.best[c];
             if (w.limit < rows_.size()) most = std::max(most, heights_[w.limit] + bias_blur_);
             outcome.margin =
                 std::min(outcome.margin, (w.own - most) * norms_[w.at] / (rows_.unit() * rows_.unit()) * (1 - 1e-9));
           }
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
