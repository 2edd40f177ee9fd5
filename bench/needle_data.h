#pragma once

#include <cstdint>
#include <fstream>
#include <random>
#include <sstream>
#include <stdexcept>
#include <string>
#include <vector>

#include "tuiqiao/text/vocabulary.h"

namespace tuiqiao::bench {

/// A fact that one document states, and the question that asks for it.
struct Fact {
  std::string sentence;  ///< "The access code of the red lantern is 48213."
  std::string question;  ///< "What is the access code of the red lantern?"
  std::string prefix;    ///< "The access code of the red lantern is"
  std::string value;     ///< "48213"
};

/// The fact number `i` of a fixed list: things differ for all i below 400, values are drawn.
inline Fact make_fact(std::size_t i) {
  static const std::vector<std::string> kColours{"red",    "green",  "blue",   "yellow", "black",  "white",  "brown",
                                                 "silver", "golden", "purple", "orange", "copper", "wooden", "marble",
                                                 "bronze", "grey",   "violet", "ivory",  "amber",  "crimson"};
  static const std::vector<std::string> kThings{"lantern", "gate",   "tower",  "clock",  "bridge", "wagon",  "statue",
                                                "harbour", "chapel", "garden", "mill",   "anchor", "piano",  "curtain",
                                                "carpet",  "kettle", "saddle", "barrel", "mirror", "cabinet"};
  static const std::vector<std::string> kCities{"Lisbon", "Oslo",   "Vienna", "Cairo",  "Lima",   "Dublin",
                                                "Prague", "Warsaw", "Athens", "Madrid", "Geneva", "Havana"};
  static const std::vector<std::string> kNames{"Martin", "Helena", "Victor", "Sophie", "Oscar", "Ingrid",
                                               "Felix",  "Clara",  "Edgar",  "Louise", "Hugo",  "Agnes"};
  std::mt19937 random(static_cast<unsigned>(9973 + i));
  const auto pick = [&](const std::vector<std::string>& words) { return words[random() % words.size()]; };
  const std::string thing = "the " + kColours[i % 20] + " " + kThings[(i / 20 + i) % 20];
  switch (i % 4) {
    case 0: {
      const std::string value = std::to_string(10000 + random() % 90000), stem = "The access code of " + thing + " is";
      return {stem + " " + value + ".", "What is the access code of " + thing + "?", stem, value};
    }
    case 1: {
      const std::string value = pick(kCities), stem = "The owner of " + thing + " lives in";
      return {stem + " " + value + ".", "Where does the owner of " + thing + " live?", stem, value};
    }
    case 2: {
      const std::string value = pick(kNames), stem = "The keeper of " + thing + " is called";
      return {stem + " " + value + ".", "What is the keeper of " + thing + " called?", stem, value};
    }
    default: {
      const std::string value = std::to_string(1500 + random() % 500),
                        stem = "The first record of " + thing + " is from the year";
      return {stem + " " + value + ".", "From which year is the first record of " + thing + "?", stem, value};
    }
  }
}

/// A piece of prose as sentences, so that a fact can stand between two of them.
using Passage = std::vector<std::string>;

/// Passages of at least `min_tokens` tokens, from the running text of a plain-text file: paragraphs of many words,
/// lines joined, cut between sentences.
inline std::vector<Passage> read_passages(const std::string& file, const Vocabulary& vocabulary,
                                          std::size_t min_tokens) {
  std::ifstream in(file);
  if (!in) throw std::runtime_error(file + ": cannot be read");
  std::vector<std::string> paragraphs(1);
  for (std::string line; std::getline(in, line);) {
    std::istringstream words(line);
    bool any = false;
    for (std::string word; words >> word; any = true)
      paragraphs.back() += (paragraphs.back().empty() ? "" : " ") + word;
    if (!any && !paragraphs.back().empty()) paragraphs.emplace_back();
  }
  std::vector<Passage> passages(1);
  std::size_t tokens = 0;
  for (const std::string& paragraph : paragraphs) {
    constexpr std::size_t kProse = 200;  // bytes; headings, lists and tables are shorter
    if (paragraph.size() < kProse || paragraph.find(". . .") != std::string::npos) continue;
    for (std::size_t from = 0; from < paragraph.size();) {
      std::size_t end = paragraph.find(". ", from);
      end = end == std::string::npos ? paragraph.size() : end + 1;
      passages.back().push_back(paragraph.substr(from, end - from));
      tokens += vocabulary.tokenize(passages.back().back()).size();
      from = end + 1;
      if (tokens >= min_tokens) {
        passages.emplace_back();
        tokens = 0;
      }
    }
  }
  passages.pop_back();  // the last is too short
  return passages;
}

/// The passage as one text, with `fact` (if any) after a drawn sentence.
inline std::string with_fact(const Passage& passage, const std::string& fact, unsigned seed) {
  std::mt19937 random(seed);
  const std::size_t after = 1 + random() % (passage.size() > 1 ? passage.size() - 1 : 1);
  std::string text;
  for (std::size_t i = 0; i < passage.size(); ++i) {
    if (i == after && !fact.empty()) text += " " + fact;
    text += (text.empty() ? "" : " ") + passage[i];
  }
  if (after >= passage.size() && !fact.empty()) text += " " + fact;
  return text;
}

}  // namespace tuiqiao::bench
