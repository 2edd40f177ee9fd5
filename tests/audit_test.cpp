#include "tuiqiao/audit.h"

#include <gtest/gtest.h>

#include <random>

#include "tuiqiao/error.h"

namespace tuiqiao {
namespace {

OutputHead head_of(std::int64_t columns, const std::vector<float>& rows, std::vector<double> bias = {}) {
  OutputHead head;
  head.columns = columns;
  head.classes = static_cast<std::int64_t>(rows.size()) / columns;
  head.rows = rows;
  head.bias = std::move(bias);
  return head;
}

std::string verdicts_of(const OutputHead& head, const AuditOptions& options = {}) {
  std::string text;
  for (const ClassVerdict& verdict : audit(head, options).verdicts) text += name(verdict.verdict)[0];
  return text;
}

constexpr double kInfinite = HUGE_VAL;

TEST(Audit, DecidesTheFiveClasses) {
  const std::vector<float> rows{1, 2, 2, 1, 1, 0, 0, 1, 1, 1};
  EXPECT_EQ(verdicts_of(head_of(2, rows)), "aaaau");
  EXPECT_EQ(verdicts_of(head_of(2, rows, {0, 0, 0, 0, 0.1})), "aaaaa");  // it wins at z = 0
  EXPECT_EQ(verdicts_of(head_of(2, rows, {0, 0, 0, 0, -0.1})), "aaaau");
  EXPECT_EQ(verdicts_of(head_of(2, rows, {0.1, 0.1, 0.1, 0.1, 0.1})), "aaaau");
}

TEST(Audit, KeepsToTheBall) {
  // The last class leads by 1 at z = 0, and its bias by b at most elsewhere.
  const std::vector<float> rows{1, 0, -1, 0, 0, 1, 0, -1, 0, 0};
  AuditOptions options;
  EXPECT_EQ(verdicts_of(head_of(2, rows, {0, 0, 0, 0, 1})), "aaaaa");
  for (const double radius : {0.5, 1.0, 1.5, 100.0}) {
    options.radius = radius;
    EXPECT_EQ(verdicts_of(head_of(2, rows, {0, 0, 0, 0, 1}), options), radius > 1 ? "aaaaa" : "uuuua") << radius;
  }
}

TEST(Audit, TellsTiesFromTheInside) {
  EXPECT_EQ(verdicts_of(head_of(1, {0, 1, 2})), "aua");
  EXPECT_EQ(verdicts_of(head_of(2, {0, 0, 2, 0, 0, 2, 1, 1, 0.5, 0.5})), "aaatu");  // on an edge, inside
  EXPECT_EQ(verdicts_of(head_of(2, {0, 0, 1, 1, 2, 2})), "aua");                    // inside of a flat hull
  EXPECT_EQ(verdicts_of(head_of(2, {0, 0, 2, 0, 0, 2, 2, 0})), "atat");             // equal rows
  EXPECT_EQ(verdicts_of(head_of(2, {0, 0, 4, 0, 0, 4, 1, 1, 1, 1})), "aaauu");      // equal rows inside
  EXPECT_EQ(verdicts_of(head_of(3, {1, 0, 0, -1, 0, 0, 0, 1, 0, 0, -1, 0, 0, 0, 1, 0, 0, -1, 0, 0, 0})), "aaaaaau");
}

TEST(Audit, TakesTheSmallestHeads) {
  EXPECT_EQ(verdicts_of(head_of(1, {3})), "a");
  EXPECT_EQ(verdicts_of(head_of(2, {0, 0})), "a");
  EXPECT_EQ(verdicts_of(head_of(2, {1, 2, 1, 2, 1, 2})), "ttt");
  EXPECT_EQ(verdicts_of(head_of(2, {0, 0, 0, 0})), "tt");
  EXPECT_EQ(verdicts_of(head_of(1, {0, 0, 0}, {1, 2, 2})), "utt");
  EXPECT_EQ(verdicts_of(head_of(1, {0, -0.0F, 1})), "tta");
}

TEST(Audit, HonoursTheNorm) {
  OutputHead head = head_of(2, {1, 2, 2, 1, 1, 0, 0, 1, 1, 1});
  head.norm = HeadNorm::rms;
  head.gain = {3, 0};  // only the first column is left
  EXPECT_EQ(verdicts_of(head), "uauau");
  head.gain = {0, 0};
  EXPECT_EQ(verdicts_of(head), "ttttt");
  head.gain = {2, 0.5};
  EXPECT_EQ(verdicts_of(head), "aaaau");
  head.norm = HeadNorm::layer;  // u = (t, -t): rows become 2 - 1, 4 - .5, 2, -.5, 1.5
  EXPECT_EQ(verdicts_of(head), "uauau");
  head.gain.clear();  // -1, 1, 1, -1, 0
  EXPECT_EQ(verdicts_of(head), "ttttu");
}

TEST(Audit, RefusesWhatIsNoHead) {
  EXPECT_THROW(audit(head_of(2, {1, 2, 3, std::numeric_limits<float>::quiet_NaN()})), Error);
  EXPECT_THROW(audit(head_of(2, {1, 2, 3, HUGE_VALF})), Error);
  EXPECT_THROW(audit(head_of(2, {1, 2, 3, 4}, {1, kInfinite})), Error);
  EXPECT_THROW(audit(head_of(2, {1, 2, 3, 4}, {1})), std::invalid_argument);
  OutputHead head = head_of(2, {1, 2, 3, 4});
  head.classes = 3;
  EXPECT_THROW(audit(head), std::invalid_argument);
  AuditOptions options;
  for (const double radius : {0.0, -1.0, kInfinite, std::nan("")}) {
    options.radius = radius;
    EXPECT_THROW(audit(head_of(2, {1, 2, 3, 4}), options), std::invalid_argument);
  }
  options = {};
  options.ids = {2};
  EXPECT_THROW(audit(head_of(2, {1, 2, 3, 4}), options), std::invalid_argument);
}

TEST(Audit, FindsPlantedRowsInside) {
  constexpr std::int64_t kClasses = 3000, kColumns = 640, kPlanted = 4;
  std::mt19937 random(7);
  std::normal_distribution<float> normal;
  std::vector<float> rows(kClasses * kColumns);
  for (float& x : rows) x = normal(random);
  for (std::int64_t p = 0; p < kPlanted; ++p) {
    for (std::int64_t j = 0; j < kColumns; ++j) rows[static_cast<std::size_t>(p * 700 * kColumns + j)] *= 0.02F;
  }
  const AuditResult result = audit(head_of(kColumns, rows));
  EXPECT_EQ(result.count(Verdict::unargmaxable), kPlanted);
  EXPECT_EQ(result.count(Verdict::argmaxable), kClasses - kPlanted);
  for (std::int64_t p = 0; p < kPlanted; ++p)
    EXPECT_EQ(result.verdicts[static_cast<std::size_t>(p * 700)].proof, "simplex");
}

}  // namespace
}  // namespace tuiqiao
