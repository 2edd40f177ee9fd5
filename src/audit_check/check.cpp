#include <fmt/format.h>

#include <algorithm>
#include <array>

#include "audit_check/certificate_file.h"
#include "audit_check/checked_rows.h"
#include "audit_check/margins.h"
#include "audit_check/pairs.h"
#include "audit_check/proofs.h"
#include "parallel.h"
#include "serial_blas.h"
#include "tuiqiao/audit_check.h"
#include "tuiqiao/error.h"

namespace tuiqiao {

namespace checking {

namespace {

constexpr std::size_t kMostVectors = 4096, kMostProofs = 128;  // held before they are checked
constexpr std::size_t kMostHeld = std::size_t{1} << 24;        // bytes of the lines of those
constexpr std::uint8_t kAbsent = 255;

CertificateSubject subject_of(const CertificateHeader& header) {
  const AuditFrame& frame = header.frame;
  return {header.tensor, header.norm, frame.has_bias, frame.has_ball, frame.radius, frame.classes, header.count};
}

/// Sorts certificates by what they need and checks them in batches.
class Check {
 public:
  Check(const OutputHead& head, const std::filesystem::path& file, const CertificateCheckOptions& options)
      : options_(options), reader_(file), rows_(head, reader_.header()) {
    verdicts_.assign(static_cast<std::size_t>(rows_.classes()), kAbsent);
    margins_.resize(verdicts_.size());
    result_.subject = subject_of(reader_.header());
  }

  CertificateCheck run() {
    std::int64_t done = 0;
    while (std::optional<ClassVerdict> verdict = reader_.next()) {
      take(std::move(*verdict));
      if (++done % 1024 == 0) options_.progress.step("certificates", done, reader_.header().count);
    }
    settle_vectors();
    settle_proofs();
    for (const WitnessRule rule : {WitnessRule::row, WitnessRule::centred, WitnessRule::whitened})
      settle(rule, witnesses_[static_cast<std::size_t>(rule)]);
    std::sort(result_.faults.begin(), result_.faults.end(),
              [](const CertificateFault& a, const CertificateFault& b) { return a.i < b.i; });
    return std::move(result_);
  }

 private:
  void take(ClassVerdict verdict) {
    const auto at = static_cast<std::size_t>(verdict.i);
    verdicts_[at] = static_cast<std::uint8_t>(verdict.verdict);
    margins_[at] = verdict.margin;
    ++result_.counts[verdicts_[at]];
    if (verdict.verdict == Verdict::unknown) return;
    if (verdict.same_as) return blame(verdict.i, check_copy(verdict));
    const bool ties = verdict.verdict == Verdict::tie_only;
    if (ties && !verdict.twin && verdict.proof.empty()) return blame(verdict.i, "a tie with nobody");
    if (ties && verdict.twin && (*verdict.twin == verdict.i || !rows_.same(verdict.i, *verdict.twin)))
      return blame(verdict.i, fmt::format("class {} is no twin of it", *verdict.twin));
    const bool reaches = ties || verdict.verdict == Verdict::argmaxable;
    if (reaches && verdict.exact_z.empty()) {
      auto& list = witnesses_[static_cast<std::size_t>(verdict.rule)];
      list.push_back({verdict.i, verdict.margin, ties, std::move(verdict.z)});
      if (verdict.rule == WitnessRule::vector && list.size() == kMostVectors) settle_vectors();
    }
    if (!verdict.exact_z.empty() || !verdict.proof.empty()) {
      proofs_.push_back(std::move(verdict));
      held_ += reader_.text().size();
      if (proofs_.size() == kMostProofs || held_ > kMostHeld) settle_proofs();
    }
  }

  void blame(std::int64_t i, std::string problem) {
    if (!problem.empty()) result_.faults.push_back({i, std::move(problem)});
  }

  std::string check_copy(const ClassVerdict& verdict) const {
    const auto of = static_cast<std::size_t>(*verdict.same_as);
    if (verdicts_[of] != static_cast<std::uint8_t>(verdict.verdict))
      return fmt::format("class {}, which it refers to, has another verdict or none", of);
    if (verdict.verdict == Verdict::argmaxable) return "argmaxable, but as equal to another class";
    if (verdict.margin > margins_[of]) return fmt::format("a larger margin than class {}, which it refers to", of);
    return rows_.same(verdict.i, *verdict.same_as) ? "" : fmt::format("class {} has another row", of);
  }

  void settle(WitnessRule rule, std::vector<WitnessClaim>& claims) {
    const std::vector<std::string> faults =
        check_witnesses(rows_, reader_.header().frame, rule, claims, {options_.brute, options_.progress});
    for (std::size_t c = 0; c < claims.size(); ++c) blame(claims[c].k, faults[c]);
    claims.clear();
  }
  void settle_vectors() { settle(WitnessRule::vector, witnesses_[static_cast<std::size_t>(WitnessRule::vector)]); }

  void settle_proofs() {
    const SerialBlas serial;
    std::vector<std::string> faults(proofs_.size());
    parallel_for(static_cast<std::int64_t>(proofs_.size()), [&](std::int64_t p) {
      faults[static_cast<std::size_t>(p)] = check_alone(proofs_[static_cast<std::size_t>(p)]);
    });
    for (std::size_t p = 0; p < proofs_.size(); ++p) blame(proofs_[p].i, faults[p]);
    proofs_.clear();
    held_ = 0;
    options_.progress.step("proofs", 0, 0);
  }

  std::string check_alone(const ClassVerdict& verdict) const {
    const std::stop_token& stop = options_.progress.stop;
    if (stop.stop_requested()) throw Interrupted();
    try {
      if (!verdict.exact_z.empty()) {
        const std::vector<mpq_class> z = fractions_of(verdict.exact_z);
        if (!rows_.is_in_domain(z)) return "its witness is no hidden vector";
        const WitnessClaim claim{verdict.i, verdict.margin, verdict.verdict == Verdict::tie_only, {}};
        if (std::string fault = check_exact_witness(rows_, claim, z, stop); !fault.empty()) return fault;
      }
      return verdict.proof.empty() ? "" : check_proof(rows_, verdict);
    } catch (const Interrupted&) {
      throw;
    } catch (const Error& error) {
      return error.what();
    }
  }

  const CertificateCheckOptions& options_;
  CertificateReader reader_;
  CheckedRows rows_;
  std::vector<std::uint8_t> verdicts_;  ///< by class, of what came so far
  std::vector<double> margins_;
  std::array<std::vector<WitnessClaim>, 4> witnesses_;  ///< by rule
  std::vector<ClassVerdict> proofs_;
  std::size_t held_ = 0;  ///< bytes of their lines
  CertificateCheck result_;
};

}  // namespace

}  // namespace checking

CertificateSubject read_certificate_subject(const std::filesystem::path& file) {
  return checking::subject_of(checking::CertificateReader(file).header());
}

CertificateCheck check_certificates(const OutputHead& head, const std::filesystem::path& file,
                                    const CertificateCheckOptions& options) {
  return checking::Check(head, file, options).run();
}

}  // namespace tuiqiao
