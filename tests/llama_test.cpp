#include "tuiqiao/text/llama.h"

#include <gguf.h>
#include <gtest/gtest.h>

#include <array>
#include <functional>
#include <memory>
#include <set>

#include "llama_fixtures.h"
#include "tuiqiao/error.h"

namespace tuiqiao {
namespace {

using namespace test;

constexpr std::array kNames{"tiny-llama", "tiny-gemma3", "tiny-mamba", "tiny-bpe"};

/// Largest difference of a log-probability when the same tokens are evaluated in batches of another shape, or in other
/// cells. Measured over all of this file: 0.0064 (tiny-llama, F16), 0.0040 (tiny-gemma3), 1e-5 (tiny-mamba), 0
/// (tiny-bpe).
constexpr double kBatchShapeNats = 0.03;
/// The same of Gemma 3 270M, quantised, with and without its whole sliding window. Measured: 0; batches of
/// another shape move it by 0.09 on average.
constexpr double kRealModelNats = 0.5;

std::string message_of(const std::function<void()>& act) {
  try {
    act();
  } catch (const std::invalid_argument& e) {
    return std::string("invalid: ") + e.what();
  } catch (const Error& e) {
    return std::string("error: ") + e.what();
  }
  return "nothing thrown";
}

#define EXPECT_CONTAINS(text, part) EXPECT_NE((text).find(part), std::string::npos) << (text)

// ---- vocabulary ----

class LlamaVocabulary : public testing::TestWithParam<const char*> {};

/// The strings of the file's token list and their kinds, read by another reader than the model's.
struct FileTokens {
  std::vector<std::string> names;
  std::vector<int> kinds;  // 1 normal, 2 unknown, 3 control, 6 byte
};

FileTokens tokens_of_file(const fs::path& file) {
  const std::unique_ptr<gguf_context, decltype(&gguf_free)> gguf(gguf_init_from_file(file.c_str(), {true, nullptr}),
                                                                 gguf_free);
  const auto names = gguf_find_key(gguf.get(), "tokenizer.ggml.tokens");
  const auto kinds = gguf_find_key(gguf.get(), "tokenizer.ggml.token_type");
  FileTokens tokens;
  for (std::size_t i = 0; i < gguf_get_arr_n(gguf.get(), names); ++i) {
    tokens.names.emplace_back(gguf_get_arr_str(gguf.get(), names, i));
    tokens.kinds.push_back(static_cast<const std::int32_t*>(gguf_get_arr_data(gguf.get(), kinds))[i]);
  }
  return tokens;
}

std::string replaced(std::string text, const std::string& from, const std::string& to) {
  for (std::size_t at = 0; (at = text.find(from, at)) != std::string::npos; at += to.size())
    text.replace(at, from.size(), to);
  return text;
}

/// GPT-2's letters back to bytes: printable Latin-1 stands for itself, the other bytes are counted from U+0100.
std::string bytes_of_letters(const std::string& letters) {
  std::vector<int> moved;
  for (int b = 0; b < 256; ++b) {
    const bool printable = (b >= 0x21 && b <= 0x7E) || (b >= 0xA1 && b <= 0xAC) || b >= 0xAE;
    if (!printable) moved.push_back(b);
  }
  std::string bytes;
  for (std::size_t i = 0; i < letters.size(); ++i) {
    int code = static_cast<unsigned char>(letters[i]);
    if (code >= 0x80) code = (code & 0x1F) << 6 | (static_cast<unsigned char>(letters[++i]) & 0x3F);
    bytes += static_cast<char>(code < 256 ? code : moved.at(static_cast<std::size_t>(code - 256)));
  }
  return bytes;
}

TEST_P(LlamaVocabulary, KnowsBytesAndKindOfEveryToken) {
  const FileTokens file = tokens_of_file(tiny_path(GetParam()));
  const Vocabulary& vocabulary = tiny(GetParam()).vocabulary();
  const bool bpe = std::string_view(GetParam()) == "tiny-bpe";
  ASSERT_EQ(vocabulary.size(), static_cast<int>(file.names.size()));
  for (Token t = 0; t < vocabulary.size(); ++t) {
    const auto i = static_cast<std::size_t>(t);
    const std::string& name = file.names[i];
    switch (file.kinds[i]) {
      case 1:
        EXPECT_EQ(vocabulary.kind(t), TokenKind::text) << name;
        EXPECT_EQ(vocabulary.bytes(t), bpe ? bytes_of_letters(name) : replaced(name, "▁", " "));
        break;
      case 2:
        EXPECT_EQ(vocabulary.kind(t), TokenKind::unused) << name;
        EXPECT_EQ(vocabulary.bytes(t), "");
        break;
      case 3:
        EXPECT_EQ(vocabulary.kind(t), TokenKind::control) << name;
        EXPECT_EQ(vocabulary.bytes(t), "");
        EXPECT_EQ(vocabulary.name(t), name);
        break;
      case 6:
        EXPECT_EQ(vocabulary.kind(t), TokenKind::byte) << name;
        EXPECT_EQ(vocabulary.bytes(t), std::string(1, static_cast<char>(std::stoi(name.substr(3, 2), nullptr, 16))));
        break;
      default:
        FAIL() << name << " is of kind " << file.kinds[i];
    }
  }
}

TEST_P(LlamaVocabulary, FindsEveryTokenInTheTrie) {
  const Vocabulary& vocabulary = tiny(GetParam()).vocabulary();
  for (Token t = 0; t < vocabulary.size(); ++t) {
    const std::string_view bytes = vocabulary.bytes(t);
    if (bytes.empty()) continue;
    const auto from = vocabulary.trie().starting_with(bytes);
    const auto to = vocabulary.trie().prefixes_of(bytes);
    EXPECT_NE(std::find(from.begin(), from.end(), t), from.end()) << t;
    EXPECT_NE(std::find(to.begin(), to.end(), t), to.end()) << t;
  }
  // The first byte of a character has tokens: whole characters that begin so, and the byte by itself.
  const auto partial = vocabulary.trie().starting_with("\xe6");
  const auto has = [&](std::string_view bytes) {
    return std::any_of(partial.begin(), partial.end(), [&](Token t) { return vocabulary.bytes(t) == bytes; });
  };
  EXPECT_TRUE(has("\xe6"));
  EXPECT_TRUE(has("服务器"));
}

TEST_P(LlamaVocabulary, TokenizesAndBack) {
  const Vocabulary& vocabulary = tiny(GetParam()).vocabulary();
  // With add_space_prefix llama.cpp puts a space before each text that it tokenises; these models' files ask for it.
  const std::string_view name = GetParam();
  const std::string lead = name == "tiny-llama" || name == "tiny-mamba" ? " " : "";
  for (const std::string text : {"the heron", "What is this?\n\nA  bridge.", "今天服务器在桥上",
                                 "夜鹭🙂👩‍👩‍👧 é\x01\x7f", " ", "\r\n\t", "<0x0A> ▁ <s>"}) {
    const std::vector<Token> tokens = vocabulary.tokenize(text);
    EXPECT_EQ(vocabulary.detokenize(tokens),
              lead + replaced(text, "▁", lead.empty() && name == "tiny-bpe" ? "▁" : " "));
    for (const Token t : tokens) EXPECT_NE(vocabulary.kind(t), TokenKind::control) << text;
  }
  EXPECT_TRUE(vocabulary.tokenize("").empty());
  EXPECT_EQ(vocabulary.tokenize("服务器").back(), vocabulary.trie().starting_with("服务器").front());
}

TEST_P(LlamaVocabulary, MakesControlTokensOnlyForTemplates) {
  const Vocabulary& vocabulary = tiny(GetParam()).vocabulary();
  const bool bpe = std::string_view(GetParam()) == "tiny-bpe";
  const std::string end = bpe ? "<|im_end|>" : "<end_of_turn>";
  const std::vector<Token> as_text = vocabulary.tokenize(end);
  EXPECT_GT(as_text.size(), 1U);
  for (const Token t : as_text) EXPECT_NE(vocabulary.kind(t), TokenKind::control);
  EXPECT_TRUE(vocabulary.detokenize(as_text).ends_with(end));

  const std::vector<Token> as_control = vocabulary.tokenize(end, true);
  ASSERT_EQ(as_control.size(), 1U);
  EXPECT_EQ(vocabulary.kind(as_control[0]), TokenKind::control);
  EXPECT_EQ(vocabulary.name(as_control[0]), end);
  EXPECT_TRUE(vocabulary.ends(as_control[0]));
  EXPECT_EQ(vocabulary.detokenize(as_control), "");
  EXPECT_EQ(vocabulary.begin(), bpe ? std::nullopt : std::optional<Token>(1));
}

INSTANTIATE_TEST_SUITE_P(Models, LlamaVocabulary, testing::ValuesIn(kNames));

TEST(LlamaModel, RefusesTextWithoutTokensForItsBytes) {
  // Renames the byte tokens of a model, so that there is none for a byte that no other token holds.
  std::string model = read_file(tiny_path("tiny-llama"));
  for (std::size_t at = 0; (at = model.find("<0x", at)) != std::string::npos; ++at) model[at + 1] = '1';
  const ScratchFolder folder;
  write_file(folder.path / "byteless.gguf", model);
  std::string message = message_of([&] {
    const LlamaModel byteless(folder.path / "byteless.gguf");
    EXPECT_FALSE(byteless.vocabulary().tokenize("the").empty());
    byteless.vocabulary().tokenize("the 🙂");
  });
  EXPECT_TRUE(message.starts_with("error: ")) << message;
  EXPECT_CONTAINS(message, "no token for a byte");
}

TEST(LlamaModel, RendersItsChatTemplate) {
  EXPECT_EQ(tiny("tiny-bpe").apply_chat_template("hi"), "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n");
  EXPECT_EQ(tiny("tiny-llama").apply_chat_template("hi"), std::nullopt);
  EXPECT_EQ(LlamaModel::apply_chat_template("gemma", "hi"),
            "<start_of_turn>user\nhi<end_of_turn>\n<start_of_turn>model\n");
  EXPECT_EQ(LlamaModel::apply_chat_template("no such template", "hi"), std::nullopt);
}

TEST(LlamaModel, TellsModelsApart) {
  std::set<std::string> fingerprints;
  for (const char* name : kNames) fingerprints.insert(tiny(name).fingerprint());
  EXPECT_EQ(fingerprints.size(), kNames.size());
  EXPECT_EQ(LlamaModel(tiny_path("tiny-llama")).fingerprint(), tiny("tiny-llama").fingerprint());
  EXPECT_EQ(tiny("tiny-llama").trained_window(), 512);
}

// ---- decoder ----

class LlamaDecoding : public testing::TestWithParam<Layout> {
 protected:
  const LlamaModel& model() const { return tiny(GetParam().model); }
  std::vector<Token> text(int count, unsigned seed) const { return random_tokens(model().vocabulary(), count, seed); }
  LlamaDecoder make(int branches, int window, int chunk = 512) const {
    LlamaDecoderOptions options;
    options.max_branches = branches;
    options.window = window;
    options.streams = GetParam().streams;
    options.chunk = chunk;
    options.threads = 1;
    return {model(), options};
  }
  void expect_near(const Decoder& decoder, Branch branch, const std::vector<Token>& tokens, const char* what) const {
    EXPECT_LE(distance(copy_row(decoder.row(branch)), row_alone(model(), tokens)), kBatchShapeNats) << what;
  }
};

TEST_P(LlamaDecoding, RowsTogetherAreThoseOneByOne) {
  LlamaDecoder decoder = make(2, 100);
  const std::vector<Token> tokens = text(50, 1);  // more rows than one call keeps
  const Branch together = decoder.open(), single = decoder.open();
  decoder.extend({together, tokens, Rows::all});
  const std::vector<LogRow> rows = copy_rows(decoder, together);
  ASSERT_EQ(rows.size(), tokens.size());
  for (std::size_t i = 0; i < tokens.size(); ++i) {
    decoder.extend({single, std::span(tokens).subspan(i, 1), Rows::last});
    EXPECT_LE(distance(rows[i], copy_row(decoder.row(single))), kBatchShapeNats) << i;
    double total = 0;
    for (const double p : rows[i]) total += std::exp(p);
    EXPECT_NEAR(total, 1, 1e-5);
  }
  EXPECT_GT(distance(rows[20], rows[40]), 100 * kBatchShapeNats);  // or nothing was compared
  EXPECT_EQ(decoder.length(together), 50);
  EXPECT_EQ(decoder.length(single), 50);
}

TEST_P(LlamaDecoding, ForksAreIndependent) {
  LlamaDecoder decoder = make(4, 200);
  const std::vector<Token> trunk = text(60, 2), one = text(7, 3), two = text(5, 4), more = text(9, 5);
  const Branch a = decoder.open(), empty = decoder.fork(a);
  EXPECT_EQ(decoder.length(empty), 0);
  decoder.extend({empty, one, Rows::last});
  expect_near(decoder, empty, one, "fork of an empty branch");
  decoder.close(empty);
  decoder.extend({a, trunk, Rows::last});
  const LogRow before = copy_row(decoder.row(a));
  const Branch b = decoder.fork(a);
  EXPECT_EQ(distance(before, copy_row(decoder.row(a))), 0);  // a fork disturbs no row
  EXPECT_THROW(decoder.row(b), std::invalid_argument);
  const Branch c = decoder.fork(b);
  decoder.extend(std::vector<Extension>{{b, one, Rows::last}, {a, two, Rows::last}});
  expect_near(decoder, b, joined(trunk, one), "fork");
  expect_near(decoder, a, joined(trunk, two), "original");
  EXPECT_EQ(decoder.length(c), 60);

  decoder.close(a);  // what was shared stays with those that share it
  const Branch d = decoder.fork(b);
  decoder.extend(std::vector<Extension>{{c, more, Rows::last}, {d, two, Rows::last}, {b, more, Rows::none}});
  expect_near(decoder, c, joined(trunk, more), "fork of a fork");
  expect_near(decoder, d, joined(joined(trunk, one), two), "later fork");
  EXPECT_THROW(decoder.row(b), std::invalid_argument);
  decoder.extend({b, two, Rows::last});
  expect_near(decoder, b, joined(joined(joined(trunk, one), more), two), "extended without a row");
}

TEST_P(LlamaDecoding, ManyBranchesTokensAndRowsInOneCall) {
  // 2,400 tokens and rows: llama.cpp gets 2,048 tokens and 40 rows a call at most.
  constexpr int kBranches = 40, kTokens = 60;
  LlamaDecoder decoder = make(kBranches, kTokens + 1);
  std::vector<std::vector<Token>> texts;
  std::vector<Extension> extensions;
  for (int i = 0; i < kBranches; ++i) texts.push_back(text(kTokens, static_cast<unsigned>(100 + i)));
  for (const auto& tokens : texts) extensions.push_back({decoder.open(), tokens, Rows::all});
  decoder.extend(extensions);
  double largest = 0;
  for (int i = 0; i < kBranches; ++i) {
    const auto& e = extensions[static_cast<std::size_t>(i)];
    ASSERT_EQ(decoder.rows(e.branch).size(), kTokens);
    LlamaDecoder alone = make(1, kTokens);
    const Branch branch = alone.open();
    alone.extend({branch, e.tokens, Rows::all});
    largest = std::max(largest, distance(copy_rows(decoder, e.branch), copy_rows(alone, branch)));
  }
  EXPECT_LE(largest, kBatchShapeNats);

  for (Extension& e : extensions) e = {e.branch, e.tokens.first(1), Rows::last};  // and all at once, a token each
  decoder.extend(extensions);
  for (int i = 0; i < kBranches; i += 13) {
    const auto& tokens = texts[static_cast<std::size_t>(i)];
    expect_near(decoder, static_cast<Branch>(i), joined(tokens, {tokens[0]}), "token after");
  }
}

TEST_P(LlamaDecoding, LongTextsKeepRowsOfSeveralCalls) {
  // Longer than a batch, and the rows of its first call are those of the last token of other branches.
  LlamaDecoder decoder = make(3, 3000);
  const std::vector<Token> little = text(5, 6), long_one = text(2500, 7), last = text(3, 8);
  const Branch a = decoder.open(), b = decoder.open(), c = decoder.open();
  decoder.extend(std::vector<Extension>{{a, little, Rows::last}, {b, long_one, Rows::none}, {c, last, Rows::all}});
  expect_near(decoder, a, little, "of the first call");
  EXPECT_EQ(decoder.rows(c).size(), 3U);
  expect_near(decoder, c, last, "of the last call");
  EXPECT_EQ(decoder.length(b), 2500);
  decoder.extend({b, little, Rows::last});
  expect_near(decoder, b, joined(long_one, little), "long text");
}

TEST_P(LlamaDecoding, ClosedBranchesLeaveNothingBehind) {
  LlamaDecoder decoder = make(2, 300, 64);
  const std::vector<Token> first = text(250, 9), second = text(40, 10);
  for (unsigned round = 0; round < 8; ++round) {
    const Branch a = decoder.open(), b = decoder.open();
    EXPECT_NE(a, b);
    EXPECT_THROW(decoder.open(), std::invalid_argument);
    EXPECT_EQ(decoder.length(a), 0);
    decoder.extend(std::vector<Extension>{{a, first, Rows::none}, {b, second, Rows::last}});
    expect_near(decoder, b, second, "second");
    decoder.close(round % 2 ? a : b);
    const Branch again = decoder.open();
    EXPECT_EQ(again, round % 2 ? a : b);
    decoder.extend({again, second, Rows::last});
    expect_near(decoder, again, second, "again");
    decoder.close(a);
    decoder.close(b);
    EXPECT_THROW(decoder.length(a), std::invalid_argument);
  }
}

TEST_P(LlamaDecoding, GrowsForksOfALongBranchFar) {
  // Where a layer forgets what lies outside its window, the room it had must become free again, shared or not.
  LlamaDecoder decoder = make(3, 2000, 64);
  std::vector<std::vector<Token>> texts(3, text(900, 11));
  const Branch a = decoder.open();
  decoder.extend({a, texts[0], Rows::none});
  const std::vector<Branch> branches{a, decoder.fork(a), decoder.fork(a)};
  for (unsigned round = 0; round < 8; ++round) {
    std::vector<std::vector<Token>> pieces;
    std::vector<Extension> extensions;
    for (unsigned i = 0; i < 3; ++i) pieces.push_back(text(100, 1000 + 10 * round + i));
    for (std::size_t i = 0; i < 3; ++i) {
      extensions.push_back({branches[i], pieces[i], Rows::last});
      texts[i] = joined(texts[i], pieces[i]);
    }
    ASSERT_NO_THROW(decoder.extend(extensions)) << round;
  }
  for (std::size_t i = 0; i < 3; ++i) expect_near(decoder, branches[i], texts[i], "far");
}

TEST_P(LlamaDecoding, SharesTokensAmongForks) {
  LlamaDecoder decoder = make(40, 20);
  const std::vector<Token> tokens = text(10, 12), more = text(5, 13), tail = text(2, 14), too_many = text(4, 15);
  const Branch a = decoder.open();
  decoder.extend({a, tokens, Rows::last});
  const Branch fork = decoder.fork(a), other = decoder.open();
  const std::vector<Branch> forks{fork}, self{a}, shorter{other};
  const auto refused = [&](const std::vector<Extension>& extensions) {
    return message_of([&] { decoder.extend(extensions); });
  };
  if (!decoder.shares()) {
    EXPECT_CONTAINS(refused({{a, more, Rows::last, forks}}), "share no tokens");
    return;
  }
  EXPECT_CONTAINS(refused({{a, more, Rows::last, self}}), "branch 0 does not hold what branch 0 does");
  EXPECT_CONTAINS(refused({{a, more, Rows::last, shorter}}), "branch 2 does not hold what branch 0 does");
  EXPECT_CONTAINS(refused({{fork, tail, Rows::last}, {a, more, Rows::last, forks}}), "branch 1 does not hold");
  const std::vector<Token> fitting = text(8, 16);
  EXPECT_CONTAINS(refused({{a, fitting, Rows::last, forks}, {fork, too_many, Rows::last}}),
                  "4 tokens after 18 outgrow the window of 20");
  EXPECT_EQ(decoder.length(a), 10);
  EXPECT_EQ(decoder.length(fork), 10);

  decoder.extend(std::vector<Extension>{{a, more, Rows::last, forks}, {fork, tail, Rows::all}});
  EXPECT_EQ(decoder.length(a), 15);
  EXPECT_EQ(decoder.length(fork), 17);
  const auto scores = [&](const Row& row) { return std::vector<float>(row.scores.begin(), row.scores.end()); };
  const std::vector<float> after_more = scores(decoder.row(a)), after_tail = scores(decoder.row(fork));
  std::vector<Token> whole = tokens;
  whole.insert(whole.end(), more.begin(), more.end());
  whole.insert(whole.end(), tail.begin(), tail.end());
  decoder.extend({other, whole, Rows::all});
  const std::span<const Row> rows = decoder.rows(other);
  for (std::size_t t = 0; t < after_more.size(); ++t) {
    EXPECT_NEAR(after_more[t], rows[rows.size() - 3].scores[t], 2e-3) << t;
    EXPECT_NEAR(after_tail[t], rows.back().scores[t], 2e-3) << t;
  }
}

TEST_P(LlamaDecoding, ChecksEveryLimitBeforehand) {
  LlamaDecoder decoder = make(3, 20);
  const std::vector<Token> tokens = text(10, 12), more = text(11, 13), fitting = text(10, 14);
  const Branch a = decoder.open(), b = decoder.open();
  decoder.extend(std::vector<Extension>{{a, tokens, Rows::last}, {b, tokens, Rows::last}});
  const auto refused = [&](const std::vector<Extension>& extensions) {
    return message_of([&] { decoder.extend(extensions); });
  };
  const Token vocabulary = model().vocabulary().size();
  const std::vector<Token> outside{0, vocabulary}, negative{-1};
  EXPECT_CONTAINS(refused({{b, fitting, Rows::last}, {a, more, Rows::last}}),
                  "invalid: [LlamaDecoder::extend] 11 tokens after 10 outgrow the window of 20");
  EXPECT_CONTAINS(refused({{a, fitting, Rows::last}, {2, fitting, Rows::last}}), "branch 2 does not live");
  EXPECT_CONTAINS(refused({{3, fitting, Rows::last}}), "branch 3 does not live");
  EXPECT_CONTAINS(refused({{-1, fitting, Rows::last}}), "branch -1 does not live");
  EXPECT_CONTAINS(refused({{a, fitting, Rows::last}, {a, fitting, Rows::last}}), "branch 0 is named twice");
  EXPECT_CONTAINS(refused({{a, {}, Rows::last}}), "no tokens for branch 0");
  EXPECT_CONTAINS(refused({{a, outside, Rows::last}}), "outside [0, " + std::to_string(vocabulary) + ")");
  EXPECT_CONTAINS(refused({{a, negative, Rows::last}}), "token -1 outside");
  EXPECT_CONTAINS(message_of([&] {
                    decoder.read(std::vector<std::vector<Token>>{tokens, tokens});
                  }),
                  "2 texts and 2 living branches exceed 3");
  EXPECT_CONTAINS(message_of([&] { decoder.read(std::vector<std::vector<Token>>{joined(tokens, more)}); }),
                  "21 tokens after 0 outgrow the window of 20");
  EXPECT_CONTAINS(message_of([&] { decoder.fork(2); }), "invalid: [LlamaDecoder::fork] branch 2 does not live");
  EXPECT_CONTAINS(message_of([&] { decoder.close(2); }), "branch 2 does not live");
  EXPECT_CONTAINS(message_of([&] { decoder.rows(2); }), "branch 2 does not live");
  EXPECT_CONTAINS(message_of([&] { decoder.length(kMaxLlamaBranches); }), "branch 256 does not live");

  // Nothing happened to the branches, not even to their rows.
  expect_near(decoder, a, tokens, "untouched");
  decoder.extend(std::vector<Extension>{{a, fitting, Rows::last}, {b, fitting, Rows::last}});
  expect_near(decoder, a, joined(tokens, fitting), "up to the window");
  EXPECT_NO_THROW(decoder.extend(std::span<const Extension>{}));
  decoder.fork(a);
  EXPECT_CONTAINS(message_of([&] { decoder.fork(a); }), "all 3 branches live already");
}

INSTANTIATE_TEST_SUITE_P(Layouts, LlamaDecoding,
                         testing::Values(Layout{"tiny-llama", false}, Layout{"tiny-llama", true},
                                         Layout{"tiny-gemma3", false}, Layout{"tiny-gemma3", true},
                                         Layout{"tiny-mamba", false}, Layout{"tiny-mamba", true},
                                         Layout{"tiny-bpe", false}, Layout{"tiny-bpe", true}));

TEST(LlamaDecoder, RefusesOptionsOutsideTheirDomain) {
  const auto refused = [](const std::function<void(LlamaDecoderOptions&)>& spoil) {
    LlamaDecoderOptions options;
    options.window = 8;
    spoil(options);
    return message_of([&] { const LlamaDecoder decoder(tiny("tiny-llama"), options); });
  };
  EXPECT_EQ(refused([](auto&) {}), "nothing thrown");
  EXPECT_EQ(refused([](auto& o) { o.max_branches = kMaxLlamaBranches; }), "nothing thrown");
  EXPECT_CONTAINS(refused([](auto& o) { o.max_branches = 257; }), "invalid: [LlamaDecoder] max_branches = 257");
  EXPECT_CONTAINS(refused([](auto& o) { o.max_branches = 0; }), "invalid: [LlamaDecoder] max_branches = 0");
  EXPECT_CONTAINS(refused([](auto& o) { o.window = -1; }), "invalid: [LlamaDecoder] window = -1");
  EXPECT_CONTAINS(refused([](auto& o) { o.window = (1 << 30) + 1; }), "invalid: [LlamaDecoder] window = 1073741825");
  EXPECT_CONTAINS(refused([](auto& o) { o.cells = -1; }), "invalid: [LlamaDecoder] cells = -1");
  EXPECT_CONTAINS(refused([](auto& o) { o.threads = 513; }), "invalid: [LlamaDecoder] threads = 513");
  EXPECT_CONTAINS(refused([](auto& o) { o.chunk = 0; }), "invalid: [LlamaDecoder] chunk = 0");
  EXPECT_CONTAINS(refused([](auto& o) {
                    o.window = 1 << 30;
                    o.max_branches = 2;
                  }),
                  "too many cells");
}

TEST(LlamaDecoder, KeepsTheLimitOfBranches) {
  LlamaDecoderOptions options;
  options.max_branches = kMaxLlamaBranches;
  options.window = 8;
  options.threads = 1;
  LlamaDecoder decoder(tiny("tiny-llama"), options);
  const std::vector<Token> tokens = random_tokens(decoder.vocabulary(), 3, 15);
  std::vector<Extension> extensions;
  for (int i = 0; i < kMaxLlamaBranches; ++i) extensions.push_back({decoder.open(), tokens, Rows::last});
  EXPECT_THROW(decoder.open(), std::invalid_argument);
  decoder.extend(extensions);
  const LogRow expected = row_alone(tiny("tiny-llama"), tokens);
  for (const Extension& e : extensions) {
    EXPECT_LE(distance(copy_row(decoder.row(e.branch)), expected), kBatchShapeNats);
  }
}

TEST(LlamaDecoder, SaysWhenItsCellsAreUsedUpAndGoesOn) {
  LlamaDecoderOptions options;
  options.max_branches = 3;
  options.window = 4000;
  options.cells = 2560;
  options.threads = 1;
  LlamaDecoder decoder(tiny("tiny-llama"), options);
  const auto text = [&](int count, unsigned seed) { return random_tokens(decoder.vocabulary(), count, seed); };
  const std::vector<Token> trunk = text(2000, 16), half = text(250, 17), much = text(600, 18), huge = text(2200, 19);
  const Branch a = decoder.open();
  decoder.extend({a, trunk, Rows::none});
  const Branch b = decoder.fork(a);
  decoder.extend(
      std::vector<Extension>{{a, half, Rows::last}, {b, half, Rows::last}});  // 2,500 cells: the trunk counts once
  const std::string message = message_of([&] { decoder.extend({a, much, Rows::last}); });
  EXPECT_CONTAINS(message, "error: out of context space: 2560 cells");

  // Nothing of it was evaluated, and both branches go on as if it had not been asked for.
  EXPECT_EQ(decoder.length(a), 2250);
  const std::vector<Token> last = text(20, 20);
  decoder.extend({a, last, Rows::last});
  EXPECT_LE(distance(copy_row(decoder.row(a)), row_alone(tiny("tiny-llama"), joined(joined(trunk, half), last))),
            kBatchShapeNats);

  // Of a longer extension, what was evaluated counts: length() tells how much.
  decoder.close(a);
  decoder.close(b);
  const Branch c = decoder.open();
  decoder.extend({c, text(400, 21), Rows::none});
  EXPECT_CONTAINS(message_of([&] { decoder.extend({c, huge, Rows::last}); }), "out of context space");
  EXPECT_EQ(decoder.length(c), 2448);
  EXPECT_THROW(decoder.row(c), std::invalid_argument);
  decoder.extend({c, last, Rows::last});
  std::vector<Token> whole = joined(text(400, 21), huge);
  whole.resize(2448);
  EXPECT_LE(distance(copy_row(decoder.row(c)), row_alone(tiny("tiny-llama"), joined(whole, last))), kBatchShapeNats);

  // Documents that do not fit leave no branch behind.
  decoder.close(c);
  EXPECT_CONTAINS(message_of([&] {
                    decoder.read(std::vector<std::vector<Token>>{trunk, much});
                  }),
                  "error: out of context space");
  for (int i = 0; i < 3; ++i) decoder.open();
}

TEST(LlamaDecoder, SlidingWindowsNeedNoWholeCache) {
  // tiny-gemma3 slides over 16 tokens; the reference keeps everything.
  const LlamaModel& model = tiny("tiny-gemma3");
  for (const bool streams : {false, true}) {
    std::vector<std::vector<LogRow>> rows;
    for (const bool full : {false, true}) {
      LlamaDecoderOptions options;
      options.max_branches = 5;
      options.window = 1000;
      options.full_sliding_window = full;
      options.streams = streams;
      options.chunk = 64;
      options.threads = 1;
      LlamaDecoder decoder(model, options);
      std::vector<std::vector<Token>> texts;
      for (const int length : {15, 16, 17, 700}) {
        texts.push_back(random_tokens(model.vocabulary(), length, static_cast<unsigned>(length)));
      }
      const std::vector<Token> question = random_tokens(model.vocabulary(), 90, 22);
      std::vector<Branch> branches = decoder.read(texts);
      branches.push_back(decoder.fork(branches.back()));
      std::vector<Extension> extensions;
      for (const Branch branch : branches) extensions.push_back({branch, question, Rows::all});
      decoder.extend(extensions);
      auto& found = rows.emplace_back();
      for (const Branch branch : branches) {
        const std::vector<LogRow> of_branch = copy_rows(decoder, branch);
        found.insert(found.end(), of_branch.begin(), of_branch.end());
      }
    }
    EXPECT_LE(distance(rows[0], rows[1]), kBatchShapeNats) << streams;
  }
}

TEST(LlamaDecoder, BriefForksLeaveNothingBehind) {
  // Forks that share the cells of a window of 16, many more of them than the cache has room for at once.
  const LlamaModel& model = tiny("tiny-gemma3");
  LlamaDecoderOptions options;
  options.max_branches = 40;
  options.window = 2000;
  options.threads = 1;
  LlamaDecoder decoder(model, options);
  const Branch trunk = decoder.open();
  std::vector<Token> text;
  for (unsigned round = 0; round < 60; ++round) {
    const std::vector<Token> more = random_tokens(model.vocabulary(), 30, round);
    decoder.extend({trunk, more, Rows::none});
    text = joined(text, more);
    std::vector<std::vector<Token>> tails;
    std::vector<Branch> forks;
    for (unsigned k = 0; k < 30; ++k) {
      forks.push_back(decoder.fork_briefly(trunk));
      tails.push_back(random_tokens(model.vocabulary(), 2, 1000 + k));
    }
    std::vector<Extension> extensions;
    for (std::size_t k = 0; k < forks.size(); ++k) extensions.push_back({forks[k], tails[k]});
    decoder.extend(extensions);
    if (round % 20 == 19) {
      EXPECT_LE(distance(copy_row(decoder.row(forks[7])), row_alone(model, joined(text, tails[7]))), kBatchShapeNats);
    }
    for (const Branch fork : forks) decoder.close(fork);
  }
  const std::vector<Token> last = random_tokens(model.vocabulary(), 5, 99);
  decoder.extend({trunk, last});
  EXPECT_LE(distance(copy_row(decoder.row(trunk)), row_alone(model, joined(text, last))), kBatchShapeNats);
}

// ---- the real model ----

TEST(RealModel, SlidingWindowOf512) {
  TUIQIAO_REAL_MODEL(model);
  const std::string clock = read_file(fs::path(TUIQIAO_TEST_DATA) / "../../examples/demo/documents/clock-label.txt");
  std::vector<Token> tokens =
      model.vocabulary().tokenize(clock + clock.substr(0, 200) + "\n\nThe tower clock was built by");
  ASSERT_GT(tokens.size(), 560U);  // the fact lies beyond the window of 512
  tokens.insert(tokens.begin(), *model.vocabulary().begin());
  std::vector<LogRow> rows;
  for (const bool full : {false, true}) {
    LlamaDecoderOptions options;
    options.max_branches = 2;
    options.window = 2048;
    options.full_sliding_window = full;
    LlamaDecoder decoder(model, options);
    const Branch branch = decoder.fork(decoder.read(std::vector<std::vector<Token>>{tokens})[0]);
    decoder.extend({branch, model.vocabulary().tokenize(" Anton"), Rows::last});
    rows.push_back(copy_row(decoder.row(branch)));
  }
  EXPECT_LE(distance(rows[0], rows[1]), kRealModelNats);
  EXPECT_EQ(model.vocabulary().bytes(best_token(rows[0])), " Bre");
}

TEST(RealModel, HoldsWordsThatContinueOneAnother) {
  TUIQIAO_REAL_MODEL(model);
  const auto found = model.vocabulary().trie().prefixes_of("服务器");
  std::set<std::string_view> words;
  for (const Token t : found) words.insert(model.vocabulary().bytes(t));
  EXPECT_TRUE(words.contains("服务"));
  EXPECT_TRUE(words.contains("服务器"));
  EXPECT_EQ(model.vocabulary().tokenize("服务器").size(), 1U);
  for (const std::string text : {"The tower clock\n\n 1743 ", "今天，服务器端。", "🙂👩‍👩‍👧"}) {
    EXPECT_EQ(model.vocabulary().detokenize(model.vocabulary().tokenize(text)), text);
  }
}

}  // namespace
}  // namespace tuiqiao
