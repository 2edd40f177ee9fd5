#pragma once

#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <map>
#include <ostream>
#include <random>
#include <string>
#include <vector>

#include "tuiqiao/text/llama.h"

namespace tuiqiao::test {

namespace fs = std::filesystem;

inline fs::path tiny_path(const std::string& name) { return fs::path(TUIQIAO_TEST_DATA) / "models" / (name + ".gguf"); }

/// One of the tiny models, loaded once a process.
inline const LlamaModel& tiny(const std::string& name) {
  static std::map<std::string, LlamaModel> models;
  const auto found = models.find(name);
  return found != models.end() ? found->second : models.emplace(name, LlamaModel(tiny_path(name))).first->second;
}

/// Where the real model lies; a file that may be absent.
inline fs::path real_path() {
  if (const char* given = std::getenv("TUIQIAO_MODEL")) return given;
  const char* cache = std::getenv("XDG_CACHE_HOME");
  const char* home = std::getenv("HOME");
  const fs::path base = cache && *cache ? fs::path(cache) : fs::path(home ? home : "") / ".cache";
  return base / "tuiqiao" / "models" / "gemma-3-270m-q4_k_m.gguf";
}

/// Defines `model`, or skips the test.
#define TUIQIAO_REAL_MODEL(model)                                                                  \
  if (!::tuiqiao::test::fs::exists(::tuiqiao::test::real_path()))                                  \
    GTEST_SKIP() << ::tuiqiao::test::real_path() << " is not there; scripts/bootstrap fetches it"; \
  static const LlamaModel model(::tuiqiao::test::real_path())

inline std::string read_file(const fs::path& file) {
  std::ifstream in(file, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

inline void write_file(const fs::path& file, const std::string& bytes) {
  std::ofstream(file, std::ios::binary).write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
}

/// A folder of this process that goes away with the object.
struct ScratchFolder {
  ScratchFolder() {
    std::string name = (fs::temp_directory_path() / "tuiqiao-test-XXXXXX").string();
    path = ::mkdtemp(name.data());
  }
  ~ScratchFolder() { fs::remove_all(path); }
  ScratchFolder(const ScratchFolder&) = delete;
  ScratchFolder& operator=(const ScratchFolder&) = delete;

  std::vector<fs::path> files() const {
    std::vector<fs::path> found(fs::directory_iterator(path), fs::directory_iterator{});
    std::sort(found.begin(), found.end());
    return found;
  }
  fs::path path;
};

/// Tokens of text, the same for the same seed.
inline std::vector<Token> random_tokens(const Vocabulary& vocabulary, int count, unsigned seed) {
  std::mt19937 random(seed);
  std::vector<Token> tokens;
  while (static_cast<int>(tokens.size()) < count) {
    const auto token = static_cast<Token>(random() % static_cast<unsigned>(vocabulary.size()));
    if (vocabulary.kind(token) == TokenKind::text) tokens.push_back(token);
  }
  return tokens;
}

/// Texts of these lengths.
inline std::vector<std::vector<Token>> texts_of(const LlamaModel& model, const std::vector<int>& lengths) {
  std::vector<std::vector<Token>> texts;
  for (const int length : lengths) {
    texts.push_back(random_tokens(model.vocabulary(), length, static_cast<unsigned>(1000 + length)));
  }
  return texts;
}

/// A model and how its decoder keeps branches: the parameter of a test.
struct Layout {
  const char* model;
  bool streams;
};

inline void PrintTo(const Layout& layout, std::ostream* out) {
  *out << layout.model << (layout.streams ? " streams" : " unified");
}

using LogRow = std::vector<double>;

/// Log-probabilities, copied.
inline LogRow copy_row(const Row& row) {
  LogRow copy(row.scores.size());
  for (std::size_t t = 0; t < copy.size(); ++t) copy[t] = row[static_cast<Token>(t)];
  return copy;
}

inline std::vector<LogRow> copy_rows(const Decoder& decoder, Branch branch) {
  std::vector<LogRow> copies;
  for (const Row& row : decoder.rows(branch)) copies.push_back(copy_row(row));
  return copies;
}

/// Largest difference of two log-probabilities; infinite where sizes differ or a number is none.
inline double distance(const LogRow& a, const LogRow& b) {
  if (a.size() != b.size() || a.empty()) return INFINITY;
  double largest = 0;
  for (std::size_t t = 0; t < a.size(); ++t) {
    const double difference = std::abs(a[t] - b[t]);
    if (!(difference <= largest)) largest = std::isnan(difference) ? INFINITY : difference;
  }
  return largest;
}

inline double distance(const std::vector<LogRow>& a, const std::vector<LogRow>& b) {
  if (a.size() != b.size() || a.empty()) return INFINITY;
  double largest = 0;
  for (std::size_t i = 0; i < a.size(); ++i) largest = std::max(largest, distance(a[i], b[i]));
  return largest;
}

/// What is left after some tokens, in a decoder that holds nothing else: the row to compare with.
inline LogRow row_alone(const LlamaModel& model, const std::vector<Token>& tokens) {
  LlamaDecoderOptions options;
  options.window = static_cast<int>(tokens.size());
  options.threads = 1;
  LlamaDecoder decoder(model, options);
  const Branch branch = decoder.open();
  decoder.extend({branch, tokens, Rows::last});
  return copy_row(decoder.row(branch));
}

inline std::vector<Token> joined(std::vector<Token> a, const std::vector<Token>& b) {
  a.insert(a.end(), b.begin(), b.end());
  return a;
}

inline Token best_token(const LogRow& row) {
  return static_cast<Token>(std::max_element(row.begin(), row.end()) - row.begin());
}

/// By how much the best token leads the second.
inline double margin(LogRow row) {
  const auto best = std::max_element(row.begin(), row.end());
  const double first = *best;
  *best = -INFINITY;
  return first - *std::max_element(row.begin(), row.end());
}

}  // namespace tuiqiao::test
