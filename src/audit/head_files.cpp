#include <fmt/format.h>
#include <fmt/ranges.h>
#include <zlib.h>

#include <array>
#include <cmath>
#include <cstring>
#include <fstream>
#include <map>
#include <stdexcept>

#include "npy.h"
#include "safetensors.h"
#include "tuiqiao/audit.h"
#include "tuiqiao/error.h"

namespace tuiqiao {

namespace {

namespace fs = std::filesystem;

constexpr std::uint64_t kMostFile = std::uint64_t{1} << 40;

/// As checkpoints call their output rows; where several are there, the first of this list. The last ones are
/// embeddings, which stand in where the output layer is tied to them.
constexpr std::array<std::string_view, 8> kUsualNames{"lm_head.weight",
                                                      "output.weight",
                                                      "embed_out.weight",
                                                      "model.embed_tokens.weight",
                                                      "language_model.model.embed_tokens.weight",
                                                      "transformer.wte.weight",
                                                      "wte.weight",
                                                      "gpt_neox.embed_in.weight"};

[[noreturn]] void refuse(const fs::path& file, const std::string& problem) {
  throw Error(fmt::format("{}: {}", file.string(), problem));
}

std::string first_bytes(const fs::path& file, std::size_t count) {
  std::error_code problem;
  if (!fs::exists(file, problem)) refuse(file, "no such file");
  if (!fs::is_regular_file(file, problem)) refuse(file, "not a regular file");
  std::ifstream in(file, std::ios::binary);
  if (!in) refuse(file, "cannot be read");
  std::string bytes(count, '\0');
  in.read(bytes.data(), static_cast<std::streamsize>(count));
  bytes.resize(static_cast<std::size_t>(in.gcount()));
  return bytes;
}

std::string whole_file(const fs::path& file) {
  const std::uint64_t size = fs::file_size(file);
  if (size > kMostFile) refuse(file, "too large");
  return first_bytes(file, static_cast<std::size_t>(size));
}

bool is_zip(std::string_view bytes) { return bytes.starts_with("PK\x03\x04"); }

template <class T>
T little(std::string_view bytes, std::size_t at) {
  T value{};
  if (bytes.size() < sizeof value || at > bytes.size() - sizeof value) return value;
  std::memcpy(&value, bytes.data() + at, sizeof value);
  return value;
}

struct ZipEntry {
  std::uint16_t method = 0;
  std::uint32_t crc = 0;
  std::size_t packed = 0, size = 0, header_at = 0;
};

/// The members of a .npz file, which is a zip file of .npy files.
std::map<std::string, ZipEntry> zip_entries(const fs::path& file, std::string_view bytes) {
  constexpr std::size_t kEnd = 22, kMember = 46;
  const std::size_t end = bytes.rfind("PK\x05\x06");
  if (end == std::string_view::npos || bytes.size() - end < kEnd) refuse(file, "the .npz file is cut off");
  const auto count = little<std::uint16_t>(bytes, end + 10);
  std::size_t at = little<std::uint32_t>(bytes, end + 16);
  std::map<std::string, ZipEntry> entries;
  for (int i = 0; i < count; ++i) {
    if (at > bytes.size() || bytes.size() - at < kMember || bytes.substr(at, 4) != "PK\x01\x02")
      refuse(file, "the .npz file's list of members is damaged");
    const ZipEntry entry{little<std::uint16_t>(bytes, at + 10), little<std::uint32_t>(bytes, at + 16),
                         little<std::uint32_t>(bytes, at + 20), little<std::uint32_t>(bytes, at + 24),
                         little<std::uint32_t>(bytes, at + 42)};
    const std::size_t length = little<std::uint16_t>(bytes, at + 28);
    if (length > bytes.size() - at - kMember) refuse(file, "the .npz file's list of members is damaged");
    entries[std::string(bytes.substr(at + kMember, length))] = entry;
    at += kMember + length + little<std::uint16_t>(bytes, at + 30) + little<std::uint16_t>(bytes, at + 32);
  }
  return entries;
}

std::string unpacked(const fs::path& file, std::string_view bytes, const ZipEntry& entry) {
  constexpr std::size_t kLocal = 30;
  if (entry.size == 0xFFFFFFFF || entry.packed == 0xFFFFFFFF) refuse(file, "a .npz member of 4 GiB or more");
  if (bytes.size() < kLocal || entry.header_at > bytes.size() - kLocal) refuse(file, "a .npz member is cut off");
  const std::size_t from = entry.header_at + kLocal + little<std::uint16_t>(bytes, entry.header_at + 26) +
                           little<std::uint16_t>(bytes, entry.header_at + 28);
  if (from > bytes.size() || entry.packed > bytes.size() - from) refuse(file, "a .npz member is cut off");
  const std::string_view packed = bytes.substr(from, entry.packed);
  const auto is_right = [&](std::string_view data) {
    return data.size() == entry.size &&
           crc32_z(0, reinterpret_cast<const Bytef*>(data.data()), data.size()) == entry.crc;
  };
  if (entry.method == 0) {
    if (!is_right(packed)) refuse(file, "a .npz member is damaged");
    return std::string(packed);
  }
  if (entry.method != 8) refuse(file, "a .npz member that is packed in an unknown way");
  if (entry.size / 1100 > entry.packed) refuse(file, "a .npz member is damaged");  // deflate packs no tighter
  std::string result(entry.size, '\0');
  z_stream stream{};
  if (inflateInit2(&stream, -MAX_WBITS) != Z_OK) refuse(file, "cannot be unpacked");
  stream.next_in = const_cast<Bytef*>(reinterpret_cast<const Bytef*>(packed.data()));
  stream.avail_in = static_cast<uInt>(packed.size());
  stream.next_out = reinterpret_cast<Bytef*>(result.data());
  stream.avail_out = static_cast<uInt>(result.size());
  const int status = inflate(&stream, Z_FINISH);
  const bool whole = status == Z_STREAM_END && stream.avail_out == 0;
  inflateEnd(&stream);
  if (!whole || !is_right(result)) refuse(file, "a .npz member is damaged");
  return result;
}

/// A member by its name, with or without .npy; the only one, or one with a usual name, where none is wanted.
std::pair<std::string, NpyArray> member_of(const fs::path& file, const std::string& wanted) {
  const std::string bytes = whole_file(file);
  const auto entries = zip_entries(file, bytes);
  std::string name;
  const auto choose = [&](std::string_view candidate) {
    for (const std::string& full : {std::string(candidate), fmt::format("{}.npy", candidate)}) {
      if (name.empty() && entries.contains(full)) name = full;
    }
  };
  if (!wanted.empty()) {
    choose(wanted);
    if (name.empty()) refuse(file, fmt::format("has no member '{}'", wanted));
  }
  for (const std::string_view usual : kUsualNames) choose(usual);
  if (name.empty() && entries.size() == 1) name = entries.begin()->first;
  if (name.empty()) refuse(file, fmt::format("{} members; name one by --tensor", entries.size()));
  return {name, parse_npy(unpacked(file, bytes, entries.at(name)), fmt::format("{}({})", file.string(), name))};
}

std::string tensor_text(const std::string& name) {
  return name.empty() ? "the tensor" : fmt::format("tensor '{}'", name);
}

void take_shape(OutputHead& head, const fs::path& file, const std::vector<std::int64_t>& shape) {
  if (shape.size() != 2)
    refuse(file, fmt::format("{} has {} sides; a matrix is wanted", tensor_text(head.tensor), shape.size()));
  head.classes = shape[0];
  head.columns = shape[1];
  if (head.classes < 1 || head.columns < 1)
    refuse(file, fmt::format("{} is {} x {}: no row or no column", tensor_text(head.tensor), shape[0], shape[1]));
}

/// Nearest float32 numbers. Throws: tuiqiao::Error.
void take_rows(OutputHead& head, const fs::path& file, const NpyArray& array) {
  take_shape(head, file, array.shape);
  head.rows.resize(array.values.size());
  for (std::size_t i = 0; i < array.values.size(); ++i) {
    head.rows[i] = static_cast<float>(array.values[i]);
    if (std::isinf(head.rows[i]) && std::isfinite(array.values[i]))
      refuse(file, fmt::format("entry {} is {:g}, beyond float32", i, array.values[i]));
    head.rounded = head.rounded || static_cast<double>(head.rows[i]) != array.values[i];
  }
}

std::vector<double> vector_of(const fs::path& file, const std::string& tensor, NpyArray array) {
  if (array.shape.size() != 1)
    refuse(file, fmt::format("{} has {} sides; a vector is wanted", tensor_text(tensor), array.shape.size()));
  return std::move(array.values);
}

std::string found_tensor(const fs::path& file, const SafetensorsFile& in) {
  for (const std::string_view usual : kUsualNames) {
    if (in.tensors().contains(std::string(usual))) return std::string(usual);
  }
  std::vector<std::string> matrices;
  for (const auto& [name, entry] : in.tensors()) {
    if (entry.shape.size() == 2) matrices.push_back(name);
  }
  if (matrices.size() != 1)
    refuse(file, fmt::format("{} matrices, none with a usual name; name one by --tensor", matrices.size()));
  return matrices[0];
}

OutputHead read_safetensors_head(const fs::path& file, const std::string& tensor) {
  const SafetensorsFile in(file);
  OutputHead head;
  head.tensor = tensor.empty() ? found_tensor(file, in) : tensor;
  const SafetensorsEntry& entry = in.at(head.tensor);
  take_shape(head, file, entry.shape);
  head.rounded = entry.type == "F64";
  head.rows = in.read(head.tensor);
  return head;
}

}  // namespace

std::string_view name(HeadNorm norm) {
  switch (norm) {
    case HeadNorm::none:
      return "none";
    case HeadNorm::rms:
      return "rms";
    case HeadNorm::layer:
      return "layer";
  }
  return "";
}

HeadNorm head_norm_from_name(std::string_view text) {
  for (const HeadNorm norm : {HeadNorm::none, HeadNorm::rms, HeadNorm::layer}) {
    if (name(norm) == text) return norm;
  }
  throw std::invalid_argument(fmt::format("[head_norm_from_name] no norm '{}': none, rms or layer", text));
}

bool is_head_file(const fs::path& file) {
  const std::string bytes = first_bytes(file, 16);
  return is_npy(bytes) || is_zip(bytes) || is_safetensors(bytes);
}

OutputHead read_output_head(const fs::path& file, const std::string& tensor) {
  const std::string bytes = first_bytes(file, 16);
  OutputHead head;
  if (is_npy(bytes)) {
    if (!tensor.empty()) refuse(file, fmt::format("a .npy file has no tensor '{}': it has one without a name", tensor));
    take_rows(head, file, read_npy(file));
  } else if (is_zip(bytes)) {
    const auto [name, array] = member_of(file, tensor);
    head.tensor = name;
    take_rows(head, file, array);
  } else if (is_safetensors(bytes)) {
    head = read_safetensors_head(file, tensor);
  } else {
    refuse(file, "neither a .safetensors nor a .npy nor a .npz file, nor GGUF");
  }
  return head;
}

std::vector<double> read_head_vector(const fs::path& file, const std::string& tensor) {
  if (tensor.empty()) return vector_of(file, tensor, read_npy(file));
  const std::string bytes = first_bytes(file, 16);
  if (is_zip(bytes)) return vector_of(file, tensor, member_of(file, tensor).second);
  if (!is_safetensors(bytes)) refuse(file, fmt::format("has no tensor '{}'", tensor));
  const SafetensorsFile in(file);
  const std::vector<float> values = in.read(tensor);
  return vector_of(file, tensor, {in.at(tensor).shape, {values.begin(), values.end()}});
}

BesideRows vectors_beside(const fs::path& file, const std::string& tensor) {
  if (!is_safetensors(first_bytes(file, 16))) return {};
  const SafetensorsFile in(file);
  BesideRows found;
  const auto look_for = [&](const std::string& name, std::vector<std::string>& names) {
    const auto it = in.tensors().find(name);
    if (it != in.tensors().end() && it->second.shape.size() == 1) names.push_back(name);
  };
  constexpr std::string_view kWeight = ".weight";
  if (tensor.ends_with(kWeight)) look_for(tensor.substr(0, tensor.size() - kWeight.size()) + ".bias", found.biases);
  for (const char* norm : {"model.norm", "norm", "language_model.model.norm", "transformer.ln_f", "ln_f",
                           "model.decoder.final_layer_norm", "gpt_neox.final_layer_norm", "output_norm"}) {
    look_for(fmt::format("{}.weight", norm), found.gains);
    look_for(fmt::format("{}.bias", norm), found.shifts);
  }
  return found;
}

}  // namespace tuiqiao
