#include "tuiqiao/text/state_store.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <csignal>
#include <fstream>
#include <functional>
#include <iterator>
#include <thread>

#include "tuiqiao/error.h"

namespace tuiqiao {
namespace {

namespace fs = std::filesystem;
using Blob = std::vector<std::uint8_t>;

constexpr std::uint64_t kHeader = 40;  // bytes of a file beside key and blob
constexpr const char* kSuffix = ".tuiqiao-state";
constexpr const char* kTemporarySuffix = ".tuiqiao-state-tmp";

Blob blob_of(std::size_t size, unsigned seed = 1) {
  Blob blob(size);
  for (std::uint8_t& byte : blob) byte = static_cast<std::uint8_t>((seed = seed * 1664525U + 1013904223U) >> 24);
  return blob;
}

std::string error_of(const std::function<void()>& work) {
  try {
    work();
  } catch (const Error& error) {
    EXPECT_EQ(std::string(error.what()).find('\n'), std::string::npos);
    return error.what();
  }
  return "no error";
}

/// A folder of its own for each test, also where tests run at once.
class StateStoreTest : public testing::Test {
 protected:
  void SetUp() override {
    std::string name = (fs::temp_directory_path() / "tuiqiao-store-XXXXXX").string();
    ASSERT_NE(::mkdtemp(name.data()), nullptr);
    folder_ = name;
  }
  void TearDown() override { fs::remove_all(folder_); }

  std::vector<fs::path> files(std::string_view suffix) const {
    std::vector<fs::path> found;
    for (const auto& entry : fs::directory_iterator(folder_)) {
      if (entry.path().native().ends_with(suffix)) found.push_back(entry.path());
    }
    return found;
  }
  /// Where a store keeps `key`: learnt from a store of its own.
  fs::path place_of(std::string_view key) const {
    const fs::path other = folder_ / "other";
    StateStore(other).save(key, {});
    const fs::path name = fs::directory_iterator(other)->path().filename();
    fs::remove_all(other);
    return folder_ / name;
  }
  static std::string content(const fs::path& file) {
    std::ifstream in(file, std::ios::binary);
    return {std::istreambuf_iterator<char>(in), {}};
  }
  static void write(const fs::path& file, std::string_view bytes) { std::ofstream(file, std::ios::binary) << bytes; }
  static void age(const fs::path& file, std::int64_t seconds) {
    fs::last_write_time(file, fs::file_time_type::clock::now() - std::chrono::seconds(seconds));
  }

  fs::path folder_;
};

void expect_statistics(const StateStore& store, int hits, int misses, int rejected, int evicted) {
  const StateStore::Statistics& s = store.statistics();
  EXPECT_EQ((std::vector{s.hits, s.misses, s.rejected, s.evicted}), (std::vector{hits, misses, rejected, evicted}));
}

TEST_F(StateStoreTest, GivesBackWhatWasSaved) {
  StateStore store(folder_ / "new" / "folder");
  const std::string zeros("a\0b\n/..", 7);
  const std::vector<std::pair<std::string, Blob>> kept{{"key", blob_of(1000)},
                                                       {"", blob_of(3)},
                                                       {"empty", {}},
                                                       {zeros, blob_of(5)},
                                                       {std::string(100000, 'k'), blob_of(3 << 20)}};
  for (const auto& [key, blob] : kept) {
    EXPECT_FALSE(store.load(key).has_value());
    store.save(key, blob);
    EXPECT_EQ(store.load(key), blob);
  }
  for (const auto& [key, blob] : kept) EXPECT_EQ(StateStore(folder_ / "new" / "folder").load(key), blob);
  store.save("key", blob_of(10, 2));
  EXPECT_EQ(store.load("key"), blob_of(10, 2));
  EXPECT_FALSE(store.load("Key").has_value());
  expect_statistics(store, 6, 6, 0, 0);
}

TEST_F(StateStoreTest, LeavesNothingButItsFiles) {
  StateStore store(folder_);
  store.save("a", blob_of(100));
  store.save("a", blob_of(200));
  store.save("b", blob_of(300));
  EXPECT_EQ(std::distance(fs::directory_iterator(folder_), fs::directory_iterator()), 2);
  EXPECT_EQ(files(kSuffix).size(), 2U);
  EXPECT_EQ(fs::file_size(place_of("b")), kHeader + 1 + 300);
}

TEST_F(StateStoreTest, StaysWhereItWasWhenTheWorkingFolderChanges) {
  const fs::path before = fs::current_path();
  fs::current_path(folder_);
  StateStore store("cache");
  fs::current_path("/");
  store.save("a", blob_of(10));
  fs::current_path(before);
  EXPECT_EQ(StateStore(folder_ / "cache").load("a"), blob_of(10));
}

TEST_F(StateStoreTest, NoticesEveryDamage) {
  const std::string key = "the key";
  const fs::path file = place_of(key);
  StateStore store(folder_);
  store.save(key, blob_of(50));
  const std::string good = content(file);
  ASSERT_EQ(good.size(), kHeader + key.size() + 50);
  int damages = 0;
  const auto probe = [&](const std::string& bytes, const std::string& what) {
    write(file, bytes);
    EXPECT_FALSE(store.load(key).has_value()) << what;
    EXPECT_FALSE(fs::exists(file)) << what;
    ++damages;
  };
  for (std::size_t i = 0; i < good.size(); ++i) {
    for (int bit = 0; bit < 8; ++bit) {
      std::string bytes = good;
      bytes[i] = static_cast<char>(bytes[i] ^ (1 << bit));
      probe(bytes, fmt::format("bit {} of byte {}", bit, i));
    }
    std::string bytes = good;
    bytes[i] = static_cast<char>(~bytes[i]);
    probe(bytes, fmt::format("byte {}", i));
    probe(good.substr(0, i), fmt::format("cut to {}", i));
    probe(good.substr(0, i) + std::string(good.size() - i, '\0'), fmt::format("zeros from {}", i));
    if (i > 0) probe(good.substr(i), fmt::format("without the first {}", i));
    if (i > 0) probe(good.substr(i) + good.substr(0, i), fmt::format("turned by {}", i));
  }
  for (const std::size_t more : {1U, 40U, 5000U}) probe(good + std::string(more, '\0'), fmt::format("{} more", more));
  probe(good + good, "twice");
  std::string swapped = good;
  std::swap(swapped[kHeader + 10], swapped[kHeader + 11]);
  probe(swapped, "swapped");
  expect_statistics(store, 0, 0, damages, 0);
  write(file, good);
  EXPECT_EQ(store.load(key), blob_of(50));
}

/// Sizes that are absurd, overflow when added, or just do not match: no memory is asked for on their word.
TEST_F(StateStoreTest, DoesNotBelieveClaims) {
  const fs::path file = place_of("k");
  StateStore store(folder_);
  store.save("k", blob_of(20));
  const std::string good = content(file);
  int claims = 0;
  for (const std::uint64_t key_bytes : {std::uint64_t{0}, std::uint64_t{1}, std::uint64_t{21}, std::uint64_t{22},
                                        std::uint64_t{1} << 40, ~std::uint64_t{0}, ~std::uint64_t{0} - 39}) {
    for (const std::uint64_t blob_bytes : {std::uint64_t{0}, std::uint64_t{20}, std::uint64_t{21}, std::uint64_t{22},
                                           std::uint64_t{1} << 40, std::uint64_t{1} << 63, ~std::uint64_t{0}}) {
      if (key_bytes == 1 && blob_bytes == 20) continue;
      std::string bytes = good;
      for (std::size_t i = 0; i < 8; ++i) {
        bytes[8 + i] = static_cast<char>(key_bytes >> (8 * i));
        bytes[16 + i] = static_cast<char>(blob_bytes >> (8 * i));
      }
      write(file, bytes);
      EXPECT_FALSE(store.load("k").has_value());
      EXPECT_FALSE(fs::exists(file));
      ++claims;
    }
  }
  expect_statistics(store, 0, 0, claims, 0);
}

TEST_F(StateStoreTest, BearsStrangeThingsInItsPlace) {
  const fs::path file = place_of("k");
  StateStore store(folder_);
  ASSERT_EQ(::mkfifo(file.c_str(), 0600), 0);
  EXPECT_FALSE(store.load("k").has_value());
  EXPECT_FALSE(fs::exists(fs::symlink_status(file)));
  write(folder_ / "mine", "x");
  fs::create_symlink(folder_ / "mine", file);
  EXPECT_FALSE(store.load("k").has_value());
  EXPECT_FALSE(fs::exists(fs::symlink_status(file)));
  EXPECT_EQ(content(folder_ / "mine"), "x");
  fs::create_directory(file);
  EXPECT_FALSE(store.load("k").has_value());
  expect_statistics(store, 0, 0, 3, 0);
  const std::string what = error_of([&] { store.save("k", blob_of(3)); });
  EXPECT_EQ(what, file.string() + ": cannot be written: Is a directory");
  EXPECT_TRUE(files(kTemporarySuffix).empty());
}

TEST_F(StateStoreTest, TakesACollisionForAbsence) {
  StateStore store(folder_);
  store.save("one", blob_of(30));
  const fs::path one = place_of("one"), two = place_of("two");
  fs::copy_file(one, two);  // as if both keys had the same hash
  EXPECT_FALSE(store.load("two").has_value());
  expect_statistics(store, 0, 1, 0, 0);
  EXPECT_EQ(content(two), content(one));
  store.save("two", blob_of(40));
  EXPECT_EQ(store.load("two"), blob_of(40));
  EXPECT_EQ(store.load("one"), blob_of(30));
  fs::copy_file(one, two, fs::copy_options::overwrite_existing);
  std::string damaged = content(two);
  damaged.back() = static_cast<char>(damaged.back() ^ 1);
  write(two, damaged);
  EXPECT_FALSE(store.load("two").has_value());
  expect_statistics(store, 2, 1, 1, 0);
  EXPECT_FALSE(fs::exists(two));
}

TEST_F(StateStoreTest, KeepsWithinTheLimitLeastRecentlyUsedFirst) {
  const std::uint64_t each = kHeader + 1 + 100;
  StateStore store(folder_, 3 * each);
  for (const char* key : {"a", "b", "c"}) store.save(key, blob_of(100));
  expect_statistics(store, 0, 0, 0, 0);
  EXPECT_TRUE(store.load("a").has_value());  // b is the oldest now
  store.save("d", blob_of(100));
  expect_statistics(store, 1, 0, 0, 1);
  EXPECT_FALSE(store.load("b").has_value());
  EXPECT_TRUE(store.load("a").has_value());
  store.save("e", blob_of(200));  // c and d go: their room is needed
  expect_statistics(store, 2, 1, 0, 3);
  EXPECT_TRUE(store.load("a").has_value());
  EXPECT_EQ(store.load("e"), blob_of(200));
  store.save("e", blob_of(201));  // takes its own place and one byte
  EXPECT_EQ(store.statistics().evicted, 3);
  EXPECT_TRUE(store.load("a").has_value());
  store.save("e", blob_of(260));
  EXPECT_EQ(store.statistics().evicted, 4);
  EXPECT_EQ(store.load("e"), blob_of(260));
  EXPECT_EQ(files(kSuffix).size(), 1U);
}

TEST_F(StateStoreTest, KeepsWhatJustFitsAndNothingLarger) {
  const std::uint64_t limit = kHeader + 1 + 100;
  StateStore store(folder_, limit);
  store.save("a", blob_of(100));
  EXPECT_TRUE(store.load("a").has_value());
  store.save("b", blob_of(101));
  EXPECT_FALSE(store.load("b").has_value());
  EXPECT_TRUE(store.load("a").has_value());
  expect_statistics(store, 2, 1, 0, 0);
  store.save("a", blob_of(101));  // what is there is outdated and what is new too large
  EXPECT_FALSE(store.load("a").has_value());
  StateStore none(folder_, 1);
  none.save("a", {});
  EXPECT_TRUE(files(kSuffix).empty());
}

/// The time of use orders files even if they were saved within one tick of the kernel's clock.
TEST_F(StateStoreTest, OrdersByUseAtFullResolution) {
  constexpr int kFiles = 50;
  StateStore store(folder_);
  for (int i = 0; i < kFiles; ++i) store.save(fmt::format("{:02}", i), {});
  for (int i = kFiles - 1; i >= 0; --i) EXPECT_TRUE(store.load(fmt::format("{:02}", i)).has_value());
  StateStore small(folder_, 10 * (kHeader + 2));
  small.save("00", {});
  EXPECT_EQ(small.statistics().evicted, kFiles - 10);
  for (int i = 0; i < kFiles; ++i) EXPECT_EQ(fs::exists(place_of(fmt::format("{:02}", i))), i < 10) << i;
}

TEST_F(StateStoreTest, CountsBytes) {
  StateStore store(folder_, 500);
  store.save("a", blob_of(100));
  store.save("large", blob_of(600));  // is not kept
  for (int i = 0; i < 3; ++i) store.load("a");
  EXPECT_EQ(store.statistics().saved_bytes, 100U);
  EXPECT_EQ(store.statistics().loaded_bytes, 300U);
}

TEST_F(StateStoreTest, LeavesForeignFilesAlone) {
  write(folder_ / "notes.txt", std::string(100000, 'x'));
  write(folder_ / "old.tmp", "x");
  age(folder_ / "notes.txt", 1 << 20);
  age(folder_ / "old.tmp", 1 << 20);
  fs::create_directory(folder_ / (std::string("folder") + kSuffix));
  fs::create_symlink(folder_ / "notes.txt", folder_ / (std::string("link") + kSuffix));
  StateStore store(folder_, kHeader + 1 + 50);
  store.save("a", blob_of(50));
  store.save("b", blob_of(50));
  EXPECT_EQ(store.load("b"), blob_of(50));
  expect_statistics(store, 1, 0, 0, 1);
  EXPECT_TRUE(fs::exists(folder_ / "notes.txt"));
  EXPECT_TRUE(fs::exists(folder_ / "old.tmp"));
  EXPECT_EQ(files(kSuffix).size(), 3U);
}

TEST_F(StateStoreTest, RemovesOldLeftovers) {
  const fs::path old = folder_ / (std::string("123-0") + kTemporarySuffix),
                 young = folder_ / (std::string("124-0") + kTemporarySuffix);
  write(old, "half");
  write(young, "half");
  age(old, 3700);
  age(young, 3500);
  StateStore store(folder_, 100);
  EXPECT_FALSE(fs::exists(old));
  EXPECT_TRUE(fs::exists(young));
  store.save("a", blob_of(59));  // leftovers take no part in the limit
  EXPECT_TRUE(fs::exists(young));
  expect_statistics(store, 0, 0, 0, 0);
}

TEST_F(StateStoreTest, RefusesFoldersThatCannotBeUsed) {
  write(folder_ / "file", "x");
  EXPECT_EQ(error_of([&] { StateStore store(folder_ / "file"); }).find((folder_ / "file").string() + ": "), 0U);
  EXPECT_EQ(error_of([&] { StateStore store(folder_ / "file" / "below"); }),
            (folder_ / "file" / "below").string() + ": cannot make this folder: Not a directory");
  EXPECT_NE(error_of([&] { StateStore store(""); }), "no error");
  EXPECT_EQ(error_of([&] { StateStore store("/proc/self"); }).find("/proc/self: cannot write to this folder: "), 0U);
  if (::geteuid() != 0) {
    fs::permissions(folder_, fs::perms::owner_read | fs::perms::owner_exec);
    EXPECT_EQ(error_of([&] { StateStore store(folder_); }),
              folder_.string() + ": cannot write to this folder: Permission denied");
    fs::permissions(folder_, fs::perms::owner_all);
  }
}

/// Stands for a full disk: no file may grow beyond a size.
TEST_F(StateStoreTest, StaysAsItWasWhenTheDiskRefuses) {
  const fs::path file = place_of("a");
  StateStore store(folder_, 200000);
  store.save("a", blob_of(1000));
  store.save("b", blob_of(150000));
  rlimit before{};
  ASSERT_EQ(::getrlimit(RLIMIT_FSIZE, &before), 0);
  const auto handler = std::signal(SIGXFSZ, SIG_IGN);
  const rlimit low{65536, before.rlim_max};
  ASSERT_EQ(::setrlimit(RLIMIT_FSIZE, &low), 0);
  const std::string what = error_of([&] { store.save("a", blob_of(100000)); });
  ::setrlimit(RLIMIT_FSIZE, &before);
  std::signal(SIGXFSZ, handler);
  EXPECT_EQ(what, file.string() + ": cannot be written: File too large");
  EXPECT_TRUE(files(kTemporarySuffix).empty());
  EXPECT_EQ(store.load("a"), blob_of(1000));
  EXPECT_EQ(store.load("b"), blob_of(150000));
  expect_statistics(store, 2, 0, 0, 0);
  fs::remove_all(folder_);
  EXPECT_EQ(error_of([&] { store.save("a", blob_of(10)); }),
            folder_.string() + ": cannot write to this folder: No such file or directory");
  EXPECT_FALSE(store.load("a").has_value());
}

/// Saves and loads a few keys at random; a blob that comes back must be one that somebody saved whole under the key.
bool work(const fs::path& folder, unsigned seed, std::uint64_t limit) {
  StateStore store(folder, limit);
  for (int turn = 0; turn < 150; ++turn) {
    seed = seed * 1664525U + 1013904223U;
    const unsigned key = (seed >> 24) % 5, version = (seed >> 16) % 7;
    const std::string name = fmt::format("key {}", key);
    if (seed >> 31) {
      store.save(name, blob_of(1000 + 20000 * version, key * 10 + version));
    } else if (const auto blob = store.load(name)) {
      const auto held = static_cast<unsigned>((blob->size() - 1000) / 20000);
      if (*blob != blob_of(blob->size(), key * 10 + held)) return false;
    }
  }
  return store.statistics().rejected == 0;
}

TEST_F(StateStoreTest, ThreadsShareAFolder) {
  for (const std::uint64_t limit : {std::uint64_t{0}, std::uint64_t{200000}}) {
    std::atomic<int> good{0};
    std::vector<std::jthread> threads;
    for (unsigned i = 0; i < 4; ++i) threads.emplace_back([&, i] { good += work(folder_, i, limit); });
    threads.clear();
    EXPECT_EQ(good, 4);
    EXPECT_TRUE(files(kTemporarySuffix).empty());
  }
  std::uint64_t total = 0;
  for (const fs::path& file : files(kSuffix)) total += fs::file_size(file);
  EXPECT_LE(total, 200000U);
  EXPECT_GT(total, 0U);
}

TEST_F(StateStoreTest, ProcessesShareAFolder) {
  std::vector<pid_t> children;
  for (unsigned i = 0; i < 3; ++i) {
    const pid_t child = ::fork();
    ASSERT_GE(child, 0);
    if (child == 0) {
      bool good = false;
      try {
        good = work(folder_, 100 + i, 250000);
      } catch (...) {
      }
      ::_exit(good ? 0 : 1);
    }
    children.push_back(child);
  }
  EXPECT_TRUE(work(folder_, 99, 250000));
  for (const pid_t child : children) {
    int status = -1;
    ASSERT_EQ(::waitpid(child, &status, 0), child);
    EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0) << status;
  }
  EXPECT_TRUE(files(kTemporarySuffix).empty());
}

/// A writer that is killed at any moment leaves the old blob or the new one, and a store that works.
TEST_F(StateStoreTest, KilledWritersLeaveNoHalfBlob) {
  const Blob old = blob_of(1 << 20, 1), fresh = blob_of(3 << 20, 2);
  StateStore store(folder_);
  store.save("a", old);
  for (int turn = 0; turn < 20; ++turn) {
    const pid_t child = ::fork();
    ASSERT_GE(child, 0);
    if (child == 0) {
      StateStore writer(folder_);
      for (;;) {
        writer.save("a", fresh);
        writer.save("a", old);
      }
    }
    std::this_thread::sleep_for(std::chrono::microseconds(500 * turn));
    ::kill(child, SIGKILL);
    ASSERT_EQ(::waitpid(child, nullptr, 0), child);
    const auto blob = store.load("a");
    ASSERT_TRUE(blob.has_value());
    EXPECT_TRUE(*blob == old || *blob == fresh);
  }
  EXPECT_EQ(store.statistics().rejected, 0);
  for (const fs::path& file : files(kTemporarySuffix)) age(file, 7200);
  StateStore later(folder_);
  EXPECT_TRUE(files(kTemporarySuffix).empty());
}

}  // namespace
}  // namespace tuiqiao
