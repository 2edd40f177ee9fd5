#pragma once

#include <filesystem>

namespace tuiqiao {

/// Walks a GGUF file's header with every size checked against the file before it is believed: magic, version, key-value
/// pairs (types, lengths, arrays), tensor infos (name, dimensions, type, offset and extent inside the file), alignment.
/// llama.cpp and ggml trust some of these and abort; so every file passes here first.
/// Throws: tuiqiao::Error "FILE: not a GGUF file ..." or "FILE: damaged at byte N: ...".
/// Cost: reads the header (some megabytes for a large vocabulary), not the tensors.
void check_gguf(const std::filesystem::path& file);

}  // namespace tuiqiao
