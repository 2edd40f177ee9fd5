#include <gtest/gtest.h>

#include <array>

#include "cli_fixture.h"
#include "npy.h"

namespace tuiqiao::test {
namespace {

using TopkCli = Cli;

json solved(Arguments arguments, const std::string& input) {
  arguments.insert(arguments.begin(), "topk");
  arguments.push_back("--json");
  const Result result = run(arguments, {.input = input});
  EXPECT_EQ(result.code, 0) << result.err;
  return json::parse(result.out);
}

TEST_F(TopkCli, ChoosesSmoothly) {
  const json laplace = solved({"--k", "3"}, "3 1 4 1.5 5 9 2 6\n");
  EXPECT_EQ(laplace["method"], "laplace");
  double sum = 0;
  for (const double p : laplace["p"]) sum += p;
  EXPECT_NEAR(sum, 3, 1e-12);
  EXPECT_NEAR(laplace["threshold"].get<double>(), 4.582566622548918, 1e-12);
  EXPECT_TRUE(laplace["log_z"].is_null());
  const json gradient = solved({"-k", "1", "--method", "gradient"}, "2, 0, 0, -inf");
  EXPECT_TRUE(gradient["threshold"].is_null());
  EXPECT_NEAR(gradient["p"][0].get<double>(), 0.7869860421615987, 1e-12);
  EXPECT_EQ(gradient["p"][3], 0.0);
  EXPECT_EQ(solved({"-k", "2", "--tau", "0"}, "3 1 2")["p"], json::parse("[1.0, 0.0, 1.0]"));
  const json hard = solved({"-k", "2", "--hard"}, "3 1 2 3 3");
  EXPECT_EQ(hard["p"], json::parse("[1.0, 0.0, 0.0, 1.0, 0.0]"));
  EXPECT_EQ(hard["indices"], json::parse("[0, 3]"));
  const json entropy = solved({"-k", "2", "--entropy", "0.3"}, "3 1 2 7 4 4.5");
  EXPECT_GT(entropy["tau"].get<double>(), 0);
  EXPECT_EQ(lines_of(run({"topk", "-k", "1"}, {.input = "1 2"}).out).size(), 3U);
}

TEST_F(TopkCli, ReadsAndWritesArrays) {
  const std::vector<double> values{3, 1, 4, 1.5, 5, 9, 2, 6};
  write("x.npy", npy_of(values, std::array<std::int64_t, 2>{2, 4}));
  const Result result = run({"topk", "-k", "1", path("x.npy"), "--out", path("p.npy")});
  EXPECT_EQ(result.code, 0) << result.err;
  EXPECT_EQ(result.out, "");
  const NpyArray p = read_npy(path("p.npy"));
  EXPECT_EQ(p.shape, (std::vector<std::int64_t>{2, 4}));
  EXPECT_NEAR(p.values[0] + p.values[1] + p.values[2] + p.values[3], 1, 1e-12);
  EXPECT_EQ(lines_of(run({"topk", "-k", "1", "--json", path("x.npy")}).out).size(), 2U);
  const std::string bytes = content_of(path("x.npy"));
  EXPECT_EQ(lines_of(run({"topk", "-k", "1", "--json", "-"}, {.input = bytes}).out).size(), 2U);
}

TEST_F(TopkCli, TakesSeparatorsAndADash) {
  for (const char* input : {"3,1,2", "3, 1, 2,\n", "3 ;1\n2", "\t3 1 2"})
    EXPECT_EQ(solved({"-k", "2", "--tau", "0"}, input)["p"], json::parse("[1.0, 0.0, 1.0]")) << input;
  const Result result = run({"topk", "-k", "1", "--tau", "0", "--out", "-"}, {.input = "3 1 2"});
  EXPECT_EQ(parse_npy(result.out, "output").values, (std::vector<double>{1, 0, 0}));
}

TEST_F(TopkCli, DrawsARow) {
  EXPECT_EQ(run({"topk", "-k", "2", "--plot", path("p.svg")}, {.input = "3 1 4 1 5"}).code, 0);
  const std::string svg = content_of(path("p.svg"));
  EXPECT_NE(svg.find("laplace, k = 2"), std::string::npos);
  EXPECT_TRUE(svg.ends_with("</svg>\n"));
}

TEST_F(TopkCli, DrawsACurveForEachTemperature) {
  const std::string file = path("p.svg");
  EXPECT_EQ(run({"topk", "-k", "2", "--plot", file, "--taus", "2,0.5,0"}, {.input = "3 1 4 1 5"}).code, 0);
  const std::string svg = content_of(file);
  for (const char* tau : {"tau 2<", "tau 0.5<", "tau 0<"}) EXPECT_NE(svg.find(tau), std::string::npos) << tau;
  const std::string row = write("row.npy", npy_of(std::vector<double>{3, 1, 4}, std::array<std::int64_t, 1>{3}));
  EXPECT_EQ(run({"topk", "-k", "2", "--plot", file, "--taus", "2,1", row}).code, 0);
  EXPECT_NE(run({"topk", "-k", "2", "--taus", "2"}, {.input = "3 1 4 1 5"}).code, 0);
  expect_refused({"topk", "-k", "2", "--plot", path("q.svg"), "--taus", "2,-1"}, 2, {"-1"}, {.input = "3 1 4"});
}

TEST_F(TopkCli, ChecksWhatItIsAskedForFirst) {
  for (const char* bits : {"nan", "0", "-1", "2", "inf"}) {
    const Result result = run({"topk", "-k", "1", "--entropy", bits}, {.input = "1 2 3"});
    EXPECT_NE(result.code, 0) << bits;
    EXPECT_NE(result.err.find("outside (0, 1]"), std::string::npos) << result.err;
  }
  const Result png = run({"topk", "-k", "1", "--plot", path("p.png")}, {.input = "1 2 3"});
  EXPECT_NE(png.code, 0);
  EXPECT_NE(png.err.find("plots are written as .svg"), std::string::npos) << png.err;
}

TEST_F(TopkCli, RefusesBadInputAndWritesNothing) {
  const auto refused = [&](Arguments arguments, const std::string& input, int code, const std::string& problem) {
    arguments.insert(arguments.begin(), "topk");
    arguments.insert(arguments.end(), {"--out", path("out.npy")});
    expect_refused(arguments, code, {problem}, {.input = input});
    EXPECT_FALSE(fs::exists(path("out.npy")));
  };
  refused({"-k", "1"}, "3 x 4", kBadInput, "standard input: entry 1: 'x' is no number");
  refused({"-k", "1"}, "3,,4", kBadInput, "standard input: entry 1: no number before ','");
  refused({"-k", "1"}, " ;3", kBadInput, "standard input: entry 0: no number before ';'");
  refused({"-k", "1"}, "3 nan 4", kBadInput, "standard input: entry 1 is NaN");
  refused({"-k", "1"}, " \n", kBadInput, "no number");
  refused({"-k", "4"}, "1 2 3", kUsage, "k = 4 outside [0, 3]");
  refused({"-k", "3"}, "1 2 -inf", kUsage, "k = 3 outside [0, 2]");
  refused({"-k", "1.5", "--method", "gradient"}, "1 2", kUsage, "not whole");
  refused({"-k", "1", "--tau", "-1"}, "1 2", kUsage, "tau = -1");
  refused({"-k", "1", "--tau", "nan"}, "1 2", kUsage, "tau = nan");
  refused({"-k", "1", "--method", "softmax"}, "1 2", kUsage, "'softmax'");
  refused({"-k", "1", "--entropy", "0.9"}, "1 2 3 4 5 6 7 8 9", kUsage, "above that of p = k / n");
  refused({"-k", "1", path("absent.npy")}, "", kBadInput, "absent.npy");
  refused(
      {"-k", "1", write("cut.npy", npy_of(std::vector<double>(4, 1.0), std::array<std::int64_t, 1>{4}).substr(0, 140))},
      "", kBadInput, "cut.npy: the file ends before");
  refused({"-k", "1", write("deep.npy", npy_of(std::vector<double>(8, 1.0), std::array<std::int64_t, 3>{2, 2, 2}))}, "",
          kBadInput, "3 sides");
  expect_refused({"topk"}, kUsage, {"--k"}, {.input = "1 2"});
  expect_refused({"topk", "-k", "1", "--out", path("no/p.npy")}, kBadInput, {"p.npy"}, {.input = "1 2"});
}

}  // namespace
}  // namespace tuiqiao::test
