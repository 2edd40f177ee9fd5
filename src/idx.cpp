#include "tuiqiao/idx.h"

#include <fmt/format.h>
#include <zlib.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <memory>

namespace tuiqiao {

namespace {

/// A file, unpacked where it is packed.
class Stream {
 public:
  explicit Stream(const std::filesystem::path& file) : name_(file.string()) {
    std::error_code problem;
    if (std::filesystem::is_directory(file, problem)) refuse("is a folder");
    errno = 0;
    file_.reset(gzopen(name_.c_str(), "rb"));
    if (!file_) refuse(errno != 0 ? std::strerror(errno) : "cannot be opened");
  }

  [[noreturn]] void refuse(const std::string& problem) const { throw Error(fmt::format("{}: {}", name_, problem)); }

  /// Fewer than asked for only at the end. Throws on damaged packing.
  std::size_t read(std::uint8_t* to, std::size_t size) {
    std::size_t done = 0;
    while (done < size) {
      const int got =
          gzread(file_.get(), to + done, static_cast<unsigned>(std::min(size - done, std::size_t{1} << 20)));
      if (got <= 0) {
        int code = Z_OK;
        const char* what = gzerror(file_.get(), &code);
        if (code != Z_OK && code != Z_STREAM_END) refuse(code == Z_ERRNO ? std::strerror(errno) : what);
        break;
      }
      done += static_cast<std::size_t>(got);
    }
    return done;
  }

 private:
  struct Close {
    void operator()(gzFile file) const { gzclose(file); }
  };
  std::string name_;
  std::unique_ptr<gzFile_s, Close> file_;
};

}  // namespace

IdxArray read_idx(const std::filesystem::path& file) {
  Stream stream(file);
  std::array<std::uint8_t, 4> word{};
  if (stream.read(word.data(), 4) < 4 || word[0] != 0 || word[1] != 0) stream.refuse("is no IDX file");
  if (word[2] != 8) stream.refuse(fmt::format("holds IDX type {:#04x}, not unsigned bytes (0x08)", word[2]));
  IdxArray array;
  const int sides = word[3];
  std::int64_t size = 1;
  for (int i = 0; i < sides; ++i) {
    if (stream.read(word.data(), 4) < 4) stream.refuse("ends inside the IDX header");
    const std::int64_t side = std::int64_t{word[0]} << 24 | word[1] << 16 | word[2] << 8 | word[3];
    if (side > 0 && size > kMostIdxBytes / side) stream.refuse(fmt::format("claims more than {} bytes", kMostIdxBytes));
    size *= side;
    array.shape.push_back(side);
  }
  if (sides == 0) size = 0;
  // Grows as bytes come: what the header claims is not believed before.
  constexpr std::int64_t kStep = std::int64_t{1} << 24;
  for (std::int64_t at = 0; at < size; at += kStep) {
    const std::int64_t wanted = std::min(kStep, size - at);
    array.values.resize(static_cast<std::size_t>(at + wanted));
    const std::size_t got = stream.read(array.values.data() + at, static_cast<std::size_t>(wanted));
    if (static_cast<std::int64_t>(got) < wanted)
      stream.refuse(fmt::format("ends after {} of {} bytes of data", at + static_cast<std::int64_t>(got), size));
  }
  if (stream.read(word.data(), 1) > 0) stream.refuse(fmt::format("goes on after {} bytes of data", size));
  return array;
}

}  // namespace tuiqiao
