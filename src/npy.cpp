#include "npy.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <bit>
#include <cmath>
#include <cstring>
#include <fstream>
#include <iterator>
#include <limits>
#include <regex>

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

std::string first_match(const std::string& text, const char* pattern) {
  std::smatch match;
  return std::regex_search(text, match, std::regex(pattern)) ? match[1].str() : "";
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
  const std::string text(bytes.substr(from, size));
  Header header;
  header.data_at = from + size;
  header.type = first_match(text, R"('descr'\s*:\s*'([^']*)')");
  const std::string order = first_match(text, R"('fortran_order'\s*:\s*(True|False))");
  if (header.type.empty() || order.empty()) refuse(name, "the .npy header names no plain type or order");
  header.fortran_order = order == "True";
  std::string shape = first_match(text, R"('shape'\s*:\s*\(([0-9, ]*)\))");
  if (shape.empty() && text.find("()") == std::string::npos) refuse(name, "the .npy header has no shape");
  static const std::regex number("[0-9]+");
  for (std::sregex_iterator at(shape.begin(), shape.end(), number), end; at != end; ++at) {
    const std::string digits = at->str();
    if (digits.size() > 15) refuse(name, fmt::format("a side of {} entries", digits));
    header.shape.push_back(std::stoll(digits));
  }
  return header;
}

double half(std::uint16_t bits) {
  const int exponent = bits >> 10 & 31, fraction = bits & 1023;
  const double sign = bits & 0x8000 ? -1 : 1;
  if (exponent == 31) return fraction ? std::numeric_limits<double>::quiet_NaN() : sign * HUGE_VAL;
  return sign * (exponent == 0 ? std::ldexp(fraction, -24) : std::ldexp(1024 + fraction, exponent - 25));
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
    values[i] = half(bits);
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
  std::size_t count = 1;
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
  std::ifstream in(file, std::ios::binary);
  if (!in) refuse(file.string(), std::strerror(errno));
  const std::string bytes{std::istreambuf_iterator<char>(in), {}};
  if (in.bad()) refuse(file.string(), "cannot be read");
  return parse_npy(bytes, file.string());
}

std::string npy_of(std::span<const double> values, std::span<const std::int64_t> shape) {
  std::string text = "{'descr': '<f8', 'fortran_order': False, 'shape': (";
  for (const std::int64_t side : shape) text += fmt::format("{}, ", side);
  text += "), }";
  while ((10 + text.size() + 1) % 64 != 0) text += ' ';
  text += '\n';
  std::string bytes(kMagic);
  bytes += {'\x01', '\x00'};
  bytes += static_cast<char>(text.size() & 255U);
  bytes += static_cast<char>(text.size() >> 8);
  bytes += text;
  bytes.append(reinterpret_cast<const char*>(values.data()), values.size_bytes());
  return bytes;
}

}  // namespace tuiqiao
