#include <gtest/gtest.h>

#include "cli_fixture.h"

namespace tuiqiao::test {
namespace {

using MinSumCli = Cli;

std::string output_of(const Arguments& arguments, const std::string& input = "") {
  const Result result = run(arguments, {.input = input});
  EXPECT_EQ(result.code, 0) << result.err;
  EXPECT_EQ(result.err, "");
  return result.out;
}

TEST_F(MinSumCli, ShowsTheSumAndWhatProvesIt) {
  EXPECT_EQ(output_of({"minsum", "130"}),
            "130 = 10 * 13 + 0    sum 23\n"
            "    looked at a + b = 22 to 23 (2 steps); from 24 on a + b alone is more than 23, and below 22 no sum is "
            "less\n");
  EXPECT_EQ(output_of({"minsum", "--all", "10", "3..4"}),
            "10 = 3 * 3 + 1    sum 7\n10 = 2 * 5 + 0    sum 7\n"
            "    looked at a + b = 6 to 7 (2 steps); from 8 on a + b alone is more than 7, and below 6 no sum is less\n"
            "3 = 0 * 0 + 3    sum 3\n4 = 0 * 0 + 4    sum 4\n4 = 2 * 2 + 0    sum 4\n");
}

TEST_F(MinSumCli, WritesIntegersAsTextInJson) {
  const json five = json::parse(output_of({"minsum", "--json", "--all", "5"}));
  EXPECT_EQ(five, json::parse(R"({"n":"5","a":"2","b":"2","c":"1","s":"5","steps":"2","last_p":"5",
                                 "optima":[{"a":"0","b":"0","c":"5"},{"a":"2","b":"2","c":"1"}]})"));
  const std::string square(201, '9');  // (10^201 - 1)^2
  const Result result = run({"minsum", "--json", std::string(200, '9') + "8" + std::string(200, '0') + "1"});
  EXPECT_NE(result.err.find("about 10^67.1 steps"), std::string::npos) << result.err;  // nobody knows it is a square
  const json large = json::parse(result.out);
  EXPECT_EQ(large["a"], square);
  EXPECT_EQ(large["b"], square);
  EXPECT_EQ(large["c"], "0");
}

TEST_F(MinSumCli, ReadsNumbersAndRangesFromStandardInput) {
  EXPECT_EQ(lines_of(output_of({"minsum", "--json"}, "12\n 1..3\t18446744073709551616\n")).size(), 5U);
  EXPECT_EQ(lines_of(output_of({"minsum", "--json", "7", "-"}, "8 9")).size(), 3U);
  // Across 2^64.
  EXPECT_EQ(lines_of(output_of({"minsum", "--json", "18446744073709551610..18446744073709551621"})).size(), 12U);
}

TEST_F(MinSumCli, RefusesWhatIsNoNaturalNumber) {
  for (const char* text : {"12x", "-5", "1.5", "1e5", "", " ", "+3", "0x10", "1..", "..5", "5..3", "1...3", "a\nb"})
    expect_refused({"minsum", text}, kUsage, {text[0] == '5' ? "ends before it begins" : "no natural number"});
  expect_refused({"minsum", std::string(100000, '7') + "x"}, kUsage, {"7777...", "no natural number"});
  expect_refused({"minsum"}, kBadInput, {"standard input: 'abc'"}, {.input = "12 abc"});
  expect_refused({"minsum"}, kBadInput, {"standard input: no number"}, {.input = " \n"});
  expect_refused({"minsum", "5", "--threads", "-1"}, kUsage, {"--threads"});
}

TEST_F(MinSumCli, TellsWhatItKnowsWhenInterrupted) {
  int asked = 0;
  const std::string n = "7" + std::string(60, '1');
  const Result result =
      run({"minsum", "--json", n}, {.interrupt_when = [&](const std::string&) { return ++asked > 30; }});
  EXPECT_EQ(result.code, kInterrupted);
  const json stopped = json::parse(result.out);
  EXPECT_EQ(stopped["n"], n);
  EXPECT_EQ(stopped["stopped"], true);
  EXPECT_EQ(stopped["s_at_least"].get<std::string>().size(), 31U);
  EXPECT_LE(stopped["s_at_least"].get<std::string>(), stopped["s_at_most"].get<std::string>());
  EXPECT_NE(result.err.find("about"), std::string::npos) << result.err;
  EXPECT_NE(result.err.find("interrupted after"), std::string::npos) << result.err;
}

TEST_F(MinSumCli, StopsWhenNobodyReads) {
  EXPECT_EQ(run({"minsum", "1..100000000"}, {.close_output = true}).code, kOutputClosed);
}

TEST_F(MinSumCli, DrawsARange) {
  EXPECT_EQ(output_of({"minsum", "--plot", path("sums.svg"), "1000..1200"}), "");
  const std::string svg = content_of(path("sums.svg"));
  EXPECT_TRUE(svg.starts_with("<svg") && svg.ends_with("</svg>\n"));
  for (const char* part : {"Left over: c", "b - a", "steps"}) EXPECT_NE(svg.find(part), std::string::npos) << part;
  expect_refused({"minsum", "--plot", path("no/sums.svg"), "1..9"}, kBadInput, {"sums.svg"});
  expect_refused({"minsum", "--plot", path("more.svg"), "1..200000"}, kUsage, {"100000"});
  expect_refused({"minsum", "--plot", path("more.svg"), "1..9", "20"}, kUsage, {"one range"});
  EXPECT_FALSE(fs::exists(path("more.svg")));
}

}  // namespace
}  // namespace tuiqiao::test
