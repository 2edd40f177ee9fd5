#include "tuiqiao/text/documents.h"

#include <fmt/format.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <fstream>
#include <map>
#include <random>

#include "table_decoder.h"
#include "tuiqiao/error.h"

namespace tuiqiao {
namespace {

namespace fs = std::filesystem;

/// A folder of its own for each test, also where tests run at once.
class Documents : public testing::Test {
 protected:
  void SetUp() override {
    std::string name = (fs::temp_directory_path() / "tuiqiao-documents-XXXXXX").string();
    ASSERT_NE(::mkdtemp(name.data()), nullptr);
    folder_ = name;
  }
  void TearDown() override { fs::remove_all(folder_); }

  fs::path write(const fs::path& name, std::string_view content) const {
    const fs::path file = folder_ / name;
    fs::create_directories(file.parent_path());
    std::ofstream(file, std::ios::binary) << content;
    return file;
  }

  fs::path folder_;
};

/// What tuiqiao::Error says that `work` throws; one line, always.
template <typename Work>
std::string error_of(Work&& work) {
  try {
    work();
  } catch (const Error& error) {
    const std::string what = error.what();
    EXPECT_EQ(what.find_first_of("\n\r\x1b"), std::string::npos) << what;
    return what;
  }
  return "no error";
}

std::string text_error(std::string_view text) {
  return error_of([&] { check_text(text, "t"); });
}

/// A tokenizer of one token for every `size` bytes begun, whatever they are.
Vocabulary chunk_words(std::size_t size, std::size_t* tokenized = nullptr) {
  std::vector<Vocabulary::Entry> entries{{std::string(size, 'x'), "", TokenKind::text, false}};
  return Vocabulary(
      std::move(entries),
      [=](std::string_view text, bool) {
        if (tokenized) *tokenized += text.size();
        return std::vector<Token>((text.size() + size - 1) / size);
      },
      std::nullopt);
}

/// A tokenizer of one token for every word or white space; a long word has one for every four bytes.
Vocabulary word_words() {
  std::vector<Vocabulary::Entry> entries{{"word", "", TokenKind::text, false}};
  return Vocabulary(
      std::move(entries),
      [](std::string_view text, bool) {
        std::vector<Token> tokens;
        std::size_t run = 0;
        bool white = false;
        for (const char c : text) {
          const bool space = c == ' ' || c == '\n' || c == '\t' || c == '\r';
          if (run == 0 || space != white || (!space && run % 4 == 0)) {
            tokens.push_back(0);
            run = 0;
          }
          ++run;
          white = space;
        }
        return tokens;
      },
      std::nullopt);
}

std::vector<std::string> split(std::string_view text, const Vocabulary& words, int most, int overlap = 0) {
  std::vector<std::string> parts;
  for (const Document& part : split_document({"id", "title", std::string(text), 0.5}, words, most, overlap)) {
    EXPECT_EQ(part.id, "id");
    EXPECT_EQ(part.title, "title");
    EXPECT_EQ(part.score, 0.5);
    parts.push_back(part.text);
  }
  return parts;
}

using Texts = std::vector<std::string>;

// --- UTF-8 ----------------------------------------------------------------------------------------------------------

TEST(CheckText, TakesEveryCharacterAndNothingElse) {
  for (const char* good : {"a", "é", "服", "\xF0\x9F\x98\x80", "\xC2\x80", "\xDF\xBF", "\xE0\xA0\x80", "\xED\x9F\xBF",
                           "\xEE\x80\x80", "\xEF\xBF\xBF", "\xF0\x90\x80\x80", "\xF4\x8F\xBF\xBF"}) {
    EXPECT_EQ(text_error(good), "no error") << good;
  }
  for (const char* bad : {"\x80",
                          "\xBF",
                          "\xC0\x80",
                          "\xC1\xBF",
                          "\xC2",
                          "\xC2z",
                          "\xE0\x80\x80",
                          "\xE0\x9F\xBF",
                          "\xED\xA0\x80",
                          "\xED\xBF\xBF",
                          "\xE6\x9C",
                          "\xE6\x9Cz",
                          "\xF0\x80\x80\x80",
                          "\xF0\x8F\xBF\xBF",
                          "\xF4\x90\x80\x80",
                          "\xF5\x80\x80\x80",
                          "\xF8\x88\x80\x80\x80",
                          "\xFE",
                          "\xFF",
                          "\xF0\x9F\x98"}) {
    const std::string text = "服b" + std::string(bad);
    EXPECT_EQ(text_error(text), fmt::format("t: not UTF-8 at byte 4 (0x{:02X})", static_cast<unsigned char>(*bad)))
        << bad;
  }
}

/// All sequences of two bytes and all of three with a lead of three, against the definition by code points.
TEST(CheckText, AgreesWithTheDefinition) {
  int good = 0;
  for (unsigned a = 0x80; a < 0x100; ++a) {
    for (unsigned b = 0; b < 0x100; ++b) {
      const std::string two{'x', static_cast<char>(a), static_cast<char>(b)};
      EXPECT_EQ(text_error(two) == "no error", a >= 0xC2 && a <= 0xDF && b >= 0x80 && b <= 0xBF) << a << " " << b;
      if (a < 0xE0 || a > 0xEF || b < 0x80 || b > 0xBF) continue;
      const std::string three{'x', static_cast<char>(a), static_cast<char>(b), '\x80'};
      const unsigned code = (a & 0xF) << 12 | (b & 0x3F) << 6;
      const bool valid = code >= 0x800 && (code < 0xD800 || code > 0xDFFF);
      good += valid;
      EXPECT_EQ(text_error(three) == "no error", valid) << a << " " << b;
    }
  }
  EXPECT_EQ(good, 1024 - 32 - 32);
}

TEST(CheckText, WantsMoreThanWhiteSpace) {
  EXPECT_EQ(text_error(""), "t: empty");
  for (const char* blank : {" ", "\n\t\r\v\f ", "\u3000", "\u00A0\u2003\u2028\u0085"}) {
    EXPECT_EQ(text_error(blank), "t: nothing but white space") << blank;
  }
  EXPECT_EQ(text_error("\u3000。"), "no error");
}

// --- Files ----------------------------------------------------------------------------------------------------------

TEST_F(Documents, ReadsAFile) {
  const Document document = read_document(write("推敲 a.txt", "鸟宿池边树，\n僧敲月下门。\n"));
  EXPECT_EQ(document.id, "推敲 a.txt");
  EXPECT_EQ(document.title, "");
  EXPECT_EQ(document.text, "鸟宿池边树，\n僧敲月下门。\n");
  EXPECT_FALSE(document.score.has_value());
  EXPECT_EQ(read_document(write("bom", "\xEF\xBB\xBF\xEF\xBB\xBFx")).text, "\xEF\xBB\xBFx");
  const std::string zeros("a\0b", 3);
  EXPECT_EQ(read_document(write("zero", zeros)).text, zeros);
}

TEST_F(Documents, SaysWhatIsWrongWithAFile) {
  const auto error = [&](const fs::path& file) {
    const std::string what = error_of([&] { read_document(file); });
    const std::string start = file.string() + ": ";
    return what.starts_with(start) ? what.substr(start.size()) : what;
  };
  EXPECT_EQ(error(folder_ / "absent"), "No such file or directory");
  EXPECT_EQ(error(folder_), "a folder, not a file");
  EXPECT_EQ(error("/dev/null"), "not a regular file");
  ASSERT_EQ(::mkfifo((folder_ / "fifo").c_str(), 0600), 0);
  EXPECT_EQ(error(folder_ / "fifo"), "not a regular file");
  EXPECT_EQ(error(write("empty", "")), "empty");
  EXPECT_EQ(error(write("bom", "\xEF\xBB\xBF")), "empty");
  EXPECT_EQ(error(write("blank", " \n\n")), "nothing but white space");
  EXPECT_EQ(error(write("latin", "caf\xE9")), "not UTF-8 at byte 3 (0xE9)");
  EXPECT_EQ(error(write("bom latin", "\xEF\xBB\xBF\xE9")), "not UTF-8 at byte 3 (0xE9)");
  EXPECT_EQ(error(write("utf16", "\xFF\xFE")), "not UTF-8 at byte 0 (0xFF)");
  EXPECT_EQ(error(folder_ / "empty" / "below"), "Not a directory");
  if (::geteuid() != 0) {
    const fs::path closed = write("closed", "x");
    fs::permissions(closed, fs::perms::none);
    EXPECT_EQ(error(closed), "Permission denied");
  }
  EXPECT_NE(error_of([&] { read_document(write("new\nline", "x")); }).find("its name: control character U+000A"),
            std::string::npos);
  EXPECT_NE(error_of([&] { read_document(write("\xFF", "x")); }).find("its name: not UTF-8 at byte 0"),
            std::string::npos);
}

TEST_F(Documents, LooksAtSizesBeforeReading) {
  const fs::path file = write("large", "x");
  fs::resize_file(file, kMaxDocumentBytes + 1);  // sparse: nothing but a size
  EXPECT_NE(error_of([&] { read_document(file); }).find("67108865 bytes, at most 67108864 (64 MiB)"),
            std::string::npos);
  fs::resize_file(file, std::uintmax_t{1} << 40);
  EXPECT_NE(error_of([&] { read_document(file); }).find("1099511627776 bytes"), std::string::npos);
  EXPECT_NE(error_of([&] { read_documents_json(file); }).find("256 MiB"), std::string::npos);
  EXPECT_EQ(read_document("/proc/self/cmdline").text.empty(), false);  // a regular file that claims to be empty
}

TEST_F(Documents, ReadsAFolderInOrder) {
  write("b.txt", "2");
  write("a.txt", "1");
  write("c/x.txt", "4");
  write("c/.hidden", "\xFF");
  write(".git/config", "\xFF");
  write("c/d/y.txt", "3");
  fs::create_symlink(folder_ / "a.txt", folder_ / "z");
  fs::create_symlink(folder_ / "c", folder_ / "loop");
  fs::create_symlink(folder_ / "nowhere", folder_ / "dangling");
  ASSERT_EQ(::mkfifo((folder_ / "fifo").c_str(), 0600), 0);
  for (const fs::path& folder : {folder_, folder_ / "", folder_ / "c" / ".."}) {
    Texts ids, texts;
    for (const Document& document : read_document_folder(folder)) {
      ids.push_back(document.id);
      texts.push_back(document.text);
    }
    EXPECT_EQ(ids, (Texts{"a.txt", "b.txt", "c/d/y.txt", "c/x.txt", "z"}));
    EXPECT_EQ(texts, (Texts{"1", "2", "3", "4", "1"}));
  }
}

TEST_F(Documents, SaysWhatIsWrongWithAFolder) {
  fs::create_directories(folder_ / "none/.x");
  const auto error = [](const fs::path& folder) { return error_of([&] { read_document_folder(folder); }); };
  EXPECT_EQ(error(folder_ / "none"), (folder_ / "none").string() + ": no files in this folder");
  EXPECT_EQ(error(folder_ / "absent"), (folder_ / "absent").string() + ": No such file or directory");
  const fs::path file = write("file", "");
  EXPECT_EQ(error(file), file.string() + ": Not a directory");
  EXPECT_EQ(error(folder_), file.string() + ": empty");
}

// --- JSON -----------------------------------------------------------------------------------------------------------

TEST_F(Documents, ReadsJsonDocuments) {
  const fs::path file =
      write("d.json", R"(["one", {"text": "two", "id": "b", "title": "T", "score": -1.5}, {"id": -7, "text": "\u4e09"},
      {"text": "x", "id": 18446744073709551615, "score": 2, "title": ""}, "one", {"text": "y", "id": "5"}])");
  const std::vector<Document> documents = read_documents_json(file);
  ASSERT_EQ(documents.size(), 6U);
  EXPECT_EQ(documents[0].id, "1");
  EXPECT_EQ(documents[0].text, "one");
  EXPECT_FALSE(documents[0].score.has_value());
  EXPECT_EQ(documents[1].id, "b");
  EXPECT_EQ(documents[1].title, "T");
  EXPECT_EQ(documents[1].score, -1.5);
  EXPECT_EQ(documents[2].id, "-7");
  EXPECT_EQ(documents[2].text, "三");
  EXPECT_EQ(documents[3].id, "18446744073709551615");
  EXPECT_EQ(documents[3].score, 2.0);
  EXPECT_EQ(documents[4].id, "5");
  EXPECT_EQ(documents[5].id, "5");
  EXPECT_EQ(read_documents_json(write("bom.json", "\xEF\xBB\xBF[\"a\"]")).at(0).text, "a");
}

TEST_F(Documents, ReadsJsonQuestions) {
  const std::vector<Question> questions = read_questions_json(
      write("q.json", R"(["Who?", {"question": "谁？", "prefix": " It is"}, {"question": "x", "prefix": ""}])"));
  ASSERT_EQ(questions.size(), 3U);
  EXPECT_EQ(questions[0].text, "Who?");
  EXPECT_EQ(questions[0].prefix, "");
  EXPECT_EQ(questions[1].text, "谁？");
  EXPECT_EQ(questions[1].prefix, " It is");
  EXPECT_EQ(questions[2].prefix, "");
}

TEST_F(Documents, SaysWhatIsWrongWithJson) {
  const auto error = [&](std::string_view content, bool questions = false) {
    const fs::path file = write("x.json", content);
    const std::string what =
        error_of([&] { questions ? (void)read_questions_json(file) : (void)read_documents_json(file); });
    const std::string start = file.string() + ": ";
    EXPECT_TRUE(what.starts_with(start)) << what;
    EXPECT_LT(what.size(), start.size() + 300);
    return what.substr(std::min(start.size(), what.size()));
  };
  EXPECT_EQ(error(""), "empty");
  EXPECT_EQ(error(" \n"), "empty");
  EXPECT_EQ(error("[]"), "an empty array");
  EXPECT_EQ(error("{}"), "must be an array of strings or objects, is an object");
  EXPECT_EQ(error("\"a\""), "must be an array of strings or objects, is string");
  EXPECT_EQ(error("7"), "must be an array of strings or objects, is number");
  EXPECT_EQ(error(R"(["a", 7])"), "element 2: must be a string or an object, is number");
  EXPECT_EQ(error(R"(["a", null])"), "element 2: must be a string or an object, is null");
  EXPECT_EQ(error(R"(["a", {"text": "b"}, ["c"]])"), "element 3: must be a string or an object, is an array");
  EXPECT_EQ(error(R"(["a", ""])"), "element 2: `text`: empty");
  EXPECT_EQ(error(R"(["a", " \u3000"])"), "element 2: `text`: nothing but white space");
  EXPECT_EQ(error(R"([{"text": 1}])"), "element 1: `text` must be a string, is number");
  EXPECT_EQ(error(R"([{"text": {"a": 1}}])"), "element 1: `text` is an object");
  EXPECT_EQ(error(R"([{"text": []}])"), "element 1: `text` is an array");
  EXPECT_EQ(error(R"([{"text": "a"}, {}])"), "element 2: no `text`");
  EXPECT_EQ(error(R"([{"id": "a"}])"), "element 1: no `text`");
  EXPECT_EQ(error(R"([{"text": "a", "Text": "b"}])"),
            "element 1: unknown key `Text`; known are text, id, title, score");
  EXPECT_EQ(error(R"([{"te\nxt": "a"}])"), "element 1: unknown key `te?xt`; known are text, id, title, score");
  EXPECT_EQ(error(R"([{"text": "a", "text": "b"}])"), "element 1: `text` stands twice");
  EXPECT_EQ(error(R"([{"text": "a", "id": 1.5}])"), "element 1: `id` must be a string or an integer, is number");
  EXPECT_EQ(error(R"([{"text": "a", "id": true}])"), "element 1: `id` must be a string or an integer, is boolean");
  EXPECT_EQ(error(R"([{"text": "a", "id": ""}])"), "element 1: `id`: empty");
  EXPECT_EQ(error(R"([{"text": "a", "id": "b\u0007"}])"), "element 1: `id`: control character U+0007");
  EXPECT_EQ(error(R"([{"text": "a", "id": "b\u0085"}])"), "element 1: `id`: control character U+0085");
  EXPECT_EQ(error(R"([{"text": "a", "title": "b\nc"}])"), "element 1: `title`: control character U+000A");
  EXPECT_EQ(error(R"([{"text": "a", "title": null}])"), "element 1: `title` must be a string, is null");
  EXPECT_EQ(error(R"([{"text": "a", "score": "1"}])"), "element 1: `score` must be a number, is string");
  EXPECT_EQ(error(R"(["b", {"text": "a", "score": 1e999}])"), "element 2: byte 33: number overflow parsing '1e999'");
  EXPECT_EQ(error(R"([{"text": "a", "score": NaN}])"),
            "element 1: byte 24: parse error at line 1, column 25: syntax error while parsing value - invalid literal");
  EXPECT_EQ(error("[\"a\",\n\"b\","),
            "element 3: byte 10: parse error at line 2, column 5: syntax error while parsing value - unexpected end of "
            "input; expected '[', "
            "'{', or a literal");
  EXPECT_EQ(error("[\"caf\xE9\"]"), "not UTF-8 at byte 5 (0xE9)");
  EXPECT_NE(error("[\"\\ud800\"]").find("element 1: byte 8: parse error"), std::string::npos);
  EXPECT_NE(error("[\"a\"] x").find("byte 6: parse error"), std::string::npos);
  EXPECT_NE(error("[\"" + std::string(100000, 'a')).find("element 1: byte 100002: parse error"), std::string::npos);
  EXPECT_NE(error("[" + std::string(100000, '9') + "e999999]").find("element 1"), std::string::npos);
  EXPECT_EQ(error(std::string(1000000, '[')), "element 1: must be a string or an object, is an array");
  EXPECT_EQ(error(R"([{"text": "a"}])", true), "element 1: unknown key `text`; known are question, prefix");
  EXPECT_EQ(error(R"([{"prefix": "a"}])", true), "element 1: no `question`");
  EXPECT_EQ(error(R"([{"question": "a", "prefix": 3}])", true), "element 1: `prefix` must be a string, is number");
  EXPECT_EQ(error(R"([{"question": "a", "prefix": " "}])", true), "element 1: `prefix`: nothing but white space");
  EXPECT_EQ(error_of([&] { read_documents_json(folder_); }), folder_.string() + ": a folder, not a file");
}

/// Every beginning of a good file and every change of one byte is read or refused in one line, and never worse.
TEST_F(Documents, BearsDamagedJson) {
  const std::string good = R"([{"text": "a\u4e09", "id": 12, "score": -1e3, "title": "服"}, "b"])";
  std::mt19937 random(7);
  int refused = 0;
  const auto probe = [&](const std::string& content) {
    const std::string what = error_of([&] { read_documents_json(write("x.json", content)); });
    refused += what != "no error";
  };
  for (std::size_t size = 0; size < good.size(); ++size) probe(good.substr(0, size));
  EXPECT_EQ(refused, static_cast<int>(good.size()));
  for (std::size_t i = 0; i < good.size(); ++i) {
    for (int turn = 0; turn < 4; ++turn) {
      std::string content = good;
      content[i] = static_cast<char>(random());
      probe(content);
    }
  }
  EXPECT_GT(refused, static_cast<int>(2 * good.size()));
}

// --- Splitting ------------------------------------------------------------------------------------------------------

TEST(Split, LeavesWhatFitsAlone) {
  const Vocabulary words = word_words();
  EXPECT_EQ(split("  one two\n\nthree \n", words, 9), (Texts{"  one two\n\nthree \n"}));  // nine tokens
  EXPECT_EQ(split("\n\n one two \n\n", words, 4), (Texts{" one two"}));                   // fits once it is trimmed
  EXPECT_EQ(split("ab", *test::ten_words(), 1), (Texts{"ab"}));
}

TEST(Split, RefusesImpossibleLimits) {
  const Vocabulary words = word_words();
  for (const auto& [most, overlap] : {std::pair(0, 0), {-1, 0}, {5, 5}, {5, 6}, {5, -1}, {-3, -4}}) {
    EXPECT_THROW(split_document({"d", "", "a", {}}, words, most, overlap), std::invalid_argument)
        << most << " " << overlap;
  }
  const std::string what = error_of([&] { split_document({"d.txt", "", "ab服", {}}, chunk_words(1), 2, 0); });
  EXPECT_EQ(what, "d.txt: the character at byte 2 takes 3 tokens, a part may have 2");
}

TEST(Split, CutsBetweenParagraphs) {
  EXPECT_EQ(split("one two\n\nthree four\n \t\n\r\n  five six\nmore", word_words(), 6),
            (Texts{"one two", "three four", "  five six\nmore"}));
}

TEST(Split, KeepsParagraphsTogetherWhereTheyFit) {
  const Vocabulary bytes = chunk_words(1);
  EXPECT_EQ(split("aaa\n\nbbb\n\nccc\n\nddd", bytes, 8), (Texts{"aaa\n\nbbb", "ccc\n\nddd"}));
  EXPECT_EQ(split("aaa\n\nbbb\n\nccc\n\nddd", bytes, 12), (Texts{"aaa\n\nbbb", "ccc\n\nddd"}));
  EXPECT_EQ(split("aaa\n\nbbb\n\nccc\n\nddd", bytes, 13), (Texts{"aaa\n\nbbb\n\nccc", "ddd"}));
  EXPECT_EQ(split("aaa\n\nbbb\n\nccc\n\nddd", bytes, 7), (Texts{"aaa", "bbb", "ccc", "ddd"}));
  // A heading stays with the paragraph below, which must be cut anyway.
  EXPECT_EQ(split("Head\n\nOne two. Three four. Five six.", bytes, 24),
            (Texts{"Head\n\nOne two.", "Three four. Five six."}));
  // A paragraph that fits is not cut for its sentences' sake.
  EXPECT_EQ(split("Aa. Bb. Cc.\n\nDd. Ee. Ff.", bytes, 20), (Texts{"Aa. Bb. Cc.", "Dd. Ee. Ff."}));
}

TEST(Split, CutsBetweenSentencesAndLines) {
  const Vocabulary bytes = chunk_words(1);
  EXPECT_EQ(split("Aa bb. Cc dd! (Ee?) \"Ff.\" Gg", bytes, 13), (Texts{"Aa bb. Cc dd!", "(Ee?) \"Ff.\"", "Gg"}));
  EXPECT_EQ(split("Pi is 3.14159 e.g. here. Next one", bytes, 26), (Texts{"Pi is 3.14159 e.g. here.", "Next one"}));
  EXPECT_EQ(split("first line\n  second line\n  third", bytes, 24), (Texts{"first line\n  second line", "  third"}));
  EXPECT_EQ(split("鸟宿池边树。僧敲月下门！过桥分野色？移石动云根；暂去", bytes, 60),
            (Texts{"鸟宿池边树。僧敲月下门！过桥分野色？", "移石动云根；暂去"}));
  EXPECT_EQ(split("他说：“推！”然后“敲？”", bytes, 25), (Texts{"他说：“推！”", "然后“敲？”"}));
}

TEST(Split, CutsBetweenWordsAndCharactersAsALastResort) {
  const Vocabulary bytes = chunk_words(1);
  EXPECT_EQ(split("one two three four five", bytes, 10), (Texts{"one two", "three four", "five"}));
  EXPECT_EQ(split("abcdefghij", bytes, 4), (Texts{"abcd", "efgh", "ij"}));
  EXPECT_EQ(split("推敲推敲推", bytes, 7), (Texts{"推敲", "推敲", "推"}));
  EXPECT_EQ(split("服务服务服务", *test::ten_words(), 2), (Texts{"服务服务", "服务"}));
  EXPECT_EQ(split("a" + std::string(1000, ' ') + "b", bytes, 10), (Texts{"a", "b"}));
  EXPECT_EQ(split("a" + std::string(1000, '\n') + "b", bytes, 10), (Texts{"a", "b"}));
}

TEST(Split, RepeatsWholeSentences) {
  const Vocabulary bytes = chunk_words(1);
  EXPECT_EQ(split("Aa. Bb. Cc. Dd. Ee.", bytes, 11, 3), (Texts{"Aa. Bb. Cc.", "Cc. Dd. Ee."}));
  EXPECT_EQ(split("Aa. Bb. Cc. Dd. Ee.", bytes, 11, 2), (Texts{"Aa. Bb. Cc.", "Dd. Ee."}));
  EXPECT_EQ(split("Aa. Bb. Cc. Dd. Ee.", bytes, 11, 7), (Texts{"Aa. Bb. Cc.", "Bb. Cc. Dd.", "Cc. Dd. Ee."}));
  EXPECT_EQ(split("Aa. Bb. Cc. Dd. Ee.", bytes, 11, 10), (Texts{"Aa. Bb. Cc.", "Bb. Cc. Dd.", "Cc. Dd. Ee."}));
  // Where the next paragraph leaves room for less, less is repeated.
  EXPECT_EQ(split("Aa. Bb. Cc. Dd. Ee. Ff.", bytes, 11, 7),
            (Texts{"Aa. Bb. Cc.", "Bb. Cc. Dd.", "Cc. Dd. Ee.", "Dd. Ee. Ff."}));
  EXPECT_EQ(split("Aa. Bb. Cc.\n\nDddd dd.", bytes, 14, 7), (Texts{"Aa. Bb. Cc.", "Cc.\n\nDddd dd."}));
  EXPECT_EQ(split("Aa. Bb. Cc.\n\nDddd dddddd.", bytes, 13, 7), (Texts{"Aa. Bb. Cc.", "Dddd dddddd."}));
  // Pieces of words are not sentences.
  EXPECT_EQ(split("abcdefghij", bytes, 4, 3), (Texts{"abcd", "efgh", "ij"}));
}

/// Checks what every split promises: the limits hold, and the parts can be laid on the text one after another so that
/// each begins after the one before did, nothing but white space is left out, and no more than `overlap` is repeated.
void check_split(const std::string& text, const Vocabulary& words, int most, int overlap) {
  const auto past_white = [&](std::size_t at) {
    for (;;) {
      at = std::min(text.find_first_not_of(" \t\n\v\f\r", at), text.size());
      if (text.compare(at, 3, "\u3000") != 0) return at;
      at += 3;
    }
  };
  std::map<std::size_t, std::size_t> places{{0, 0}};  // where the text laid so far may end, and the latest begin for it
  for (const std::string& part : split(text, words, most, overlap)) {
    ASSERT_LE(words.tokenize(part).size(), static_cast<std::size_t>(most)) << part;
    ASSERT_EQ(error_of([&] { check_text(part, "part"); }), "no error");
    std::map<std::size_t, std::size_t> next;
    for (const auto& [end, from] : places) {
      for (std::size_t at = overlap == 0 || end == 0 ? end : from + 1; at <= past_white(end); ++at) {
        if (text.compare(at, part.size(), part) != 0 || at + part.size() <= end) continue;
        if (at < end && words.tokenize(text.substr(at, end - at)).size() > static_cast<std::size_t>(overlap) + 1)
          continue;
        std::size_t& begin = next.try_emplace(at + part.size(), at).first->second;
        begin = std::min(begin, at);
      }
    }
    ASSERT_FALSE(next.empty()) << "does not go on from the parts before: " << part;
    places = std::move(next);
  }
  ASSERT_EQ(past_white(places.rbegin()->first), text.size()) << "left out at the end";
}

std::string random_text(std::mt19937& random, int pieces) {
  static const Texts kPieces{"a",
                             "bc",
                             "word",
                             "Sentence",
                             "服务",
                             "。",
                             "？",
                             "…",
                             "！”",
                             ". ",
                             "? ",
                             "\n",
                             "\n",
                             "\n\n",
                             " ",
                             " ",
                             "\r\n",
                             "é",
                             "\xF0\x9F\x98\x80",
                             ",",
                             "\u3000",
                             "\t",
                             "3.14",
                             "；"};
  std::string text = "x";
  const std::size_t kinds = 1 + random() % kPieces.size();
  for (int i = 0; i < pieces; ++i) text += kPieces[random() % kinds];
  for (auto i = random() % 8; i > 0; --i) text.insert(0, 1, " \n"[random() % 2]);
  return text;
}

TEST(Split, KeepsItsPromisesOnRandomTexts) {
  const Vocabulary bytes = chunk_words(1), chunks = chunk_words(3), words = word_words();
  for (unsigned seed = 0; seed < 2000; ++seed) {
    std::mt19937 random(seed);
    const std::string text = random_text(random, static_cast<int>(random() % 120));
    const int most = 4 + static_cast<int>(random() % 30);
    const int overlap = random() % 3 == 0 ? 0 : static_cast<int>(random() % static_cast<unsigned>(most));
    for (const Vocabulary* vocabulary : {&bytes, &chunks, &words}) {
      check_split(text, *vocabulary, most, overlap);
      if (HasFailure()) FAIL() << "seed " << seed << ", most " << most << ", overlap " << overlap << ", text: " << text;
    }
  }
}

/// Tokens of a prefix may be more than those of the whole: the limits hold all the same, and it ends.
TEST(Split, BearsTokenizersThatDoNotAddUp) {
  std::vector<Vocabulary::Entry> entries{{"xx", "", TokenKind::text, false}};
  const Vocabulary odd(
      std::move(entries),
      [](std::string_view text, bool) {
        return std::vector<Token>(text.size() < 4 ? text.size() / 4 + 1
                                                  : text.size() / 2 + std::hash<std::string_view>{}(text) % 5);
      },
      std::nullopt);
  for (unsigned seed = 0; seed < 500; ++seed) {
    std::mt19937 random(seed);
    std::string text;
    for (auto i = random() % 300; i > 0; --i) text += "abc.  \n"[random() % 7];
    if (text.find_first_not_of(" \n") == std::string::npos) continue;
    check_split(text, odd, 2 + static_cast<int>(random() % 20), static_cast<int>(random() % 2));
    if (HasFailure()) FAIL() << "seed " << seed;
  }
}

TEST(Split, UsesFewPartsAndLittleTime) {
  for (const std::size_t size : {std::size_t{1}, std::size_t{4}, std::size_t{40}}) {
    std::size_t tokenized = 0;
    const Vocabulary words = chunk_words(size, &tokenized);
    const std::string text(1 << 20, 'a');
    const Texts parts = split(text, words, 100);
    EXPECT_EQ(parts.size(), (text.size() + 100 * size - 1) / (100 * size));
    EXPECT_LT(tokenized, 12 * text.size()) << size;
  }
  std::string prose;
  for (int i = 0; i < 20000; ++i)
    prose += fmt::format("This is sentence {} of a long book.{}", i, i % 10 == 9 ? "\n\n" : " ");
  for (const int overlap : {0, 20}) {
    std::size_t tokenized = 0;
    const Vocabulary words = chunk_words(4, &tokenized);
    const Texts parts = split(prose, words, 250, overlap);
    EXPECT_GT(parts.size(), prose.size() / 1000 - 1);
    EXPECT_LT(parts.size(), prose.size() / 600);
    EXPECT_LT(tokenized, 8 * prose.size()) << overlap;
  }
}

/// Text made to hurt: each of these must take a time that grows with its size.
TEST(Split, EndsSoonOnHostileTexts) {
  const auto start = std::chrono::steady_clock::now();
  const Vocabulary words = word_words();
  constexpr std::size_t kSize = 200000;
  Texts texts{std::string(kSize, 'a'), "a" + std::string(kSize, ' ') + "b", "a" + std::string(kSize, '\n') + "b",
              std::string(kSize, '.')};
  for (const char* unit :
       {"a\n", "a. ", "。", "a\n\n", " a", "\u3000", "\xF0\x9F\x98\x80", "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\n\n"}) {
    std::string& text = texts.emplace_back("x");
    while (text.size() < kSize) text += unit;
  }
  for (const std::string& text : texts) {
    for (const int overlap : {0, 20}) {
      for (const Document& part : split_document({"", "", text, {}}, words, 100, overlap)) {
        ASSERT_LE(words.tokenize(part.text).size(), 100U);
      }
    }
  }
  EXPECT_LT(std::chrono::steady_clock::now() - start, std::chrono::seconds(60));
}

}  // namespace
}  // namespace tuiqiao
