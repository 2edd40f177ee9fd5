#include "audit_check/margins.h"

#include <cblas.h>

#include <algorithm>
#include <cmath>
#include <numeric>

#include "audit_check/pairs.h"
#include "audit_check/row_bounds.h"
#include "parallel.h"
#include "serial_blas.h"

namespace tuiqiao::checking {

namespace {

constexpr std::size_t kClassTile = 128, kRowTile = 1024;
constexpr std::int64_t kTilesAtOnce = 16;  // between two reports of progress

/// The witness of a rule: the row itself, the row minus the centre (in float32), the whitening times that.
std::vector<double> witness_of(const CheckedRows& rows, const AuditFrame& frame, WitnessRule rule,
                               const WitnessClaim& claim) {
  if (rule == WitnessRule::vector) return claim.z;
  const std::size_t n = rows.linear_columns();
  const float* row = rows.rounded(claim.k);
  std::vector<double> z(rows.columns());
  for (std::size_t j = 0; j < n; ++j)
    z[j] = static_cast<double>(rule == WitnessRule::row ? row[j] : row[j] - frame.centre[j]);
  if (rule == WitnessRule::whitened) {
    std::vector<double> turned(n, 0);
    for (std::size_t i = 0; i < n; ++i) {
      const float* from = frame.whitening.data() + i * n;
      for (std::size_t j = 0; j < n; ++j) turned[j] += z[i] * static_cast<double>(from[j]);
    }
    std::copy(turned.begin(), turned.end(), z.begin());
  }
  if (!rows.has_bias()) return z;
  double squares = 0;
  for (std::size_t j = 0; j < n; ++j) squares += z[j] * z[j];
  z[n] = squares > 0 ? std::sqrt(squares) * (1 + 0x1p-10) / frame.reach : 1;
  return z;
}

/// Witnesses of some claims that are compared with all rows together.
class Tile {
 public:
  Tile(const CheckedRows& rows, const RowBounds& bounds) : rows_(rows), bounds_(bounds) {}

  void add(const WitnessClaim& claim, std::vector<double> z, std::string& fault) {
    if (!std::all_of(z.begin(), z.end(), [](double x) { return std::isfinite(x); })) {
      fault = "its witness is not finite";
    } else if (!rows_.is_in_domain(z)) {
      fault = "its witness is no hidden vector";
    } else {
      claims_.push_back(&claim);
      faults_.push_back(&fault);
      z_.push_back(std::move(z));
      parts_.push_back(bounds_.witness(claim, z_.back()));
    }
  }

  void check() {
    for (std::size_t c = 0; c < claims_.size(); ++c) pairs_.emplace_back(rows_, *claims_[c], z_[c]);
    if (bounds_.width() == 0) return check_each();
    std::size_t limit = 0;
    for (const WitnessBound& part : parts_) limit = std::max(limit, part.limit);
    pack();
    std::vector<float> products(claims_.size() * kRowTile), scratch;
    for (std::size_t from = 0; from < limit; from += kRowTile) {
      const std::size_t count = std::min(kRowTile, limit - from);
      const float* packed = bounds_.packed(from, count, scratch);
      cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, static_cast<int>(claims_.size()), static_cast<int>(count),
                  static_cast<int>(bounds_.width()), 1, packed_.data(), static_cast<int>(bounds_.width()), packed,
                  static_cast<int>(bounds_.width()), 0, products.data(), static_cast<int>(kRowTile));
      for (std::size_t c = 0; c < claims_.size(); ++c) look(c, from, count, products.data() + c * kRowTile);
    }
    for (std::size_t c = 0; c < claims_.size(); ++c) {
      if (faults_[c]->empty() && pairs_[c].ties().are_all(rows_.classes()))
        *faults_[c] = "its witness puts all classes beside it";
    }
  }

 private:
  /// Where all rows are equal.
  void check_each() {
    for (std::size_t c = 0; c < claims_.size(); ++c) {
      for (std::int64_t i = 0; i < rows_.classes() && faults_[c]->empty(); ++i) *faults_[c] = pairs_[c].check(i);
    }
  }

  void pack() {
    for (const WitnessBound& part : parts_) packed_.insert(packed_.end(), part.packed.begin(), part.packed.end());
  }

  void look(std::size_t c, std::size_t from, std::size_t count, const float* products) {
    const WitnessBound& part = parts_[c];
    if (from >= part.limit || !faults_[c]->empty()) return;
    count = std::min(count, part.limit - from);
    const float least = bounds_.threshold(part, from);
    int doubtful = 0;
    for (std::size_t i = 0; i < count; ++i) doubtful += products[i] < least ? 0 : 1;  // NaN counts
    for (std::size_t i = 0; doubtful > 0 && i < count; ++i) {
      if (products[i] < least) continue;
      --doubtful;
      *faults_[c] = pairs_[c].check(bounds_.row_at(from + i));
      if (!faults_[c]->empty()) return;
    }
  }

  const CheckedRows& rows_;
  const RowBounds& bounds_;
  std::vector<const WitnessClaim*> claims_;
  std::vector<std::string*> faults_;
  std::vector<std::vector<double>> z_;
  std::vector<WitnessBound> parts_;
  std::vector<PairCheck> pairs_;
  std::vector<float> packed_;
};

}  // namespace

std::vector<std::string> check_witnesses(const CheckedRows& rows, const AuditFrame& frame, WitnessRule rule,
                                         const std::vector<WitnessClaim>& claims, const MarginOptions& options) {
  std::vector<std::string> faults(claims.size());
  if (claims.empty()) return faults;
  const SerialBlas serial;
  const bool shifted = rule == WitnessRule::centred || rule == WitnessRule::whitened;
  std::vector<float> shift(rows.columns(), 0);
  if (shifted) std::copy(frame.centre.begin(), frame.centre.end(), shift.begin());
  const auto witness = [&](std::size_t c) { return witness_of(rows, frame, rule, claims[c]); };
  RowBounds bounds(rows, std::move(shift));
  const bool follows = rule == WitnessRule::row || rule == WitnessRule::centred;
  if (follows && !options.brute) {
    std::vector<std::size_t> sample;
    constexpr std::size_t kSample = 64;
    for (std::size_t s = 0; s < std::min(kSample, claims.size()); ++s)
      sample.push_back(s * claims.size() / std::min(kSample, claims.size()));
    std::vector<std::vector<double>> z;
    std::vector<const WitnessClaim*> of;
    for (const std::size_t c : sample) {
      z.push_back(witness(c));
      of.push_back(&claims[c]);
    }
    bounds.choose_directions(of, z, claims.size());
  }
  // Long rows' witnesses meet fewer others: together they waste less.
  std::vector<std::size_t> order(claims.size());
  std::iota(order.begin(), order.end(), 0);
  std::sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) {
    const std::size_t x = bounds.place_of(claims[a].k), y = bounds.place_of(claims[b].k);
    return x != y ? x < y : a < b;
  });
  const auto tiles = static_cast<std::int64_t>((claims.size() + kClassTile - 1) / kClassTile);
  for (std::int64_t first = 0; first < tiles; first += kTilesAtOnce) {
    parallel_for(std::min(kTilesAtOnce, tiles - first), [&](std::int64_t t) {
      Tile tile(rows, bounds);
      const auto from = static_cast<std::size_t>(first + t) * kClassTile;
      for (std::size_t at = from; at < std::min(claims.size(), from + kClassTile); ++at)
        tile.add(claims[order[at]], witness(order[at]), faults[order[at]]);
      tile.check();
    });
    options.progress.step(name(rule),
                          std::min<std::int64_t>(static_cast<std::int64_t>(claims.size()),
                                                 (first + kTilesAtOnce) * static_cast<std::int64_t>(kClassTile)),
                          static_cast<std::int64_t>(claims.size()));
  }
  return faults;
}

}  // namespace tuiqiao::checking
