#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "tuiqiao/text/vocabulary.h"

namespace tuiqiao {

/// How a document and a question become a prompt: before DOCUMENT between QUESTION after. The three pieces may name
/// control tokens; documents and questions are always text, and every part is tokenised on its own, so that token
/// boundaries are fixed and a document that contains "<end_of_turn>" is text.
struct PromptTemplate {
  std::string before;
  std::string between;
  std::string after;
  /// Text that ends an answer, none for chat templates: their models end a turn by themselves.
  std::vector<std::string> stops;
};

/// "plain" (Question: ... Answer:) or "plain-zh" (问题：…… 答案：): for base models, which have no template;
/// "none": the question by itself is the prompt.
/// Throws: std::invalid_argument on another name.
PromptTemplate plain_template(std::string_view name);

/// A template from text with {document} and, after it, {question}, each once.
/// Throws: tuiqiao::Error "NAME: ..." where one is missing, doubled or out of order.
PromptTemplate parse_template(std::string_view text, const std::string& name);

/// Tokens of begin, before, document and between: what of a prompt is read once, whatever is asked.
std::vector<Token> document_prompt(const PromptTemplate& prompt, const Vocabulary& vocabulary,
                                   std::string_view document);
/// The same without a document; the white space that would follow it is dropped.
std::vector<Token> empty_prompt(const PromptTemplate& prompt, const Vocabulary& vocabulary);
/// A prompt whose end is text that healing may cut: what the user gave after the last piece of the template.
struct OpenPrompt {
  std::vector<Token> tokens;
  std::string text;  ///< after them; may be empty, and any bytes
};
/// As question_prompt, with the beginning of the answer left as text, or the question where the template has no
/// `after`.
OpenPrompt open_question_prompt(const PromptTemplate& prompt, const Vocabulary& vocabulary, std::string_view question,
                                std::string_view prefix);
/// Tokens of the question, after, and the beginning of the answer where one is given. A space is put before `prefix`
/// where the prompt ends in an ASCII character that is no white space.
std::vector<Token> question_prompt(const PromptTemplate& prompt, const Vocabulary& vocabulary,
                                   std::string_view question, std::string_view prefix);

}  // namespace tuiqiao
