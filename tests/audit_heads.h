#pragma once

#include <fmt/format.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <cmath>
#include <filesystem>
#include <fstream>
#include <random>
#include <string>
#include <vector>

#include "audit/certificates.h"
#include "tuiqiao/audit.h"
#include "tuiqiao/audit_check.h"

// What the tests of certificates share: heads made to hurt, and files of certificates.

namespace tuiqiao::test {

/// A small head with ties, equal rows, flat hulls, biases, norms or a radius, as the seed has it.
struct RandomHead {
  OutputHead head;
  AuditOptions options;

  explicit RandomHead(unsigned seed) {
    std::mt19937 random(seed);
    const auto below = [&](int n) { return static_cast<int>(random() % static_cast<unsigned>(n)); };
    head.columns = 1 + below(5);
    head.classes = 1 + below(14);
    const bool whole = below(2) == 0;
    std::normal_distribution<float> normal;
    for (std::int64_t i = 0; i < head.classes * head.columns; ++i)
      head.rows.push_back(whole ? static_cast<float>(below(5) - 2) : normal(random));
    const auto row = [&](std::int64_t i) { return head.rows.data() + i * head.columns; };
    if (below(3) == 0 && head.classes > 2) {  // equal rows
      for (int copies = 0; copies < 2; ++copies)
        std::copy_n(row(below(static_cast<int>(head.classes))), head.columns,
                    row(below(static_cast<int>(head.classes))));
    }
    if (below(4) == 0 && head.classes > 2) {  // between two others
      for (std::int64_t j = 0; j < head.columns; ++j) row(0)[j] = (row(1)[j] + row(2)[j]) / 2;
    }
    if (below(3) == 0) {
      for (std::int64_t i = 0; i < head.classes; ++i)
        head.bias.push_back(whole ? below(3) - 1 : static_cast<double>(normal(random)));
    }
    head.norm = static_cast<HeadNorm>(below(3));
    if (head.norm != HeadNorm::none) {
      for (std::int64_t j = 0; j < head.columns; ++j)
        head.gain.push_back(whole ? static_cast<float>(below(4)) : 1 + normal(random) / 4);
    }
    if (head.norm == HeadNorm::layer && below(2) == 0) {
      for (std::int64_t j = 0; j < head.columns; ++j)
        head.shift.push_back(whole ? static_cast<float>(below(3) - 1) : normal(random));
    }
    if (head.norm == HeadNorm::none && below(3) == 0) options.radius = whole ? 1 : 0.2 + below(20) / 7.0;
  }
};

/// Lines of certificates of verdicts, a header first.
inline std::vector<std::string> lines_of(const OutputHead& head, const AuditResult& result) {
  std::vector<std::string> lines{
      auditing::header_line(head, result.frame, static_cast<std::int64_t>(result.verdicts.size()))};
  const auditing::MarginError error(head, result.frame);
  for (const ClassVerdict& verdict : result.verdicts) lines.push_back(auditing::certificate_line(verdict, error));
  return lines;
}

/// A file that goes away with it.
class CertificateFile {
 public:
  explicit CertificateFile(const std::vector<std::string>& lines) {
    std::string text;
    for (const std::string& line : lines) text += line + "\n";
    write(text);
  }
  explicit CertificateFile(const std::string& text) { write(text); }
  ~CertificateFile() { std::filesystem::remove(path); }
  CertificateFile(const CertificateFile&) = delete;
  CertificateFile& operator=(const CertificateFile&) = delete;

  const std::filesystem::path path =
      std::filesystem::path(testing::TempDir()) / fmt::format("certificates-{}.jsonl", ::getpid());

 private:
  void write(const std::string& text) { std::ofstream(path, std::ios::binary) << text; }
};

inline CertificateCheck check(const OutputHead& head, const std::vector<std::string>& lines, bool brute = false) {
  const CertificateFile file(lines);
  return check_certificates(head, file.path, {brute, {}});
}

/// A line with its checksum made good.
inline std::string mended(std::string object) {
  const std::size_t at = object.rfind(",\"crc\":\"");
  if (at != std::string::npos) object = object.substr(0, at) + "}";
  return auditing::with_checksum(object);
}

}  // namespace tuiqiao::test
