#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace tuiqiao {

/// A tensor of a .safetensors file, as its header describes it.
struct SafetensorsEntry {
  std::string type;  ///< "F32", "F16", "BF16", ...
  std::vector<std::int64_t> shape;
  std::uint64_t begin = 0, end = 0;  ///< bytes behind the header

  /// Product of the sides; 1 for a scalar.
  std::int64_t count() const;
};

/// Reads tensors of a .safetensors file. The header is checked against the file before it is believed: its length, that
/// every tensor's bytes lie inside, fit type and shape, and overlap no other tensor's.
/// Threads: const members may be called at once.
class SafetensorsFile {
 public:
  /// Throws: tuiqiao::Error "FILE: ...".
  explicit SafetensorsFile(const std::filesystem::path& file);

  const std::map<std::string, SafetensorsEntry>& tensors() const { return tensors_; }
  const std::map<std::string, std::string>& metadata() const { return metadata_; }
  /// Throws: tuiqiao::Error that names the file where it has no such tensor.
  const SafetensorsEntry& at(const std::string& name) const;
  /// Entries first to first + values.size() of a tensor of F32, F16, BF16 or F64 (rounded to float32).
  /// Throws: tuiqiao::Error on another type or a file that became shorter; std::invalid_argument beyond its entries.
  void read(const std::string& name, std::int64_t first, std::span<float> values) const;
  /// All of a tensor.
  std::vector<float> read(const std::string& name) const;

 private:
  std::filesystem::path file_;
  std::uint64_t data_at_ = 0;
  std::map<std::string, SafetensorsEntry> tensors_;
  std::map<std::string, std::string> metadata_;
};

/// Whether bytes begin as a .safetensors file does: a header's length, then a JSON object.
bool is_safetensors(std::string_view bytes);

/// A tensor to be written.
struct SafetensorsTensor {
  std::vector<std::int64_t> shape;
  std::span<const float> values;
  std::string type = "F32";  ///< or "F16", "BF16": rounded to the nearest
};

/// The bytes of a .safetensors file, the tensors in the order of their names.
/// Throws: std::invalid_argument where a shape does not fit its values, or on another type.
std::string safetensors_of(const std::map<std::string, SafetensorsTensor>& tensors,
                           const std::map<std::string, std::string>& metadata = {});

}  // namespace tuiqiao
