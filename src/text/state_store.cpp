#include "tuiqiao/text/state_store.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

#include <algorithm>
#include <cerrno>
#include <exception>
#include <system_error>
#include <utility>

#include "file_output.h"
#include "tuiqiao/error.h"

namespace tuiqiao {

namespace {

namespace fs = std::filesystem;

constexpr std::string_view kSuffix = ".tuiqiao-state";
constexpr std::string_view kTemporarySuffix = ".tuiqiao-state-tmp";
constexpr std::int64_t kLeftoverSeconds = 3600;

/// How a file begins; the key and the blob follow and nothing else. In the machine's byte order: a file from a machine
/// with the other one has a wrong magic.
struct Header {
  std::uint64_t magic = kMagic;
  std::uint64_t key_bytes = 0;
  std::uint64_t blob_bytes = 0;
  std::uint64_t checksum_low = 0;  // of all above, the key and the blob
  std::uint64_t checksum_high = 0;

  static constexpr std::uint64_t kMagic = 0x0100'6F61'6971'7574;  // "tqiao", 0, version 1
  static constexpr std::size_t kSummed = 24;                      // bytes before the checksum
};
static_assert(sizeof(Header) == 40);

class Checksum {
 public:
  explicit Checksum(const Header& header) {
    XXH3_128bits_reset(&state_);
    add(&header, Header::kSummed);
  }
  void add(const void* data, std::size_t size) { XXH3_128bits_update(&state_, data, size); }
  void store(Header& header) const {
    const XXH128_hash_t hash = XXH3_128bits_digest(&state_);
    header.checksum_low = hash.low64;
    header.checksum_high = hash.high64;
  }
  bool matches(const Header& header) const {
    const XXH128_hash_t hash = XXH3_128bits_digest(&state_);
    return header.checksum_low == hash.low64 && header.checksum_high == hash.high64;
  }

 private:
  XXH3_state_t state_;
};

/// An open file.
class Descriptor {
 public:
  explicit Descriptor(int descriptor) : descriptor_(descriptor) {}
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  ~Descriptor() {
    if (descriptor_ >= 0) ::close(descriptor_);
  }
  int get() const { return descriptor_; }
  /// Some systems report only now that a write failed.
  bool close() { return ::close(std::exchange(descriptor_, -1)) == 0; }

 private:
  int descriptor_;
};

[[noreturn]] void fail(const fs::path& path, std::string_view what, int error) {
  throw Error(fmt::format("{}: {}: {}", path.string(), what, std::generic_category().message(error)));
}

bool read_exactly(int descriptor, void* data, std::size_t size) {
  auto* to = static_cast<char*>(data);
  while (size > 0) {
    const ssize_t got = ::read(descriptor, to, size);
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0) return false;
    to += got;
    size -= static_cast<std::size_t>(got);
  }
  return true;
}

/// Reads `size` bytes into `data` and adds them to the sum while they are in the processor's cache.
bool read_summed(int descriptor, std::uint8_t* data, std::size_t size, Checksum& sum) {
  constexpr std::size_t kPiece = std::size_t{1} << 20;
  for (std::size_t at = 0; at < size; at += kPiece) {
    const std::size_t piece = std::min(kPiece, size - at);
    if (!read_exactly(descriptor, data + at, piece)) return false;
    sum.add(data + at, piece);
  }
  return true;
}

enum class Found { whole, other_key, damaged };

/// Reads an open state file of `file_bytes`, and its blob if it is whole and has that key.
Found read_state(int descriptor, std::uint64_t file_bytes, std::string_view key, std::vector<std::uint8_t>& blob) {
  Header header;
  if (file_bytes < sizeof header || !read_exactly(descriptor, &header, sizeof header)) return Found::damaged;
  const std::uint64_t content = file_bytes - sizeof header;
  if (header.magic != Header::kMagic || header.key_bytes > content || header.blob_bytes != content - header.key_bytes) {
    return Found::damaged;
  }
  // The sizes are those of the file from here on, so no claim asks for more memory than the file takes on the disk.
  Checksum sum(header);
  std::vector<std::uint8_t> kept_key(header.key_bytes);
  if (!read_summed(descriptor, kept_key.data(), kept_key.size(), sum)) return Found::damaged;
  blob.resize(header.blob_bytes);
  if (!read_summed(descriptor, blob.data(), blob.size(), sum) || !sum.matches(header)) return Found::damaged;
  const bool same = std::equal(kept_key.begin(), kept_key.end(), key.begin(), key.end(),
                               [](std::uint8_t a, char b) { return a == static_cast<std::uint8_t>(b); });
  return same ? Found::whole : Found::other_key;
}

/// Marks a file as used now, with the clock's full resolution; without leave to do so it stays as old as it is.
void touch(const fs::path& file) {
  timespec now[2];
  if (::clock_gettime(CLOCK_REALTIME, &now[0]) != 0) return;
  now[1] = now[0];
  ::utimensat(AT_FDCWD, file.c_str(), now, AT_SYMLINK_NOFOLLOW);
}

/// A new file of the store; throws where the folder does not take it.
TemporaryFile create_state(const fs::path& folder) {
  TemporaryFile made = create_temporary(folder, "", kTemporarySuffix);
  if (made.descriptor < 0) fail(folder, "cannot write to this folder", made.error);
  return made;
}

/// Writes a whole state file and closes it; 0 or what went wrong.
int write_state(Descriptor file, std::string_view key, std::span<const std::uint8_t> blob) {
  Header header;
  header.key_bytes = key.size();
  header.blob_bytes = blob.size();
  Checksum sum(header);
  sum.add(key.data(), key.size());
  sum.add(blob.data(), blob.size());
  sum.store(header);
  int error = write_all(file.get(), &header, sizeof header);
  if (error == 0) error = write_all(file.get(), key.data(), key.size());
  if (error == 0) error = write_all(file.get(), blob.data(), blob.size());
  return !file.close() && error == 0 ? errno : error;
}

struct Entry {
  fs::path path;
  std::uint64_t bytes;
  std::pair<std::int64_t, std::int64_t> used;  // seconds and nanoseconds
};

/// The regular files of a folder whose names end so; what disappears meanwhile is left out.
std::vector<Entry> entries_of(const fs::path& folder, std::string_view suffix) {
  std::vector<Entry> entries;
  std::error_code error;
  for (fs::directory_iterator i(folder, error), end; !error && i != end; i.increment(error)) {
    struct stat status {};
    if (!i->path().native().ends_with(suffix)) continue;
    if (::lstat(i->path().c_str(), &status) != 0 || !S_ISREG(status.st_mode)) continue;
    entries.push_back(
        {i->path(), static_cast<std::uint64_t>(status.st_size), {status.st_mtim.tv_sec, status.st_mtim.tv_nsec}});
  }
  return entries;
}

/// Removes what writers that died left behind.
void remove_leftovers(const fs::path& folder) {
  const std::int64_t now = ::time(nullptr);
  for (const Entry& entry : entries_of(folder, kTemporarySuffix)) {
    if (entry.used.first < now - kLeftoverSeconds) ::unlink(entry.path.c_str());
  }
}

/// Removes a file if it is still the one that was looked at; another process may have put a good one in its place.
void remove_same(const fs::path& file, const struct stat& looked_at) {
  struct stat now {};
  if (::lstat(file.c_str(), &now) != 0 || now.st_ino != looked_at.st_ino || now.st_dev != looked_at.st_dev) return;
  ::unlink(file.c_str());
}

}  // namespace

StateStore::StateStore(const fs::path& folder, std::uint64_t limit_bytes) : limit_bytes_(limit_bytes) {
  std::error_code error;
  folder_ = fs::absolute(folder, error);  // whoever changes the working folder later does not move the store
  if (error) fail(folder, "cannot be used as a folder", error.value());
  fs::create_directories(folder_, error);
  if (error) fail(folder_, "cannot make this folder", error.value());
  remove_leftovers(folder_);
  const TemporaryFile probe = create_state(folder_);
  ::close(probe.descriptor);
  ::unlink(probe.name.c_str());
  evict(0);  // the limit may be new
}

fs::path StateStore::path_of(std::string_view key) const {
  const XXH128_hash_t hash = XXH3_128bits(key.data(), key.size());
  return folder_ / fmt::format("{:016x}{:016x}{}", hash.high64, hash.low64, kSuffix);
}

std::optional<std::vector<std::uint8_t>> StateStore::load(std::string_view key) {
  const fs::path file = path_of(key);
  struct stat status {};
  if (::lstat(file.c_str(), &status) != 0) {
    ++statistics_.misses;
    return std::nullopt;
  }
  const Descriptor opened(S_ISREG(status.st_mode) ? ::open(file.c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK)
                                                  : -1);
  if (S_ISREG(status.st_mode) && (opened.get() < 0 || ::fstat(opened.get(), &status) != 0)) {
    ++statistics_.misses;  // gone meanwhile, or not ours to read
    return std::nullopt;
  }
  std::vector<std::uint8_t> blob;
  Found found = Found::damaged;
  try {
    if (S_ISREG(status.st_mode))
      found = read_state(opened.get(), static_cast<std::uint64_t>(status.st_size), key, blob);
  } catch (const std::exception&) {  // out of memory: the file may be good
    ++statistics_.misses;
    return std::nullopt;
  }
  if (found == Found::whole) {
    ++statistics_.hits;
    statistics_.loaded_bytes += blob.size();
    touch(file);
    return blob;
  }
  if (found == Found::damaged) remove_same(file, status);
  ++(found == Found::damaged ? statistics_.rejected : statistics_.misses);
  return std::nullopt;
}

void StateStore::save(std::string_view key, std::span<const std::uint8_t> blob) {
  const fs::path file = path_of(key);
  const std::uint64_t bytes = sizeof(Header) + key.size() + blob.size();
  if (limit_bytes_ > 0 && bytes > limit_bytes_) {
    ::unlink(file.c_str());  // what was kept under the key is no longer what the caller wants kept
    return;
  }
  const TemporaryFile made = create_state(folder_);
  const fs::path& temporary = made.name;
  int error = write_state(Descriptor(made.descriptor), key, blob);
  struct stat old {};
  const bool replaces = ::lstat(file.c_str(), &old) == 0;
  if (error == 0 && replaces && S_ISDIR(old.st_mode)) error = EISDIR;  // before others make room for nothing
  if (error == 0) {
    const std::uint64_t freed = replaces && S_ISREG(old.st_mode) ? static_cast<std::uint64_t>(old.st_size) : 0;
    touch(file);  // the old file's room counts as free, so it is the last to go
    evict(bytes - std::min(bytes, freed));
    touch(temporary);
    if (::rename(temporary.c_str(), file.c_str()) != 0) error = errno;
  }
  if (error != 0) {
    ::unlink(temporary.c_str());
    fail(file, "cannot be written", error);
  }
  statistics_.saved_bytes += blob.size();
  evict(0);  // others may have saved meanwhile
}

void StateStore::evict(std::uint64_t needed) {
  if (limit_bytes_ == 0) return;
  std::vector<Entry> entries = entries_of(folder_, kSuffix);
  std::uint64_t total = needed;
  for (const Entry& entry : entries) total += entry.bytes;
  if (total <= limit_bytes_) return;
  std::sort(entries.begin(), entries.end(), [](const Entry& a, const Entry& b) { return a.used < b.used; });
  for (const Entry& entry : entries) {
    if (total <= limit_bytes_) return;
    if (::unlink(entry.path.c_str()) == 0) {
      ++statistics_.evicted;
    } else if (errno != ENOENT) {
      continue;
    }
    total -= entry.bytes;
  }
}

}  // namespace tuiqiao
