#pragma once

#include <filesystem>
#include <memory>
#include <optional>
#include <string>

#include "tuiqiao/audit.h"
#include "tuiqiao/text/vocabulary.h"

namespace tuiqiao::cli {

/// Which rows of which file, and what goes with them.
struct AuditSourceOptions {
  std::string file, tensor, bias, gain, shift;
  std::optional<HeadNorm> norm;  ///< instead of the file's
  /// Where neither an option nor the file says: a GGUF file does.
  std::string tensor_otherwise;
  std::optional<HeadNorm> norm_otherwise;
  bool words = true;  ///< reads the vocabulary of a GGUF file too
};

/// An output layer, and the model's words where the file has them.
struct AuditSource {
  OutputHead head;
  std::shared_ptr<const void> model;  ///< keeps the vocabulary
  const Vocabulary* vocabulary = nullptr;
  std::string note;  ///< why there are no words, or what of the file was left out; "" for nothing
};

/// Reads a file of any kind that is known by its first bytes. Throws: tuiqiao::Error; std::invalid_argument.
AuditSource read_audit_source(const AuditSourceOptions& options);

}  // namespace tuiqiao::cli
