#pragma once

#include <fstream>
#include <stdexcept>
#include <string>
#include <vector>

namespace tuiqiao::test {

/// A float32 array in C order from a .npy file of format 1.0, as numpy writes it.
struct Array {
  std::vector<std::size_t> shape;
  std::vector<float> values;
};

inline Array read_npy(const std::string& file) {
  std::ifstream in(file, std::ios::binary);
  std::string head(10, '\0');
  in.read(head.data(), 10);
  if (!in || !head.starts_with("\x93NUMPY\x01")) throw std::runtime_error(file + ": no .npy file of format 1.0");
  std::string text(static_cast<unsigned char>(head[8]) + 256U * static_cast<unsigned char>(head[9]), '\0');
  in.read(text.data(), static_cast<std::streamsize>(text.size()));
  if (text.find("'<f4'") == std::string::npos || text.find("'fortran_order': False") == std::string::npos) {
    throw std::runtime_error(file + ": not float32 in C order");
  }
  Array array;
  std::size_t count = 1;
  for (std::size_t at = text.find('(') + 1; text[at] != ')';) {
    std::size_t used = 0;
    array.shape.push_back(std::stoul(text.substr(at), &used));
    count *= array.shape.back();
    at = text.find_first_not_of(", ", at + used);
  }
  array.values.resize(count);
  in.read(reinterpret_cast<char*>(array.values.data()), static_cast<std::streamsize>(count * sizeof(float)));
  if (!in) throw std::runtime_error(file + ": too short");
  return array;
}

}  // namespace tuiqiao::test
