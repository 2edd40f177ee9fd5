#include <fmt/format.h>
#include <gtest/gtest.h>

#include <fstream>
#include <nlohmann/json.hpp>
#include <random>

#include "tuiqiao/audit.h"

// Verdicts against those of HiGHS and NNLS: tests/data/make_audit_cases.py.

namespace tuiqiao {
namespace {

using nlohmann::json;

constexpr std::size_t kParts = 4;  // that may run at once

OutputHead head_of(const json& given) {
  OutputHead head;
  head.classes = static_cast<std::int64_t>(given["rows"].size());
  head.columns = static_cast<std::int64_t>(given["rows"][0].size());
  for (const json& row : given["rows"]) {
    for (const json& entry : row) head.rows.push_back(entry);
  }
  if (given.contains("bias")) head.bias = given["bias"].get<std::vector<double>>();
  if (given.contains("gain")) head.gain = given["gain"].get<std::vector<float>>();
  if (given.contains("shift")) head.shift = given["shift"].get<std::vector<float>>();
  head.norm = head_norm_from_name(given["norm"].get<std::string>());
  return head;
}

AuditOptions options_of(const json& given) {
  AuditOptions options;
  if (given.contains("radius")) options.radius = given["radius"].get<double>();
  return options;
}

bool agrees(char expected, Verdict verdict) {
  switch (expected) {
    case 'T':
      return verdict != Verdict::argmaxable;
    case '?':
      return true;
    default:
      return name(verdict)[0] == expected && verdict != Verdict::unknown;
  }
}

/// Cases whose number leaves this rest.
class AuditOracle : public testing::TestWithParam<std::size_t> {};

TEST_P(AuditOracle, AgreesOnEveryClass) {
  std::ifstream in(TUIQIAO_TEST_DATA "/audit_cases.json");
  const json cases = json::parse(in);
  ASSERT_GT(cases.size(), 2000U);
  std::int64_t counts[4] = {}, settled_at_edge = 0, at_edge = 0;
  for (std::size_t c = GetParam(); c < cases.size(); c += kParts) {
    const std::string expected = cases[c]["verdicts"];
    const AuditResult result = audit(head_of(cases[c]), options_of(cases[c]));
    ASSERT_EQ(result.verdicts.size(), expected.size());
    for (std::size_t k = 0; k < expected.size(); ++k) {
      const Verdict verdict = result.verdicts[k].verdict;
      EXPECT_TRUE(agrees(expected[k], verdict))
          << fmt::format("case {}, class {}: {} instead of {}\n{}", c, k, name(verdict), expected[k], cases[c].dump());
      ++counts[static_cast<std::size_t>(verdict)];
      at_edge += expected[k] == 'T' || expected[k] == '?' ? 1 : 0;
      settled_at_edge += (expected[k] == 'T' || expected[k] == '?') && verdict != Verdict::unknown ? 1 : 0;
    }
  }
  EXPECT_GT(counts[0], 10000 / static_cast<std::int64_t>(kParts));
  EXPECT_GT(counts[1], 2000 / static_cast<std::int64_t>(kParts));
  EXPECT_GT(counts[2], 1000 / static_cast<std::int64_t>(kParts));
  EXPECT_EQ(counts[3], at_edge - settled_at_edge);
  fmt::print("{} argmaxable, {} tie_only, {} unargmaxable; {} of {} at the edge of a ball settled\n", counts[0],
             counts[1], counts[2], settled_at_edge, at_edge);
}

INSTANTIATE_TEST_SUITE_P(Parts, AuditOracle, testing::Range(std::size_t{0}, kParts));

}  // namespace
}  // namespace tuiqiao
