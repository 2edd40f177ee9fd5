// Answers a question from files that need not fit the model's window together, and says which file decided each token.
#include <cstdio>
#include <exception>

#include "tuiqiao/text/answering.h"

int main(int argc, char** argv) try {
  if (argc < 4) {
    std::fprintf(stderr, "usage: %s MODEL.gguf QUESTION FILE...\n", argv[0]);
    return 2;
  }
  const tuiqiao::LlamaModel model(argv[1]);
  std::vector<tuiqiao::Document> documents;
  for (int i = 3; i < argc; ++i) documents.push_back(tuiqiao::read_document(argv[i]));

  tuiqiao::AnsweringOptions options;
  options.prompt = tuiqiao::plain_template("plain");
  options.generate.max_tokens = 32;
  const auto answers = tuiqiao::answer_questions(model, documents, {{argv[2], ""}}, options);

  for (const auto& token : answers.front().tokens) {
    const auto& source = answers.front().contexts[static_cast<std::size_t>(token.context)];
    std::printf("%-16s from %s\n", token.bytes.c_str(), source.id.c_str());
  }
} catch (const std::exception& error) {
  std::fprintf(stderr, "%s\n", error.what());
  return 1;
}
