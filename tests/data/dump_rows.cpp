// Writes rows of a real model for the pooling reference: (steps, n + 1, V) float32, row 0 without context.
//   dump_rows MODEL OUT.npy STEPS QUESTION PREFIX DOCUMENT...
#include <cstdio>
#include <exception>
#include <fstream>
#include <string>

#include "tuiqiao/text/documents.h"
#include "tuiqiao/text/generate.h"
#include "tuiqiao/text/llama.h"
#include "tuiqiao/text/nbce.h"
#include "tuiqiao/text/prompt.h"

namespace {

using namespace tuiqiao;

void write_header(std::ofstream& out, std::size_t steps, std::size_t branches, std::size_t size) {
  std::string text = "{'descr': '<f4', 'fortran_order': False, 'shape': (" + std::to_string(steps) + ", " +
                     std::to_string(branches) + ", " + std::to_string(size) + "), }";
  text.resize((10 + text.size() + 1 + 63) / 64 * 64 - 11, ' ');
  text += '\n';
  out << std::string("\x93NUMPY\x01\x00", 8) << static_cast<char>(text.size() % 256)
      << static_cast<char>(text.size() / 256) << text;
}

void dump(char** argv, int documents) {
  const LlamaModel model(argv[1]);
  const PromptTemplate plain = plain_template("plain");
  std::vector<std::vector<Token>> texts{empty_prompt(plain, model.vocabulary())};
  for (int i = 0; i < documents; ++i)
    texts.push_back(document_prompt(plain, model.vocabulary(), read_document(argv[6 + i]).text));
  LlamaDecoderOptions options;
  options.max_branches = documents + 1;
  options.window = 2048;
  options.streams = true;
  LlamaDecoder decoder(model, options);
  const std::vector<Branch> trunks = decoder.read(texts);
  NbceDecoder pooled(decoder, trunks, {});

  const int steps = std::stoi(argv[3]);
  std::ofstream out(argv[2], std::ios::binary);
  write_header(out, static_cast<std::size_t>(steps), trunks.size(),
               static_cast<std::size_t>(model.vocabulary().size()));
  std::vector<Token> next = question_prompt(plain, model.vocabulary(), argv[4], argv[5]);
  for (int step = 0; step < steps; ++step) {
    pooled.extend({NbceDecoder::trunk(), next, Rows::last});
    for (const Branch branch : trunks) {
      const std::span<const float> scores = decoder.row(branch).scores;
      out.write(reinterpret_cast<const char*>(scores.data()), static_cast<std::streamsize>(scores.size_bytes()));
    }
    next = {choose(pooled.row(NbceDecoder::trunk()), 0, 0)};
  }
}

}  // namespace

int main(int argc, char** argv) try {
  if (argc < 7) {
    std::fprintf(stderr, "usage: dump_rows MODEL OUT.npy STEPS QUESTION PREFIX DOCUMENT...\n");
    return 2;
  }
  dump(argv, argc - 6);
} catch (const std::exception& error) {
  std::fprintf(stderr, "dump_rows: %s\n", error.what());
  return 1;
}
