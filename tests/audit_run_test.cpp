#include <fmt/format.h>
#include <gtest/gtest.h>
#include <omp.h>

#include <fstream>
#include <nlohmann/json.hpp>

#include "flat_head.h"
#include "tuiqiao/audit.h"
#include "tuiqiao/error.h"

// How an audit goes through a head: the same certificates whatever the way, made heads, and Qhull's word.

namespace tuiqiao {
namespace {

using bench::FlatHead;

void expect_same(const ClassVerdict& a, const ClassVerdict& b) {
  ASSERT_EQ(a.i, b.i);
  EXPECT_EQ(a.verdict, b.verdict) << a.i;
  EXPECT_EQ(a.same_as, b.same_as) << a.i;
  EXPECT_EQ(a.rule, b.rule) << a.i;
  EXPECT_EQ(a.z, b.z) << a.i;
  EXPECT_EQ(a.exact_z, b.exact_z) << a.i;
  EXPECT_EQ(a.margin, b.margin) << a.i;
  EXPECT_EQ(a.twin, b.twin) << a.i;
  EXPECT_EQ(a.proof, b.proof) << a.i;
  EXPECT_EQ(a.rows, b.rows) << a.i;
  EXPECT_EQ(a.weights, b.weights) << a.i;
  EXPECT_EQ(a.exact_weights, b.exact_weights) << a.i;
}

/// Every kind of witness, and rows inside.
const FlatHead& small_head() {
  static const FlatHead head(2200, 40);
  return head;
}

AuditOptions bounded() {
  AuditOptions options;
  options.bounds_from = 100;
  return options;
}

const AuditResult& whole() {
  static const AuditResult result = audit(small_head().head, bounded());
  return result;
}

TEST(AuditRun, NeedsEveryKindOfWitness) {
  EXPECT_GT(whole().effort.by_rule[static_cast<std::size_t>(WitnessRule::vector)], 0);
  EXPECT_GT(whole().effort.by_rule[static_cast<std::size_t>(WitnessRule::centred)], 0);
  EXPECT_GT(whole().effort.by_rule[static_cast<std::size_t>(WitnessRule::whitened)], 0);
  EXPECT_GT(whole().count(Verdict::unargmaxable), 0);
  EXPECT_EQ(whole().count(Verdict::unknown), 0);
}

TEST(AuditRun, GivesTheSameWhateverTheThreads) {
  const int threads = omp_get_max_threads();
  for (const int some : {1, 3}) {
    omp_set_num_threads(some);
    const AuditResult result = audit(small_head().head, bounded());
    ASSERT_EQ(result.verdicts.size(), whole().verdicts.size());
    for (std::size_t i = 0; i < result.verdicts.size(); ++i) expect_same(result.verdicts[i], whole().verdicts[i]);
  }
  omp_set_num_threads(threads);
}

TEST(AuditRun, GivesTheSameWhateverTheClasses) {
  AuditOptions options = bounded();
  for (std::int64_t i = 3; i < small_head().trained; i += 7) options.ids.push_back(i);
  const AuditResult result = audit(small_head().head, options);
  ASSERT_EQ(result.verdicts.size(), options.ids.size());
  for (const ClassVerdict& verdict : result.verdicts)
    expect_same(verdict, whole().verdicts[static_cast<std::size_t>(verdict.i)]);
}

TEST(AuditRun, GivesTheSameInLittleMemory) {
  AuditOptions options = bounded();
  options.memory = 90'000'000;
  const AuditResult result = audit(small_head().head, options);
  for (std::size_t i = 0; i < result.verdicts.size(); ++i) expect_same(result.verdicts[i], whole().verdicts[i]);
  for (const std::int64_t memory : {std::int64_t{1000}, std::int64_t{-1}}) {
    options.memory = memory;
    EXPECT_THROW(audit(small_head().head, options), std::invalid_argument);
  }
}

TEST(AuditRun, GoesOnFromAClass) {
  for (const std::int64_t from :
       {std::int64_t{1}, std::int64_t{1300}, small_head().trained + 20, small_head().head.classes}) {
    AuditOptions options = bounded();
    options.from = from;
    std::vector<ClassVerdict> found;
    options.found = [&](const AuditFrame& frame, const ClassVerdict& verdict) {
      EXPECT_EQ(frame.centre, whole().frame.centre);
      EXPECT_EQ(frame.whitening, whole().frame.whitening);
      found.push_back(verdict);
    };
    const AuditResult result = audit(small_head().head, options);
    ASSERT_EQ(found.size(), whole().verdicts.size() - static_cast<std::size_t>(from));
    ASSERT_EQ(result.verdicts.size(), found.size());
    for (std::size_t i = 0; i < found.size(); ++i) {
      expect_same(found[i], whole().verdicts[i + static_cast<std::size_t>(from)]);
      expect_same(result.verdicts[i], found[i]);
    }
  }
}

TEST(AuditRun, HandsVerdictsOutByClassBeforeAStop) {
  // Two blocks; a stop after the first verdicts leaves a beginning that another run can go on from.
  AuditOptions options = bounded();
  options.memory = 84'000'000;  // blocks of 1024
  std::stop_source source;
  options.progress.stop = source.get_token();
  std::vector<std::int64_t> found;
  options.found = [&](const AuditFrame&, const ClassVerdict& verdict) {
    found.push_back(verdict.i);
    source.request_stop();
  };
  EXPECT_THROW(audit(small_head().head, options), Interrupted);
  ASSERT_FALSE(found.empty());
  EXPECT_LT(found.size(), whole().verdicts.size());
  for (std::size_t i = 0; i < found.size(); ++i) EXPECT_EQ(found[i], static_cast<std::int64_t>(i));
}

TEST(AuditRun, StopsWhereverItIs) {
  std::int64_t reports = 0;
  AuditOptions options = bounded();
  options.progress.report = [&](std::string_view, std::int64_t done, std::int64_t total) {
    EXPECT_LE(done, total);
    ++reports;
  };
  audit(small_head().head, options);
  ASSERT_GT(reports, 5);
  for (std::int64_t at = 1; at < reports; ++at) {
    std::stop_source source;
    std::int64_t seen = 0;
    options.progress.stop = source.get_token();
    options.progress.report = [&](std::string_view, std::int64_t, std::int64_t) {
      if (++seen == at) source.request_stop();
    };
    EXPECT_THROW(audit(small_head().head, options), Interrupted) << at;
    EXPECT_EQ(seen, at);
  }
}

TEST(AuditRun, KnowsTheFlatHead) {
  const FlatHead flat(6000, 192);
  const AuditResult result = audit(flat.head);
  std::int64_t known = 0;
  for (const ClassVerdict& verdict : result.verdicts) {
    const auto expected = flat.expected(verdict.i);
    if (!expected) continue;
    ++known;
    EXPECT_EQ(verdict.verdict, *expected) << verdict.i;
  }
  EXPECT_GT(known, 5900);
  EXPECT_EQ(result.count(Verdict::unknown), 0);
  const ClassVerdict& reserved = result.verdicts[static_cast<std::size_t>(flat.trained + flat.inside)];
  EXPECT_EQ(reserved.same_as, flat.trained);
}

/// As rows_of in tests/data/make_audit_qhull.py.
OutputHead whole_number_head(std::uint64_t seed, std::int64_t rows, std::int64_t columns) {
  OutputHead head;
  head.classes = rows;
  head.columns = columns;
  std::uint64_t state = seed;
  for (std::int64_t i = 0; i < rows * columns; ++i) {
    std::int64_t entry = 0;
    for (int part = 0; part < 3; ++part) {
      state = state * 6364136223846793005U + 1442695040888963407U;
      entry += static_cast<std::int64_t>((state >> 40) % 2001) - 1000;
    }
    head.rows.push_back(static_cast<float>(entry));
  }
  return head;
}

// The active set's last vertices have weights of 1e-11, which rounding drowns: they must be exchanged for others.
TEST(AuditRun, ProvesRowsDeepInsideInManyColumns) {
  const FlatHead flat(6000, 1024);
  AuditOptions options;
  options.ids = {flat.trained, flat.trained + 1};
  for (const ClassVerdict& verdict : audit(flat.head, options).verdicts) {
    EXPECT_EQ(verdict.verdict, Verdict::unargmaxable) << verdict.i;
    EXPECT_EQ(verdict.proof, "simplex");
    EXPECT_EQ(verdict.rows.size(), 1025U);
  }
}

TEST(AuditRun, AgreesWithQhull) {
  std::ifstream in(TUIQIAO_TEST_DATA "/audit_qhull.json");
  const nlohmann::json cases = nlohmann::json::parse(in);
  ASSERT_GT(cases.size(), 20U);
  std::size_t inside = 0;
  for (const auto& given : cases) {
    const AuditResult result = audit(whole_number_head(given["seed"], given["rows"], given["columns"]));
    std::vector<std::int64_t> never;
    for (const ClassVerdict& verdict : result.verdicts) {
      if (verdict.verdict != Verdict::argmaxable) never.push_back(verdict.i);
    }
    EXPECT_EQ(never, given["inside"].get<std::vector<std::int64_t>>()) << given["rows"] << " x " << given["columns"];
    inside += never.size();
  }
  EXPECT_GT(inside, 2000U);
}

}  // namespace
}  // namespace tuiqiao
