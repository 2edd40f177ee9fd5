#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace tuiqiao {

/// Blobs on disk by key: the key-value caches of documents that were read before. A blob comes back only if it was
/// written whole, under the same key, and has not changed since; anything else counts as absent and is removed.
///
/// A file holds a magic and version, the whole key (not only its hash), the sizes, the blob and a checksum of all of it
/// (XXH3, 128 bit). It is written beside its place and renamed into it, so an interrupted run leaves no half file.
/// Threads and processes may share a folder; each object is used by one thread at a time.
class StateStore {
 public:
  struct Statistics {
    int hits = 0;
    int misses = 0;    ///< absent
    int rejected = 0;  ///< found, but damaged, foreign or half-written; removed
    int evicted = 0;   ///< removed to stay within the limit
    std::uint64_t loaded_bytes = 0;
    std::uint64_t saved_bytes = 0;
  };

  /// `limit_bytes` bounds the folder's blobs, least recently used first out; 0 for no limit.
  /// Throws: tuiqiao::Error when the folder cannot be made or written to.
  explicit StateStore(const std::filesystem::path& folder, std::uint64_t limit_bytes = 0);

  /// The blob kept under `key`, or nothing. Never throws for a bad file.
  std::optional<std::vector<std::uint8_t>> load(std::string_view key);
  /// Keeps a blob; makes room first. One larger than the limit is not kept.
  /// Throws: tuiqiao::Error when the disk refuses; the store is as before then.
  void save(std::string_view key, std::span<const std::uint8_t> blob);

  /// Counted since the object was made.
  const Statistics& statistics() const { return statistics_; }

 private:
  std::filesystem::path path_of(std::string_view key) const;
  void evict(std::uint64_t needed);

  std::filesystem::path folder_;
  std::uint64_t limit_bytes_;
  Statistics statistics_;
};

}  // namespace tuiqiao
