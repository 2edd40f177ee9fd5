#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdlib>
#include <fstream>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "topk/subsets.h"
#include "topk_rows.h"
#include "tuiqiao/topk.h"

// Against numbers of 150 digits: tests/data/make_topk_cases.py.

namespace tuiqiao::test {
namespace {

using nlohmann::json;

double number_of(const json& value) {
  return value.is_string() ? std::strtod(value.get<std::string>().c_str(), nullptr) : value.get<double>();
}

Values row_of(const json& test, const char* stored, const char* formula) {
  Values row;
  if (test.contains(stored)) {
    for (const auto& value : test[stored]) row.push_back(number_of(value));
    return row;
  }
  const auto& f = test[formula];
  std::int64_t checksum = 0;
  for (std::int64_t i = 0; i < f["n"].get<std::int64_t>(); ++i) {
    if (!f.contains("spread")) {
      row.push_back(static_cast<double>((37 * i) % 101 - 50) / 32);
      continue;
    }
    const auto at = static_cast<double>(i);
    const volatile double square = at * at, tenth = square * 0.1, angle = tenth + at;  // each rounded
    const double m = std::nearbyint(f["spread"].get<double>() * std::sin(angle) * 0x1p20);
    checksum += i * static_cast<std::int64_t>(m);
    row.push_back(m * 0x1p-20);
  }
  if (f.contains("checksum")) {
    EXPECT_EQ(checksum, f["checksum"].get<std::int64_t>()) << test["name"];
  }
  return row;
}

/// A case of the file; what it does not hold is null there.
struct Case {
  std::string label;
  Values x, v;
  double k = 0;
  SmoothTopkOptions options;
  json expected;

  explicit Case(const json& test)
      : label(test["name"]),
        x(row_of(test, "x", "x_formula")),
        v(row_of(test, "v", "v_formula")),
        k(test["k"].get<double>()),
        options(options_of(topk_method_from_name(test["method"].get<std::string>()), test["tau"].get<double>())),
        expected(test) {}

  double tau() const { return options.tau[0]; }
  bool is(TopkMethod method) const { return options.method == method; }
};

double largest_size(const Values& x) {
  double largest = 0;
  for (const double value : x) largest = std::max(largest, std::isfinite(value) ? std::abs(value) : 0);
  return largest;
}

/// Relative digits wherever the method has them: not at clip's corner, and for subsets where n k is small.
bool has_relative_digits(const Case& c) {
  if (c.is(TopkMethod::gradient)) return static_cast<double>(c.x.size()) * c.k <= topk::kMostRecursion;
  return !c.is(TopkMethod::clip) && !c.is(TopkMethod::softmax_iterated);
}

void expect_values(const Case& c, const Found& found) {
  const bool is_relative = has_relative_digits(c);
  for (const auto& entry : c.expected["p"]) {
    const double expected = number_of(entry[1]), p = found.p[entry[0].get<std::size_t>()];
    EXPECT_NEAR(p, expected, kTopkError) << c.label << " p[" << entry[0] << "]";
    if (is_relative && expected > 1e-290) {
      EXPECT_NEAR(p / expected, 1, 1e-10) << c.label << " p[" << entry[0] << "]";
    }
  }
}

/// In float32, if the entries are float32; whether they are.
bool expect_values_in_float(const Case& c) {
  const std::vector<float> x(c.x.begin(), c.x.end());
  if (!std::equal(c.x.begin(), c.x.end(), x.begin())) return false;
  std::vector<float> p(x.size());
  smooth_topk<float>(one_row(x), std::array{c.k}, c.options, one_row<float>(p));
  for (const auto& entry : c.expected["p"]) {
    EXPECT_NEAR(p[entry[0].get<std::size_t>()], number_of(entry[1]), kTopkFloatError) << c.label << " float";
  }
  return true;
}

void expect_threshold_and_log_z(const Case& c, const Found& found) {
  if (const json& threshold = c.expected["threshold"]; threshold.is_string()) {
    EXPECT_NEAR(found.row.threshold, number_of(threshold), 1e-13 * (1 + largest_size(c.x)) + 1e-12 * c.tau())
        << c.label;
  }
  if (const json& log_z = c.expected["log_z"]; log_z.is_string()) {
    EXPECT_NEAR(found.row.log_z, number_of(log_z), 1e-12 * (1 + std::abs(number_of(log_z)))) << c.label;
  }
}

void expect_gradients(const Case& c, const Found& found) {
  const Pulled pulled = pull_back(c.x, c.k, c.options, c.v);
  const double largest = largest_size(c.v);
  // The iterated softmax multiplies gradients from stage to stage: by 1e7 where rows are wide.
  double growth = 1;
  if (c.is(TopkMethod::softmax_iterated)) {
    for (const auto& entry : c.expected["vjp"]) growth = std::max(growth, std::abs(number_of(entry[1])));
  }
  for (const auto& entry : c.expected["vjp"]) {
    EXPECT_NEAR(pulled.x[entry[0].get<std::size_t>()] * c.tau(), number_of(entry[1]) * c.tau(),
                1e-12 * (1 + largest) * growth)
        << c.label << " vjp[" << entry[0] << "]";
  }
  const bool underflows = std::all_of(
      c.x.begin(), c.x.end(), [&](double entry) { return std::abs(entry - found.row.threshold) / c.tau() > 700; });
  if (const json& in_k = c.expected["grad_k"]; in_k.is_string() && !underflows) {
    EXPECT_NEAR(pulled.row.k, number_of(in_k), 1e-9 * (1 + largest)) << c.label;
  }
  if (const json& in_tau = c.expected["grad_tau"]; in_tau.is_string()) {
    EXPECT_NEAR(pulled.row.tau, number_of(in_tau), 1e-9 * growth * (1 + std::abs(number_of(in_tau)))) << c.label;
  }
}

class TopkOracle : public testing::TestWithParam<TopkMethod> {};

TEST_P(TopkOracle, AgreesWithNumbersOf150Digits) {
  std::ifstream file(TUIQIAO_TEST_DATA "/topk_cases.json");
  int count = 0, in_float = 0;
  for (const auto& test : json::parse(file)) {
    if (test["method"] != name(GetParam())) continue;
    const Case c(test);
    const Found found = solve(c.x, c.k, c.options);
    expect_values(c, found);
    in_float += expect_values_in_float(c) ? 1 : 0;
    expect_threshold_and_log_z(c, found);
    expect_gradients(c, found);
    ++count;
  }
  EXPECT_GE(count, 100);
  EXPECT_GE(in_float, 20);
}

INSTANTIATE_TEST_SUITE_P(Methods, TopkOracle, testing::ValuesIn(kMethods),
                         [](const auto& of) { return std::string(name(of.param)); });

}  // namespace
}  // namespace tuiqiao::test
