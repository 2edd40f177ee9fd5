#include "tuiqiao/text/prompt.h"

#include <gtest/gtest.h>

#include "tuiqiao/error.h"

namespace tuiqiao {
namespace {

/// One token a byte, and two control tokens by name.
Vocabulary byte_words(std::optional<Token> begin) {
  std::vector<Vocabulary::Entry> entries;
  for (int b = 0; b < 256; ++b) entries.push_back({std::string(1, static_cast<char>(b)), "", TokenKind::byte, false});
  entries.push_back({"", "<bos>", TokenKind::control, false});
  entries.push_back({"", "<turn>", TokenKind::control, true});
  const auto tokenize = [](std::string_view text, bool special) {
    std::vector<Token> tokens;
    while (!text.empty()) {
      const auto named = [&](std::string_view name) { return special && text.starts_with(name); };
      const std::size_t length = named("<bos>") ? 5 : named("<turn>") ? 6 : 1;
      tokens.push_back(length == 5 ? 256 : length == 6 ? 257 : static_cast<unsigned char>(text[0]));
      text.remove_prefix(length);
    }
    return tokens;
  };
  return Vocabulary(std::move(entries), tokenize, begin);
}

std::string shown(const Vocabulary& words, const std::vector<Token>& tokens) {
  std::string text;
  for (const Token t : tokens) text += t < 256 ? std::string(words.bytes(t)) : "[" + std::string(words.name(t)) + "]";
  return text;
}

TEST(Prompt, PiecesMayNameControlTokensAndDocumentsNever) {
  const Vocabulary words = byte_words(256);
  const PromptTemplate chat = parse_template("<turn>user\n{document}\n\n{question}<turn>\nmodel\n", "chat");
  EXPECT_EQ(shown(words, document_prompt(chat, words, "a <turn> of luck")),
            "[<bos>][<turn>]user\na <turn> of luck\n\n");
  EXPECT_EQ(shown(words, empty_prompt(chat, words)), "[<bos>][<turn>]user\n");
  EXPECT_EQ(shown(words, question_prompt(chat, words, "why <turn>?", "")), "why <turn>?[<turn>]\nmodel\n");
  EXPECT_EQ(shown(words, question_prompt(chat, words, "why?", "Because <turn>")),
            "why?[<turn>]\nmodel\nBecause <turn>");
}

TEST(Prompt, PlainPromptKeepsSpacesWithTheWordThatFollows) {
  const Vocabulary words = byte_words(std::nullopt);
  const PromptTemplate plain = plain_template("plain");
  EXPECT_EQ(shown(words, document_prompt(plain, words, "Text.")), "Text.\n\nQuestion:");
  EXPECT_EQ(shown(words, empty_prompt(plain, words)), "Question:");
  EXPECT_EQ(shown(words, question_prompt(plain, words, "Who?", "It was")), " Who?\nAnswer: It was");
  EXPECT_EQ(shown(words, question_prompt(plain, words, "Who?", " It was")), " Who?\nAnswer: It was");
  const PromptTemplate chinese = plain_template("plain-zh");
  EXPECT_EQ(shown(words, question_prompt(chinese, words, "谁？", "是")), "谁？\n答案：是");
}

TEST(Prompt, NoTemplateLeavesTheQuestionAsItIs) {
  const Vocabulary words = byte_words(256);
  const PromptTemplate none = plain_template("none");
  EXPECT_EQ(shown(words, empty_prompt(none, words)), "[<bos>]");
  EXPECT_EQ(shown(words, document_prompt(none, words, "d ")), "[<bos>]d ");
  const OpenPrompt open = open_question_prompt(none, words, " def f( ", "");
  EXPECT_TRUE(open.tokens.empty());
  EXPECT_EQ(open.text, " def f( ");
}

TEST(Prompt, BeginsOnceEvenWhereTheTemplateNamesTheBeginToken) {
  const Vocabulary words = byte_words(256);
  const PromptTemplate own = parse_template("<bos>{document} {question}", "own");
  EXPECT_EQ(shown(words, document_prompt(own, words, "d")), "[<bos>]d");
  EXPECT_EQ(shown(words, question_prompt(own, words, "q", "")), " q");
}

TEST(Prompt, RefusesBrokenTemplates) {
  for (const char* bad : {"", "{document}", "{question}", "{question}{document}", "{document}{document}{question}",
                          "{document}{question}{question}"}) {
    try {
      parse_template(bad, "t.txt");
      FAIL() << bad;
    } catch (const Error& error) {
      EXPECT_TRUE(std::string(error.what()).starts_with("t.txt: ")) << error.what();
    }
  }
  EXPECT_THROW(plain_template("fancy"), std::invalid_argument);
}

}  // namespace
}  // namespace tuiqiao
