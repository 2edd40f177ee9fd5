#pragma once

#include <cstddef>
#include <filesystem>
#include <string>
#include <string_view>

namespace tuiqiao {

/// Where the bytes of `file` belong: behind symbolic links, even if nothing is there yet.
std::filesystem::path real_place(const std::filesystem::path& file);

/// A new file, open for writing (the process's umask applies); `descriptor` is -1 where it could not be made.
struct TemporaryFile {
  std::filesystem::path name;
  int descriptor = -1;
  int error = 0;
};
/// Makes one in `folder` under a name that nobody else uses: `before`, numbers of this process, `after`.
TemporaryFile create_temporary(const std::filesystem::path& folder, std::string_view before, std::string_view after);

/// Writes all of `data`; 0 or what went wrong.
int write_all(int descriptor, const void* data, std::size_t size);

/// Writes a whole file beside its place and renames it into it: readers and interrupted runs see the old file or the
/// new one. An existing file keeps its permissions, a symbolic link keeps pointing to its target; what is no regular
/// file (/dev/stdout, a named pipe) is written to directly. Threads: may be called at once.
/// Throws: tuiqiao::Error "cannot write FILE: REASON"; nothing is left beside the file then.
void write_file_atomically(const std::filesystem::path& file, std::string_view content);

/// All bytes of a text file of settings. Throws: tuiqiao::Error "FILE: ..." where it cannot be read, is a folder, or is
/// larger than such a file can be.
std::string read_text(const std::filesystem::path& file);

}  // namespace tuiqiao
