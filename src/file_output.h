#pragma once

#include <filesystem>
#include <string_view>

namespace tuiqiao {

/// Writes a whole file beside its place and renames it into it: readers and interrupted runs see the old file or the
/// new one. An existing file keeps its permissions, a symbolic link keeps pointing to its target; what is no regular
/// file
/// (/dev/stdout, a named pipe) is written to directly. Threads: may be called at once.
/// Throws: tuiqiao::Error "cannot write FILE: REASON"; nothing is left beside the file then.
void write_file_atomically(const std::filesystem::path& file, std::string_view content);

}  // namespace tuiqiao
