#include "safetensors.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <bit>
#include <cerrno>
#include <cstring>
#include <fstream>
#include <nlohmann/json.hpp>
#include <stdexcept>

#include "half.h"
#include "tuiqiao/error.h"

namespace tuiqiao {

namespace {

using nlohmann::json;

static_assert(std::endian::native == std::endian::little);

constexpr std::uint64_t kMostHeader = 100'000'000;  // of the format
constexpr std::int64_t kMostEntries = std::int64_t{1} << 50;

struct Type {
  std::string_view name;
  std::uint64_t bytes;
  void (*convert)(const char* from, std::span<float> to);  // nullptr: known, but not read
};

template <class T, class Of>
void convert_each(const char* from, std::span<float> to, const Of& of) {
  for (std::size_t i = 0; i < to.size(); ++i) {
    T value;
    std::memcpy(&value, from + i * sizeof(T), sizeof(T));
    to[i] = of(value);
  }
}

constexpr Type kTypes[] = {
    {"F32", 4, [](const char* from, std::span<float> to) { std::memcpy(to.data(), from, to.size_bytes()); }},
    {"F16", 2, [](const char* from, std::span<float> to) { convert_each<std::uint16_t>(from, to, float_of_half); }},
    {"BF16", 2, [](const char* from, std::span<float> to) { convert_each<std::uint16_t>(from, to, float_of_bfloat); }},
    {"F64", 8,
     [](const char* from, std::span<float> to) {
       convert_each<double>(from, to, [](double value) { return static_cast<float>(value); });
     }},
    {"F8_E4M3", 1, nullptr},
    {"F8_E5M2", 1, nullptr},
    {"BOOL", 1, nullptr},
    {"I8", 1, nullptr},
    {"U8", 1, nullptr},
    {"I16", 2, nullptr},
    {"U16", 2, nullptr},
    {"I32", 4, nullptr},
    {"U32", 4, nullptr},
    {"I64", 8, nullptr},
    {"U64", 8, nullptr}};

const Type* type_of(std::string_view name) {
  const auto* it = std::find_if(std::begin(kTypes), std::end(kTypes), [&](const Type& t) { return t.name == name; });
  return it == std::end(kTypes) ? nullptr : it;
}

[[noreturn]] void refuse(const std::filesystem::path& file, const std::string& problem) {
  throw Error(fmt::format("{}: {}", file.string(), problem));
}

std::string shown(const std::string& name) {
  std::string text = name.substr(0, 80);
  for (char& c : text) {
    if (static_cast<unsigned char>(c) < 0x20 || c == 0x7F) c = '?';
  }
  return text;
}

std::uint64_t whole(const json& value) {
  return value.is_number_unsigned() ? value.get<std::uint64_t>() : ~std::uint64_t{0};
}

SafetensorsEntry entry_of(const std::filesystem::path& file, const std::string& name, const json& value,
                          std::uint64_t held) {
  const auto bad = [&](const char* what) { refuse(file, fmt::format("tensor '{}' {}", shown(name), what)); };
  if (!value.is_object() || !value.contains("dtype") || !value["dtype"].is_string() || !value.contains("shape") ||
      !value["shape"].is_array() || !value.contains("data_offsets") || !value["data_offsets"].is_array() ||
      value["data_offsets"].size() != 2) {
    bad("has no plain dtype, shape and data_offsets");
  }
  SafetensorsEntry entry;
  entry.type = value["dtype"].get<std::string>();
  std::uint64_t count = 1;
  for (const json& side : value["shape"]) {
    const std::uint64_t n = whole(side);
    if (n > static_cast<std::uint64_t>(kMostEntries) || __builtin_mul_overflow(count, n, &count) ||
        count > static_cast<std::uint64_t>(kMostEntries)) {
      bad("has a shape that no file holds");
    }
    entry.shape.push_back(static_cast<std::int64_t>(n));
  }
  entry.begin = whole(value["data_offsets"][0]);
  entry.end = whole(value["data_offsets"][1]);
  if (entry.begin > entry.end || entry.end > held) bad("ends beyond the file");
  const Type* type = type_of(entry.type);
  if (!type) bad("has an unknown type");
  if (entry.end - entry.begin != count * type->bytes) bad("has more or fewer bytes than its shape wants");
  return entry;
}

void check_apart(const std::filesystem::path& file, const std::map<std::string, SafetensorsEntry>& tensors,
                 std::uint64_t held) {
  std::vector<std::pair<std::uint64_t, std::uint64_t>> places;
  for (const auto& [name, entry] : tensors) {
    if (entry.begin < entry.end) places.emplace_back(entry.begin, entry.end);
  }
  std::sort(places.begin(), places.end());
  for (std::size_t i = 1; i < places.size(); ++i) {
    if (places[i].first < places[i - 1].second) refuse(file, "two tensors share bytes");
  }
  const std::uint64_t end = places.empty() ? 0 : places.back().second;
  if (end < held) refuse(file, fmt::format("{} bytes follow the last tensor", held - end));
}

}  // namespace

std::int64_t SafetensorsEntry::count() const {
  std::int64_t product = 1;
  for (const std::int64_t side : shape) product *= side;
  return product;
}

bool is_safetensors(std::string_view bytes) {
  if (bytes.size() < 9) return false;
  std::uint64_t length = 0;
  std::memcpy(&length, bytes.data(), sizeof length);
  return length > 1 && length <= kMostHeader && bytes[8] == '{';
}

SafetensorsFile::SafetensorsFile(const std::filesystem::path& file) : file_(file) {
  std::error_code problem;
  if (!std::filesystem::is_regular_file(file, problem)) refuse(file, "not a regular file");
  const std::uint64_t size = std::filesystem::file_size(file, problem);
  std::ifstream in(file, std::ios::binary);
  if (problem || !in) refuse(file, std::strerror(errno));
  std::uint64_t length = 0;
  if (size < 8 || !in.read(reinterpret_cast<char*>(&length), sizeof length)) refuse(file, "no .safetensors file");
  if (length > kMostHeader || length > size - 8)
    refuse(file, fmt::format("a header of {} bytes in a file of {}", length, size));
  std::string text(static_cast<std::size_t>(length), '\0');
  if (!in.read(text.data(), static_cast<std::streamsize>(length))) refuse(file, "cannot be read");
  data_at_ = 8 + length;
  const json header = json::parse(text, nullptr, false);
  if (!header.is_object()) refuse(file, "the header is no JSON object");
  for (const auto& [name, value] : header.items()) {
    if (name != "__metadata__") {
      tensors_.emplace(name, entry_of(file, name, value, size - data_at_));
    } else if (value.is_object()) {
      for (const auto& [key, word] : value.items()) {
        if (word.is_string()) metadata_.emplace(key, word.get<std::string>());
      }
    }
  }
  check_apart(file, tensors_, size - data_at_);
}

const SafetensorsEntry& SafetensorsFile::at(const std::string& name) const {
  const auto it = tensors_.find(name);
  if (it == tensors_.end()) refuse(file_, fmt::format("has no tensor '{}'", shown(name)));
  return it->second;
}

void SafetensorsFile::read(const std::string& name, std::int64_t first, std::span<float> values) const {
  const SafetensorsEntry& entry = at(name);
  const auto count = static_cast<std::int64_t>(values.size());
  if (first < 0 || count > entry.count() || first > entry.count() - count) {
    throw std::invalid_argument(
        fmt::format("[SafetensorsFile::read] entries {} to {} outside [0, {}]", first, first + count, entry.count()));
  }
  const Type* type = type_of(entry.type);
  if (!type->convert)
    refuse(file_, fmt::format("tensor '{}' of {}; F32, F16, BF16 and F64 are read", shown(name), entry.type));
  std::ifstream in(file_, std::ios::binary);
  in.seekg(static_cast<std::streamoff>(data_at_ + entry.begin + static_cast<std::uint64_t>(first) * type->bytes));
  constexpr std::size_t kPart = std::size_t{1} << 18;
  std::vector<char> bytes;
  for (std::size_t at = 0; at < values.size(); at += kPart) {
    const std::span<float> part = values.subspan(at, std::min(kPart, values.size() - at));
    bytes.resize(part.size() * type->bytes);
    if (!in.read(bytes.data(), static_cast<std::streamsize>(bytes.size()))) refuse(file_, "cannot be read");
    type->convert(bytes.data(), part);
  }
}

std::vector<float> SafetensorsFile::read(const std::string& name) const {
  std::vector<float> values(static_cast<std::size_t>(at(name).count()));
  read(name, 0, values);
  return values;
}

std::string safetensors_of(const std::map<std::string, SafetensorsTensor>& tensors,
                           const std::map<std::string, std::string>& metadata) {
  json header = json::object();
  if (!metadata.empty()) header["__metadata__"] = metadata;
  std::uint64_t at = 0;
  for (const auto& [name, tensor] : tensors) {
    std::int64_t count = 1;
    for (const std::int64_t side : tensor.shape) count *= side;
    if (count != static_cast<std::int64_t>(tensor.values.size())) {
      throw std::invalid_argument(fmt::format("[safetensors_of] '{}': {} values for the shape {}", name,
                                              tensor.values.size(), fmt::join(tensor.shape, " x ")));
    }
    if (tensor.type != "F32" && tensor.type != "F16" && tensor.type != "BF16")
      throw std::invalid_argument(fmt::format("[safetensors_of] '{}': type '{}' is not written", name, tensor.type));
    const std::uint64_t end = at + tensor.values.size() * type_of(tensor.type)->bytes;
    header[name] = {{"dtype", tensor.type}, {"shape", tensor.shape}, {"data_offsets", {at, end}}};
    at = end;
  }
  std::string text = header.dump();
  while (text.size() % 8 != 0) text += ' ';
  const std::uint64_t length = text.size();
  std::string bytes(reinterpret_cast<const char*>(&length), sizeof length);
  bytes += text;
  for (const auto& [name, tensor] : tensors) {
    if (tensor.type == "F32") {
      bytes.append(reinterpret_cast<const char*>(tensor.values.data()), tensor.values.size_bytes());
      continue;
    }
    for (const float value : tensor.values) {
      const std::uint16_t half = tensor.type == "F16" ? half_of_float(value) : bfloat_of_float(value);
      bytes.append(reinterpret_cast<const char*>(&half), sizeof half);
    }
  }
  return bytes;
}

}  // namespace tuiqiao
