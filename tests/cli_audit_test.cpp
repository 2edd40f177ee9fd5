#include <sys/stat.h>

#include <algorithm>
#include <array>
#include <cstdlib>
#include <random>
#include <sstream>
#include <thread>

#include "audit/certificates.h"
#include "cli_fixture.h"
#include "npy.h"
#include "rounds.h"
#include "safetensors.h"

namespace tuiqiao::test {
namespace {

constexpr int kUnknownVerdicts = 3;

class AuditCli : public Cli {
 protected:
  std::string head(const std::string& name, std::int64_t columns, const std::vector<float>& rows) const {
    const std::array<std::int64_t, 2> shape{static_cast<std::int64_t>(rows.size()) / columns, columns};
    return write(name, npy_of(std::vector<double>(rows.begin(), rows.end()), shape));
  }
  std::string vector(const std::string& name, const std::vector<double>& values) const {
    const std::array<std::int64_t, 1> shape{static_cast<std::int64_t>(values.size())};
    return write(name, npy_of(std::span<const double>(values), shape));
  }
  /// The five classes of which the last is inside.
  std::string five() const { return head("five.npy", 2, {1, 2, 2, 1, 1, 0, 0, 1, 1, 1}); }

  /// Rows with some short and some equal ones.
  static std::vector<float> random_rows(std::int64_t classes, std::int64_t columns, unsigned seed) {
    std::mt19937 random(seed);
    std::normal_distribution<float> normal;
    std::vector<float> rows;
    for (std::int64_t i = 0; i < classes; ++i) {
      const float scale = i % 97 == 5 ? 0.05F : 1;
      for (std::int64_t j = 0; j < columns; ++j) rows.push_back(scale * normal(random));
      if (i % 101 == 60) std::copy_n(rows.begin() + i / 3 * columns, columns, rows.end() - columns);
    }
    return rows;
  }

  /// Rows of length 1, some of them equal.
  static std::vector<float> sphere_rows(std::int64_t classes, std::int64_t columns, unsigned seed) {
    std::mt19937 random(seed);
    std::normal_distribution<float> normal;
    std::vector<float> rows;
    for (std::int64_t i = 0; i < classes; ++i) {
      float squares = 0;
      for (std::int64_t j = 0; j < columns; ++j) {
        rows.push_back(normal(random));
        squares += rows.back() * rows.back();
      }
      for (auto x = rows.end() - columns; x != rows.end(); ++x) *x /= std::sqrt(squares);
      if (i % 1009 == 600) std::copy_n(rows.begin() + i / 3 * columns, columns, rows.end() - columns);
    }
    return rows;
  }

  /// The JSON lines of an audit: its header, its tokens, its summary.
  struct Audit {
    json header, summary;
    std::vector<json> tokens;
    std::string verdicts() const {
      std::string letters;
      for (const json& token : tokens) letters += token["verdict"].get<std::string>()[0];
      return letters;
    }
  };
  static Audit audited(Arguments arguments, int code = 0) {
    arguments.insert(arguments.begin(), "audit");
    arguments.push_back("--json");
    const Result result = run(arguments);
    EXPECT_EQ(result.code, code) << result.err;
    Audit made;
    for (const std::string& line : test::lines_of(result.out)) {
      json object = json::parse(line);
      if (object.contains("verdict"))
        made.tokens.push_back(std::move(object));
      else if (object.contains("audit"))
        made.header = std::move(object);
      else if (object.contains("summary"))
        made.summary = object["summary"];
    }
    return made;
  }
  static json verified(Arguments arguments, int code = 0) {
    arguments.insert(arguments.begin(), "audit");
    arguments.push_back("--json");
    const Result result = run(arguments);
    EXPECT_EQ(result.code, code) << result.err;
    return result.out.empty() ? json() : json::parse(result.out);
  }
};

TEST_F(AuditCli, JudgesTheFiveClasses) {
  const Audit made = audited({five()});
  EXPECT_EQ(made.verdicts(), "aaaau");
  EXPECT_EQ(made.header["classes"], 5);
  EXPECT_EQ(made.header["norm"], "none");
  EXPECT_EQ(made.summary["unargmaxable"], 1);
  EXPECT_EQ(made.tokens[4]["certificate"], "inside");
  EXPECT_GT(made.tokens[0]["margin"].get<double>(), 0);
  const std::string bias = vector("bias.npy", {0, 0, 0, 0, 0.1});
  EXPECT_EQ(audited({five(), "--bias", bias}).verdicts(), "aaaaa");
  EXPECT_EQ(audited({five(), "--bias", vector("low.npy", {0, 0, 0, 0, -1})}).verdicts(), "aaaau");
  EXPECT_EQ(audited({five(), "--ids", "4,0-1"}).verdicts(), "aau");
  const Result text = run({"audit", five()});
  EXPECT_EQ(text.code, 0);
  EXPECT_NE(text.out.find("unargmaxable:  1"), std::string::npos) << text.out;
  EXPECT_NE(text.out.find("Never alone on top: 1"), std::string::npos);
}

TEST_F(AuditCli, KeepsToTheRadius) {
  const std::string rows = head("cross.npy", 2, {1, 0, -1, 0, 0, 1, 0, -1, 0, 0});
  const std::string bias = vector("bias.npy", {0, 0, 0, 0, 1});
  EXPECT_EQ(audited({rows, "--bias", bias}).verdicts(), "aaaaa");
  const Audit made = audited({rows, "--bias", bias, "--radius", "0.5", "--out", path("c.jsonl")});
  EXPECT_EQ(made.verdicts(), "uuuua");
  EXPECT_EQ(made.header["radius"], 0.5);
  expect_refused({"audit", rows, "--bias", bias, "--verify", path("c.jsonl")}, kBadInput, {"--radius 0.5"});
  EXPECT_TRUE(verified({rows, "--bias", bias, "--radius", "0.5", "--verify", path("c.jsonl")})["faults"].empty());
  expect_refused({"audit", rows, "--bias", bias, "--radius", "2", "--verify", path("c.jsonl")}, kBadInput,
                 {"c.jsonl", "radius 0.5", "--radius 2"});
  expect_refused({"audit", rows, "--radius", "0.5", "--verify", path("c.jsonl")}, kBadInput,
                 {"another head", "biases"});
  // Without biases a radius changes nothing, and may be named again.
  ASSERT_EQ(run({"audit", five(), "--radius", "1", "--out", path("r.jsonl")}).code, 0);
  EXPECT_EQ(audited({five()}).tokens, audited({five(), "--out", path("m.jsonl")}).tokens);  // margins too
  EXPECT_TRUE(verified({five(), "--radius", "1", "--verify", path("r.jsonl")})["faults"].empty());
}

TEST_F(AuditCli, ReadsEveryKindOfFile) {
  const std::vector<float> rows{1, 2, 2, 1, 1, 0, 0, 1, 1, 1}, gain{3, 0}, bias{0, 0, 0, 0, 0.1F};
  const std::string file = write("m.safetensors", safetensors_of({{"lm_head.weight", {{5, 2}, rows, "BF16"}},
                                                                  {"norm.weight", {{2}, gain}},
                                                                  {"lm_head.bias", {{5}, bias}}}));
  EXPECT_EQ(audited({file}).verdicts(), "aaaau");
  EXPECT_EQ(audited({file}).header["tensor"], "lm_head.weight");
  EXPECT_EQ(audited({file, "--norm", "rms", "--gain", "norm.weight"}).verdicts(), "uauau");
  EXPECT_EQ(audited({file, "--bias", "lm_head.bias"}).verdicts(), "aaaaa");
  EXPECT_EQ(audited({file, "--norm", "layer"}).verdicts(), "ttttu");
  for (const std::string norm : {"none", "rms", "layer"}) {
    const std::string out = path(norm + ".jsonl");
    audited({file, "--norm", norm, "--out", out});
    EXPECT_TRUE(verified({file, "--verify", out})["faults"].empty()) << norm;
    EXPECT_EQ(verified({file, "--brute", "--verify", out})["count"], 5) << norm;
  }
  expect_refused({"audit", file, "--tensor", "absent"}, kBadInput, {"m.safetensors", "absent"});
  expect_refused({"audit", file, "--tensor", "norm.weight"}, kBadInput, {"m.safetensors", "norm.weight"});
}

TEST_F(AuditCli, WritesCertificatesThatAreProvenAnew) {
  const std::string rows = head("rows.npy", 16, random_rows(700, 16, 1));
  const Audit made = audited({rows, "--out", path("c.jsonl")});
  EXPECT_GT(made.summary["argmaxable"].get<int>(), 100);
  EXPECT_GT(made.summary["unargmaxable"].get<int>(), 3);
  EXPECT_GT(made.summary["tie_only"].get<int>(), 3);
  EXPECT_EQ(made.summary["unknown"], 0);
  EXPECT_FALSE(fs::exists(path("c.jsonl.partial")));
  for (const bool brute : {false, true}) {
    Arguments arguments{rows, "--verify", path("c.jsonl")};
    if (brute) arguments.push_back("--brute");
    const json found = verified(arguments);
    EXPECT_TRUE(found["faults"].empty());
    for (const char* verdict : {"argmaxable", "tie_only", "unargmaxable", "unknown"})
      EXPECT_EQ(found[verdict], made.summary[verdict]);
  }
  const Result text = run({"audit", rows, "--verify", path("c.jsonl")});
  EXPECT_EQ(text.code, 0);
  EXPECT_NE(text.out.find("700 proven"), std::string::npos) << text.out;

  // Another matrix, a damaged line, a missing one.
  std::vector<float> others = random_rows(700, 16, 1);
  others[3] += 1;
  expect_refused({"audit", head("others.npy", 16, others), "--verify", path("c.jsonl")}, kBadInput, {"another head"});
  const std::string whole = content_of(path("c.jsonl"));
  std::string damaged = whole;
  damaged[whole.size() / 2] ^= 1;
  write("damaged.jsonl", damaged);
  expect_refused({"audit", rows, "--verify", path("damaged.jsonl")}, kBadInput, {"damaged.jsonl: line "});
  write("short.jsonl", whole.substr(0, whole.rfind('\n', whole.size() - 2) + 1));
  expect_refused({"audit", rows, "--verify", path("short.jsonl")}, kBadInput, {"699 classes, not the 700"});
  expect_refused({"audit", rows, "--verify", rows}, kBadInput, {"rows.npy: no certificates file"});
  expect_refused({"audit", rows, "--verify", path("absent")}, kBadInput, {"absent: cannot be read"});
}

TEST_F(AuditCli, GoesOnAfterAKill) {
  // Several blocks of classes, so that a kill finds some of them written.
  const std::string rows = head("rows.npy", 24, sphere_rows(rounds(40000, 8000), 24, 2));
  const Result whole = run({"audit", rows, "--out", path("whole.jsonl")});
  ASSERT_EQ(whole.code, 0) << whole.err;
  const std::string expected = content_of(path("whole.jsonl")), partial = path("c.jsonl.partial");
  // Killed when the first lines are there, then later.
  for (const std::uintmax_t enough : {std::uintmax_t{1}, std::uintmax_t{expected.size() * 3 / 5}}) {
    const pid_t child = ::fork();
    if (child == 0) become({"audit", rows, "--out", path("c.jsonl")}, {}, 0, 1, 2);
    const auto end = Clock::now() + kLimit;
    while ((!fs::exists(partial) || fs::file_size(partial) < enough) && Clock::now() < end)
      std::this_thread::sleep_for(std::chrono::milliseconds(2));
    ::kill(child, SIGKILL);
    int status = 0;
    ::waitpid(child, &status, 0);
    EXPECT_TRUE(WIFSIGNALED(status));
  }
  const Result resumed = run({"audit", rows, "--out", path("c.jsonl")});
  EXPECT_EQ(resumed.code, 0) << resumed.err;
  EXPECT_NE(resumed.err.find("from an earlier run"), std::string::npos) << resumed.err;
  EXPECT_EQ(content_of(path("c.jsonl")) == expected, true);
  // From near the end, with a torn line.
  write("c.jsonl.partial", expected.substr(0, expected.size() - 200));
  ASSERT_EQ(run({"audit", rows, "--out", path("c.jsonl")}).code, 0);
  EXPECT_EQ(content_of(path("c.jsonl")) == expected, true);

  // What lacks lines is made anew.
  const std::size_t gap = expected.find('\n', expected.size() / 3) + 1, after = expected.find('\n', gap) + 1;
  write("c.jsonl.partial", expected.substr(0, gap) + expected.substr(after, expected.size() / 3));
  ASSERT_EQ(run({"audit", rows, "--out", path("c.jsonl")}).code, 0);
  EXPECT_EQ(content_of(path("c.jsonl")) == expected, true);

  // What is left of another audit is neither taken up nor lost.
  const std::string other = head("other.npy", 24, sphere_rows(3000, 24, 3)),
                    half = expected.substr(0, expected.size() / 2);
  write("c2.jsonl.partial", half);
  expect_refused({"audit", other, "--out", path("c2.jsonl")}, kBadInput,
                 {"c2.jsonl.partial: holds certificates of other"});
  EXPECT_TRUE(half.starts_with(content_of(path("c2.jsonl.partial"))));
  EXPECT_GT(fs::file_size(path("c2.jsonl.partial")), half.size() - 4000);  // but for a torn line
}

#ifdef TUIQIAO_MPIRUN
TEST_F(AuditCli, SpreadsOverProcessesOfMpi) {
  const std::string rows = head("rows.npy", 24, sphere_rows(3000, 24, 4));
  ASSERT_EQ(run({"audit", rows, "--out", path("whole.jsonl")}).code, 0);
  const auto together = [&](int processes, const std::string& more) {
    const std::string command = fmt::format(
        "OMP_NUM_THREADS=1 OMPI_MCA_plm_rsh_agent=/bin/false {} --allow-run-as-root --oversubscribe -n {} {} audit "
        "'{}' {} >'{}' 2>&1",
        TUIQIAO_MPIRUN, processes, TUIQIAO_PROGRAM, rows, more, path("log"));
    return std::system(command.c_str());
  };
  for (const int processes : {1, 2, 3}) {
    ASSERT_EQ(together(processes, "--json --out '" + path("c.jsonl") + "'"), 0) << content_of(path("log"));
    EXPECT_EQ(content_of(path("c.jsonl")) == content_of(path("whole.jsonl")), true) << processes;
    const std::vector<std::string> lines = lines_of(content_of(path("log")));
    EXPECT_EQ(lines.size(), 3002U);  // of the first process alone
    for (const std::string& name : names_in(folder)) EXPECT_EQ(name.find(".part"), std::string::npos) << name;
    fs::remove(path("c.jsonl"));
  }
  // One part was finished, of another there is a half: both are taken up.
  std::int64_t left = 0;  // whole lines but the headers
  const auto leave = [&](int part, const std::string& name, double share) {
    ASSERT_EQ(run({"audit", rows, "--shard", fmt::format("{}/3", part), "--out", path(name)}).code, 0);
    const std::string lines = content_of(path(name));
    const std::string kept = lines.substr(0, static_cast<std::size_t>(share * static_cast<double>(lines.size())));
    left += std::count(kept.begin(), kept.end(), '\n') - 1;
    write(name, kept);
  };
  leave(1, "c.jsonl.part-1-of-3", 1);
  leave(2, "c.jsonl.part-2-of-3.partial", 0.5);
  ASSERT_EQ(together(3, "--json --out '" + path("c.jsonl") + "'"), 0) << content_of(path("log"));
  EXPECT_EQ(content_of(path("c.jsonl")) == content_of(path("whole.jsonl")), true);
  const nlohmann::json summary = nlohmann::json::parse(lines_of(content_of(path("log"))).back());
  EXPECT_EQ(summary["summary"]["resumed"], left) << summary;

  const std::string other = head("other.npy", 2, {0, 1, 1, 0, 3, 3});
  ASSERT_EQ(run({"audit", other, "--out", path("other.jsonl")}).code, 0);
  EXPECT_NE(together(2, "--out '" + path("other.jsonl") + "'"), 0);
  EXPECT_NE(content_of(path("log")).find("other.jsonl: holds certificates of other"), std::string::npos);
  EXPECT_NE(together(2, ""), 0);
  EXPECT_NE(content_of(path("log")).find("under mpirun: --out"), std::string::npos);
  EXPECT_NE(together(2, "--bias none.npy --out '" + path("d.jsonl") + "'"), 0);
  EXPECT_NE(content_of(path("log")).find("none.npy"), std::string::npos);
}
#endif

TEST_F(AuditCli, MergesShards) {
  const std::string rows = head("rows.npy", 12, random_rows(900, 12, 4));
  ASSERT_EQ(run({"audit", rows, "--out", path("whole.jsonl")}).code, 0);
  Arguments merge{"audit", "--out", path("merged.jsonl"), "--merge"};
  for (int part = 1; part <= 3; ++part) {
    const std::string file = path(fmt::format("part{}.jsonl", part));
    ASSERT_EQ(run({"audit", rows, "--shard", fmt::format("{}/3", part), "--out", file}).code, 0);
    EXPECT_TRUE(verified({rows, "--verify", file})["faults"].empty());
    merge.push_back(file);
  }
  const Result merged = run(merge);
  EXPECT_EQ(merged.code, 0) << merged.err;
  EXPECT_NE(merged.out.find("900 classes of 3 shards"), std::string::npos) << merged.out;
  EXPECT_EQ(content_of(path("merged.jsonl")) == content_of(path("whole.jsonl")), true);
  expect_refused({"audit", "--out", path("m.jsonl"), "--merge", path("part1.jsonl"), path("part2.jsonl")}, kBadInput,
                 {"one of 3 shards, but 2"});
  expect_refused(
      {"audit", "--out", path("m.jsonl"), "--merge", path("part1.jsonl"), path("part2.jsonl"), path("part1.jsonl")},
      kBadInput, {"for the second time"});
  EXPECT_FALSE(fs::exists(path("m.jsonl")));
  const std::string third = content_of(path("part3.jsonl"));
  const std::string cut = write("cut.jsonl", third.substr(0, third.size() - 30));
  expect_refused({"audit", "--out", path("m.jsonl"), "--merge", path("part1.jsonl"), path("part2.jsonl"), cut},
                 kBadInput, {"cut.jsonl", "cut off"});
  EXPECT_FALSE(fs::exists(path("m.jsonl.partial")));
}

TEST_F(AuditCli, KeepsOtherCertificates) {
  const std::string rows = head("rows.npy", 12, random_rows(900, 12, 4)), other = five(), out = path("c.jsonl");
  ASSERT_EQ(run({"audit", rows, "--out", out}).code, 0);
  const std::string before = content_of(out);
  expect_refused({"audit", other, "--out", out}, kBadInput, {"c.jsonl", "other weights or options"});
  expect_refused({"audit", rows, "--ids", "3", "--out", out}, kBadInput, {"c.jsonl", "other weights or options"});
  for (const char* part : {"1/2", "2/2"})
    ASSERT_EQ(run({"audit", other, "--shard", part, "--out", path(std::string(part).substr(0, 1))}).code, 0);
  expect_refused({"audit", "--out", out, "--merge", path("1"), path("2")}, kBadInput, {"c.jsonl", "other weights"});
  EXPECT_EQ(content_of(out) == before, true);
  for (const std::string& name : names_in(folder)) EXPECT_EQ(name.find(".partial"), std::string::npos) << name;
  // Nor does a merge that is refused take what a run that was cut short left.
  const std::string lines = before.substr(0, before.find('\n', before.size() / 2) + 1);
  write("c.jsonl.partial", lines);
  expect_refused({"audit", "--out", out, "--merge", path("1"), path("2")}, kBadInput, {"c.jsonl", "other weights"});
  EXPECT_EQ(content_of(path("c.jsonl.partial")) == lines, true);
  ASSERT_EQ(run({"audit", rows, "--out", out}).code, 0);  // the same again
  EXPECT_EQ(content_of(out) == before, true);
}

TEST_F(AuditCli, DropsNoOption) {
  const std::string rows = five(), out = path("c.jsonl");
  ASSERT_EQ(run({"audit", rows, "--out", out}).code, 0);
  for (const char* option : {"--out", "--html", "--mask", "--against", "--ids", "--solver", "--unused", "--memory"})
    expect_refused({"audit", rows, "--verify", out, option, "1"}, kUsage, {option, "does not go with --verify"});
  expect_refused({"audit", rows, "--out", path("m"), "--merge", out}, kUsage, {"FILE does not go with --merge"});
  expect_refused({"audit", "--verify", out, "--out", path("m"), "--merge", out}, kUsage, {"--verify does not go"});
  for (const char* option : {"--ids", "--verify", "--bias", "--out", "--norm", "--shard", "--against"})
    expect_refused({"audit", rows, option, ""}, kUsage, {option, "nothing"});
  expect_refused({"audit", rows, "--ids", "1-"}, kUsage, {"'1-'", "neither a token nor a range"});
  expect_refused({"audit", rows, "--verify", rows}, kBadInput, {"five.npy", "no certificates file"});
}

TEST_F(AuditCli, WaitsForNoPipe) {
  const std::string rows = five(), pipe = path("pipe");
  ASSERT_EQ(::mkfifo(pipe.c_str(), 0600), 0);
  for (const Arguments& arguments :
       {Arguments{"audit", pipe}, Arguments{"audit", rows, "--verify", pipe}, Arguments{"audit", rows, "--bias", pipe},
        Arguments{"audit", rows, "--against", pipe}, Arguments{"audit", "--out", path("m"), "--merge", pipe}})
    expect_refused(arguments, kBadInput, {"pipe", "not a regular file"});
}

TEST_F(AuditCli, TellsWhatItLeftOut) {
  const std::vector<float> rows{1, 2, 2, 1, 1, 0, 0, 1, 1, 1}, bias{0, 0, 0, 0, 0.1F}, gain{1, 1};
  const std::string file = write("head.safetensors", safetensors_of({{"lm_head.weight", {{5, 2}, rows}},
                                                                     {"lm_head.bias", {{5}, bias}},
                                                                     {"model.norm.weight", {{2}, gain}}}));
  const Result without = run({"audit", file});
  EXPECT_EQ(without.code, 0);
  EXPECT_NE(without.err.find("not used: lm_head.bias, model.norm.weight"), std::string::npos) << without.err;
  const Result with = run({"audit", file, "--norm", "rms", "--gain", "model.norm.weight", "--bias", "lm_head.bias"});
  EXPECT_EQ(with.code, 0) << with.err;
  EXPECT_EQ(with.err.find("not used"), std::string::npos) << with.err;
}

TEST_F(AuditCli, WritesOverNothingElse) {
  const std::string rows = five(), weights = content_of(rows), text = write("precious.txt", "precious\n");
  for (const char* option : {"--out", "--html", "--mask"})
    expect_refused({"audit", rows, option, (fs::path(folder) / "." / "five.npy").string()}, kUsage,
                   {option, "five.npy"});
  expect_refused({"audit", rows, "--html", path("same"), "--mask", path("same")}, kUsage, {"--mask", "same"});
  expect_refused({"audit", rows, "--out", text}, kBadInput, {"precious.txt", "something else"});
  expect_refused({"audit", rows, "--out", "/dev/null"}, kBadInput, {"/dev/null", "no regular file"});
  EXPECT_EQ(content_of(rows) == weights, true);
  EXPECT_EQ(content_of(text), "precious\n");
  ASSERT_EQ(run({"audit", rows, "--out", path("c.jsonl")}).code, 0);
  fs::create_symlink(path("c.jsonl"), path("link"));
  ASSERT_EQ(run({"audit", rows, "--out", path("link")}).code, 0);
  EXPECT_TRUE(fs::is_symlink(path("link")));
}

TEST_F(AuditCli, TellsTheBoundsOfWhatIsUnknown) {
  // The one row touches the sphere of the ball: it is never on top, which rounding does not tell, and there are too
  // many columns for rationals.
  std::vector<float> entries(64, 0);
  entries.resize(128, 1);
  const std::string rows = head("two.npy", 64, entries), bias = vector("bias.npy", {1, 2});
  for (const Arguments& more : std::vector<Arguments>{{}, {"--out", path("c.jsonl")}}) {
    Arguments arguments{"audit", rows, "--bias", bias, "--radius", "0.125", "--json"};
    arguments.insert(arguments.end(), more.begin(), more.end());
    const Result result = run(arguments);
    EXPECT_EQ(result.code, kUnknownVerdicts) << result.err;
    const std::string line = result.out.substr(result.out.find("{\"i\":0"));
    const json token = json::parse(line.substr(0, line.find('\n')));
    ASSERT_EQ(token["verdict"], "unknown");
    EXPECT_LT(token["lead"][1].get<double>(), 8.1);
    EXPECT_TRUE(token["lead"][0].is_null() || token["lead"][0].get<double>() <= 0) << token;
  }
}

TEST_F(AuditCli, MissesALineThatIsGone) {
  ASSERT_EQ(run({"audit", five(), "--out", path("c.jsonl")}).code, 0);
  std::istringstream in(content_of(path("c.jsonl")));
  std::string header, line, last, rest;
  std::getline(in, header);
  while (std::getline(in, line)) {
    rest += last;
    last = line + "\n";
  }
  header.replace(header.find("\"count\":5"), 9, "\"count\":4");
  header = auditing::with_checksum(header.substr(0, header.rfind(",\"crc\"")) + "}");
  write("short.jsonl", header + "\n" + rest);
  expect_refused({"audit", five(), "--verify", path("short.jsonl")}, kBadInput, {"4 of 5 classes"});
}

TEST_F(AuditCli, MasksWhatMustNotWin) {
  const std::string rows = head("rows.npy", 2, {1, 2, 2, 1, 1, 0, 0, 1, 1, 1, 3, 3, 3, 3});
  const Audit made = audited({rows, "--words", "4", "--mask", path("mask.json")});
  EXPECT_EQ(json::parse(content_of(path("mask.json"))), json::parse("[[5,false],[6,false]]"));
  EXPECT_EQ(made.summary["must_not_win_but_can"], 2);
  EXPECT_EQ(made.tokens[6]["equal_to"], 5);
  EXPECT_EQ(made.tokens[6]["category"], "PADDING");
  EXPECT_FALSE(made.tokens[0].contains("must_not_win"));
  audited({rows, "--unused", "5", "--mask", path("mask.json")});
  EXPECT_EQ(json::parse(content_of(path("mask.json"))), json::parse("[[5,false]]"));
}

TEST_F(AuditCli, ComparesTwoFiles) {
  const std::string other = head("other.npy", 2, {1, 2, 2, 1, 1, 0, 0, 1, 3, 3});
  const Result result = run({"audit", five(), "--against", other, "--html", path("r.html")});
  EXPECT_NE(result.out.find("4  unargmaxable -> argmaxable"), std::string::npos) << result.out;
  ASSERT_EQ(run({"audit", other, "--out", path("other.jsonl")}).code, 0);
  const Result stored = run({"audit", five(), "--against", path("other.jsonl"), "--json"});
  EXPECT_NE(stored.out.find(R"({"changed":4,"from":"unargmaxable","to":"argmaxable"})"), std::string::npos);
  EXPECT_NE(stored.out.find(R"({"compared":5,"different":1})"), std::string::npos);
  expect_refused({"audit", five(), "--against", head("more.npy", 2, {1, 2, 2, 1, 1, 0, 0, 1, 3, 3, 4, 4})}, kBadInput,
                 {"more.npy: 6 tokens", "has 5"});
  const std::string page = content_of(path("r.html"));
  EXPECT_TRUE(page.starts_with("<!DOCTYPE html>"));
  EXPECT_NE(page.find("<svg"), std::string::npos);
  EXPECT_NE(page.find("Never alone on top: 1"), std::string::npos);
}

TEST_F(AuditCli, TakesTheSmallestHeads) {
  EXPECT_EQ(audited({head("one.npy", 3, {1, 2, 3})}).verdicts(), "a");
  EXPECT_EQ(audited({head("line.npy", 1, {0, 1, 2})}).verdicts(), "aua");
  EXPECT_EQ(audited({head("zero.npy", 2, {0, 0, 0, 0})}).verdicts(), "tt");
  EXPECT_EQ(audited({head("same.npy", 2, {1, 2, 1, 2, 1, 2})}).verdicts(), "ttt");
  for (const std::string name : {"one.npy", "line.npy", "zero.npy", "same.npy"}) {
    audited({path(name), "--out", path(name + ".jsonl")});
    EXPECT_TRUE(verified({path(name), "--verify", path(name + ".jsonl")})["faults"].empty()) << name;
  }
  EXPECT_TRUE(audited({path("zero.npy")}).tokens[0]["near_zero"]);
}

TEST_F(AuditCli, RefusesBadInput) {
  const float nan = std::numeric_limits<float>::quiet_NaN(), infinite = std::numeric_limits<float>::infinity();
  expect_refused({"audit", head("nan.npy", 2, {1, 2, 3, nan})}, kBadInput, {"nan.npy", "row 1, column 1", "nan"});
  expect_refused({"audit", head("inf.npy", 2, {1, infinite, 3, 4})}, kBadInput, {"inf.npy", "row 0, column 1"});
  expect_refused({"audit", path("absent.npy")}, kBadInput, {"absent.npy: no such file"});
  expect_refused({"audit", five(), "--tensor", "rows"}, kBadInput, {"five.npy", "no tensor 'rows'"});
  expect_refused({"audit", folder}, kBadInput, {"folder"});
  expect_refused({"audit", write("text", "hello, this is a text")}, kBadInput, {"text", "neither"});
  expect_refused({"audit", write("empty", "")}, kBadInput, {"empty"});
  expect_refused({"audit", write("bad.gguf", "GGUF\x03")}, kBadInput, {"bad.gguf"});
  const std::string whole = content_of(five());
  expect_refused({"audit", write("cut.npy", whole.substr(0, whole.size() - 1))}, kBadInput, {"cut.npy"});
  expect_refused({"audit", five(), "--bias", vector("b.npy", {1, 2})}, kBadInput, {"b.npy", "2 entries", "5 rows"});
  expect_refused({"audit", five(), "--bias", path("absent")}, kBadInput, {"--bias", "absent"});
  expect_refused({"audit", five(), "--norm", "rms", "--gain", vector("g.npy", {1, 2, 3})}, kBadInput,
                 {"g.npy", "3 entries", "2 columns"});
  expect_refused({"audit", five(), "--bias", vector("n.npy", {0, 0, 0, 0, std::nan("")})}, kBadInput, {"entry 4"});
  expect_refused({"audit", vector("v.npy", {1, 2})}, kBadInput, {"v.npy", "matrix"});
  expect_refused({"audit", five(), "--out", "/nonexistent/c.jsonl"}, kBadInput, {"cannot write"});
  for (const Arguments& wrong : std::vector<Arguments>{{"--norm", "batch"},
                                                       {"--radius", "0"},
                                                       {"--radius", "-1"},
                                                       {"--radius", "nan"},
                                                       {"--ids", "5"},
                                                       {"--ids", "x"},
                                                       {"--ids", "3-1"},
                                                       {"--solver", "simplex"},
                                                       {"--shard", "1/3"},
                                                       {"--shard", "0/3", "--out", path("c")},
                                                       {"--shard", "4/3", "--out", path("c")},
                                                       {"--memory", "much"},
                                                       {"--memory", "0"},
                                                       {"--brute"},
                                                       {"--gain", path("five.npy")},
                                                       {"--words", "9"},
                                                       {"--norm", "rms", "--radius", "2"}}) {
    Arguments arguments{"audit", five()};
    arguments.insert(arguments.end(), wrong.begin(), wrong.end());
    expect_refused(arguments, kUsage, {});
  }
  expect_refused({"audit"}, kUsage, {"no FILE"});
  expect_refused({"audit", "--merge", path("c")}, kUsage, {"--out"});
}

TEST_F(AuditCli, DropsColumnsWithoutGain) {
  const std::string gain = vector("g.npy", {0, 0});
  EXPECT_EQ(audited({five(), "--norm", "rms", "--gain", gain}).verdicts(), "ttttt");
  audited({five(), "--norm", "rms", "--gain", gain, "--out", path("c.jsonl")});
  EXPECT_TRUE(verified({five(), "--gain", gain, "--norm", "rms", "--verify", path("c.jsonl")})["faults"].empty());
}

TEST_F(AuditCli, StopsCleanly) {
  const std::string rows = head("rows.npy", 24, sphere_rows(60000, 24, 6));
  const Result result = run({"audit", rows, "--out", path("c.jsonl")}, {.interrupt_when = [&](const std::string&) {
                              const std::string partial = path("c.jsonl.partial");
                              return fs::exists(partial) && fs::file_size(partial) > 0;
                            }});
  if (result.code == 0) GTEST_SKIP() << "it was done first";
  EXPECT_EQ(result.code, kInterrupted);
  EXPECT_FALSE(fs::exists(path("c.jsonl")));
  EXPECT_NE(result.err.find("run it again"), std::string::npos) << result.err;
}

}  // namespace
}  // namespace tuiqiao::test
