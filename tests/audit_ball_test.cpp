// Classes of whole numbers in a ball, whose leads end exactly on its edge again and again.

#include <gmpxx.h>

#include "audit_heads.h"
#include "rounds.h"
#include "tuiqiao/audit_check.h"

namespace tuiqiao::test {
namespace {

OutputHead head_of(std::int64_t columns, const std::vector<float>& rows, std::vector<double> bias) {
  OutputHead head;
  head.columns = columns;
  head.classes = static_cast<std::int64_t>(rows.size()) / columns;
  head.rows = rows;
  head.bias = std::move(bias);
  return head;
}

OutputHead whole_numbers(std::mt19937& random) {
  const auto among = [&](int least, int most) { return std::uniform_int_distribution<int>(least, most)(random); };
  OutputHead head;
  head.columns = among(1, 3);
  head.classes = among(2, 7);
  for (std::int64_t j = 0; j < head.classes * head.columns; ++j) head.rows.push_back(static_cast<float>(among(-2, 2)));
  for (std::int64_t i = 0; i < head.classes; ++i) head.bias.push_back(among(-2, 2));
  return head;
}

using Vector = std::vector<mpq_class>;

mpq_class dot(const Vector& a, const Vector& b) {
  mpq_class sum = 0;
  for (std::size_t j = 0; j < a.size(); ++j) sum += a[j] * b[j];
  return sum;
}

/// The shortest y with y . normals[i] = least[i] for all i; nothing where the normals are dependent.
std::optional<Vector> shortest_on(const std::vector<Vector>& normals, const Vector& least) {
  const std::size_t n = normals.size();
  std::vector<Vector> table(n, Vector(n + 1));
  for (std::size_t r = 0; r < n; ++r) {
    for (std::size_t c = 0; c < n; ++c) table[r][c] = dot(normals[r], normals[c]);
    table[r][n] = least[r];
  }
  for (std::size_t c = 0; c < n; ++c) {
    std::size_t pivot = c;
    while (pivot < n && table[pivot][c] == 0) ++pivot;
    if (pivot == n) return std::nullopt;
    std::swap(table[c], table[pivot]);
    for (std::size_t r = 0; r < n; ++r) {
      if (r == c) continue;
      const mpq_class factor = table[r][c] / table[c][c];
      for (std::size_t j = 0; j <= n; ++j) table[r][j] -= factor * table[c][j];
    }
  }
  Vector y(normals[0].size());
  for (std::size_t c = 0; c < n; ++c) {
    for (std::size_t j = 0; j < y.size(); ++j) y[j] += table[c][n] / table[c][c] * normals[c][j];
  }
  return y;
}

/// The least |y|^2 at which nothing beats k: of the shortest on each set of rivals, the best that all allow.
std::optional<mpq_class> least_square(const OutputHead& head, std::int64_t k) {
  const auto columns = static_cast<std::size_t>(head.columns), own = static_cast<std::size_t>(k);
  std::vector<Vector> normals;
  Vector least;
  for (std::size_t i = 0; i < head.bias.size(); ++i) {
    if (i == own) continue;
    Vector normal(columns);
    for (std::size_t j = 0; j < columns; ++j) normal[j] = head.rows[own * columns + j] - head.rows[i * columns + j];
    normals.push_back(normal);
    least.emplace_back(head.bias[i] - head.bias[own]);
  }
  std::optional<mpq_class> best;
  for (unsigned set = 0; set < 1U << normals.size(); ++set) {
    std::vector<Vector> chosen;
    Vector levels;
    for (std::size_t i = 0; i < normals.size(); ++i) {
      if ((set >> i & 1) == 0) continue;
      chosen.push_back(normals[i]);
      levels.push_back(least[i]);
    }
    if (chosen.size() > columns) continue;
    const std::optional<Vector> y = chosen.empty() ? Vector(columns) : shortest_on(chosen, levels);
    if (!y) continue;
    bool holds = true;
    for (std::size_t i = 0; i < normals.size(); ++i) holds = holds && dot(*y, normals[i]) >= least[i];
    if (holds && (!best || dot(*y, *y) < *best)) best = dot(*y, *y);
  }
  return best;
}

TEST(AuditBall, SettlesAClassThatEndsOnItsEdge) {
  const OutputHead head = head_of(1, {0, 2}, {1, 2});  // the first leads by -1 - 2 z
  AuditOptions options;
  options.radius = 0.5;
  const ClassVerdict touching = audit(head, options).verdicts[0];
  EXPECT_EQ(touching.verdict, Verdict::unargmaxable);
  EXPECT_EQ(touching.proof, "ball");
  EXPECT_EQ(touching.exact_weights, std::vector<std::string>{"1"});
  options.radius = std::nextafter(0.5, 1);
  EXPECT_EQ(audit(head, options).verdicts[0].verdict, Verdict::argmaxable);
}

TEST(AuditBall, AgreesWithEverySetOfRivals) {
  constexpr int kRounds = rounds(400, 80);
  std::mt19937 random(4);
  int touching = 0, ties = 0;
  for (int round = 0; round < kRounds; ++round) {
    const OutputHead head = whole_numbers(random);
    for (const double radius : {0.5, 1.0, 2.0}) {
      AuditOptions options;
      options.radius = radius;
      const AuditResult result = audit(head, options);
      EXPECT_EQ(result.count(Verdict::unknown), 0);
      const CertificateCheck found = check(head, lines_of(head, result), true);
      EXPECT_TRUE(found.faults.empty()) << found.faults[0].problem;
      if (!result.frame.has_ball) continue;
      for (const ClassVerdict& verdict : result.verdicts) {
        if (verdict.same_as) continue;
        const std::optional<mpq_class> least = least_square(head, verdict.i);
        const bool sinks = !least || *least >= radius * radius;
        const bool loses = verdict.verdict == Verdict::unargmaxable;
        // Inside the hull it can tie, but only with every row.
        EXPECT_TRUE(loses == sinks || (loses && verdict.proof == "inside")) << round << ": class " << verdict.i;
        touching += least && *least == radius * radius;
        ties += verdict.verdict == Verdict::tie_only;
      }
    }
  }
  EXPECT_GT(touching, kRounds / 4);
  EXPECT_GT(ties, kRounds / 8);
}

}  // namespace
}  // namespace tuiqiao::test
