#pragma once

#include <array>
#include <chrono>
#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include "tuiqiao/audit.h"

namespace tuiqiao::auditing {

/// Whether a file may be of certificates, by its first bytes; an empty one may.
bool begins_like_certificates(const std::filesystem::path& file);

/// Writes a certificates file: lines go to FILE.partial as they come, which becomes FILE when all are there. What a run
/// that was killed left behind is taken up again, up to its last whole line.
class CertificateStore {
 public:
  /// Opens FILE.partial. Throws: tuiqiao::Error where it cannot be written or another run writes it, and where FILE is
  /// there and no certificates file (an empty one may be replaced).
  explicit CertificateStore(const std::filesystem::path& file);
  ~CertificateStore();
  CertificateStore(const CertificateStore&) = delete;
  CertificateStore& operator=(const CertificateStore&) = delete;

  /// The first class without a line; 0 for a new file.
  std::int64_t next() const { return next_; }
  /// How many classes have one.
  std::int64_t kept() const { return kept_; }
  /// The lines of an earlier run, without the header.
  std::vector<std::string> lines() const;

  /// Sets the first line, or finds that an earlier run's is the same.
  /// Throws: tuiqiao::Error where FILE or FILE.partial holds another audit's certificates.
  void begin(const std::string& header);
  /// Sets the first line of a file without others. Throws: as begin.
  void restart(const std::string& header);
  void add(std::int64_t i, std::string_view line);
  /// Forgets all lines.
  void clear();
  /// Writes what is held back.
  void flush();
  /// Throws: tuiqiao::Error.
  void finish();
  /// Says that a file is another audit's. Throws: tuiqiao::Error.
  [[noreturn]] static void refuse_other(const std::filesystem::path& file);

 private:
  void take_up();
  /// Throws where the finished file is not of this header.
  void spare_others(const std::string& header) const;
  [[noreturn]] void fail(int error) const;

  std::filesystem::path file_, partial_;
  int descriptor_ = -1;
  std::string header_, buffer_;
  std::int64_t next_ = 0, kept_ = 0;
  std::chrono::steady_clock::time_point flushed_ = std::chrono::steady_clock::now();
};

/// Throws: tuiqiao::Error where a file is there that a store would not replace, as far as the head alone tells: it
/// holds something else than certificates, or those of other weights.
void spare_other_head(const std::filesystem::path& file, const OutputHead& head);

/// Joins the certificates of all shards into those of the whole, and tells how many have each verdict.
/// Throws: tuiqiao::Error where they do not belong together or one is missing or damaged.
std::array<std::int64_t, 4> merge_certificates(const std::vector<std::filesystem::path>& shards,
                                               const std::filesystem::path& file);

}  // namespace tuiqiao::auditing
