#include "file_output.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <fstream>
#include <sstream>
#include <system_error>
#include <utility>

#include "tuiqiao/error.h"

namespace tuiqiao {

namespace {

namespace fs = std::filesystem;

[[noreturn]] void fail(const fs::path& file, int error) {
  throw Error(fmt::format("cannot write {}: {}", file.string(), std::generic_category().message(error)));
}

/// All of `content`, on the disk where there is one; 0 or what went wrong.
int write_and_close(int descriptor, std::string_view content, bool regular) {
  int error = write_all(descriptor, content.data(), content.size());
  if (error == 0 && regular && ::fsync(descriptor) != 0) error = errno;
  return ::close(descriptor) != 0 && error == 0 ? errno : error;
}

}  // namespace

fs::path real_place(const fs::path& file) {
  std::error_code ignored;
  fs::path place = file;
  constexpr int kMostLinks = 40;
  for (int i = 0; i < kMostLinks && fs::is_symlink(fs::symlink_status(place, ignored)); ++i) {
    const fs::path target = fs::read_symlink(place, ignored);
    if (ignored || target.empty()) break;
    place = place.parent_path() / target;  // an absolute target replaces the whole
  }
  return place;
}

TemporaryFile create_temporary(const fs::path& folder, std::string_view before, std::string_view after) {
  static std::atomic<unsigned> serial{0};
  constexpr int kTries = 100;  // a process that died may have left the name, or one on another machine may use it
  TemporaryFile made;
  for (int i = 0; i < kTries && made.descriptor < 0; ++i) {
    made.name = folder / fmt::format("{}{}-{}{}", before, ::getpid(), serial++, after);
    made.descriptor = ::open(made.name.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
    made.error = made.descriptor < 0 ? errno : 0;
    if (made.error != 0 && made.error != EEXIST) break;
  }
  return made;
}

int write_all(int descriptor, const void* data, std::size_t size) {
  const auto* from = static_cast<const char*>(data);
  while (size > 0) {
    const ssize_t written = ::write(descriptor, from, size);
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) return errno;
    from += written;
    size -= static_cast<std::size_t>(written);
  }
  return 0;
}

std::string read_text(const fs::path& file) {
  constexpr std::uintmax_t kMost = std::uintmax_t{1} << 26;
  std::error_code problem;
  if (fs::is_directory(file, problem)) throw Error(fmt::format("{}: a folder, not a file", file.string()));
  const std::uintmax_t size = fs::file_size(file, problem);
  if (!problem && size > kMost) throw Error(fmt::format("{}: {} bytes are too many", file.string(), size));
  std::ifstream in(file, std::ios::binary);
  std::ostringstream text;
  if (in.is_open() && in.peek() != std::ifstream::traits_type::eof()) text << in.rdbuf();
  if (!in.is_open() || in.bad()) throw Error(fmt::format("{}: cannot be read", file.string()));
  return std::move(text).str();
}

void write_file_atomically(const fs::path& file, std::string_view content) {
  struct stat old {};
  const bool exists = ::stat(file.c_str(), &old) == 0;
  if (exists && S_ISDIR(old.st_mode)) fail(file, EISDIR);
  if (exists && !S_ISREG(old.st_mode)) {
    const int descriptor = ::open(file.c_str(), O_WRONLY | O_CLOEXEC);
    const int error = descriptor < 0 ? errno : write_and_close(descriptor, content, false);
    if (error != 0) fail(file, error);
    return;
  }

  const fs::path place = real_place(file);
  const TemporaryFile temporary = create_temporary(place.parent_path(), ".tuiqiao-", ".tmp");
  if (temporary.descriptor < 0) fail(file, temporary.error);
  const int mode_error = exists && ::fchmod(temporary.descriptor, old.st_mode & 0777) != 0 ? errno : 0;
  const int write_error = write_and_close(temporary.descriptor, content, true);
  int error = mode_error != 0 ? mode_error : write_error;
  if (error == 0 && ::rename(temporary.name.c_str(), place.c_str()) != 0) error = errno;
  if (error != 0) {
    ::unlink(temporary.name.c_str());
    fail(file, error);
  }
}

}  // namespace tuiqiao
