#include "npy.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <bit>
#include <cerrno>
#include <cmath>
#include <cstring>
#include <fstream>
#include <limits>

#include "half.h"
#include "tuiqiao/error.h"

namespace tuiqiao {

namespace {

static_assert(std::endian::native == std::endian::little);

constexpr std::string_view kMagic = "\x93NUMPY";

[[noreturn]] void refuse(const std::string& name, const std::string& problem) {
  throw Error(fmt::format("{}: {}", name, problem));
}

struct Header {
  std::string type;
  bool fortran_order = false;
  std::vector<std::int64_t> shape;
  std::size_t data_at = 0;
};

/// What follows "'KEY':" in the header, a Python dictionary; empty where the key is missing.
std::string_view value_of(std::string_view text, std::string_view key) {
  const auto skip_space = [&] { text.remove_prefix(std::min(text.find_first_not_of(" \t"), text.size())); };
  const std::size_t at = text.find(fmt::format("'{}'", key));
  if (at == std::string_view::npos) return {};
  text.remove_prefix(at + key.size() + 2);
  skip_space();
  if (!text.starts_with(':')) return {};
  text.remove_prefix(1);
  skip_space();
  return text;
}

/// "(3, 4)" as its sides.
std::vector<std::int64_t> sides_of(std::string_view text, const std::string& name) {
  const std::size_t end = text.find(')');
  if (!text.starts_with('(') || end == std::string_view::npos) refuse(name, "the .npy header has no shape");
  std::vector<std::int64_t> sides;
  for (std::size_t at = 1; at < end;) {
    if (text[at] == ' ' || text[at] == ',') {
      ++at;
      continue;
    }
    std::size_t digits = 0;
    std::int64_t side = 0;
    for (; at + digits < end && text[at + digits] >= '0' && text[at + digits] <= '9'; ++digits) {
      if (digits >= 15) refuse(name, "a side of more than 10^15 entries");
      side = 10 * side + (text[at + digits] - '0');
    }
    if (digits == 0) refuse(name, "the .npy header has no plain shape");
    sides.push_back(side);
    at += digits;
  }
  return sides;
}

Header header_of(std::string_view bytes, const std::string& name) {
  if (!is_npy(bytes)) refuse(name, "no .npy file");
  if (bytes.size() < 12) refuse(name, "the .npy header is cut off");
  const auto byte = [&](std::size_t i) { return static_cast<std::size_t>(static_cast<unsigned char>(bytes[i])); };
  const std::size_t version = byte(6);
  if (version < 1 || version > 3) refuse(name, fmt::format("version {} of .npy is unknown", version));
  const std::size_t from = version == 1 ? 10 : 12;
  std::size_t size = byte(8) | byte(9) << 8;
  if (version > 1) size |= byte(10) << 16 | byte(11) << 24;
  if (size > bytes.size() - from) refuse(name, "the .npy header is cut off");
  constexpr std::size_t kMostHeader = 10000;  // numpy's own limit
  if (size > kMostHeader) refuse(name, fmt::format("a .npy header of {} bytes", size));
  const std::string_view text = bytes.substr(from, size);
  Header header;
  header.data_at = from + size;
  const std::string_view type = value_of(text, "descr"), order = value_of(text, "fortran_order");
  const std::size_t end = type.find('\'', 1);
  if (!type.starts_with('\'') || end == std::string_view::npos) refuse(name, "the .npy header names no plain type");
  header.type = type.substr(1, std::min<std::size_t>(end - 1, 40));
  if (!order.starts_with("True") && !order.starts_with("False")) refuse(name, "the .npy header names no order");
  header.fortran_order = order.starts_with("True");
  header.shape = sides_of(value_of(text, "shape"), name);
  return header;
}

template <class T>
void convert(const char* from, std::vector<double>& values) {
  for (std::size_t i = 0; i < values.size(); ++i) {
    T value;
    std::memcpy(&value, from + i * sizeof(T), sizeof(T));
    values[i] = static_cast<double>(value);
  }
}

struct Type {
  std::string_view name;
  std::size_t size;
  void (*convert)(const char*, std::vector<double>&);
};

void convert_half(const char* from, std::vector<double>& values) {
  for (std::size_t i = 0; i < values.size(); ++i) {
    std::uint16_t bits = 0;
    std::memcpy(&bits, from + i * sizeof(bits), sizeof(bits));
    values[i] = float_of_half(bits);
  }
}

constexpr Type kTypes[] = {
    {"<f8", 8, convert<double>},        {"<f4", 4, convert<float>},         {"<f2", 2, convert_half},
    {"<i8", 8, convert<std::int64_t>},  {"<i4", 4, convert<std::int32_t>},  {"<i2", 2, convert<std::int16_t>},
    {"|i1", 1, convert<std::int8_t>},   {"<u8", 8, convert<std::uint64_t>}, {"<u4", 4, convert<std::uint32_t>},
    {"<u2", 2, convert<std::uint16_t>}, {"|u1", 1, convert<std::uint8_t>}};

/// From Fortran order, in which the first side moves fastest.
std::vector<double> in_c_order(const std::vector<double>& values, const std::vector<std::int64_t>& shape) {
  std::vector<double> result(values.size());
  std::vector<std::int64_t> at(shape.size(), 0);
  std::vector<std::size_t> stride(shape.size(), 1);
  for (std::size_t side = shape.size(); side-- > 1;)
    stride[side - 1] = stride[side] * static_cast<std::size_t>(shape[side]);
  for (const double value : values) {
    std::size_t to = 0;
    for (std::size_t side = 0; side < at.size(); ++side) to += stride[side] * static_cast<std::size_t>(at[side]);
    result[to] = value;
    for (std::size_t side = 0; side < at.size() && ++at[side] == shape[side]; ++side) at[side] = 0;
  }
  return result;
}

}  // namespace

bool is_npy(std::string_view bytes) { return bytes.starts_with(kMagic); }

NpyArray parse_npy(std::string_view bytes, const std::string& name) {
  const Header header = header_of(bytes, name);
  const Type* type = nullptr;
  for (const Type& known : kTypes) {
    if (known.name == header.type) type = &known;
  }
  if (!type)
    refuse(name, fmt::format("numbers of type '{}' are not read (float16, 32, 64 and integers are)", header.type));
  const std::size_t held = (bytes.size() - header.data_at) / type->size;
  const bool is_empty = std::find(header.shape.begin(), header.shape.end(), 0) != header.shape.end();
  std::size_t count = is_empty ? 0 : 1;
  for (const std::int64_t side : header.shape) {
    const auto size = static_cast<std::size_t>(side);
    if (size != 0 && count > held / size) {
      refuse(name, fmt::format("the file ends before its {} entries", fmt::join(header.shape, " x ")));
    }
    count *= size;
  }
  if (count > held) refuse(name, "the file ends before its entries");
  if (bytes.size() - header.data_at != count * type->size) refuse(name, "the file goes on behind its entries");
  NpyArray array{header.shape, std::vector<double>(count)};
  type->convert(bytes.data() + header.data_at, array.values);
  if (header.fortran_order && array.shape.size() > 1) array.values = in_c_order(array.values, array.shape);
  return array;
}

NpyArray read_npy(const std::filesystem::path& file) {
  const std::string name = file.string();
  if (std::filesystem::is_directory(file)) refuse(name, "is a directory");
  std::ifstream in(file, std::ios::binary);
  if (!in) refuse(name, std::strerror(errno));
  std::string bytes;
  std::vector<char> part(std::size_t{1} << 20);
  while (in.read(part.data(), static_cast<std::streamsize>(part.size())) || in.gcount() > 0)
    bytes.append(part.data(), static_cast<std::size_t>(in.gcount()));
  if (in.bad()) refuse(name, "cannot be read");
  return parse_npy(bytes, name);
}

namespace {

std::string npy_bytes(std::string_view type, std::string_view data, std::span<const std::int64_t> shape) {
  std::string text = fmt::format("{{'descr': '{}', 'fortran_order': False, 'shape': (", type);
  for (const std::int64_t side : shape) text += fmt::format("{}, ", side);
  text += "), }";
  while ((10 + text.size() + 1) % 64 != 0) text += ' ';
  text += '\n';
  std::string bytes(kMagic);
  bytes += {'\x01', '\x00'};
  bytes += static_cast<char>(text.size() & 255U);
  bytes += static_cast<char>(text.size() >> 8);
  return bytes.append(text).append(data);
}

}  // namespace

std::string npy_of(std::span<const double> values, std::span<const std::int64_t> shape) {
  return npy_bytes("<f8", {reinterpret_cast<const char*>(values.data()), values.size_bytes()}, shape);
}

std::string npy_of(std::span<const float> values, std::span<const std::int64_t> shape) {
  return npy_bytes("<f4", {reinterpret_cast<const char*>(values.data()), values.size_bytes()}, shape);
}

}  // namespace tuiqiao
