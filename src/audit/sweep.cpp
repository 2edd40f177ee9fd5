#include "audit/sweep.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "audit/scan_kernels.h"
#include "audit/spread.h"

namespace tuiqiao::auditing {

namespace {

constexpr std::size_t kChunkRows = 512;
constexpr std::size_t kSampleStep = 128, kLeastSample = 64;
constexpr std::size_t kAbove = 3;  // rows of the sample above the value from which rows are looked at
constexpr double kScannedLength = 32000;

struct Rival {
  double least, most;
  std::int64_t row;
};

}  // namespace

/// A witness scaled to length 1.
struct Sweep::Witness {
  std::int64_t k = 0;
  std::vector<float> z;
  double lost = 0;  // bound on what rounding took from z
  double unit = 0, rounding = 0;
  std::vector<std::int16_t> terms;
  double scale = 0;
  double own = 0;    // lower bound of z . y_k
  double floor = 0;  // rows below are of no interest
};

Sweep::Sweep(const Problem& problem, const std::vector<std::int64_t>& groups, std::vector<float> shift, bool keep)
    : problem_(problem),
      rows_(problem, groups, std::move(shift), problem.columns()),
      pairs_((problem.columns() + 1) / 2) {
  if (!is_usable()) return;
  const std::size_t n = rows_.columns(), step = std::clamp<std::size_t>(rows_.size() / kLeastSample, 1, kSampleStep);
  sampled_ = (rows_.size() + step - 1) / step;
  sample_.resize(sampled_ * n);
  for (std::size_t i = 0; i < sampled_; ++i) rows_.write(i * step, sample_.data() + i * n);
  if (!keep) return;
  kept_.resize(chunks());
  spread(static_cast<std::int64_t>(kept_.size()), static_cast<double>(rows_.size() * n),
         [&](std::int64_t c) { kept_[static_cast<std::size_t>(c)] = chunk_of(static_cast<std::size_t>(c)); });
}

std::size_t Sweep::chunks() const { return (rows_.size() + kChunkRows - 1) / kChunkRows; }

Sweep::Chunk Sweep::chunk_of(std::size_t at) const {
  const std::size_t n = rows_.columns(), from = at * kChunkRows, count = std::min(kChunkRows, rows_.size() - from);
  Chunk chunk;
  const double longest = std::max(rows_.length(from), 1e-20);  // rows come by length
  chunk.unit = longest / (kScannedLength - std::sqrt(static_cast<double>(n)));
  chunk.packed.assign(packed_size(count, pairs_), 0);
  std::vector<float> row(n);
  std::vector<std::int16_t> terms(2 * pairs_, 0);
  for (std::size_t i = 0; i < count; ++i) {
    rows_.write(from + i, row.data());
    quantise(row.data(), n, static_cast<float>(1 / chunk.unit), terms.data());
    pack_row(terms.data(), pairs_, i, chunk.packed.data());
  }
  chunk.slack = chunk.unit * kQuantiseError * std::sqrt(static_cast<double>(n)) * kOutward;
  return chunk;
}

Sweep::Witness Sweep::witness_of(std::int64_t k, const double* from) const {
  const std::size_t n = rows_.columns();
  Witness w;
  w.k = k;
  double squares = 0;
  for (std::size_t j = 0; j < n; ++j) squares += from[j] * from[j];
  const double scale = squares > 0 && std::isfinite(squares) ? 1 / std::sqrt(squares) : 0;
  w.z.resize(n);
  w.terms.assign(2 * pairs_, 0);
  w.unit = 1 / (kScannedLength - std::sqrt(static_cast<double>(n)));
  std::vector<double> own(n);
  const double error = problem_.row(k, own.data());
  double lost = 0, value = 0, size = 0;
  for (std::size_t j = 0; j < n; ++j) {
    const double z = from[j] * scale, y = (own[j] - rows_.shift(j)) * rows_.unit();
    w.z[j] = static_cast<float>(z);
    lost += (z - static_cast<double>(w.z[j])) * (z - static_cast<double>(w.z[j]));
    value += z * y;
    size += std::abs(z) * (std::abs(own[j]) + std::abs(rows_.shift(j)));
  }
  w.lost = std::sqrt(lost) * kOutward + 1e-14;
  quantise(w.z.data(), n, static_cast<float>(1 / w.unit), w.terms.data());
  double rounding = 0;
  for (std::size_t j = 0; j < n; ++j) {
    const double off = static_cast<double>(w.z[j]) - static_cast<double>(w.terms[j]) * w.unit;
    rounding += off * off;
  }
  w.rounding = std::sqrt(rounding) * kOutward + w.lost;
  w.own = value - (size * static_cast<double>(n + 8) * 0x1p-52 + 2 * error) * rows_.unit() - 1e-290;
  // Some hundred rows are above what the third of a sample reaches.
  std::vector<double> products(sampled_);
  for (std::size_t i = 0; i < sampled_; ++i)
    products[i] = static_cast<double>(product(w.z.data(), sample_.data() + i * n, n));
  const auto third = products.begin() + static_cast<std::ptrdiff_t>(std::min(kAbove, sampled_) - 1);
  std::nth_element(products.begin(), third, products.end(), std::greater<>());
  w.floor = sampled_ > kAbove ? *third : -HUGE_VAL;
  if (scale == 0) w.floor = HUGE_VAL;  // no witness
  w.scale = scale;
  return w;
}

std::vector<WitnessOutcome> Sweep::check(const std::vector<std::int64_t>& ks, const std::vector<double>& z,
                                         const std::stop_token& stop) const {
  const std::size_t n = rows_.columns(), count = ks.size(), width = block_rows();
  std::vector<WitnessOutcome> outcomes(count);
  std::vector<Witness> witnesses(count);
  spread(static_cast<std::int64_t>(count), static_cast<double>(count * n * sampled_), [&](std::int64_t c) {
    if (stop.stop_requested()) return;
    const auto at = static_cast<std::size_t>(c);
    witnesses[at] = witness_of(ks[at], z.data() + at * n);
  });
  if (stop.stop_requested()) return outcomes;
  const std::size_t padded = (count + kWitnessGroup - 1) / kWitnessGroup * kWitnessGroup;
  std::vector<std::int16_t> terms(padded * pairs_ * 2, 0);
  for (std::size_t c = 0; c < count; ++c)
    std::copy(witnesses[c].terms.begin(), witnesses[c].terms.end(), terms.data() + c * pairs_ * 2);

  using Found = std::vector<std::pair<std::uint32_t, Rival>>;
  std::vector<Found> found(chunks());
  const double gamma = float_gamma(n + 2);
  spread(static_cast<std::int64_t>(chunks()), static_cast<double>(count * rows_.size() * n), [&](std::int64_t part) {
    if (stop.stop_requested()) return;
    const auto at = static_cast<std::size_t>(part);
    Chunk own;
    if (kept_.empty()) own = chunk_of(at);
    const Chunk& chunk = kept_.empty() ? own : kept_[at];
    const std::size_t first = at * kChunkRows, rows = std::min(kChunkRows, rows_.size() - first);
    const double longest = std::max(rows_.length(first), 1e-20);
    std::vector<std::int32_t> thresholds(padded, std::numeric_limits<std::int32_t>::max()), best(padded);
    for (std::size_t c = 0; c < count; ++c) {
      const Witness& w = witnesses[c];
      const double slack = chunk.slack * 1.01 + (longest + chunk.slack) * w.rounding + rows_.blur();
      thresholds[c] = static_cast<std::int32_t>(
          std::clamp(std::floor((w.floor - slack) / (chunk.unit * w.unit)) - 1, -0x1p31, 0x1p31 - 1));
    }
    std::vector<Survivors> survivors;
    scan(
        {chunk.packed.data(), (rows + width - 1) / width, pairs_, terms.data(), thresholds.data(), padded, best.data()},
        survivors);
    std::vector<float> row(n);
    for (const Survivors& one : survivors) {
      if (one.witness >= count) continue;
      const Witness& w = witnesses[one.witness];
      for (std::uint32_t bits = one.rows; bits != 0; bits &= bits - 1) {
        const std::size_t i = one.block * width + static_cast<std::size_t>(__builtin_ctz(bits));
        if (i >= rows) continue;
        rows_.write(first + i, row.data());
        const double value = static_cast<double>(product(w.z.data(), row.data(), n));
        const double error = (gamma + w.lost) * 1.01 * rows_.length(first + i) + rows_.blur();
        if (value + error < w.floor) continue;
        found[at].push_back({one.witness, {value - error, value + error, rows_.name(first + i)}});
      }
    }
  });
  if (stop.stop_requested()) return outcomes;

  std::vector<std::vector<Rival>> rivals(count);
  for (const Found& part : found) {
    for (const auto& [c, rival] : part) rivals[c].push_back(rival);
  }
  spread(static_cast<std::int64_t>(count), static_cast<double>(count * n) * 100, [&](std::int64_t c) {
    const auto at = static_cast<std::size_t>(c);
    const Witness& w = witnesses[at];
    std::vector<Rival>& list = rivals[at];
    const std::int64_t group = problem_.group()[static_cast<std::size_t>(w.k)];
    list.erase(std::remove_if(list.begin(), list.end(), [&](const Rival& r) { return r.row == group; }), list.end());
    std::sort(list.begin(), list.end(),
              [](const Rival& a, const Rival& b) { return a.most != b.most ? a.most > b.most : a.row < b.row; });
    double left_out = -HUGE_VAL;
    if (list.size() > 2 * kMostClose) {
      left_out = list[2 * kMostClose].most;
      list.resize(2 * kMostClose);
    }
    double next = -HUGE_VAL;
    for (const Rival& rival : list) next = std::max(next, rival.least);
    std::vector<std::int64_t> rows;
    for (const Rival& rival : list) {
      if (rival.most >= std::min(next, w.own)) rows.push_back(rival.row);
    }
    const double* own_z = z.data() + at * n;
    WitnessOutcome& outcome = outcomes[at];
    outcome = compare_exactly(problem_, w.k, own_z, rows);
    if (!outcome.wins) {
      rows.clear();
      for (const Rival& rival : list) rows.push_back(rival.row);
      outcome = compare_exactly(problem_, w.k, own_z, rows);
    }
    // Rows below the floor are below the class too, or else it has lost for certain.
    if (!(w.floor <= w.own) || left_out >= w.own) outcome.wins = false;
    const double before = std::max(w.floor, left_out);  // of rows that were not compared exactly
    if (outcome.wins && std::isfinite(before))
      outcome.margin = std::min(outcome.margin, (w.own - before) / (w.scale * rows_.unit()) * (1 - 1e-9));
  });
  return outcomes;
}

}  // namespace tuiqiao::auditing
