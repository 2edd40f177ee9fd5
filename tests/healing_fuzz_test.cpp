#include <gtest/gtest.h>

#include <array>
#include <map>

#include "llama_fixtures.h"
#include "text/byte_tokenizer.h"
#include "tuiqiao/text/healing.h"
#include "vocabulary_learner.h"

namespace tuiqiao {
namespace {

using test::Layout;
using test::tiny;

/// Passes everything on and remembers what each branch holds.
class Recorder final : public Decoder {
 public:
  Recorder(Decoder& inner, Branch branch) : inner_(inner), texts_{{branch, {}}} {}
  const Vocabulary& vocabulary() const override { return inner_.vocabulary(); }
  int max_branches() const override { return inner_.max_branches(); }
  int window() const override { return inner_.window(); }
  int length(Branch branch) const override { return inner_.length(branch); }
  Branch fork(Branch branch) override {
    const Branch copy = inner_.fork(branch);
    texts_[copy] = texts_.at(branch);
    return copy;
  }
  void close(Branch branch) override {
    inner_.close(branch);
    texts_.erase(branch);
  }
  using Decoder::extend;
  void extend(std::span<const Extension> extensions) override {
    inner_.extend(extensions);
    for (const Extension& e : extensions) {
      auto& text = texts_.at(e.branch);
      text.insert(text.end(), e.tokens.begin(), e.tokens.end());
    }
  }
  std::span<const Row> rows(Branch branch) const override { return inner_.rows(branch); }

  const std::vector<Token>& text(Branch branch) const { return texts_.at(branch); }
  std::size_t living() const { return texts_.size(); }

 private:
  Decoder& inner_;
  std::map<Branch, std::vector<Token>> texts_;
};

std::vector<Token> beginning(const Vocabulary& vocabulary) {
  return vocabulary.begin() ? std::vector<Token>{*vocabulary.begin()} : std::vector<Token>{};
}

/// Text of all kinds: words, Chinese, emoji, white space, broken and unfinished characters, any bytes.
std::string random_prompt(std::mt19937& random) {
  static const std::vector<std::string> kPieces{"the ",
                                                "import numpy",
                                                " ",
                                                "  ",
                                                "\n",
                                                "\t",
                                                "0",
                                                "12",
                                                ".",
                                                "'s",
                                                "don't",
                                                "(",
                                                "服务",
                                                "器",
                                                "。",
                                                "，",
                                                "\xF0\x9F\x98\x80",
                                                "\xF0\x9F\x98",
                                                "\xE6\x9C",
                                                "\xE6",
                                                "\xFF",
                                                "\x80",
                                                "\xC0\xAF",
                                                "\xED\xA0\x80",
                                                "é",
                                                "e\xCC\x81",
                                                "<end_of_turn>",
                                                "<s>",
                                                "</s>",
                                                "▁",
                                                "<0x0A>",
                                                "\xE2\x80\x8B",
                                                std::string(1, '\0'),
                                                "https://a.b/c?d=",
                                                "\r\n"};
  std::string text;
  const int pieces = static_cast<int>(random() % 7);
  for (int i = 0; i < pieces; ++i) {
    if (random() % 4 == 0) {
      text += static_cast<char>(random() & 0xFFU);
    } else if (random() % 4 == 0) {
      text += test::utf8(static_cast<char32_t>(random() % 0x3000));
    } else {
      text += kPieces[random() % kPieces.size()];
    }
  }
  return text;
}

class HealingFuzz : public testing::TestWithParam<Layout> {};

TEST_P(HealingFuzz, AnyBytesGoOnWhereTheyEnd) {
  constexpr int kPrompts = 10000 / 5;  // 10,000 over all models and layouts
  const LlamaModel& model = tiny(GetParam().model);
  const Vocabulary& vocabulary = model.vocabulary();
  LlamaDecoderOptions with;
  with.max_branches = 12;
  with.window = 96;
  with.threads = 1;
  with.streams = GetParam().streams;
  LlamaDecoder decoder(model, with);
  std::mt19937 random(5);
  const std::array modes{HealMode::exact, HealMode::exact, HealMode::exact,
                         HealMode::one,   HealMode::back,  HealMode::off};
  for (int i = 0; i < kPrompts; ++i) {
    const std::string prompt = random_prompt(random);
    HealOptions options;
    options.mode = modes[random() % modes.size()];
    options.temperature = random() % 2 == 0 ? 0 : 0.8;
    options.seed = static_cast<std::uint64_t>(i);
    options.max_forks = 1 + static_cast<int>(random() % 11);
    SCOPED_TRACE(testing::Message() << i << " " << name(options.mode, options.back) << " "
                                    << testing::PrintToString(prompt));
    const Branch branch = decoder.open();
    Recorder recorder(decoder, branch);
    // Now and then nothing comes before, as where a model has no token to begin with.
    const std::vector<Token> before = random() % 4 == 0 ? std::vector<Token>() : beginning(vocabulary);
    HealResult result;
    ASSERT_NO_THROW(result = heal(recorder, branch, before, prompt, options));
    EXPECT_EQ(recorder.living(), 1U);
    std::vector<Token> tokens = recorder.text(branch);
    tokens.insert(tokens.end(), result.tokens.begin(), result.tokens.end());
    for (std::size_t k = before.size(); k < tokens.size(); ++k) {
      const TokenKind kind = vocabulary.kind(tokens[k]);
      EXPECT_TRUE(kind == TokenKind::text || kind == TokenKind::byte);
    }
    const std::string lead = prompt.empty() ? "" : ByteTokenizer(vocabulary).lead();
    EXPECT_EQ(vocabulary.detokenize(tokens), lead + prompt + result.bytes);
    decoder.close(branch);
    if (HasFailure()) return;
  }
}

INSTANTIATE_TEST_SUITE_P(Tiny, HealingFuzz,
                         testing::Values(Layout{"tiny-llama", false}, Layout{"tiny-gemma3", false},
                                         Layout{"tiny-bpe", false}, Layout{"tiny-mamba", false},
                                         Layout{"tiny-llama", true}));

}  // namespace
}  // namespace tuiqiao
