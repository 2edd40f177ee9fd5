#include "tuiqiao/text/answer.h"

#include <fmt/format.h>
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <unistd.h>

#include <array>
#include <cmath>
#include <csignal>
#include <fstream>
#include <limits>
#include <nlohmann/json.hpp>
#include <random>
#include <set>

#include "file_output.h"
#include "text/utf8.h"
#include "tuiqiao/error.h"

namespace tuiqiao {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::json;

constexpr const char* kHostile = "<script>alert('x')</script>\"&\x1b[31m\x07\xC2\x9B";

AnswerToken token(std::string bytes, int context, double entropy = 1) {
  AnswerToken made;
  made.id = 7;
  made.bytes = std::move(bytes);
  made.logprob = -0.5;
  made.context = context;
  made.entropy_nats = entropy;
  return made;
}

/// "a 锄b": the character in three tokens of which the last is another document's.
Answer sample() {
  Answer answer;
  answer.question = "What?";
  answer.contexts = {{"one.txt", "One", 0, 100}, {"two.txt", "", 1, 200}, {"two.txt", "", 2, 50}};
  answer.tokens = {token("a ", 0, 1), token("\xE9", 0, 2), token("\x94", 0, 3), token("\x84", 1, 0.5),
                   token("b", 1, 1.5)};
  answer.tokens[3].switched = true;
  answer.finish = "end";
  answer.model = "tiny";
  answer.pooling = "min_entropy";
  answer.peak_rss_bytes = 123456789;
  return answer;
}

bool is_valid_utf8(std::string_view text) { return valid_utf8(text) == text; }

bool contains(const std::string& text, std::string_view part) { return text.find(part) != std::string::npos; }

std::size_t occurrences(const std::string& text, std::string_view part) {
  std::size_t count = 0;
  for (std::size_t at = text.find(part); at != std::string::npos; at = text.find(part, at + 1)) ++count;
  return count;
}

/// A folder of its own for each test, gone afterwards.
struct Folder {
  fs::path path = fs::temp_directory_path() / fmt::format("tuiqiao-answer-test-{}", ::getpid());
  Folder() { fs::create_directory(path); }
  ~Folder() { fs::remove_all(path); }
  std::size_t files() const { return static_cast<std::size_t>(std::distance(fs::directory_iterator(path), {})); }
};

std::string contents(const fs::path& file) {
  std::ifstream in(file, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

std::string page_of(const std::vector<Answer>& answers, const std::string& title = "Answers") {
  const Folder folder;
  write_answers_html(folder.path / "page.html", title, answers);
  EXPECT_EQ(folder.files(), 1U);
  return contents(folder.path / "page.html");
}

std::string error_of(const fs::path& file, std::string_view content = "x") {
  try {
    write_file_atomically(file, content);
  } catch (const Error& error) {
    return error.what();
  }
  return "";
}

/// Checks a page: every tag closed in order, attributes quoted, '&' only in entities, ids unique and links to them.
class Scanner {
 public:
  explicit Scanner(const std::string& page) : page_(page) {}

  std::string problem() {
    while (problem_.empty() && at_ < page_.size()) page_[at_] == '<' ? tag() : text();
    if (problem_.empty() && !open_.empty()) problem_ = "never closed: " + open_.back();
    for (const std::string& link : links_) {
      if (problem_.empty() && !ids_.contains(link)) problem_ = "no such place: " + link;
    }
    return problem_;
  }

 private:
  void text() {
    const std::size_t end = std::min(page_.find('<', at_), page_.size());
    const std::string part = page_.substr(at_, end - at_);
    if (open_.empty() || open_.back() != "style") check_text(part);
    at_ = end;
  }

  void check_text(const std::string& part) {
    if (part.find_first_of(">\"") != std::string::npos) problem_ = "not escaped: " + part;
    for (const char c : part) {
      if (static_cast<unsigned char>(c) < 0x20 && c != '\n' && c != '\t') problem_ = "control character in: " + part;
    }
    for (std::size_t i = part.find('&'); i != std::string::npos; i = part.find('&', i + 1)) {
      const std::string entity = part.substr(i, part.find(';', i) - i);
      if (!std::set<std::string>{"&amp", "&lt", "&gt", "&quot", "&#39"}.contains(entity) &&
          !entity.starts_with("&#x24")) {
        problem_ = "entity " + entity;
      }
    }
  }

  void tag() {
    const std::size_t end = page_.find('>', at_);
    if (end == std::string::npos) {
      problem_ = "a tag without end";
      return;
    }
    std::string inside = page_.substr(at_ + 1, end - at_ - 1);
    at_ = end + 1;
    if (inside.starts_with('!')) return;
    if (inside.starts_with('/')) {
      if (open_.empty() || open_.back() != inside.substr(1)) {
        problem_ = "closed out of order: " + inside;
      } else {
        open_.pop_back();
      }
      return;
    }
    const bool empty = inside.ends_with('/') || inside.starts_with("meta ");
    if (inside.ends_with('/')) inside.pop_back();
    const std::size_t name = std::min(inside.find(' '), inside.size());
    if (!empty) open_.push_back(inside.substr(0, name));
    attributes(inside.substr(name));
  }

  void attributes(std::string rest) {
    while (problem_.empty() && !rest.empty()) {
      const std::size_t equal = rest.find("=\"");
      const std::size_t end = equal == std::string::npos ? equal : rest.find('"', equal + 2);
      if (rest[0] != ' ' || end == std::string::npos) {
        problem_ = "attributes: " + rest;
        return;
      }
      const std::string key = rest.substr(1, equal - 1), value = rest.substr(equal + 2, end - equal - 2);
      if (key.find_first_not_of("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ-") != std::string::npos ||
          key.starts_with("on")) {
        problem_ = "attribute " + key;
      }
      check_text(value);
      if (key == "id" && !ids_.insert(value).second) problem_ = "twice: " + value;
      if (key == "href") links_.push_back(value.substr(1));
      rest.erase(0, end + 1);
    }
  }

  const std::string& page_;
  std::size_t at_ = 0;
  std::string problem_;
  std::vector<std::string> open_, links_;
  std::set<std::string> ids_;
};

void expect_sound(const std::string& page) {
  EXPECT_EQ(Scanner(page).problem(), "");
  EXPECT_TRUE(is_valid_utf8(page));
  for (const char* outside : {"http:", "https:", "src=", "@import", "url(", "<script"})
    EXPECT_FALSE(contains(page, outside)) << outside;
}

TEST(Answer, CountsTokensSharesAndSwitches) {
  const Answer answer = sample();
  const auto shares = context_shares(answer);
  ASSERT_EQ(shares.size(), 3U);
  EXPECT_EQ(shares[0].tokens, 3);
  EXPECT_DOUBLE_EQ(shares[0].share, 0.6);
  EXPECT_DOUBLE_EQ(shares[0].mean_entropy_nats, 2);
  EXPECT_DOUBLE_EQ(shares[1].mean_entropy_nats, 1);
  EXPECT_EQ(shares[2].tokens, 0);
  EXPECT_EQ(shares[2].mean_entropy_nats, 0);
  EXPECT_EQ(count_switches(answer), 1);
  EXPECT_TRUE(context_shares(Answer{}).empty());
  EXPECT_EQ(count_switches(Answer{}), 0);
}

TEST(Answer, FindsUnfinishedCharacters) {
  const std::vector<std::pair<std::string, std::size_t>> cases{{"", 0},
                                                               {"a", 0},
                                                               {"\xC3", 1},
                                                               {"\xC3\xA9", 0},
                                                               {"a\xE9\x94", 2},
                                                               {"\xE9\x94\x84", 0},
                                                               {"\xF0", 1},
                                                               {"\xF0\x9F", 2},
                                                               {"\xF0\x9F\x98", 3},
                                                               {"\xF0\x9F\x98\x80", 0},
                                                               {"\x80\x80", 0},
                                                               {"\xC0", 0},
                                                               {"\xE0\x80", 0},
                                                               {"\xED\xA0", 0},
                                                               {"\xF4\x90", 0},
                                                               {"\xFF", 0},
                                                               {"\xF0\x9F\x98\x80\xE9", 1},
                                                               {"\xE9\x94\xE9", 1}};
  for (const auto& [text, expected] : cases)
    EXPECT_EQ(unfinished_bytes(text), expected) << testing::PrintToString(text);
}

TEST(Answer, ReplacesBrokenBytesAndKeepsTheRest) {
  EXPECT_EQ(valid_utf8("a\xE9\x94z"), "a\uFFFDz");
  EXPECT_EQ(valid_utf8("\xED\xA0\x80"), "\uFFFD\uFFFD\uFFFD");
  EXPECT_EQ(valid_utf8("\xF0\x9F\x98\x80\xFF"), "\U0001F600\uFFFD");
  EXPECT_EQ(shortened("推敲推敲", 4), "推敲推敲");
  EXPECT_EQ(shortened("推敲推敲", 3), "推敲…");
}

TEST(AnswerJson, TokensJoinToTheAnswer) {
  const Answer answer = sample();
  std::string pending, text;
  std::vector<Json> lines;
  for (const AnswerToken& t : answer.tokens) {
    const std::string line = token_json(answer, t, pending);
    EXPECT_FALSE(contains(line, "\n"));
    lines.push_back(Json::parse(line));
    text += lines.back()["text"].get<std::string>();
  }
  EXPECT_EQ(text, "a 锄b");
  EXPECT_EQ(Json::parse(summary_json(answer))["summary"]["answer"], text);
  EXPECT_EQ(lines[1]["text"], "");
  EXPECT_EQ(lines[1]["bytes"], Json::array({0xE9}));
  EXPECT_EQ(lines[3]["text"], "锄");
  EXPECT_EQ(lines[3]["context"], "two.txt");
  EXPECT_EQ(lines[3]["context_index"], 1);
  EXPECT_EQ(lines[3]["switched"], true);
  EXPECT_EQ(lines[0]["id"], 7);
  EXPECT_EQ(lines[0]["logprob"], -0.5);
  EXPECT_EQ(lines[0]["entropy_nats"], 1.0);
  EXPECT_EQ(lines[0].size(), 8U);
}

TEST(AnswerJson, SurvivesBrokenBytesAndInfinities) {
  Answer answer = sample();
  answer.contexts[0] = {kHostile, "bad \xFF title", 0, 1};
  answer.question = "\xC0?";
  answer.tokens[0].logprob = -std::numeric_limits<double>::infinity();
  answer.tokens[0].bytes = "\xE9";
  answer.tokens[0].entropy_nats = std::numeric_limits<double>::quiet_NaN();
  answer.tokens.push_back(token("\xF0\x9F", 99));
  std::string pending, text;
  for (const AnswerToken& t : answer.tokens)
    text += Json::parse(token_json(answer, t, pending))["text"].get<std::string>();
  EXPECT_EQ(pending, "\xF0\x9F");

  pending.clear();
  const Json first = Json::parse(token_json(answer, answer.tokens[0], pending));
  EXPECT_TRUE(first["logprob"].is_null());
  EXPECT_TRUE(first["entropy_nats"].is_null());
  EXPECT_EQ(first["context"], valid_utf8(kHostile));
  const Json last = Json::parse(token_json(answer, answer.tokens.back(), pending));
  EXPECT_TRUE(last.at("context").is_null());
  EXPECT_TRUE(last.at("context_index").is_null());
  const Json summary = Json::parse(summary_json(answer))["summary"];
  EXPECT_EQ(summary["contexts"][0]["title"], "bad \uFFFD title");
  EXPECT_EQ(summary["question"], "\uFFFD?");
  EXPECT_EQ(summary["answer"], text + "\uFFFD");
}

TEST(AnswerJson, SummaryHasEveryField) {
  Answer answer = sample();
  answer.prefix = "It is";
  answer.abstained = true;
  answer.first_entropy_nats = 1.25;
  answer.first_divergence_bits = 0.5;
  answer.first_token_seconds = 2;
  answer.prefill_seconds = 1.5;
  answer.tokens_per_second = 30;
  EXPECT_TRUE(Json::parse(summary_json(answer))["summary"].at("cache").is_null());
  answer.cache = StateStore::Statistics{3, 1, 2, 0, 3000, 5000};
  EXPECT_TRUE(Json::parse(summary_json(answer))["summary"].at("healing").is_null());
  HealStatistics& healing = answer.healing.emplace();
  healing = {HealMode::back, 2, 7, 5, 1, 40, -3.5, 0.01, std::nan(""), 12};
  answer.heal_back = 4;
  const Json json = Json::parse(summary_json(answer));
  const Json expected = {
      {"healing",
       {{"mode", "back=4"},
        {"tokens_removed", 2},
        {"bytes", 7},
        {"branches", 5},
        {"batches", 1},
        {"chosen_split", 40},
        {"prefix_logprob", -3.5},
        {"unchecked_mass", 0.01},
        {"bits_saved", nullptr},
        {"tokenisations", 12}}},
      {"question", "What?"},
      {"prefix", "It is"},
      {"answer", "a 锄b"},
      {"model", "tiny"},
      {"pooling", "min_entropy"},
      {"finish", "end"},
      {"abstained", true},
      {"switches", 1},
      {"tokens", 5},
      {"first_entropy_nats", 1.25},
      {"first_divergence_bits", 0.5},
      {"first_token_seconds", 2.0},
      {"prefill_seconds", 1.5},
      {"tokens_per_second", 30.0},
      {"peak_rss_bytes", 123456789},
      {"cache",
       {{"hits", 3}, {"misses", 1}, {"rejected", 2}, {"evicted", 0}, {"loaded_bytes", 3000}, {"saved_bytes", 5000}}},
      {"contexts",
       {{{"index", 0},
         {"id", "one.txt"},
         {"title", "One"},
         {"part", 0},
         {"tokens", 3},
         {"prompt_tokens", 100},
         {"share", 0.6},
         {"mean_entropy_nats", 2.0}},
        {{"index", 1},
         {"id", "two.txt"},
         {"title", ""},
         {"part", 1},
         {"tokens", 2},
         {"prompt_tokens", 200},
         {"share", 0.4},
         {"mean_entropy_nats", 1.0}},
        {{"index", 2},
         {"id", "two.txt"},
         {"title", ""},
         {"part", 2},
         {"tokens", 0},
         {"prompt_tokens", 50},
         {"share", 0.0},
         {"mean_entropy_nats", 0.0}}}}};
  EXPECT_EQ(json["summary"], expected);
  EXPECT_EQ(json.size(), 1U);
}

TEST(AnswerLegend, ShowsWhatDecidedAndNothingElse) {
  const Answer answer = sample();
  EXPECT_EQ(legend(answer, false),
            "   3 tokens  60 %  entropy 2.00  one.txt: One\n"
            "   2 tokens  40 %  entropy 1.00  two.txt, part 1\n"
            "   1 switch\n");
  const std::string coloured = legend(answer, true);
  EXPECT_TRUE(coloured.starts_with(terminal_colour(0)));
  EXPECT_EQ(occurrences(coloured, kTerminalReset), 2U);
  EXPECT_EQ(terminal_colour(-1), "");
  EXPECT_NE(terminal_colour(0), terminal_colour(1));
  EXPECT_EQ(terminal_colour(254), terminal_colour(254));
  EXPECT_EQ(legend(Answer{}, true), "");
}

TEST(AnswerLegend, SendsNoEscapesFromDocuments) {
  Answer answer = sample();
  answer.contexts[0] = {kHostile, "a\nb\r\u202E\xFF\x9B\x7F", 0, 1};
  const std::string plain = legend(answer, false);
  EXPECT_TRUE(contains(plain, "\\x1B[31m\\x07\\u009B")) << plain;
  EXPECT_TRUE(contains(plain, "a\\x0Ab\\x0D\\u202E\uFFFD\uFFFD\\x7F\n")) << plain;
  for (const char c : plain) EXPECT_TRUE(c == '\n' || (static_cast<unsigned char>(c) >= 0x20 && c != '\x7F'));
  EXPECT_EQ(occurrences(plain, "\n"), 3U);
}

TEST(AnswerHtml, ShowsSourcesAndJoinsSplitCharacters) {
  const std::string page = page_of({sample()}, "Two documents");
  expect_sound(page);
  EXPECT_TRUE(contains(page, "<title>Two documents</title>"));
  EXPECT_TRUE(contains(page, ">2</a></sup>锄</span>"));  // the completing token's colour
  EXPECT_TRUE(contains(page, "\">b</span>"));            // no number where the source stays
  EXPECT_EQ(occurrences(page, "<sup>"), 2U);
  EXPECT_TRUE(contains(page, "<strong>1 switch</strong>"));
  EXPECT_TRUE(contains(page, "2 \u00B7 two.txt (part 1)\nentropy 1.50 nats\nlog-probability -0.50 (60.7 %)"));
  EXPECT_TRUE(contains(page, "1 other document decided no token"));
  EXPECT_EQ(occurrences(page, "class=\"bar\" x="), 5U);
  EXPECT_TRUE(contains(page, "117.7 MiB"));
  EXPECT_FALSE(contains(page, "<nav"));
}

TEST(AnswerHtml, EscapesEverythingFromOutside) {
  Answer answer = sample();
  answer.question = answer.prefix = answer.model = answer.pooling = answer.finish = kHostile;
  for (AnswerContext& context : answer.contexts) context = {kHostile, std::string(kHostile) + "t", 0, 1};
  answer.tokens.push_back(token(kHostile, 0));
  answer.tokens.push_back(token(std::string("\0\n", 2), 1));
  const std::string page = page_of({answer, answer}, kHostile);
  expect_sound(page);
  EXPECT_TRUE(contains(page, "&lt;script&gt;alert(&#39;x&#39;)&lt;/script&gt;&quot;&amp;&#x241B;[31m&#x2407;\uFFFD"));
  EXPECT_TRUE(contains(page, "&#x2400;\n</span>"));
}

TEST(AnswerHtml, IsSoundForOddAnswers) {
  Answer plain = sample();
  plain.contexts.clear();
  for (AnswerToken& t : plain.tokens) t.context = -1;
  const std::string page = page_of({plain});
  expect_sound(page);
  EXPECT_FALSE(contains(page, "<table>"));
  EXPECT_FALSE(contains(page, "switch"));
  EXPECT_TRUE(contains(page, "<span class=\"t n\""));

  Answer broken = sample();  // ends inside a character; sources and numbers that are none
  broken.tokens.push_back(token("\xF0\x9F", 99, std::numeric_limits<double>::quiet_NaN()));
  broken.tokens.back().logprob = -std::numeric_limits<double>::infinity();
  const std::string broken_page = page_of({broken});
  expect_sound(broken_page);
  EXPECT_TRUE(contains(broken_page, ">\uFFFD</span></div>"));

  Answer empty = sample();
  empty.tokens.clear();
  expect_sound(page_of({empty}));
  EXPECT_TRUE(contains(page_of({empty}), "3 documents decided no token"));
  expect_sound(page_of({Answer{}}));
  expect_sound(page_of({}));
}

TEST(AnswerHtml, SaysThatNoDocumentAnswers) {
  Answer answer = sample();
  answer.tokens.clear();
  answer.abstained = true;
  answer.finish = "abstained";
  answer.first_divergence_bits = 0.03;
  const std::string page = page_of({sample(), answer});
  expect_sound(page);
  EXPECT_EQ(occurrences(page, "No document answers."), 1U);
  EXPECT_TRUE(contains(page, "0.030 bits"));
  EXPECT_TRUE(
      contains(page, "<li><a href=\"#q2\" lang=\"\">What?</a> <span class=\"id\">no document answers</span></li>"));
}

double luminance(const std::string& hex) {
  const auto channel = [&](std::size_t at) {
    const double x = std::stoi(hex.substr(at, 2), nullptr, 16) / 255.0;
    return x <= 0.04045 ? x / 12.92 : std::pow((x + 0.055) / 1.055, 2.4);
  };
  return 0.2126 * channel(1) + 0.7152 * channel(3) + 0.0722 * channel(5);
}

double contrast(const std::string& a, const std::string& b) {
  const double x = luminance(a), y = luminance(b);
  return (std::max(x, y) + 0.05) / (std::min(x, y) + 0.05);
}

double distance(const std::string& a, const std::string& b) {
  double squares = 0;
  for (const std::size_t at : {1U, 3U, 5U}) {
    squares += std::pow(std::stoi(a.substr(at, 2), nullptr, 16) - std::stoi(b.substr(at, 2), nullptr, 16), 2);
  }
  return std::sqrt(squares);
}

TEST(AnswerHtml, ColoursOf255DocumentsAreReadable) {
  Answer answer;
  for (int i = 0; i < 255; ++i) {
    answer.contexts.push_back({fmt::format("{}.txt", i + 1), "", 0, 10});
    answer.tokens.push_back(token(" w", i));
  }
  const std::string page = page_of({answer});
  expect_sound(page);
  struct Mode {
    std::string ink, paper;
    std::vector<std::string> backs;
  };
  std::array<Mode, 2> modes{{{"#17181c", "#ffffff", {}}, {"#f1f2f5", "#15161a", {}}}};  // light, dark
  for (int i = 0; i < 255; ++i) {
    const std::string rule = fmt::format(".c{}{{--b:", i);
    ASSERT_EQ(occurrences(page, rule), 2U);
    std::size_t at = 0;
    for (Mode& mode : modes) {
      at = page.find(rule, at) + rule.size();
      const std::string back = page.substr(at, 7), mark = page.substr(at + 12, 7);
      EXPECT_GE(contrast(mode.ink, back), 4.5) << i << ' ' << back;  // WCAG 1.4.3
      EXPECT_GE(contrast(mode.paper, mark), 3) << i << ' ' << mark;  // WCAG 1.4.11
      mode.backs.push_back(back);
      for (int apart = 1; apart <= std::min(i, 4); ++apart) {
        EXPECT_GE(distance(back, mode.backs[static_cast<std::size_t>(i - apart)]), apart == 1 ? 80 : 25)
            << i << ' ' << apart;
      }
    }
  }
}

TEST(AnswerHtml, IsSoundForRandomBytes) {
  std::mt19937 random(1);
  constexpr std::array<std::string_view, 12> kBits{"<",    ">",        "&",        "\"",       "'", "\n",
                                                   "\xE9", "\x94\x84", "\xF0\x9F", "\xC2\x85", "a", "\x1b"};
  const auto text = [&] {
    std::string made;
    for (auto n = random() % 6; n > 0; --n) made += kBits[random() % kBits.size()];
    return made;
  };
  for (int round = 0; round < 20; ++round) {
    Answer answer;
    answer.question = text();
    for (int i = 0; i < 3; ++i) answer.contexts.push_back({text(), text(), i, i});
    std::string bytes, joined, pending;
    for (int i = 0; i < 30; ++i) answer.tokens.push_back(token(text(), static_cast<int>(random() % 4) - 1));
    for (const AnswerToken& t : answer.tokens) {
      bytes += t.bytes;
      joined += Json::parse(token_json(answer, t, pending))["text"].get<std::string>();
    }
    EXPECT_EQ(joined + valid_utf8(pending), valid_utf8(bytes));
    EXPECT_EQ(Json::parse(summary_json(answer))["summary"]["answer"], valid_utf8(bytes));
    expect_sound(page_of({answer}, text()));
  }
}

TEST(FileOutput, ReplacesAFileAndKeepsItsPermissions) {
  const Folder folder;
  const fs::path file = folder.path / "a.html";
  EXPECT_EQ(error_of(file, "one"), "");
  const fs::perms made = fs::status(file).permissions();
  EXPECT_NE(made & fs::perms::owner_write, fs::perms::none);
  EXPECT_EQ(made & fs::perms::owner_exec, fs::perms::none);
  fs::permissions(file, fs::perms::owner_read | fs::perms::owner_write);
  fs::create_symlink("a.html", folder.path / "link.html");
  EXPECT_EQ(error_of(folder.path / "link.html", std::string("t\0wo", 4)), "");
  EXPECT_EQ(contents(file), std::string("t\0wo", 4));
  EXPECT_EQ(fs::status(file).permissions(), fs::perms::owner_read | fs::perms::owner_write);
  EXPECT_TRUE(fs::is_symlink(folder.path / "link.html"));
  EXPECT_EQ(folder.files(), 2U);
  EXPECT_EQ(error_of("/dev/null"), "");
  EXPECT_TRUE(fs::is_character_file("/dev/null"));
}

TEST(FileOutput, NamesTheFileAndLeavesNothingBehind) {
  const Folder folder;
  const fs::path absent = folder.path / "absent" / "a.html";
  EXPECT_EQ(error_of(absent), fmt::format("cannot write {}: No such file or directory", absent.string()));
  EXPECT_EQ(error_of(folder.path), fmt::format("cannot write {}: Is a directory", folder.path.string()));
  EXPECT_EQ(error_of("/dev/full"), "cannot write /dev/full: No space left on device");
  EXPECT_NE(error_of(folder.path / std::string(300, 'n')), "");
  EXPECT_THROW(write_answers_html(absent, "t", {}), Error);
  EXPECT_EQ(folder.files(), 0U);
}

TEST(FileOutput, KeepsTheOldFileWhenTheDiskIsFull) {
  const Folder folder;
  const fs::path file = folder.path / "a.html";
  EXPECT_EQ(error_of(file, "old"), "");
  rlimit before{};
  ASSERT_EQ(getrlimit(RLIMIT_FSIZE, &before), 0);
  const rlimit small{100, before.rlim_max};
  const auto handler = std::signal(SIGXFSZ, SIG_IGN);
  setrlimit(RLIMIT_FSIZE, &small);
  const std::string error = error_of(file, std::string(1000, 'x'));
  setrlimit(RLIMIT_FSIZE, &before);
  std::signal(SIGXFSZ, handler);
  EXPECT_EQ(error, fmt::format("cannot write {}: File too large", file.string()));
  EXPECT_EQ(contents(file), "old");
  EXPECT_EQ(folder.files(), 1U);
}

}  // namespace
}  // namespace tuiqiao
