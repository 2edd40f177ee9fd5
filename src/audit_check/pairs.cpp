#include "audit_check/pairs.h"

#include <fmt/format.h>

#include <cmath>

#include "tuiqiao/error.h"

namespace tuiqiao::checking {

namespace {

constexpr double kUnit = 0x1p-53;
constexpr double kLeast = 0x1p-1072;  // what rounding takes from an entry of z near 0, and more

std::string fault_of(const CheckedRows& rows, const WitnessClaim& claim, std::int64_t i, int sign, Ties& ties) {
  if (claim.may_tie && rows.same(claim.k, i)) {
    ++ties.copies;
    return "";
  }
  if (sign > 0) return "";
  if (sign == 0 && claim.may_tie && claim.margin == 0) {
    ++ties.others;
    return "";
  }
  if (claim.margin > 0) return fmt::format("does not lead class {} by the margin", i);
  return fmt::format("its witness puts class {} {}", i, sign == 0 ? "beside it" : "before it");
}

/// Sign of z . (x_k - x_i) less the claimed margin, exactly; 0 without a margin is a tie.
int exact_sign(const CheckedRows& rows, const WitnessClaim& claim, const std::vector<mpq_class>& z,
               const std::vector<mpq_class>& own, std::int64_t i) {
  std::vector<mpq_class> difference = rows.exact(i);
  for (std::size_t j = 0; j < difference.size(); ++j) difference[j] = own[j] - difference[j];
  const mpq_class lead = dot(z, difference);
  if (claim.margin == 0) return sgn(lead);
  const mpq_class margin(claim.margin);
  if (rows.has_bias()) return lead >= margin ? 1 : -1;
  return lead >= 0 && lead * lead >= margin * margin * dot(z, z) ? 1 : -1;
}

}  // namespace

PairCheck::PairCheck(const CheckedRows& rows, const WitnessClaim& claim, const std::vector<double>& z)
    : rows_(rows), claim_(claim), z_(z), own_(rows.columns()), other_(rows.columns()) {
  own_error_ = rows.row(claim.k, own_.data());
  double squares = 0;
  for (const double x : z) squares += x * x;
  length_ = std::sqrt(squares);
}

std::string PairCheck::check(std::int64_t i) {
  if (i == claim_.k) return "";
  const double other_error = rows_.row(i, other_.data());
  double lead = 0, size = 0;
  for (std::size_t j = 0; j < z_.size(); ++j) {
    const double term = z_[j] * (own_[j] - other_[j]);
    lead += term;
    size += std::abs(term);
  }
  const double wanted = claim_.margin * (rows_.has_bias() ? 1 : length_);
  const double rounding = static_cast<double>(z_.size() + 8) * 2 * kUnit * (size + wanted);
  const double error = (rounding + (own_error_ + other_error) * length_) * (1 + 1e-9) + 1e-290;
  if (std::isfinite(size) && std::isfinite(length_) && length_ > 1e-140) {
    if (lead - wanted > error) return "";
    if (lead - wanted < -error) return fault_of(rows_, claim_, i, -1, ties_);
  }
  return check_exactly(i);
}

std::string PairCheck::check_exactly(std::int64_t i) {
  if (exact_z_.empty()) {
    for (const double x : z_) exact_z_.emplace_back(x);
    exact_own_ = rows_.exact(claim_.k);
  }
  return fault_of(rows_, claim_, i, exact_sign(rows_, claim_, exact_z_, exact_own_, i), ties_);
}

std::string check_exact_witness(const CheckedRows& rows, const WitnessClaim& claim, const std::vector<mpq_class>& z,
                                const std::stop_token& stop) {
  // Float64 settles most rows; what it does to z is one rounding an entry.
  std::vector<double> near(z.size()), own(z.size()), other(z.size());
  for (std::size_t j = 0; j < z.size(); ++j) near[j] = z[j].get_d();
  const double own_error = rows.row(claim.k, own.data());
  const std::vector<mpq_class> exact_own = rows.exact(claim.k);
  double squares = 0;
  for (const double x : near) squares += x * x;
  const double length = std::sqrt(squares) * (1 + 1e-9);
  Ties ties;
  for (std::int64_t i = 0; i < rows.classes(); ++i) {
    if (i == claim.k) continue;
    const double error = rows.row(i, other.data()) + own_error;
    double lead = 0, size = 0, apart = 0;
    for (std::size_t j = 0; j < z.size(); ++j) {
      const double term = near[j] * (own[j] - other[j]);
      lead += term;
      size += std::abs(term);
      apart += std::abs(own[j] - other[j]);
    }
    const double bound =
        (static_cast<double>(z.size() + 8) * 4 * kUnit * size + error * length) * (1 + 1e-9) + apart * kLeast + 1e-290;
    int sign = 0;
    if (claim.margin == 0 && std::isfinite(bound) && length > 1e-140 && std::abs(lead) > bound) {
      sign = lead > 0 ? 1 : -1;
    } else {
      if (stop.stop_requested()) throw Interrupted();
      sign = exact_sign(rows, claim, z, exact_own, i);
    }
    if (std::string fault = fault_of(rows, claim, i, sign, ties); !fault.empty()) return fault;
  }
  return ties.are_all(rows.classes()) ? "its witness puts all classes beside it" : "";
}

}  // namespace tuiqiao::checking
