// LlamaDecoder::read: documents evaluated, kept on disk and loaded again.

#include <gtest/gtest.h>

#include <functional>
#include <numeric>

#include "llama_fixtures.h"
#include "tuiqiao/error.h"
#include "tuiqiao/text/llama.h"

namespace tuiqiao {
namespace {

using namespace test;

/// Largest difference of a log-probability between runs whose batches or cells differ. Measured over all of this file:
/// 0.0034 (tiny-llama), 0.0013 (tiny-gemma3), 1e-5 (tiny-mamba), 0 (tiny-bpe).
constexpr double kBatchShapeNats = 0.03;

class Reading : public testing::TestWithParam<Layout> {
 protected:
  const LlamaModel& model() const { return tiny(GetParam().model); }
  LlamaDecoderOptions settings(int branches = 8) const {
    LlamaDecoderOptions options;
    options.max_branches = branches;
    options.window = 900;
    options.streams = GetParam().streams;
    options.chunk = 128;
    options.threads = 1;
    return options;
  }
  std::vector<std::vector<Token>> documents() const { return texts_of(model(), {17, 300, 0, 1, 700, 129}); }

  /// The rows after each text, of a question asked of all of them at once.
  std::vector<LogRow> ask(LlamaDecoder& decoder, const std::vector<Branch>& branches) const {
    const std::vector<Token> question = random_tokens(model().vocabulary(), 21, 5);
    std::vector<Extension> extensions;
    for (const Branch branch : branches) extensions.push_back({branch, question, Rows::all});
    decoder.extend(extensions);
    std::vector<LogRow> rows;
    for (const Branch branch : branches) {
      for (const Row& row : decoder.rows(branch)) rows.push_back(copy_row(row));
    }
    return rows;
  }
  std::vector<LogRow> run(const std::vector<std::vector<Token>>& texts, StateStore* store) const {
    LlamaDecoder decoder(model(), settings());
    return ask(decoder, decoder.read(texts, store));
  }
};

TEST_P(Reading, ColdAndCachedAreTheSameBits) {
  const ScratchFolder folder;
  const std::vector<LogRow> without = run(documents(), nullptr);
  StateStore cold(folder.path), warm(folder.path);
  EXPECT_EQ(distance(without, run(documents(), &cold)), 0);
  EXPECT_EQ(cold.statistics().misses, 5);  // an empty text has no state
  EXPECT_EQ(distance(without, run(documents(), &warm)), 0);
  EXPECT_EQ(warm.statistics().hits, 5);
  EXPECT_EQ(warm.statistics().misses, 0);

  // Half of them known, half new.
  const auto files = folder.files();
  ASSERT_EQ(files.size(), 5U);
  fs::remove(files[1]);
  fs::remove(files[3]);
  StateStore half(folder.path);
  EXPECT_EQ(distance(without, run(documents(), &half)), 0);
  EXPECT_EQ(half.statistics().hits, 3);
}

TEST_P(Reading, GoesOnWithoutAStoreThatCannotBeWritten) {
  const ScratchFolder folder;
  const fs::path place = folder.path / "states";
  StateStore store(place);
  fs::remove(place);
  write_file(place, "");  // no folder any more
  LlamaDecoder decoder(model(), settings());
  std::vector<std::string> notes;
  const auto branches = decoder.read(documents(), &store, {}, [&](const std::string& line) { notes.push_back(line); });
  ASSERT_EQ(notes.size(), 1U);
  EXPECT_EQ(notes[0].find(place.string() + ": "), 0U) << notes[0];
  EXPECT_EQ(store.statistics().misses, 5);
  EXPECT_EQ(distance(run(documents(), nullptr), ask(decoder, branches)), 0);
}

TEST_P(Reading, TextsOfAnyLengthAreTheSameBits) {
  // A window's cells are used in turn: where they lie, and so the order of sums, depends on the length.
  const ScratchFolder folder;
  StateStore store(folder.path);
  std::vector<int> lengths;
  for (int length = 127; length < 560; length += length % 3 == 0 ? 1 : 27) lengths.push_back(length);
  for (const auto& text : texts_of(model(), lengths)) {
    const std::vector<LogRow> cold = run({text}, &store);
    EXPECT_EQ(distance(cold, run({text}, &store)), 0) << text.size();
  }
  EXPECT_EQ(store.statistics().hits, static_cast<int>(lengths.size()));
}

TEST_P(Reading, OthersBesideATextMoveItsRowsLittle) {
  const ScratchFolder folder;
  StateStore store(folder.path);
  const auto texts = documents();
  const std::vector<LogRow> all = run(texts, &store);
  const std::vector<std::size_t> order{4, 0, 2};
  const std::vector<LogRow> some = run({texts[4], texts[0], texts[2]}, &store);
  EXPECT_EQ(store.statistics().hits, 2);
  const std::size_t each = all.size() / texts.size();
  ASSERT_EQ(some.size(), order.size() * each);
  double largest = 0;
  for (std::size_t i = 0; i < order.size(); ++i) {
    for (std::size_t k = 0; k < each; ++k) {
      largest = std::max(largest, distance(some[i * each + k], all[order[i] * each + k]));
    }
  }
  EXPECT_LE(largest, kBatchShapeNats);
  EXPECT_GT(distance(all[each - 1], all[2 * each - 1]), 10 * kBatchShapeNats);  // texts matter
}

TEST_P(Reading, IsWhatExtendingWouldBe) {
  LlamaDecoder decoder(model(), settings(2));
  const std::vector<Token> text = texts_of(model(), {700})[0], question = random_tokens(model().vocabulary(), 21, 5);
  const Branch branch = decoder.read(std::vector<std::vector<Token>>{text})[0];
  EXPECT_EQ(decoder.length(branch), 700);
  EXPECT_THROW(decoder.row(branch), std::invalid_argument);
  const Branch other = decoder.fork(branch);
  decoder.extend({other, question, Rows::last});
  EXPECT_LE(distance(copy_row(decoder.row(other)), row_alone(model(), joined(text, question))), kBatchShapeNats);
}

TEST_P(Reading, NoticesDamagedStates) {
  const ScratchFolder folder;
  StateStore store(folder.path);
  const std::vector<LogRow> expected = run(documents(), &store);
  const std::vector<fs::path> files = folder.files();
  ASSERT_EQ(files.size(), 5U);
  std::vector<std::string> sound;
  for (const fs::path& file : files) sound.push_back(read_file(file));
  std::mt19937 random(7);
  const auto at = [&](const std::string& bytes) { return random() % bytes.size(); };
  for (int round = 0; round < 6; ++round) {
    for (std::size_t i = 0; i < files.size(); ++i) {
      std::string bytes = sound[i];
      switch ((i + static_cast<std::size_t>(round)) % 5) {
        case 0:
          bytes[at(bytes)] ^= static_cast<char>(1 << (random() % 8));
          break;
        case 1:
          bytes.resize(at(bytes));
          break;
        case 2:
          bytes = sound[(i + 1) % sound.size()];  // sound, but of another text
          break;
        case 3:
          bytes += '\0';
          break;
        default:
          bytes.replace(bytes.size() / 2, bytes.size() / 2, std::string(bytes.size() / 2, '\0'));
      }
      write_file(files[i], bytes);
    }
    StateStore damaged(folder.path);
    EXPECT_EQ(distance(expected, run(documents(), &damaged)), 0) << round;
    EXPECT_EQ(damaged.statistics().hits, 0);
    EXPECT_GE(damaged.statistics().rejected, 4);
    StateStore mended(folder.path);
    EXPECT_EQ(distance(expected, run(documents(), &mended)), 0) << round;
    EXPECT_EQ(mended.statistics().hits, 5);
  }
}

TEST_P(Reading, UsesNoStateOfOtherSettings) {
  const ScratchFolder folder;
  const std::vector<std::vector<Token>> texts = texts_of(model(), {300});
  const auto hits = [&](const LlamaDecoderOptions& options) {
    StateStore store(folder.path);
    LlamaDecoder decoder(model(), options);
    decoder.read(texts, &store);
    return store.statistics().hits;
  };
  const auto with = [&](const std::function<void(LlamaDecoderOptions&)>& change) {
    LlamaDecoderOptions options = settings();
    change(options);
    return options;
  };
  EXPECT_EQ(hits(settings()), 0);
  EXPECT_EQ(hits(settings()), 1);
  EXPECT_EQ(hits(with([](auto& o) { o.chunk = 64; })), 0);
  EXPECT_EQ(hits(with([](auto& o) { o.streams = !o.streams; })), 0);
  EXPECT_EQ(hits(with([](auto& o) { o.full_sliding_window = true; })), 0);
  EXPECT_EQ(hits(with([](auto& o) { o.flash_attention = true; })), 0);
  EXPECT_EQ(hits(with([](auto& o) { o.threads = 2; })), 0);
  // How many branches there are changes a state's form only where each has a stream of its own.
  EXPECT_EQ(hits(with([](auto& o) { o.max_branches = 5; })), GetParam().streams ? 0 : 1);
  EXPECT_EQ(hits(with([](auto& o) { o.window = 1200; })), 1);
  EXPECT_EQ(hits(settings()), 1);
}

TEST_P(Reading, StopsBetweenChunksAndLeavesTheStoreSound) {
  const ScratchFolder folder;
  const auto texts = documents();
  const std::vector<LogRow> expected = run(texts, nullptr);
  const std::int64_t total =
      std::accumulate(texts.begin(), texts.end(), std::int64_t{0},
                      [](std::int64_t n, const auto& text) { return n + static_cast<std::int64_t>(text.size()); });
  LlamaDecoder decoder(model(), settings());
  const Branch kept = decoder.open();  // lives through it
  const std::vector<Token> words = texts_of(model(), {40})[0];
  decoder.extend({kept, words, Rows::none});
  std::stop_source stop;
  Progress progress;
  progress.stop = stop.get_token();
  std::int64_t latest = 0;
  progress.report = [&](std::string_view what, std::int64_t done, std::int64_t of) {
    EXPECT_EQ(what, "reading documents");
    EXPECT_GT(done, latest);
    EXPECT_LE(done - latest, 128);
    EXPECT_EQ(of, total);
    latest = done;
    if (done >= 500) stop.request_stop();  // inside the longest text
  };
  StateStore store(folder.path);
  EXPECT_THROW(decoder.read(texts, &store, progress), Interrupted);
  EXPECT_GE(latest, 500);
  EXPECT_LT(latest, 700);
  EXPECT_EQ(folder.files().size(), 3U);  // the texts before

  const std::vector<Branch> branches = decoder.read({texts.data(), 2}, &store);
  EXPECT_EQ(store.statistics().hits, 2);
  decoder.extend({kept, words, Rows::last});
  EXPECT_LE(distance(copy_row(decoder.row(kept)), row_alone(model(), joined(words, words))), kBatchShapeNats);
  const std::vector<LogRow> rows = ask(decoder, branches);
  EXPECT_LE(distance(rows, {expected.begin(), expected.begin() + static_cast<std::ptrdiff_t>(rows.size())}),
            kBatchShapeNats);
  StateStore again(folder.path);
  EXPECT_EQ(distance(expected, run(texts, &again)), 0);
  EXPECT_EQ(again.statistics().hits, 3);
}

TEST_P(Reading, LoadsNothingOverAForkThatIsYoung) {
  // llama.cpp copies between streams only when it evaluates next; until then neither end may be loaded into.
  const ScratchFolder folder;
  StateStore store(folder.path);
  LlamaDecoder decoder(model(), settings(2));
  const auto texts = texts_of(model(), {50, 60});
  const std::vector<Token> question = random_tokens(model().vocabulary(), 9, 6);
  for (const Branch branch : decoder.read(texts, &store)) decoder.close(branch);
  for (const bool original : {true, false}) {
    const Branch first = decoder.read({texts.data(), 1}, &store)[0];
    const Branch copy = decoder.fork(first);
    const Branch stays = original ? first : copy;
    decoder.close(original ? copy : first);
    const Branch second = decoder.read({texts.data() + 1, 1}, &store)[0];
    decoder.extend(std::vector<Extension>{{stays, question, Rows::last}, {second, question, Rows::last}});
    EXPECT_LE(distance(copy_row(decoder.row(stays)), row_alone(model(), joined(texts[0], question))), kBatchShapeNats);
    EXPECT_LE(distance(copy_row(decoder.row(second)), row_alone(model(), joined(texts[1], question))), kBatchShapeNats);
    decoder.close(stays);
    decoder.close(second);
  }
  EXPECT_EQ(store.statistics().hits, 4);
}

INSTANTIATE_TEST_SUITE_P(Layouts, Reading,
                         testing::Values(Layout{"tiny-llama", false}, Layout{"tiny-llama", true},
                                         Layout{"tiny-gemma3", false}, Layout{"tiny-gemma3", true},
                                         Layout{"tiny-mamba", false}, Layout{"tiny-mamba", true},
                                         Layout{"tiny-bpe", false}, Layout{"tiny-bpe", true}));

}  // namespace
}  // namespace tuiqiao
