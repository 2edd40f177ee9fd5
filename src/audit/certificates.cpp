#include "audit/certificates.h"

#include <fmt/format.h>
#include <zlib.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <nlohmann/json.hpp>
#include <vector>

namespace tuiqiao::auditing {

namespace {

using nlohmann::ordered_json;

constexpr std::string_view kChecksumKey = ",\"crc\":\"";

std::string base64_of(std::string_view bytes) {
  constexpr std::string_view kDigits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  std::string text;
  text.reserve((bytes.size() + 2) / 3 * 4);
  for (std::size_t at = 0; at < bytes.size(); at += 3) {
    std::uint32_t word = 0;
    for (std::size_t b = 0; b < 3; ++b)
      word = word << 8 | (at + b < bytes.size() ? static_cast<std::uint8_t>(bytes[at + b]) : 0U);
    for (std::size_t d = 0; d < 4; ++d) text += at + d <= bytes.size() ? kDigits[word >> (18 - 6 * d) & 63U] : '=';
  }
  return text;
}

template <class T>
std::string base64_of(const std::vector<T>& values) {
  static_assert(std::endian::native == std::endian::little);
  return base64_of(std::string_view(reinterpret_cast<const char*>(values.data()), values.size() * sizeof(T)));
}

/// Adds numbers under `key`, or `key`64 where float32 does not hold them.
void add_numbers(ordered_json& json, const std::string& key, const std::vector<double>& values) {
  const std::vector<float> rounded(values.begin(), values.end());
  if (std::equal(values.begin(), values.end(), rounded.begin(), [](double a, float b) { return a == b; })) {
    json[key] = base64_of(rounded);
  } else {
    json[key + "64"] = base64_of(values);
  }
}

std::uint32_t checksum_of(std::string_view text) {
  return static_cast<std::uint32_t>(crc32_z(0, reinterpret_cast<const Bytef*>(text.data()), text.size()));
}

template <class T>
std::string checksum_text(const std::vector<T>& values) {
  return fmt::format("{:08x}", checksum_of({reinterpret_cast<const char*>(values.data()), values.size() * sizeof(T)}));
}

/// A margin's lower bound of six digits, 0 where nothing of it is left.
double rounded_down(double margin, double error) {
  constexpr double kSixDigits = 1 - 1e-5;
  const double least = (margin - error) * kSixDigits;
  return least > 0 && std::isfinite(least) ? std::strtod(fmt::format("{:.6g}", least).c_str(), nullptr) : 0;
}

}  // namespace

std::string with_checksum(std::string_view object) {
  object.remove_suffix(1);
  return fmt::format("{}{}{:08x}\"}}", object, kChecksumKey, checksum_of(object));
}

std::string header_line(const OutputHead& head, const AuditFrame& frame, std::int64_t count, const Shard& shard,
                        std::span<const std::int64_t> ids, AuditSolver solver) {
  ordered_json json = {{"tuiqiao_audit", kCertificateVersion},
                       {"classes", head.classes},
                       {"head_columns", head.columns},
                       {"columns", frame.columns},
                       {"count", count},
                       {"tensor", head.tensor},
                       {"norm", name(head.norm)},
                       {"bias", frame.has_bias},
                       {"ball", frame.has_ball},
                       {"rows_crc", checksum_text(head.rows)}};
  if (!head.bias.empty()) json["bias_crc"] = checksum_text(head.bias);
  if (head.norm != HeadNorm::none && !head.gain.empty()) json["gain_crc"] = checksum_text(head.gain);
  if (head.norm == HeadNorm::layer && !head.shift.empty()) json["shift_crc"] = checksum_text(head.shift);
  if (shard.parts > 1) {
    json["shard"] = {shard.part, shard.parts};
  } else if (!ids.empty()) {
    json["ids"] = checksum_text(std::vector<std::int64_t>(ids.begin(), ids.end()));
  }
  if (solver == AuditSolver::frank_wolfe) json["solver"] = "frank-wolfe";
  if (frame.has_ball) json["radius"] = frame.radius;
  if (frame.has_bias) json["reach"] = frame.reach;
  if (!frame.centre.empty()) json["centre"] = base64_of(frame.centre);
  if (!frame.whitening.empty()) json["whitening"] = base64_of(frame.whitening);
  return with_checksum(json.dump(-1, ' ', false, ordered_json::error_handler_t::replace));
}

MarginError::MarginError(const OutputHead& head, const AuditFrame& frame)
    : has_bias_(frame.has_bias), reach_(frame.reach) {
  const auto columns = static_cast<std::size_t>(head.columns);
  double longest = 0, shift = 0, bias = 0;
  for (std::size_t at = 0; at < head.rows.size(); at += columns) {
    double squares = 0;
    for (std::size_t j = 0; j < columns; ++j) {
      const double gain = head.norm == HeadNorm::none || head.gain.empty() ? 1 : static_cast<double>(head.gain[j]);
      const double x = static_cast<double>(head.rows[at + j]) * std::max(std::abs(gain), 1.0);
      squares += x * x;
    }
    longest = std::max(longest, squares);
  }
  for (const float b : head.shift) shift += static_cast<double>(b) * static_cast<double>(b);
  for (const double b : head.bias) bias = std::max(bias, std::abs(b));
  const double unit = static_cast<double>(head.columns + 16) * 0x1p-50;
  longest_ = std::sqrt(longest);
  rows_ = unit * longest_;
  biases_ = unit * (bias + std::sqrt(shift * longest));
}

double MarginError::of(const ClassVerdict& verdict) const {
  if (!has_bias_) return rows_;
  if (verdict.rule == WitnessRule::whitened) return HUGE_VAL;  // of any length
  double length = 2 * longest_, last = reach_ > 0 ? 2.1 * longest_ / reach_ : 1;
  if (!verdict.z.empty()) {
    double squares = 0;
    for (std::size_t j = 0; j + 1 < verdict.z.size(); ++j) squares += verdict.z[j] * verdict.z[j];
    length = std::sqrt(squares);
    last = verdict.z.back();
  }
  return rows_ * length + biases_ * std::max(last, 1.0);
}

double certified_margin(const ClassVerdict& verdict, const MarginError& error) {
  return verdict.same_as ? 0 : rounded_down(verdict.margin, error.of(verdict));
}

std::string certificate_line(const ClassVerdict& verdict, const MarginError& error) {
  ordered_json json = {{"i", verdict.i}, {"verdict", name(verdict.verdict)}};
  const bool reaches = verdict.verdict == Verdict::argmaxable || verdict.verdict == Verdict::tie_only;
  const double margin = certified_margin(verdict, error);
  if (margin > 0) json["margin"] = margin;
  if (verdict.lead && std::isfinite(verdict.lead->most)) {
    json["lead"] = {nullptr, verdict.lead->most};
    if (verdict.lead->least) json["lead"][0] = *verdict.lead->least;
  }
  if (verdict.twin) json["twin"] = *verdict.twin;
  if (verdict.same_as) {
    json["same_as"] = *verdict.same_as;
  } else if (reaches && !verdict.exact_z.empty()) {
    json["exact_z"] = verdict.exact_z;
  } else if (reaches && verdict.rule == WitnessRule::vector) {
    add_numbers(json, "z", verdict.z);
  } else if (reaches) {
    json["rule"] = name(verdict.rule);
  }
  if (!verdict.proof.empty()) {
    json["proof"] = verdict.proof;
    json["rows"] = verdict.rows;
  }
  if (!verdict.weights.empty()) add_numbers(json, "weights", verdict.weights);
  if (!verdict.exact_weights.empty()) json["exact_weights"] = verdict.exact_weights;
  return with_checksum(json.dump());
}

}  // namespace tuiqiao::auditing
