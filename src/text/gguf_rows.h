#pragma once

#include <filesystem>
#include <string>

#include "tuiqiao/audit.h"

namespace tuiqiao {

bool is_gguf(const std::filesystem::path& file);

/// The output layer of a GGUF file, of any type that ggml dequantises: rows (the embedding where it has no
/// output.weight, or `tensor`), bias if any, and the final norm with its scale. The file's header is checked first.
/// Throws: tuiqiao::Error "FILE: ...".
OutputHead read_gguf_head(const std::filesystem::path& file, const std::string& tensor = "");

}  // namespace tuiqiao
