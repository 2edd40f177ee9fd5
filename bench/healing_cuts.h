#pragma once

#include <fmt/format.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <functional>
#include <iterator>
#include <random>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

#include "text/utf8.h"
#include "tuiqiao/text/vocabulary.h"

// Real texts and the places where they are cut.

namespace tuiqiao::bench {

/// A text cut in two; what is left of it comes after.
struct Cut {
  std::string prompt, next;  ///< `next`: kNextCharacters of them, the rest of one that is cut counts as one
};

/// A text cut at a random byte, and beside that at the end of a token.
struct Place {
  Cut anywhere, token_end;
};

/// The texts of one language.
struct Corpus {
  std::string language;
  std::vector<std::string> texts;
};

inline constexpr std::size_t kContextBytes = 512;  // before a cut, less what belongs to a line that began before
inline constexpr std::size_t kNextCharacters = 10;

inline std::vector<std::string> read_texts(const std::filesystem::path& folder,
                                           const std::function<bool(const std::string& name)>& wanted) {
  std::vector<std::filesystem::path> files;
  for (const auto& entry : std::filesystem::recursive_directory_iterator(folder)) {
    if (entry.is_regular_file() && wanted(entry.path().filename().string())) files.push_back(entry.path());
  }
  std::sort(files.begin(), files.end());
  std::vector<std::string> texts;
  for (const auto& file : files) {
    std::ifstream in(file, std::ios::binary);
    texts.emplace_back(std::istreambuf_iterator<char>(in), std::istreambuf_iterator<char>());
    if (texts.back().size() <= 2 * kContextBytes) texts.pop_back();
  }
  if (texts.empty()) throw std::runtime_error(folder.string() + ": holds no texts");
  return texts;
}

/// The demo's documents, written for it, and sources of this project.
inline std::vector<Corpus> read_corpora(const std::filesystem::path& documents, const std::filesystem::path& sources) {
  const auto chinese = [](const std::string& name) { return name.ends_with("-zh.txt"); };
  return {{"English", read_texts(documents, [&](const std::string& name) { return !chinese(name); })},
          {"Chinese", read_texts(documents, chinese)},
          {"code", read_texts(sources, [](const std::string& name) { return name.ends_with(".cpp"); })}};
}

/// The next characters from a byte on; nothing where the text has not so many.
inline std::string next_characters_of(std::string_view text, std::size_t at) {
  std::size_t end = at;
  for (std::size_t i = 0; i < kNextCharacters; ++i) {
    if (end == text.size()) return "";
    ++end;
    while (end < text.size() && (static_cast<unsigned char>(text[end]) & 0xC0U) == 0x80) ++end;
  }
  return std::string(text.substr(at, end - at));
}

/// The last end of a token, and of a character, at or before `at` of a text's own tokens; 0 if there is none.
inline std::size_t token_end_before(const Vocabulary& vocabulary, std::string_view text, std::size_t at) {
  const std::vector<Token> tokens = vocabulary.tokenize(text);
  std::size_t spelled = 0, best = 0;
  const std::size_t lead = vocabulary.detokenize(tokens).size() - text.size();  // a space, of some tokenizers
  for (const Token token : tokens) {
    spelled += vocabulary.bytes(token).size();
    if (spelled - lead > at) break;
    if (unfinished_bytes(text.substr(0, spelled - lead)) == 0) best = spelled - lead;
  }
  return best;
}

/// `count` places of a corpus, drawn by a fixed seed.
inline std::vector<Place> draw_places(const Corpus& corpus, const Vocabulary& vocabulary, int count) {
  std::vector<std::size_t> starts{0};  // of each text in all of them
  for (const std::string& text : corpus.texts) starts.push_back(starts.back() + text.size());
  std::mt19937_64 random(20240217);
  std::vector<Place> places;
  while (places.size() < static_cast<std::size_t>(count)) {
    const std::size_t anywhere = random() % starts.back();
    const auto of =
        static_cast<std::size_t>(std::upper_bound(starts.begin(), starts.end(), anywhere) - starts.begin() - 1);
    const std::string& text = corpus.texts[of];
    const std::size_t at = anywhere - starts[of];
    if (at < kContextBytes) continue;
    // From the first line that begins in the first half of what may come before, else from a character.
    std::size_t begin = text.find('\n', at - kContextBytes) + 1;
    if (begin == 0 || begin > at - kContextBytes / 2) {
      begin = at - kContextBytes;
      while ((static_cast<unsigned char>(text[begin]) & 0xC0U) == 0x80) ++begin;
    }
    const std::string_view whole = std::string_view(text).substr(begin);
    const std::string next = next_characters_of(whole, at - begin);
    if (next.empty()) continue;
    // The tokens of the text as it goes on, so that what comes next counts.
    const std::size_t shown = std::min(whole.size(), at - begin + kContextBytes);
    const std::string_view shown_text = whole.substr(0, shown - unfinished_bytes(whole.substr(0, shown)));
    const std::size_t end = token_end_before(vocabulary, shown_text, at - begin);
    if (end == 0) continue;
    places.push_back({{std::string(whole.substr(0, at - begin)), next},
                      {std::string(whole.substr(0, end)), next_characters_of(whole, end)}});
  }
  return places;
}

}  // namespace tuiqiao::bench
