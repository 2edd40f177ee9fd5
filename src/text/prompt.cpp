#include "tuiqiao/text/prompt.h"

#include <fmt/format.h>

#include <stdexcept>

#include "tuiqiao/error.h"
#include "tuiqiao/text/coverings.h"

namespace tuiqiao {

namespace {

constexpr std::string_view kSpace = " \t\r\n";

void append(std::vector<Token>& to, const std::vector<Token>& tokens) {
  to.insert(to.end(), tokens.begin(), tokens.end());
}

std::vector<Token> opening(const PromptTemplate& prompt, const Vocabulary& vocabulary) {
  std::vector<Token> tokens = vocabulary.tokenize(prompt.before, true);
  const auto begin = vocabulary.begin();
  if (begin && (tokens.empty() || tokens.front() != *begin)) tokens.insert(tokens.begin(), *begin);
  return tokens;
}

/// Spaces at the end of a piece belong to the word after it: most vocabularies hold " word" as one token, and would
/// never end a piece in a lone space.
std::size_t trailing_spaces(std::string_view piece) { return piece.size() - (piece.find_last_not_of(' ') + 1); }

std::string_view without_trailing_spaces(std::string_view piece) {
  return piece.substr(0, piece.size() - trailing_spaces(piece));
}

}  // namespace

PromptTemplate plain_template(std::string_view name) {
  if (name == "plain") return {"", "\n\nQuestion: ", "\nAnswer:", {"\n"}};
  if (name == "plain-zh") return {"", "\n\n问题：", "\n答案：", {"\n"}};
  if (name == "none") return {};
  throw std::invalid_argument(fmt::format("[plain_template] no template is called '{}'", name));
}

PromptTemplate parse_template(std::string_view text, const std::string& name) {
  constexpr std::string_view kDocument = "{document}", kQuestion = "{question}";
  const std::size_t document = text.find(kDocument), question = text.find(kQuestion);
  const auto once = [&](std::string_view mark, std::size_t at) {
    if (at == std::string_view::npos) throw Error(fmt::format("{}: the template has no {}", name, mark));
    if (text.find(mark, at + 1) != std::string_view::npos)
      throw Error(fmt::format("{}: the template has {} twice", name, mark));
  };
  once(kDocument, document);
  once(kQuestion, question);
  if (question < document)
    throw Error(fmt::format("{}: in the template {} must come before {}", name, kDocument, kQuestion));
  const std::size_t between = document + kDocument.size();
  return {std::string(text.substr(0, document)),
          std::string(text.substr(between, question - between)),
          std::string(text.substr(question + kQuestion.size())),
          {}};
}

std::vector<Token> document_prompt(const PromptTemplate& prompt, const Vocabulary& vocabulary,
                                   std::string_view document) {
  std::vector<Token> tokens = opening(prompt, vocabulary);
  append(tokens, vocabulary.tokenize(document));
  append(tokens, vocabulary.tokenize(without_trailing_spaces(prompt.between), true));
  return tokens;
}

std::vector<Token> empty_prompt(const PromptTemplate& prompt, const Vocabulary& vocabulary) {
  std::vector<Token> tokens = opening(prompt, vocabulary);
  std::string_view between = without_trailing_spaces(prompt.between);
  between.remove_prefix(std::min(between.find_first_not_of(kSpace), between.size()));
  append(tokens, vocabulary.tokenize(between, true));
  return tokens;
}

OpenPrompt open_question_prompt(const PromptTemplate& prompt, const Vocabulary& vocabulary, std::string_view question,
                                std::string_view prefix) {
  OpenPrompt open;
  const std::string asked = std::string(trailing_spaces(prompt.between), ' ').append(question);
  if (prompt.after.empty() && prefix.empty()) {
    open.text = asked;
    return open;
  }
  open.tokens = vocabulary.tokenize(asked);
  append(open.tokens, vocabulary.tokenize(prompt.after, true));
  if (!prefix.empty()) {
    const char last = prompt.after.empty() ? '\n' : prompt.after.back();
    const bool joins =
        static_cast<unsigned char>(last) < 0x80 && kSpace.find(last) == std::string_view::npos && prefix.front() != ' ';
    open.text = joins ? fmt::format(" {}", prefix) : std::string(prefix);
  }
  return open;
}

std::vector<Token> question_prompt(const PromptTemplate& prompt, const Vocabulary& vocabulary,
                                   std::string_view question, std::string_view prefix) {
  OpenPrompt open = open_question_prompt(prompt, vocabulary, question, prefix);
  if (!open.text.empty()) append(open.tokens, tokens_of_bytes(vocabulary, open.text));
  return open.tokens;
}

}  // namespace tuiqiao
