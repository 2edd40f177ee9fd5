#pragma once

#include <cstdint>
#include <filesystem>
#include <fstream>
#include <optional>
#include <string>
#include <string_view>

#include "tuiqiao/audit.h"

namespace tuiqiao::checking {

/// The first line of a certificates file.
struct CertificateHeader {
  AuditFrame frame;
  std::int64_t head_columns = 0;
  std::int64_t count = 0;  ///< of lines that follow
  std::string tensor;
  HeadNorm norm = HeadNorm::none;
  std::string rows_crc, bias_crc, gain_crc, shift_crc;  ///< "" for none
  std::int64_t shard_part = 0, shard_parts = 1;
};

/// Reads a certificates file line by line. Nothing is believed: every line's checksum, keys, types and ranges are
/// looked at, and that each class comes once, in order.
/// Throws: tuiqiao::Error "FILE: line N: ...", here and below.
class CertificateReader {
 public:
  explicit CertificateReader(const std::filesystem::path& file);

  const CertificateHeader& header() const { return header_; }
  const std::string& header_text() const { return header_text_; }
  /// The next class's line; nothing behind the last one.
  std::optional<ClassVerdict> next();
  /// The line that next() returned.
  const std::string& text() const { return text_; }

 private:
  bool read_line();

  std::filesystem::path file_;
  std::ifstream in_;
  std::string text_, header_text_;
  std::int64_t line_ = 0, found_ = 0, last_ = -1;
  CertificateHeader header_;
};

/// What a file of certificates begins with.
inline constexpr std::string_view kFirstKey = "{\"tuiqiao_audit\":";

/// Whether a line ends in the checksum of what comes before it.
bool has_right_checksum(std::string_view line);
/// The checksum of numbers, as in the header.
std::string checksum_of(const void* data, std::size_t size);

/// What lines say. Throws: tuiqiao::Error without file and line.
CertificateHeader parse_header(std::string_view line);
ClassVerdict parse_certificate(std::string_view line, const CertificateHeader& header);

}  // namespace tuiqiao::checking
