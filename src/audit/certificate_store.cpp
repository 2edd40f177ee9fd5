#include "audit/certificate_store.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <fstream>
#include <memory>
#include <nlohmann/json.hpp>
#include <set>
#include <system_error>

#include "audit/certificates.h"
#include "audit_check/certificate_file.h"
#include "file_output.h"
#include "tuiqiao/error.h"

namespace tuiqiao::auditing {

namespace {

constexpr std::size_t kBuffer = std::size_t{1} << 20;
constexpr std::chrono::seconds kHeldBack{1};  // at most, of what a kill would lose

/// The class of a whole line, -1 where it is none.
std::int64_t class_of(const std::string& line) {
  constexpr std::string_view kBefore = "{\"i\":";
  if (!line.starts_with(kBefore) || !checking::has_right_checksum(line)) return -1;
  return std::strtoll(line.c_str() + kBefore.size(), nullptr, 10);
}

}  // namespace

bool begins_like_certificates(const std::filesystem::path& file) {
  std::ifstream in(file, std::ios::binary);
  std::string start(checking::kFirstKey.size(), '\0');
  in.read(start.data(), static_cast<std::streamsize>(start.size()));
  start.resize(static_cast<std::size_t>(in.gcount()));
  return checking::kFirstKey.starts_with(start);
}

CertificateStore::CertificateStore(const std::filesystem::path& file) : file_(real_place(file)) {
  if (std::error_code problem; std::filesystem::exists(file_, problem)) {
    if (!std::filesystem::is_regular_file(file_)) throw Error(fmt::format("{}: no regular file", file.string()));
    if (!begins_like_certificates(file_))
      throw Error(fmt::format("{}: holds something else than certificates, and stays as it is", file.string()));
  }
  partial_ = file_;
  partial_ += ".partial";
  for (;;) {
    descriptor_ = ::open(partial_.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0666);
    if (descriptor_ < 0) fail(errno);
    if (::flock(descriptor_, LOCK_EX | LOCK_NB) != 0) {
      ::close(descriptor_);
      throw Error(fmt::format("{}: another run is writing it", partial_.string()));
    }
    // A run that ended between the two has given the file its name: what was opened is its result.
    struct stat opened {
    }, named{};
    if (::fstat(descriptor_, &opened) == 0 && ::stat(partial_.c_str(), &named) == 0 && opened.st_ino == named.st_ino)
      break;
    ::close(descriptor_);
  }
  try {
    take_up();
  } catch (...) {
    ::close(descriptor_);
    throw;
  }
}

CertificateStore::~CertificateStore() {
  if (descriptor_ < 0) return;
  const int ignored = write_all(descriptor_, buffer_.data(), buffer_.size());
  static_cast<void>(ignored);  // the lines that it cuts are made again
  const bool empty = ::lseek(descriptor_, 0, SEEK_END) == 0;
  ::close(descriptor_);
  if (empty) ::unlink(partial_.c_str());
}

void CertificateStore::fail(int error) const {
  throw Error(fmt::format("cannot write {}: {}", partial_.string(), std::generic_category().message(error)));
}

/// Keeps the whole lines that an earlier run left.
void CertificateStore::take_up() {
  if (!begins_like_certificates(partial_))
    throw Error(fmt::format("{}: holds something else than certificates", partial_.string()));
  std::ifstream in(partial_, std::ios::binary);
  std::string line;
  std::int64_t size = 0;
  for (bool first = true; std::getline(in, line) && !in.eof(); first = false) {
    if (first) {
      if (!checking::has_right_checksum(line)) break;
      header_ = line;
    } else {
      const std::int64_t i = class_of(line);
      if (i < next_) break;
      next_ = i + 1;
      ++kept_;
    }
    size += static_cast<std::int64_t>(line.size()) + 1;
  }
  if (::ftruncate(descriptor_, size) != 0 || ::lseek(descriptor_, 0, SEEK_END) < 0) fail(errno);
}

std::vector<std::string> CertificateStore::lines() const {
  std::ifstream in(partial_, std::ios::binary);
  std::vector<std::string> lines;
  std::string line;
  std::getline(in, line);
  while (std::getline(in, line)) lines.push_back(line);
  return lines;
}

void CertificateStore::refuse_other(const std::filesystem::path& file) {
  throw Error(
      fmt::format("{}: holds certificates of other weights or options, and stays as it is: delete it or name another "
                  "file",
                  file.string()));
}

void CertificateStore::spare_others(const std::string& header) const {
  std::ifstream in(file_, std::ios::binary);
  std::string first;
  if (std::getline(in, first) && first != header) refuse_other(file_);
}

void CertificateStore::begin(const std::string& header) {
  spare_others(header);
  if (header_ == header) return;
  if (!header_.empty()) refuse_other(partial_);
  restart(header);
}

void CertificateStore::clear() {
  if (::ftruncate(descriptor_, 0) != 0 || ::lseek(descriptor_, 0, SEEK_SET) < 0) fail(errno);
  header_.clear();
  buffer_.clear();
  next_ = kept_ = 0;
}

void CertificateStore::restart(const std::string& header) {
  spare_others(header);
  clear();
  header_ = header;
  buffer_ = header + "\n";
  flush();
}

void CertificateStore::add(std::int64_t i, std::string_view line) {
  buffer_ += line;
  buffer_ += '\n';
  next_ = i + 1;
  if (buffer_.size() >= kBuffer || std::chrono::steady_clock::now() - flushed_ > kHeldBack) flush();
}

void CertificateStore::flush() {
  if (const int error = write_all(descriptor_, buffer_.data(), buffer_.size()); error != 0) {
    buffer_.clear();
    fail(error);
  }
  buffer_.clear();
  flushed_ = std::chrono::steady_clock::now();
}

void CertificateStore::finish() {
  flush();
  int error = ::fsync(descriptor_) != 0 ? errno : 0;
  if (error == 0 && ::rename(partial_.c_str(), file_.c_str()) != 0) error = errno;
  if (error != 0) fail(error);
  ::close(descriptor_);
  descriptor_ = -1;
}

void spare_other_head(const std::filesystem::path& file, const OutputHead& head) {
  std::error_code problem;
  if (!std::filesystem::exists(file, problem)) return;
  CertificateStore store(file);  // looks at what is there
  if (std::filesystem::is_empty(file, problem)) return;
  const checking::CertificateReader reader(file);
  if (reader.header().frame.classes == head.classes && reader.header().head_columns == head.columns &&
      reader.header().rows_crc == checking::checksum_of(head.rows.data(), head.rows.size() * sizeof(float)))
    return;
  CertificateStore::refuse_other(file);
}

std::array<std::int64_t, 4> merge_certificates(const std::vector<std::filesystem::path>& shards,
                                               const std::filesystem::path& file) {
  using nlohmann::ordered_json;
  struct Source {
    std::unique_ptr<checking::CertificateReader> reader;
    std::optional<ClassVerdict> verdict;
  };
  std::vector<Source> sources;
  ordered_json whole;
  std::int64_t count = 0;
  std::set<std::int64_t> parts;
  for (const std::filesystem::path& path : shards) {
    Source source{std::make_unique<checking::CertificateReader>(path), {}};
    const checking::CertificateHeader& header = source.reader->header();
    ordered_json own = ordered_json::parse(source.reader->header_text());
    for (const char* key : {"shard", "count", "crc"}) own.erase(key);
    if (whole.is_null()) whole = own;
    if (own != whole) throw Error(fmt::format("{}: of another audit than {}", path.string(), shards[0].string()));
    if (header.shard_parts != static_cast<std::int64_t>(shards.size()))
      throw Error(
          fmt::format("{}: one of {} shards, but {} were given", path.string(), header.shard_parts, shards.size()));
    if (!parts.insert(header.shard_part).second)
      throw Error(fmt::format("{}: shard {} for the second time", path.string(), header.shard_part));
    count += header.count;
    source.verdict = source.reader->next();
    sources.push_back(std::move(source));
  }
  if (sources.empty()) throw Error("no shards to merge");
  if (count != whole["classes"].get<std::int64_t>())
    throw Error(fmt::format("the shards hold {} of {} classes", count, whole["classes"].get<std::int64_t>()));
  ordered_json header;
  for (const auto& [key, value] : whole.items()) {
    header[key] = value;
    if (key == "columns") header["count"] = count;
  }
  CertificateStore store(file);
  std::array<std::int64_t, 4> counts{};
  store.restart(with_checksum(header.dump()));
  try {
    for (std::int64_t i = 0; i < count; ++i) {
      const auto it = std::find_if(sources.begin(), sources.end(),
                                   [&](const Source& one) { return one.verdict && one.verdict->i == i; });
      if (it == sources.end()) throw Error(fmt::format("class {} is in none of the shards", i));
      store.add(i, it->reader->text());
      ++counts[static_cast<std::size_t>(it->verdict->verdict)];
      it->verdict = it->reader->next();
    }
  } catch (...) {
    store.clear();  // nothing that another run could go on from
    throw;
  }
  store.finish();
  return counts;
}

}  // namespace tuiqiao::auditing
