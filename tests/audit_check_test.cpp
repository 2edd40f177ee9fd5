#include "tuiqiao/audit_check.h"

#include <nlohmann/json.hpp>

#include "audit_check/certificate_file.h"
#include "audit_check/pairs.h"
#include "audit_heads.h"
#include "tuiqiao/error.h"

namespace tuiqiao::test {
namespace {

/// Rows with a falling spectrum around a mean, all of about the same length but for some short ones.
OutputHead large_head(std::int64_t classes, std::int64_t columns, unsigned seed) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal;
  OutputHead head;
  head.classes = classes;
  head.columns = columns;
  for (std::int64_t i = 0; i < classes; ++i) {
    const float scale = i % 500 == 3 ? 0.05F : 1 + 0.01F * normal(random);
    float squares = 0;
    const std::size_t at = head.rows.size();
    for (std::int64_t j = 0; j < columns; ++j) {
      head.rows.push_back(normal(random) / static_cast<float>(1 + j / 8));
      squares += head.rows.back() * head.rows.back();
    }
    for (std::size_t j = at; j < head.rows.size(); ++j) head.rows[j] *= scale / std::sqrt(squares);
    if (i % 500 == 7) std::copy_n(head.rows.end() - 3 * columns, columns, head.rows.end() - columns);
  }
  return head;
}

std::string first_fault(const CertificateCheck& result) {
  return result.faults.empty() ? "" : fmt::format("{}: {}", result.faults[0].i, result.faults[0].problem);
}

TEST(AuditCheck, ReadsBackWhatWasWritten) {
  for (unsigned seed = 0; seed < 300; ++seed) {
    const RandomHead random(seed);
    const AuditResult result = audit(random.head, random.options);
    const std::vector<std::string> lines = lines_of(random.head, result);
    const checking::CertificateHeader header = checking::parse_header(lines[0]);
    EXPECT_EQ(header.frame.centre, result.frame.centre);
    EXPECT_EQ(header.frame.whitening, result.frame.whitening);
    EXPECT_EQ(header.frame.columns, result.frame.columns);
    EXPECT_EQ(header.frame.radius, header.frame.has_ball ? result.frame.radius : 0);
    EXPECT_EQ(header.norm, random.head.norm);
    for (std::size_t i = 0; i < result.verdicts.size(); ++i) {
      const ClassVerdict& wrote = result.verdicts[i];
      const ClassVerdict read = checking::parse_certificate(lines[i + 1], header);
      EXPECT_EQ(read.i, wrote.i);
      EXPECT_EQ(read.verdict, wrote.verdict);
      EXPECT_EQ(read.same_as, wrote.same_as);
      EXPECT_EQ(read.twin, wrote.twin);
      EXPECT_EQ(read.rule, wrote.rule);
      EXPECT_EQ(read.exact_z, wrote.exact_z);
      EXPECT_TRUE(read.z == wrote.z || !wrote.exact_z.empty());
      EXPECT_EQ(read.proof, wrote.proof);
      EXPECT_EQ(read.rows, wrote.rows);
      EXPECT_EQ(read.weights, wrote.weights);
      EXPECT_EQ(read.exact_weights, wrote.exact_weights);
      EXPECT_LE(read.margin, wrote.margin);
    }
  }
}

TEST(AuditCheck, ProvesEveryVerdictAnew) {
  std::int64_t counts[4] = {};
  for (unsigned seed = 0; seed < 2000; ++seed) {
    const RandomHead random(seed);
    const AuditResult result = audit(random.head, random.options);
    const CertificateCheck found = check(random.head, lines_of(random.head, result), seed % 2 == 0);
    ASSERT_EQ(first_fault(found), "") << "seed " << seed;
    EXPECT_EQ(found.subject.count, random.head.classes);
    for (int v = 0; v < 4; ++v) {
      EXPECT_EQ(found.counts[v], result.count(static_cast<Verdict>(v))) << "seed " << seed;
      counts[v] += found.counts[v];
    }
  }
  for (int v = 0; v < 3; ++v) EXPECT_GT(counts[v], 500);
  EXPECT_EQ(counts[static_cast<int>(Verdict::unknown)], 0);
}

TEST(AuditCheck, BoundsInsteadOfProducts) {
  for (const HeadNorm norm : {HeadNorm::none, HeadNorm::rms, HeadNorm::layer}) {
    OutputHead head = large_head(3000, 48, 5);
    head.norm = norm;
    if (norm == HeadNorm::layer) head.bias.assign(3000, 0);
    for (std::size_t i = 0; i < head.bias.size(); ++i) head.bias[i] = static_cast<double>(i % 7) / 100;
    const AuditResult result = audit(head);
    EXPECT_GT(result.count(Verdict::argmaxable), 2500);
    EXPECT_GT(result.count(Verdict::unargmaxable), 3);
    std::vector<std::string> lines = lines_of(head, result);
    EXPECT_EQ(first_fault(check(head, lines)), "");
    EXPECT_EQ(first_fault(check(head, lines, true)), "");

    // Where the rules do not hold, both ways find the same.
    for (std::size_t i = 0; i < result.verdicts.size(); ++i) {
      const char* rule = i % 2 == 0 ? "row" : "centred";
      lines[i + 1] = mended(fmt::format(R"({{"i":{},"verdict":"argmaxable","rule":"{}"}})", i, rule));
    }
    const CertificateCheck some = check(head, lines), all = check(head, lines, true);
    ASSERT_GT(all.faults.size(), 10U);
    ASSERT_EQ(some.faults.size(), all.faults.size());
    for (std::size_t f = 0; f < all.faults.size(); ++f) EXPECT_EQ(some.faults[f].i, all.faults[f].i);
  }
}

TEST(AuditCheck, NoticesAnyDamageOfTheFile) {
  const RandomHead random(11);
  std::string text;
  for (const std::string& line : lines_of(random.head, audit(random.head, random.options))) text += line + "\n";
  const auto verify = [&](const std::string& damaged) {
    const CertificateFile file(damaged);
    return check_certificates(random.head, file.path);
  };
  EXPECT_NO_THROW(verify(text));
  std::mt19937 dice(3);
  for (int round = 0; round < 3000; ++round) {
    std::string damaged = text;
    damaged[dice() % damaged.size()] ^= static_cast<char>(1U << dice() % 8);
    EXPECT_THROW(verify(damaged), Error) << damaged;
  }
  for (std::size_t cut = 0; cut < text.size(); ++cut) EXPECT_THROW(verify(text.substr(0, cut)), Error) << cut;
}

TEST(AuditCheck, NoticesMissingDoubledAndMovedClasses) {
  OutputHead head;
  head.columns = 2;
  head.classes = 5;
  head.rows = {1, 2, 2, 1, 1, 0, 0, 1, 1, 1};
  const std::vector<std::string> lines = lines_of(head, audit(head));
  const auto complaint = [&](const std::vector<std::string>& damaged) -> std::string {
    try {
      check(head, damaged);
      return "";
    } catch (const Error& error) {
      const std::string what = error.what();
      return what.substr(what.find(": line") == std::string::npos ? 0 : what.find(": line") + 2);
    }
  };
  EXPECT_EQ(complaint(lines), "");
  EXPECT_EQ(complaint({lines[0], lines[1], lines[3], lines[4], lines[5]}), "line 3: class 2, but class 1 is missing");
  EXPECT_EQ(complaint({lines[0], lines[1], lines[1], lines[2]}), "line 3: class 0 for the second time");
  EXPECT_EQ(complaint({lines[0], lines[2], lines[1]}), "line 2: class 1, but class 0 is missing");
  EXPECT_NE(complaint({lines[0], lines[1], lines[2], lines[3]}).find("3 classes, not the 5 of its header"),
            std::string::npos);
  EXPECT_NE(complaint({lines[1]}).find("no certificates file"), std::string::npos);
  EXPECT_EQ(complaint({lines[0], lines[0]}), "line 2: no 'i'");
  EXPECT_NE(complaint({}).find("empty"), std::string::npos);
}

TEST(AuditCheck, KnowsWhatFloat32CannotMultiply) {
  // Products of thousands of these rows overflow; those of the same over 2^100 do not.
  std::mt19937 random(5);
  std::uniform_real_distribution<float> entry(1.6F, 2.6F);
  OutputHead large, small;
  large.columns = small.columns = 4;
  large.classes = small.classes = 1500;
  for (std::int64_t j = 0; j < 6000; ++j) {
    small.rows.push_back(entry(random) * 1e8F);
    large.rows.push_back(std::ldexp(small.rows.back(), 100));
  }
  const AuditResult result = audit(large);
  EXPECT_EQ(first_fault(check(large, lines_of(large, result))), "");
  const AuditResult expected = audit(small);
  EXPECT_EQ(expected.count(Verdict::unknown), 0);
  for (std::size_t i = 0; i < expected.verdicts.size(); ++i)
    EXPECT_EQ(result.verdicts[i].verdict, expected.verdicts[i].verdict) << i;
}

TEST(AuditCheck, RefusesABallOfNothing) {
  OutputHead head;
  head.columns = 1;
  head.classes = 2;
  head.rows = {0, 1};
  head.bias = {0, 1};
  AuditOptions options;
  options.radius = 0.5;
  std::vector<std::string> lines = lines_of(head, audit(head, options));
  ASSERT_TRUE(check(head, lines).faults.empty());
  for (const char* radius : {"0.0", "0", "-0.5"}) {
    std::vector<std::string> damaged = lines;
    damaged[0].replace(damaged[0].find("\"radius\":0.5"), 12, fmt::format("\"radius\":{}", radius));
    damaged[0] = mended(damaged[0]);
    EXPECT_THROW(check(head, damaged), Error) << radius;
  }
}

TEST(AuditCheck, RefusesHostileLines) {
  OutputHead head;
  head.columns = 2;
  head.classes = 5;
  head.rows = {1, 2, 2, 1, 1, 0, 0, 1, 1, 1};
  const std::vector<std::string> lines = lines_of(head, audit(head));
  const auto refused = [&](const std::string& object, std::size_t line = 1) {
    std::vector<std::string> damaged = lines;
    damaged[line] = mended(object);
    try {
      return !check(head, damaged).faults.empty();
    } catch (const Error&) {
      return true;
    }
  };
  EXPECT_FALSE(refused(lines[1]));
  for (const std::string& certificate : std::vector<std::string>{
           R"("verdict":"argmaxable")",

           R"("verdict":"argmaxable","rule":"other")",
           R"("verdict":"argmaxable","rule":"row","z":"AAAAAAAAAAA=")",
           R"("verdict":"argmaxable","z":"AAAAAAAAAAA=")",
           R"("verdict":"argmaxable","z":"AAAA")",
           R"("verdict":"argmaxable","z":"AACAfwAAgH8=")",
           R"("verdict":"argmaxable","z":7)",
           R"("verdict":"argmaxable","z":"====")",
           R"("verdict":"argmaxable","exact_z":["1/0","1"])",
           R"("verdict":"argmaxable","exact_z":["1/","1"])",
           R"("verdict":"argmaxable","exact_z":["1","x"])",
           R"("verdict":"argmaxable","exact_z":["1"])",
           R"("verdict":"argmaxable","rule":"row","margin":1e300)",
           R"("verdict":"argmaxable","rule":"row","margin":-1)",
           R"("verdict":"argmaxable","rule":"row","margin":1e999)",
           R"("verdict":"argmaxable","same_as":0)",
           R"("verdict":"argmaxable","same_as":-1)",
           R"("verdict":"maybe","rule":"row")",
           R"("verdict":7)",
           R"("verdict":"unargmaxable")",
           R"("verdict":"unargmaxable","proof":"simplex")",
           R"("verdict":"unargmaxable","proof":"simplex","rows":[])",
           R"("verdict":"unargmaxable","proof":"simplex","rows":[1,2,9])",
           R"("verdict":"unargmaxable","proof":"simplex","rows":[1,1,2])",
           R"("verdict":"unargmaxable","proof":"simplex","rows":[0,1,2])",
           R"("verdict":"unargmaxable","proof":"simplex","rows":[1,2,-1])",
           R"("verdict":"unargmaxable","proof":"simplex","rows":[1,2,1e3])",
           R"("verdict":"unargmaxable","proof":"ball","rows":[1],"weights":"AACAPw==")",
           R"("verdict":"unargmaxable","proof":"inside","rows":[1,2],"exact_weights":["1/2","1/2"])",
           R"("verdict":"unargmaxable","proof":"inside","rows":[0],"exact_weights":["1"])",
           R"("verdict":"unargmaxable","proof":"below","rows":[1,-1],"exact_weights":["1","1"])",
           R"("verdict":"unargmaxable","proof":"face","rows":[1,2],"exact_weights":["1/2","1/2"])",
           R"("verdict":"tie_only","rule":"row")",
           R"("verdict":"tie_only","rule":"row","twin":1)",
           R"("verdict":"tie_only","rule":"row","twin":0)",
           R"("verdict":"tie_only","rule":"row","twin":5)",
           R"("verdict":"tie_only","exact_z":["0","0"],"proof":"face","rows":[1],"exact_weights":["1"])"}) {
    EXPECT_TRUE(refused(fmt::format(R"({{"i":0,{}}})", certificate))) << certificate;
  }
  for (const char* header :
       {R"({"tuiqiao_audit":2})", R"({"tuiqiao_audit":1})", R"({"tuiqiao_audit":"1"})", R"([1])", R"({)",
        R"({"tuiqiao_audit":1,"classes":1e30})", R"({"tuiqiao_audit":1,"classes":18446744073709551615})"})
    EXPECT_TRUE(refused(header, 0)) << header;
  EXPECT_TRUE(refused(std::string(100000, '[') + std::string(100000, ']')));
}

TEST(AuditCheck, StopsAmongFractions) {
  OutputHead head;
  head.columns = 2;
  head.classes = 5;
  head.rows = {1, 2, 2, 1, 1, 0, 0, 1, 1, 1};
  const checking::CheckedRows rows(head, checking::parse_header(lines_of(head, audit(head))[0]));
  const std::vector<mpq_class> z{mpq_class(1), mpq_class(7, 3)};
  const checking::WitnessClaim claim{0, 0.1, false, {}};
  std::stop_source stop;
  EXPECT_EQ(checking::check_exact_witness(rows, claim, z, stop.get_token()), "");
  stop.request_stop();
  EXPECT_THROW(checking::check_exact_witness(rows, claim, z, stop.get_token()), Interrupted);

  // What is stopped among proofs is no fault of theirs.
  std::vector<std::string> lines = lines_of(head, audit(head));
  lines[1] = mended(R"({"i":0,"verdict":"argmaxable","margin":0.1,"exact_z":["1","7/3"]})");
  const CertificateFile file(lines);
  CertificateCheckOptions options;
  EXPECT_TRUE(check_certificates(head, file.path, options).faults.empty());
  int checked = 0;
  options.progress = {[&](std::string_view what, std::int64_t, std::int64_t) { checked += what == "proofs" ? 1 : 0; },
                      stop.get_token()};
  EXPECT_THROW(check_certificates(head, file.path, options), Interrupted);
  EXPECT_EQ(checked, 0);
}

TEST(AuditCheck, RefusesEndlessLines) {
  OutputHead head;
  head.columns = 1;
  head.classes = 2;
  head.rows = {0, 1};
  std::vector<std::string> lines = lines_of(head, audit(head));
  lines[1] = std::string((std::size_t{1} << 26) + 1, ' ');
  try {
    check(head, lines);
    ADD_FAILURE();
  } catch (const Error& error) {
    EXPECT_NE(std::string(error.what()).find("line 2: too long"), std::string::npos) << error.what();
  }
}

TEST(AuditCheck, KnowsItsHead) {
  OutputHead head;
  head.columns = 2;
  head.classes = 5;
  head.rows = {1, 2, 2, 1, 1, 0, 0, 1, 1, 1};
  const std::vector<std::string> lines = lines_of(head, audit(head));
  OutputHead other = head;
  other.rows[9] = 2;
  EXPECT_THROW(check(other, lines), Error);
  other = head;
  other.bias = {0, 0, 0, 0, 1};
  EXPECT_THROW(check(other, lines), Error);
  other = head;
  other.norm = HeadNorm::rms;
  EXPECT_THROW(check(other, lines), Error);
  other = head;
  other.rows.resize(8);
  other.classes = 4;
  EXPECT_THROW(check(other, lines), Error);
}

}  // namespace
}  // namespace tuiqiao::test
