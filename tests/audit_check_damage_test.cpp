#include <map>
#include <nlohmann/json.hpp>

#include "audit/problem.h"
#include "audit/rules.h"
#include "audit_check/certificate_file.h"
#include "audit_check/checked_rows.h"
#include "audit_heads.h"
#include "rounds.h"
#include "tuiqiao/error.h"

// Certificates that were changed so that what they claim is false, with their checksums made good: arithmetic must
// reject every one of them.

namespace tuiqiao::test {
namespace {

using auditing::certificate_line;

constexpr int kShare = rounds(1, 6);  // one of so many cases

/// The faults of a file, or {-1} where it is refused as a whole.
std::vector<std::int64_t> blamed(const OutputHead& head, const std::vector<std::string>& lines) {
  std::vector<std::int64_t> classes;
  try {
    for (const CertificateFault& fault : check(head, lines).faults) classes.push_back(fault.i);
  } catch (const Error&) {
    classes.push_back(-1);
  }
  return classes;
}

/// A head with its certificates, to be changed one at a time.
struct Audited {
  RandomHead random;
  AuditResult result;
  std::vector<std::string> lines;
  auditing::MarginError no_error;

  explicit Audited(unsigned seed)
      : random(seed),
        result(audit(random.head, random.options)),
        lines(lines_of(random.head, result)),
        no_error(OutputHead{}, AuditFrame{}) {}

  void expect_rejected(const ClassVerdict& forged, const std::string& what) const {
    std::vector<std::string> damaged = lines;
    damaged[static_cast<std::size_t>(forged.i) + 1] = certificate_line(forged, no_error);
    // That class itself, or the file as a whole: that copies of it complain is not enough.
    const std::vector<std::int64_t> found = blamed(random.head, damaged);
    const auto is_meant = [&](std::int64_t i) { return i == forged.i || i == -1; };
    EXPECT_TRUE(std::any_of(found.begin(), found.end(), is_meant)) << what << "\n"
                                                                   << damaged[static_cast<std::size_t>(forged.i) + 1];
  }
};

/// Any certificate for `i` at all: a rule, some vector, or what other classes have.
void give_evidence(ClassVerdict& forged, const Audited& of, std::mt19937& dice) {
  const auto classes = static_cast<std::int64_t>(of.result.verdicts.size());
  const ClassVerdict& other = of.result.verdicts[dice() % of.result.verdicts.size()];
  forged.rule = static_cast<WitnessRule>(dice() % 3);
  const auto columns = static_cast<std::size_t>(of.result.frame.columns);
  std::normal_distribution<double> normal;
  if (forged.rule == WitnessRule::vector) {
    if (other.z.empty()) {
      for (std::size_t j = 0; j < columns; ++j) forged.z.push_back(normal(dice));
      if (of.result.frame.has_bias) forged.z.back() = std::abs(forged.z.back());
    } else {
      forged.z = other.z;
    }
  }
  if (dice() % 3 == 0) forged.exact_z = other.exact_z;
  if (dice() % 2 == 0) forged.twin = static_cast<std::int64_t>(dice() % static_cast<unsigned>(classes));
  for (const ClassVerdict& one : of.result.verdicts) {  // a proof from somewhere
    if (one.proof.empty() || (!forged.proof.empty() && dice() % 2 == 0)) continue;
    forged.proof = one.proof;
    forged.rows = one.rows;
    forged.weights = one.weights;
    forged.exact_weights = one.exact_weights;
  }
  if (forged.verdict == Verdict::unargmaxable && forged.proof.empty()) {
    forged.proof = "simplex";
    for (std::int64_t i = 0; i <= of.result.frame.columns; ++i) forged.rows.push_back(i % classes);
  }
  if (forged.proof == "face") forged.proof = "inside";
  if (forged.proof == "inside" && dice() % 2 == 0) forged.proof = "below";
  if (forged.verdict == Verdict::tie_only && !forged.proof.empty()) forged.proof = "face";
  if (forged.i > 0 && dice() % 8 == 0)
    forged.same_as = static_cast<std::int64_t>(dice() % static_cast<unsigned>(forged.i));
}

TEST(AuditDamage, RejectsOtherVerdicts) {
  std::mt19937 dice(1);
  std::map<std::string, int> cases;
  int all = 0;
  for (unsigned seed = 0; all < 6000 / kShare; ++seed) {
    const Audited of(seed);
    for (const ClassVerdict& truth : of.result.verdicts) {
      for (const Verdict claimed : {Verdict::argmaxable, Verdict::tie_only, Verdict::unargmaxable}) {
        if (truth.verdict == Verdict::unknown || truth.verdict == claimed) continue;
        ClassVerdict forged;
        forged.i = truth.i;
        forged.verdict = claimed;
        give_evidence(forged, of, dice);
        of.expect_rejected(forged, fmt::format("seed {}: {} is {}", seed, truth.i, name(truth.verdict)));
        ++cases[fmt::format("{} as {}", name(truth.verdict), name(claimed))];
        ++all;
      }
    }
  }
  EXPECT_EQ(cases.size(), 6U);
  for (const auto& [what, count] : cases) EXPECT_GT(count, 100 / kShare) << what;
}

/// Whether a class of a head is blamed when its certificate is forged.
bool is_blamed(const OutputHead& head, const ClassVerdict& forged) {
  std::vector<std::string> lines = lines_of(head, audit(head, {}));
  lines[static_cast<std::size_t>(forged.i) + 1] = certificate_line(forged, auditing::MarginError(head, AuditFrame{}));
  const std::vector<std::int64_t> found = blamed(head, lines);
  return std::find(found.begin(), found.end(), forged.i) != found.end();
}

TEST(AuditDamage, RejectsAWitnessBesideWhichAllClassesStand) {
  OutputHead head;  // the last two are equal, and inside
  head.classes = 5;
  head.columns = 2;
  head.rows = {0, 0, 4, 0, 0, 4, 1, 1, 1, 1};
  ClassVerdict forged;
  forged.i = 3;
  forged.verdict = Verdict::tie_only;
  forged.rule = WitnessRule::vector;
  forged.twin = 4;
  forged.z = {0, 0};
  EXPECT_TRUE(is_blamed(head, forged));
  forged.z.clear();
  forged.exact_z = {"0", "0"};
  EXPECT_TRUE(is_blamed(head, forged));
  OutputHead flat;  // along a line, and z across it
  flat.classes = 4;
  flat.columns = 2;
  flat.rows = {-1, -1, 0, 0, 0, 0, 1, 1};
  forged.exact_z.clear();
  forged.i = 1;
  forged.twin = 2;
  forged.z = {1, -1};
  EXPECT_TRUE(is_blamed(flat, forged));
}

TEST(AuditDamage, RejectsWeightsThatRoundAway) {
  OutputHead head;
  head.classes = 2;
  head.columns = 100;
  head.rows.assign(100, 0.4F);
  head.rows.resize(200, 0);
  head.bias = {-0.6, 0};
  head.norm = HeadNorm::rms;  // |z| < 10: the first class leads by up to 10 * 4 - 0.6
  EXPECT_EQ(audit(head, {}).verdicts[0].verdict, Verdict::argmaxable);
  ClassVerdict forged;
  forged.i = 0;
  forged.verdict = Verdict::unargmaxable;
  forged.proof = "ball";
  forged.rows = {1};
  for (const double weight : {4.9e-324, 1e-300, 1.0, 1e300}) {
    forged.weights = {weight};
    EXPECT_TRUE(is_blamed(head, forged)) << weight;
  }
}

/// The least lead of z over the other rows that are not equal to k's; exact but for the last rounding.
double least_lead(const checking::CheckedRows& rows, std::int64_t k, const std::vector<double>& z) {
  const std::vector<mpq_class> own = rows.exact(k), exact(z.begin(), z.end());
  double least = HUGE_VAL;
  for (std::int64_t i = 0; i < rows.classes(); ++i) {
    if (rows.same(i, k)) continue;
    std::vector<mpq_class> difference = rows.exact(i);
    for (std::size_t j = 0; j < difference.size(); ++j) difference[j] = own[j] - difference[j];
    least = std::min(least, checking::dot(exact, difference).get_d());
  }
  return least;
}

TEST(AuditDamage, RejectsWitnessesThatLose) {
  std::mt19937 dice(2);
  std::normal_distribution<double> normal;
  int vectors = 0, margins = 0;
  for (unsigned seed = 0; vectors < 1500 / kShare || margins < 1500 / kShare; ++seed) {
    const Audited of(seed);
    const checking::CheckedRows rows(of.random.head, checking::parse_header(of.lines[0]));
    for (const ClassVerdict& truth : of.result.verdicts) {
      if (truth.verdict != Verdict::argmaxable && !(truth.verdict == Verdict::tie_only && truth.twin)) continue;
      ClassVerdict forged = truth;
      forged.same_as.reset();
      forged.exact_z.clear();
      forged.proof.clear();
      forged.margin = 0;
      forged.rule = WitnessRule::vector;
      forged.z.assign(static_cast<std::size_t>(of.result.frame.columns), 0);
      for (double& x : forged.z) x = normal(dice);
      if (of.result.frame.has_bias) forged.z.back() = std::abs(forged.z.back());
      const double lead = least_lead(rows, truth.i, forged.z);
      const bool loses = truth.verdict == Verdict::argmaxable ? lead <= 0 : lead < 0;
      if (loses) {
        of.expect_rejected(forged, fmt::format("seed {}: lead {}", seed, lead));
        ++vectors;
      } else if (std::isfinite(lead)) {
        // It wins, but by less than this.
        const double unit = of.result.frame.has_bias ? 1.0 : std::sqrt([&] {
          double squares = 0;
          for (const double x : forged.z) squares += x * x;
          return squares;
        }());
        forged.margin = lead / unit * 1.0001 + 1e-9;
        of.expect_rejected(forged, fmt::format("seed {}: margin {}", seed, forged.margin));
        ++margins;
      }
    }
  }
}

TEST(AuditDamage, RejectsProofsThatDoNotHold) {
  std::mt19937 dice(3);
  std::map<std::string, int> cases;
  for (unsigned seed = 0; cases["exact"] < 1200 / kShare || cases["ball"] < 100 / kShare; ++seed) {
    const Audited of(seed);
    const checking::CheckedRows rows(of.random.head, checking::parse_header(of.lines[0]));
    for (const ClassVerdict& truth : of.result.verdicts) {
      if (truth.rows.empty()) continue;
      ClassVerdict forged = truth;
      const std::size_t at = dice() % truth.rows.size();
      const bool own = truth.rows[at] >= 0 && rows.same(truth.rows[at], truth.i);
      if (!truth.exact_weights.empty() && truth.proof != "ball" &&
          !own) {  // the sum moves by a seventh of a difference that is not 0
        forged.exact_weights[at] = mpq_class(mpq_class(truth.exact_weights[at]) + mpq_class(1, 7)).get_str();
        of.expect_rejected(forged, fmt::format("seed {}: a weight", seed));
        ++cases["exact"];
      }
      if (truth.proof == "ball") {  // bounds its lead from above by a positive number
        forged = truth;
        forged.rows = {at < truth.rows.size() ? truth.rows[at] : 0};
        if (truth.exact_weights.empty())
          forged.weights = {1};
        else
          forged.exact_weights = {"1"};
        std::vector<double> mine(rows.columns()), theirs(rows.columns());
        rows.row(truth.i, mine.data());
        rows.row(forged.rows[0], theirs.data());
        double squares = 0;
        for (std::size_t j = 0; j + 1 < mine.size(); ++j) squares += (mine[j] - theirs[j]) * (mine[j] - theirs[j]);
        const double bound = of.result.frame.radius * std::sqrt(squares) + mine.back() - theirs.back();
        if (bound < 1e-6) continue;
        of.expect_rejected(forged, fmt::format("seed {}: bound {}", seed, bound));
        ++cases["ball"];
      }
    }
  }
}

TEST(AuditDamage, RejectsFacesAsInside) {
  // The weights reproduce the row, but other rows lie outside of what they span: it can tie at the top.
  int cases = 0;
  for (unsigned seed = 0; cases < 200; ++seed) {
    const Audited of(seed);
    for (const ClassVerdict& truth : of.result.verdicts) {
      if (truth.proof != "face") continue;
      for (const char* proof : {"inside", "below"}) {
        ClassVerdict forged = truth;
        forged.verdict = Verdict::unargmaxable;
        forged.proof = proof;
        of.expect_rejected(forged, fmt::format("seed {}: class {}", seed, truth.i));
        ++cases;
      }
    }
  }
}

TEST(AuditDamage, RejectsWitnessesBeyondTheBall) {
  int cases = 0;
  for (unsigned seed = 0; cases < 200; ++seed) {
    const Audited of(seed);
    if (!of.random.options.radius || !of.result.frame.has_ball) continue;
    const AuditResult anywhere = audit(of.random.head);
    const auditing::Problem problem(of.random.head, {});
    for (std::size_t i = 0; i < anywhere.verdicts.size(); ++i) {
      if (anywhere.verdicts[i].verdict != Verdict::argmaxable) continue;
      if (of.result.verdicts[i].verdict != Verdict::unargmaxable) continue;
      ClassVerdict forged = anywhere.verdicts[i];
      if (forged.rule != WitnessRule::vector) {
        forged.z = auditing::witness_of(problem, anywhere.frame, forged.rule, forged.i);
        forged.rule = WitnessRule::vector;
      }
      forged.margin = 0;
      of.expect_rejected(forged, fmt::format("seed {}: class {}", seed, i));
      ++cases;
    }
  }
}

TEST(AuditDamage, RejectsTheRowsOfOthers) {
  // Every class but the last is a vertex of a simplex or beside it: another vertex in place of one leaves the last out.
  std::mt19937 dice(4);
  std::normal_distribution<float> normal;
  for (int round = 0; round < 400 / kShare; ++round) {
    OutputHead head;
    head.columns = 2 + round % 6;
    const std::int64_t vertices = head.columns + 1;
    head.classes = 2 * vertices + 1;
    std::vector<float> centre(static_cast<std::size_t>(head.columns), 0);
    for (std::int64_t i = 0; i < 2 * vertices; ++i) {
      for (std::int64_t j = 0; j < head.columns; ++j) {
        const float x = normal(dice) / 8 + (i % vertices == j ? 4.0F : i % vertices == head.columns ? -4.0F : 0.0F);
        head.rows.push_back(x + (i < vertices ? 0.0F : 0.25F));
      }
    }
    for (std::int64_t j = 0; j < head.columns; ++j) head.rows.push_back(normal(dice) / 16);
    const AuditResult result = audit(head);
    ClassVerdict forged = result.verdicts.back();
    ASSERT_EQ(forged.proof, "simplex");
    // Two vertices of one corner: none of another.
    const std::size_t at = dice() % forged.rows.size(), from = (at + 1) % forged.rows.size();
    const std::int64_t corner = forged.rows[from] % vertices;
    forged.rows[at] = forged.rows[from] < vertices ? corner + vertices : corner;
    std::vector<std::string> lines = lines_of(head, result);
    EXPECT_TRUE(check(head, lines).faults.empty());
    lines.back() = certificate_line(forged, auditing::MarginError(head, result.frame));
    EXPECT_EQ(blamed(head, lines), std::vector<std::int64_t>{head.classes - 1}) << round;
  }
}

TEST(AuditDamage, RejectsAnotherHeader) {
  std::mt19937 dice(5);
  int radii = 0, others = 0;
  for (unsigned seed = 0; radii < 300 || others < 300; ++seed) {
    if (others >= 300 && !RandomHead(seed).options.radius) continue;  // nothing new to see
    const Audited of(seed);
    nlohmann::ordered_json header = nlohmann::ordered_json::parse(of.lines[0]);
    std::vector<std::string> lines = of.lines;
    if (of.random.options.radius && of.result.frame.has_ball) {
      for (const double times : {0.02, 50.0}) {
        AuditOptions options = of.random.options;
        options.radius = *options.radius * times;
        const AuditResult again = audit(of.random.head, options);
        bool differs = false;  // where it does, one of the claims is false
        for (std::size_t i = 0; i < again.verdicts.size(); ++i)
          differs = differs || (again.verdicts[i].verdict != of.result.verdicts[i].verdict &&
                                again.verdicts[i].verdict != Verdict::unknown &&
                                of.result.verdicts[i].verdict != Verdict::unknown);
        if (!differs) continue;
        header["radius"] = *options.radius;
        lines[0] = mended(header.dump());
        EXPECT_FALSE(blamed(of.random.head, lines).empty()) << "seed " << seed;
        ++radii;
      }
    }
    header = nlohmann::ordered_json::parse(of.lines[0]);
    switch (dice() % 4) {
      case 0:
        header["rows_crc"] = "00000000";
        break;
      case 1:
        if (!of.result.frame.has_bias) continue;
        header["bias"] = false;
        break;
      case 2:
        header["classes"] = of.random.head.classes + 1;
        break;
      default:
        header["norm"] = of.random.head.norm == HeadNorm::none ? "rms" : "none";
    }
    lines[0] = mended(header.dump());
    EXPECT_FALSE(blamed(of.random.head, lines).empty()) << "seed " << seed << "\n" << lines[0];
    ++others;
  }
}

}  // namespace
}  // namespace tuiqiao::test
