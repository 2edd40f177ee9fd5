#include <fcntl.h>
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <filesystem>
#include <fstream>
#include <functional>
#include <iterator>
#include <nlohmann/json.hpp>
#include <regex>
#include <sstream>
#include <stdexcept>
#include <string>
#include <vector>

#include "text/utf8.h"

// Runs the program as its users do, with the tiny models of tests/data/models.

namespace {

namespace fs = std::filesystem;
using nlohmann::json;
using Arguments = std::vector<std::string>;
using Clock = std::chrono::steady_clock;

constexpr int kBadInput = 1, kUsage = 2, kInterrupted = 130, kOutputClosed = 141;
constexpr std::chrono::seconds kLimit{120};

// ---------------------------------------------------------------------------------------------------- child processes

struct Surroundings {
  std::string input{};                                           ///< on standard input, which ends after it
  bool keep_input_open = false;                                  ///< instead: it never ends
  bool terminal = false;                                         ///< standard output and error are terminals
  std::string output{};                                          ///< a file that standard output goes to; "-" closes it
  bool close_output = false;                                     ///< the reader goes away after the first bytes
  rlim_t file_limit = RLIM_INFINITY;                             ///< no file may become larger, as on a full disk
  std::function<bool(const std::string& out)> interrupt_when{};  ///< asked every few milliseconds; sends SIGINT once
};

struct Result {
  std::string out, err;
  int code = -1;   ///< exit code
  int signal = 0;  ///< that ended it
};

/// Both ends of a pipe or a terminal.
struct Channel {
  int parent = -1, child = -1;

  static Channel pipe(bool to_child = false) {
    int ends[2];
    if (::pipe2(ends, O_CLOEXEC) != 0) throw std::runtime_error("pipe2");
    return to_child ? Channel{ends[1], ends[0]} : Channel{ends[0], ends[1]};
  }
  static Channel terminal() {
    Channel made;
    made.parent = ::posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC);
    if (made.parent < 0 || ::grantpt(made.parent) != 0 || ::unlockpt(made.parent) != 0) throw std::runtime_error("pty");
    made.child = ::open(::ptsname(made.parent), O_RDWR | O_NOCTTY | O_CLOEXEC);
    termios raw{};
    if (made.child < 0 || ::tcgetattr(made.child, &raw) != 0) throw std::runtime_error("pty");
    ::cfmakeraw(&raw);
    ::tcsetattr(made.child, TCSANOW, &raw);
    return made;
  }
};

void close_once(int& descriptor) {
  if (descriptor >= 0) ::close(descriptor);
  descriptor = -1;
}

[[noreturn]] void become(const Arguments& arguments, const Surroundings& around, int in, int out, int err) {
  ::dup2(in, STDIN_FILENO);
  ::dup2(out, STDOUT_FILENO);
  ::dup2(err, STDERR_FILENO);
  if (around.output == "-") ::close(STDOUT_FILENO);
  for (const int signal : {SIGINT, SIGTERM, SIGPIPE, SIGXFSZ}) ::signal(signal, SIG_DFL);
  const rlimit files{around.file_limit, around.file_limit};
  ::setrlimit(RLIMIT_FSIZE, &files);
  ::unsetenv("TUIQIAO_MODEL");
  ::unsetenv("NO_COLOR");
  ::setenv("TERM", "xterm", 1);
  ::setenv("XDG_CACHE_HOME", "/nonexistent", 1);
  std::vector<char*> argv{const_cast<char*>("tuiqiao")};
  for (const std::string& argument : arguments) argv.push_back(const_cast<char*>(argument.c_str()));
  argv.push_back(nullptr);
  ::execv(TUIQIAO_PROGRAM, argv.data());
  ::_exit(99);
}

/// Reads what there is; false at the end.
bool take(int descriptor, std::string& into) {
  char buffer[65536];
  const ssize_t got = ::read(descriptor, buffer, sizeof buffer);
  if (got < 0) return errno == EINTR || errno == EAGAIN;  // EIO: the other side of a terminal was closed
  into.append(buffer, static_cast<std::size_t>(got));
  return got > 0;
}

Result run(const Arguments& arguments, const Surroundings& around = {}) {
  Channel in = Channel::pipe(true);
  Channel out = around.terminal ? Channel::terminal() : Channel::pipe();
  Channel err = around.terminal ? Channel::terminal() : Channel::pipe();
  if (!around.output.empty() && around.output != "-") {
    close_once(out.child);
    out.child = ::open(around.output.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
  }
  const pid_t child = ::fork();
  if (child == 0) become(arguments, around, in.child, out.child, err.child);
  for (Channel* channel : {&in, &out, &err}) close_once(channel->child);
  ::signal(SIGPIPE, SIG_IGN);
  if (!around.input.empty() && ::write(in.parent, around.input.data(), around.input.size()) < 0) ADD_FAILURE();
  if (!around.keep_input_open) close_once(in.parent);

  Result result;
  const auto end = Clock::now() + kLimit;
  bool interrupted = false;
  while ((out.parent >= 0 || err.parent >= 0) && Clock::now() < end) {
    pollfd files[2] = {{out.parent, POLLIN, 0}, {err.parent, POLLIN, 0}};
    ::poll(files, 2, 2);
    if (files[0].revents != 0 && !take(out.parent, result.out)) close_once(out.parent);
    if (files[1].revents != 0 && !take(err.parent, result.err)) close_once(err.parent);
    if (around.close_output && !result.out.empty()) close_once(out.parent);
    if (!interrupted && around.interrupt_when && around.interrupt_when(result.out)) {
      ::kill(child, SIGINT);
      interrupted = true;
    }
  }
  if (Clock::now() >= end) {
    ADD_FAILURE() << "killed after " << kLimit.count() << " s";
    ::kill(child, SIGKILL);
  }
  for (Channel* channel : {&in, &out, &err}) close_once(channel->parent);
  int status = 0;
  ::waitpid(child, &status, 0);
  if (WIFEXITED(status)) result.code = WEXITSTATUS(status);
  if (WIFSIGNALED(status)) result.signal = WTERMSIG(status);
  return result;
}

// -------------------------------------------------------------------------------------------------------------- files

std::string model(const std::string& name) { return TUIQIAO_TEST_DATA "/models/" + name + ".gguf"; }

std::string content_of(const fs::path& file) {
  std::ifstream in(file, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

std::vector<std::string> names_in(const fs::path& folder) {
  std::vector<std::string> names;
  for (const auto& entry : fs::directory_iterator(folder)) names.push_back(entry.path().filename());
  std::sort(names.begin(), names.end());
  return names;
}

std::vector<std::string> lines_of(const std::string& text) {
  std::vector<std::string> lines;
  std::istringstream in(text);
  for (std::string line; std::getline(in, line);) lines.push_back(line);
  return lines;
}

class Cli : public testing::Test {
 protected:
  void SetUp() override {
    fs::remove_all(folder);
    fs::create_directories(folder);
    one = write("one.txt", "The river service opens at seven.");
    two = write("two.txt", "The bridge was closed that night, and the keeper was not there.");
  }
  void TearDown() override { fs::remove_all(folder); }

  std::string path(const std::string& name) const { return folder / name; }
  std::string write(const std::string& name, const std::string& content) const {
    fs::create_directories((folder / name).parent_path());
    std::ofstream(folder / name, std::ios::binary) << content;
    return path(name);
  }
  std::string many(int count) const {
    for (int i = 0; i < count; ++i) write(fmt::format("many{}/{:04}.txt", count, i), fmt::format("station {} open", i));
    return path(fmt::format("many{}", count));
  }
  /// `count` words of the tiny vocabularies.
  static std::string words(int count) {
    constexpr const char* kWords[] = {"water", "bridge", "station", "heron", "river", "keeper", "lease", "night."};
    std::string text;
    for (int i = 0; i < count; ++i) text += fmt::format("{}{}", i == 0 ? "" : " ", kWords[(i * i + i / 3) % 8]);
    return text;
  }

  static Arguments generate(const std::string& name, const Arguments& more) {
    Arguments all{"generate", "-m", model(name), "--threads", "1"};
    if (std::find(more.begin(), more.end(), "-n") == more.end()) all.insert(all.end(), {"-n", "8"});
    all.insert(all.end(), more.begin(), more.end());
    return all;
  }
  /// On two documents.
  Arguments asked(const std::string& name, const Arguments& more = {}) const {
    Arguments all{"--context", one, "--context", two, "Where is the heron?"};
    all.insert(all.end(), more.begin(), more.end());
    return generate(name, all);
  }

  /// One line on standard error that holds all of `parts`, and nothing else but the exit code.
  static void expect_refused(const Arguments& arguments, int code, const std::vector<std::string>& parts,
                             const Surroundings& around = {}) {
    const Result result = run(arguments, around);
    SCOPED_TRACE(fmt::format("{:.300}\n{}", fmt::format("{}", fmt::join(arguments, " ")), result.err));
    EXPECT_EQ(result.code, code);
    EXPECT_EQ(result.signal, 0);
    EXPECT_EQ(result.out, "");
    EXPECT_EQ(std::count(result.err.begin(), result.err.end(), '\n'), 1);
    EXPECT_TRUE(result.err.starts_with("tuiqiao: ") && result.err.ends_with("\n"));
    for (const std::string& part : parts) EXPECT_NE(result.err.find(part), std::string::npos) << part;
  }
  /// JSON lines of a run that works.
  static std::vector<json> answered(Arguments arguments) {
    arguments.push_back("--json");
    const Result result = run(arguments);
    EXPECT_EQ(result.code, 0) << result.err;
    std::vector<json> lines;
    for (const std::string& line : lines_of(result.out)) lines.push_back(json::parse(line));
    return lines;
  }
  static std::vector<int> ids_of(const std::vector<json>& lines) {
    std::vector<int> ids;
    for (const json& line : lines) {
      if (line.contains("id")) ids.push_back(line["id"]);
    }
    return ids;
  }

  const fs::path folder = fs::path(testing::TempDir()) / fmt::format("tuiqiao cli {}", ::getpid());
  std::string one, two;
};

// ---------------------------------------------------------------------------------------------------------- bad input

TEST_F(Cli, RefusesBadModels) {
  const std::string good = content_of(model("tiny-llama"));
  const auto refused = [&](const std::string& file) {
    expect_refused({"generate", "Q", "-m", file}, kBadInput, {fs::path(file).filename()});
  };
  refused(path("absent.gguf"));
  refused(folder);
  refused(one);
  for (const std::size_t size : {std::size_t{0}, std::size_t{3}, std::size_t{100}, good.size() / 2, good.size() - 1}) {
    refused(write(fmt::format("cut at {}.gguf", size), good.substr(0, size)));
  }
  for (const std::size_t at : {4U, 8U, 15U, 16U, 23U, 24U, 31U}) {
    std::string damaged = good;
    damaged[at] = static_cast<char>(0x7F);
    refused(write(fmt::format("damaged at {}.gguf", at), damaged));
  }
  expect_refused({"generate", "Q"}, kBadInput, {"no model", "TUIQIAO_MODEL", "scripts/bootstrap"});
  expect_refused({"generate", "Q", "-m", path("a\nb\x1b[31m")}, kBadInput, {"a\\x0Ab\\x1B[31m"});
  expect_refused({"generate", "Q", "-m", model("tiny-llama"), "--rpc", "127.0.0.1:1"}, kBadInput, {"127.0.0.1:1"});
}

TEST_F(Cli, RefusesBadDocuments) {
  const auto refused = [&](const std::string& file, const std::string& problem) {
    expect_refused(generate("tiny-llama", {"Q", "--context", file}), kBadInput, {fs::path(file).filename(), problem});
  };
  refused(write("empty.txt", ""), "empty");
  refused(write("blank.txt", " \n\t\n"), "white space");
  refused(write("latin1.txt", "caf\xE9 noir"), "not UTF-8 at byte 3");
  refused(path("absent.txt"), "No such file");
  refused(path(std::string(300, 'x')), "name too long");
  fs::create_directories(folder / "nothing");
  refused(path("nothing"), "no files");
  write("mixed/a.txt", "good");
  write("mixed/b.txt", "\xFF");
  expect_refused(generate("tiny-llama", {"Q", "--context", path("mixed")}), kBadInput, {"b.txt", "not UTF-8"});
}

TEST_F(Cli, TakesAllContextsThatThereCanBe) {
  for (const char* name : {"tiny-mamba", "tiny-llama"}) {
    const auto lines = answered(generate(name, {"-n", "2", "--context", many(255), "Where?"}));
    ASSERT_FALSE(lines.empty());
    EXPECT_EQ(lines.back()["summary"]["contexts"].size(), 255U);
  }
  for (const int count : {256, 1000}) {
    expect_refused(generate("tiny-mamba", {"--context", many(count), "Where?"}), kBadInput,
                   {fmt::format("{} contexts", count), "255"});
  }
  answered(generate("tiny-mamba", {"-n", "2", "--context", many(127), "Where?", "Who?"}));
  expect_refused(generate("tiny-mamba", {"--context", many(128), "Where?", "Who?"}), kBadInput,
                 {"128 contexts", "127", "several questions"});
  write("long.txt", words(16000));  // splits: the note about that is not a second line
  expect_refused(generate("tiny-llama", {"-n", "100", "--ctx-size", "180", "--context", path("long.txt"), "Where?"}),
                 kBadInput, {"contexts; at most 255"});
}

TEST_F(Cli, RefusesWindowsThatAreTooSmall) {
  expect_refused(asked("tiny-llama", {"--ctx-size", "40"}), kBadInput, {"window of 40", "question"});
  expect_refused(asked("tiny-llama", {"-n", "500"}), kBadInput, {"window of 512", "500"});
  expect_refused(generate("tiny-llama", {words(600)}), kBadInput, {"window of 512", "question"});
  const std::string titled = write("titled.json", json{{{"title", words(100)}, {"text", words(50)}}}.dump());
  expect_refused(generate("tiny-bpe", {"--contexts", titled, "--ctx-size", "160", "Q"}), kBadInput, {"title"});
}

TEST_F(Cli, RefusesJsonOfWrongShape) {
  const auto refused = [&](const char* option, const std::string& content, const std::string& problem) {
    const std::string file = write("shape.json", content);
    expect_refused(generate("tiny-llama", {"Q", option, file}), kBadInput, {"shape.json", problem});
  };
  refused("--contexts", "", "empty");
  refused("--contexts", "[", "byte");
  refused("--contexts", "{}", "must be an array");
  refused("--contexts", "[]", "empty array");
  refused("--contexts", "[1]", "element 1");
  refused("--contexts", R"([{"text": "a"}, {"txt": "b"}])", "element 2");
  refused("--contexts", R"([{"title": "a"}])", "no `text`");
  refused("--contexts", R"([{"text": "a", "score": "high"}])", "`score`");
  refused("--contexts", R"([{"text": "a", "id": "x\ny"}])", "control character");
  refused("--contexts", "[\"\xFF\"]", "not UTF-8");
  refused("--questions", R"([{"text": "a"}])", "element 1");
  refused("--questions", R"([""])", "empty");
}

TEST_F(Cli, RefusesScoresOfSomeDocumentsOnly) {
  const std::string file = write("some.json", R"([{"id": "x", "text": "a", "score": 1}, {"id": "y", "text": "b"}])");
  expect_refused(generate("tiny-llama", {"--contexts", file, "Q"}), kBadInput, {"'y' has no score", "'x'"});
}

TEST_F(Cli, RefusesWrongOptions) {
  const std::vector<Arguments> wrong{{"--beta", "-2"},
                                     {"--beta", "nan"},
                                     {"--beta", "much"},
                                     {"--beta", ""},
                                     {"--top-p", "0"},
                                     {"--top-p", "1.1"},
                                     {"--eta", "inf"},
                                     {"--gamma", "x"},
                                     {"--pool", "median"},
                                     {"--kv", "paged"},
                                     {"--threads", "-1"},
                                     {"--threads", "513"},
                                     {"--threads", "1.5"},
                                     {"--ctx-size", "-5"},
                                     {"-n", "0"},
                                     {"--overlap", "-1"},
                                     {"--temp", "-1"},
                                     {"--temp", "nan"},
                                     {"--seed", "-1"},
                                     {"--seed", "x"},
                                     {"--abstain-entropy", "2"},
                                     {"--abstain", "--abstain-divergence", "2"},
                                     {"--cache-limit", "5GB"},
                                     {"--html", ""},
                                     {"--cache", ""},
                                     {"--contexts", ""},
                                     {"--questions", ""},
                                     {"--template", ""},
                                     {"--model", ""},
                                     {"--context", ""},
                                     {"--weights", "1,2"},
                                     {"--pool", "weights"},
                                     {"--no-such-option"},
                                     {"--json=maybe"}};
  for (const Arguments& options : wrong) {
    const std::string named = options.front() == "--abstain" ? "--abstain-divergence"
                              : options.front() == "-n"      ? "--max-tokens"
                                                             : options.front();
    expect_refused(asked("tiny-llama", options), kUsage, {named.substr(0, named.find('='))});
  }
  for (const char* weights : {"1", "1,2,3"}) {
    expect_refused(asked("tiny-llama", {"--pool", "weights", "--weights", weights}), kUsage,
                   {"weights for 2 contexts"});
  }
  expect_refused(asked("tiny-llama", {"--pool", "weights", "--weights", "1,x"}), kUsage, {"--weights"});
  expect_refused(asked("tiny-llama", {"--pool", "weights", "--weights", "0,0"}), kUsage, {"weights", "0"});
  expect_refused(generate("tiny-llama", {"--temp", "-1", "--context", path("absent.txt"), "Q"}), kUsage, {"--temp"});
  expect_refused(
      generate("tiny-llama", {"--pool", "weights", "--weights", "0,0", "--context", path("absent.txt"), "Q"}), kUsage,
      {"weights"});
  expect_refused(asked("tiny-llama", {"--cache", path("c"), "--cache-limit", "5XB"}), kUsage, {"--cache-limit"});
  expect_refused(asked("tiny-llama", {"--template", "nothing"}), kBadInput, {"--template nothing", "chatml"});
  expect_refused(asked("tiny-llama", {"--template", one}), kBadInput, {"one.txt", "{document}"});
  expect_refused(asked("tiny-llama", {"--cache", one}), kBadInput, {"one.txt"});
  answered(asked("tiny-llama", {"--pool", "weights", "--weights", "-1,2", "--beta", "-0.5"}));
}

TEST_F(Cli, RefusesBadQuestions) {
  const Arguments none{"generate", "-m", model("tiny-llama"), "--context", one};
  const auto with = [&](const Arguments& questions) {
    Arguments all = none;
    all.insert(all.end(), questions.begin(), questions.end());
    return all;
  };
  expect_refused(none, kUsage, {"no question"});
  expect_refused(with({""}), kBadInput, {"question", "empty"});
  expect_refused(with({" \n"}), kBadInput, {"question", "white space"});
  expect_refused(with({"caf\xE9?"}), kBadInput, {"question", "not UTF-8 at byte 3"});
  expect_refused(with({"Q", "--answer-prefix", "\xFF"}), kBadInput, {"--answer-prefix", "not UTF-8"});
  expect_refused(with({"-"}), kBadInput, {"standard input", "empty"});
  expect_refused(with({"-"}), kBadInput, {"standard input", "not UTF-8"}, {.input = "\xC3\x28\n"});
  expect_refused(with({"-", "-"}), kUsage, {"'-' stands twice"});
  expect_refused(with({two}), kUsage, {"two.txt", "--context"});  // --context *.txt
}

TEST_F(Cli, ReadsAQuestionFromStandardInput) {
  const Arguments arguments = generate("tiny-llama", {"--context", one, "--json", "-"});
  const Result result = run(arguments, {.input = "Where is the bridge?\r\n"});
  ASSERT_EQ(result.code, 0) << result.err;
  const json summary = json::parse(lines_of(result.out).back())["summary"];
  EXPECT_EQ(summary["question"], "Where is the bridge?");
  EXPECT_EQ(ids_of(answered(generate("tiny-llama", {"--context", one, "Where is the bridge?"}))).size(),
            summary["tokens"].get<std::size_t>());
}

TEST_F(Cli, KnowsItsCommands) {
  expect_refused({}, kUsage, {"no command"}, {});
  expect_refused({"frobnicate"}, kUsage, {"unknown command 'frobnicate'"});
  expect_refused({"--frobnicate"}, kUsage, {"unknown option '--frobnicate'"});
  const Result help = run({"--help"});
  EXPECT_EQ(help.code, 0);
  for (const char* part : {"generate", "Exit codes: 0 done, 1 input", "130"}) {
    EXPECT_NE(help.out.find(part), std::string::npos) << part;
  }
  const Result generate_help = run({"generate", "--help"});
  EXPECT_EQ(generate_help.code, 0);
  for (const char* part :
       {"Examples:", "tuiqiao generate --context notes/ \"When", "in tokens", "Nats", "bits", "nats", "[128]", "[0.25]",
        "[0.95]", "[0.1]", "[min_entropy]", "[auto]", "--cache-limit SIZE", "500MB", "'-' reads it"}) {
    EXPECT_NE(generate_help.out.find(part), std::string::npos) << part;
  }
  EXPECT_TRUE(std::regex_match(run({"--version"}).out, std::regex("tuiqiao [0-9.]+\n")));
}

// ------------------------------------------------------------------------------------------------------- interruption

class Interruption : public Cli {
 protected:
  static void expect_interrupted(const Result& result) {
    EXPECT_EQ(result.code, kInterrupted);
    EXPECT_EQ(result.err, "tuiqiao: interrupted\n");
  }
  /// Tokens without end: this model repeats itself.
  Arguments endless(const Arguments& more) const {
    Arguments all{"generate",   "-m",     model("tiny-gemma3"), "--threads", "1",           "-n", "90000",
                  "--ctx-size", "100000", "--context",          one,         "Where is it?"};
    all.insert(all.end(), more.begin(), more.end());
    return all;
  }
};

TEST_F(Interruption, WhileDocumentsAreRead) {
  for (int i = 0; i < 60; ++i) write(fmt::format("docs/{:02}.txt", i), words(380) + fmt::format(" {}", i));
  const std::string cache = path("states");
  const Arguments arguments = generate("tiny-llama", {"--context", path("docs"), "--cache", cache, "Where?"});
  const Result result = run(arguments, {.interrupt_when = [&](const std::string&) {
                              std::error_code none;
                              return fs::is_directory(cache, none) && names_in(cache).size() > 2;
                            }});
  expect_interrupted(result);
  EXPECT_EQ(result.out, "");
  const auto kept = names_in(cache);
  EXPECT_LT(kept.size(), 60U);
  for (const std::string& name : kept) EXPECT_TRUE(name.ends_with(".tuiqiao-state")) << name;
  // What was kept is whole: the answer is the one without it.
  const Result resumed = run(arguments);
  const Result fresh = run(generate("tiny-llama", {"--context", path("docs"), "Where?"}));
  EXPECT_EQ(resumed.code, 0);
  EXPECT_EQ(resumed.out, fresh.out);
}

TEST_F(Interruption, InTheMiddleOfAnAnswer) {
  const std::string page = write("page.html", "old");
  const auto before = names_in(folder);
  for (const bool lines : {false, true}) {
    Arguments arguments = endless({"--html", page});
    if (lines) arguments.push_back("--json");
    const Result result = run(arguments, {.interrupt_when = [](const std::string& out) { return out.size() > 20; }});
    expect_interrupted(result);
    EXPECT_TRUE(result.out.ends_with("\n"));
    EXPECT_EQ(result.out.find("summary"), std::string::npos);
    if (lines) {
      for (const std::string& line : lines_of(result.out)) EXPECT_TRUE(json::accept(line)) << line;
    }
  }
  EXPECT_EQ(content_of(page), "old");
  EXPECT_EQ(names_in(folder), before);
}

TEST_F(Interruption, WhileItWaitsForTheQuestion) {
  const auto start = Clock::now();
  const auto later = [&](const std::string&) { return Clock::now() - start > std::chrono::milliseconds(500); };
  expect_interrupted(run(generate("tiny-llama", {"-"}), {.keep_input_open = true, .interrupt_when = later}));
}

// ------------------------------------------------------------------------------------------------------------- output

TEST_F(Cli, WritesJsonLines) {
  // At this temperature byte tokens come often, and characters are cut, now and then at the end.
  int cut_at_the_end = 0;
  for (int seed = 0; seed < 40; ++seed) {
    const Arguments arguments = asked("tiny-llama", {"-n", "6", "--temp", "9", "--seed", std::to_string(seed)});
    const auto lines = answered(arguments);
    ASSERT_FALSE(lines.empty());
    std::string text, bytes;
    for (std::size_t i = 0; i + 1 < lines.size(); ++i) {
      for (const char* key :
           {"id", "text", "bytes", "logprob", "context", "context_index", "entropy_nats", "switched"}) {
        EXPECT_TRUE(lines[i].contains(key)) << key;
      }
      text += lines[i]["text"].get<std::string>();
      for (const json& byte : lines[i]["bytes"]) bytes.push_back(static_cast<char>(byte.get<int>()));
    }
    ASSERT_TRUE(lines.back().contains("summary"));
    const json& summary = lines.back()["summary"];
    EXPECT_EQ(summary["answer"], text);
    EXPECT_EQ(summary["tokens"], lines.size() - 1);
    EXPECT_GT(summary["peak_rss_bytes"], 1 << 20);
    if (tuiqiao::unfinished_bytes(bytes) > 0) ++cut_at_the_end;
    if (seed % 8 == 0) {
      EXPECT_EQ(run(arguments).out, bytes + "\n");
    }
  }
  EXPECT_GT(cut_at_the_end, 0);
}

TEST_F(Cli, TellsPartsAndDocumentsOfOneNameApart) {
  write("a/long.txt", words(300));
  write("b/long.txt", words(300));
  const auto lines =
      answered(generate("tiny-llama", {"--context", path("a/long.txt"), "--context", path("b/long.txt"), "--ctx-size",
                                       "300", "--pool", "max", "--temp", "1", "-n", "40", "Where?"}));
  const json contexts = lines.back()["summary"]["contexts"];
  ASSERT_GT(contexts.size(), 3U);
  std::vector<int> decided(contexts.size());
  for (const json& line : lines) {
    if (!line.contains("id")) continue;
    ++decided.at(line["context_index"]);
    EXPECT_EQ(line["context"], contexts[line["context_index"].get<std::size_t>()]["id"]);
  }
  for (std::size_t i = 0; i < contexts.size(); ++i) {
    EXPECT_EQ(contexts[i]["index"], i);
    EXPECT_EQ(contexts[i]["id"], "long.txt");
    EXPECT_EQ(contexts[i]["tokens"], decided[i]);
  }
  EXPECT_EQ(contexts[1]["part"], 2);
}

TEST_F(Cli, AnswersSeveralQuestionsInTurn) {
  const std::string file = write("questions.json", R"(["Who?", {"question": "When?", "prefix": "It was"}])");
  const auto lines = answered(asked("tiny-bpe", {"--questions", file}));
  std::vector<std::string> questions;
  for (const json& line : lines) {
    if (line.contains("summary")) questions.push_back(line["summary"]["question"]);
  }
  EXPECT_EQ(questions, (std::vector<std::string>{"Where is the heron?", "Who?", "When?"}));
  const Result text = run(asked("tiny-bpe", {"--questions", file}));
  EXPECT_NE(text.out.find("When?\nIt was"), std::string::npos) << text.out;
}

TEST_F(Cli, WritesPages) {
  const std::string page = write("page.html", "old");
  const auto before = names_in(folder);
  const Result result = run(asked("tiny-llama", {"--html", page}));
  EXPECT_EQ(result.code, 0);
  const std::string html = content_of(page);
  EXPECT_TRUE(html.starts_with("<!doctype html>") && html.ends_with("</html>\n"));
  EXPECT_NE(html.find("Answers from 2 documents"), std::string::npos);
  EXPECT_EQ(names_in(folder), before);
  EXPECT_NE(result.err.find("tuiqiao: wrote " + page), std::string::npos);
  for (const std::string& target : {path("nowhere/page.html"), one + "/page.html", folder.string()}) {
    expect_refused(asked("tiny-llama", {"--html", target}), kBadInput, {"cannot write " + target});
  }
}

TEST_F(Cli, GivesTheSameBytesFromTheCache) {
  write("long/a.txt", words(700));
  write("long/b.txt", words(90));
  for (const char* name : {"tiny-llama", "tiny-gemma3", "tiny-mamba", "tiny-bpe"}) {
    for (const char* kv : {"auto", "unified", "streams"}) {
      const Arguments arguments = generate(name, {"--context", path("long"), "--kv", kv, "--ctx-size", "900", "Where?",
                                                  "--cache", path(fmt::format("states-{}-{}", name, kv)), "--json"});
      const auto tokens = [&] {
        const Result result = run(arguments);
        EXPECT_EQ(result.code, 0) << result.err;
        return result.out.substr(0, result.out.find("{\"summary\""));  // which holds times
      };
      const std::string first = tokens();
      EXPECT_EQ(first, tokens()) << name << " " << kv;
      EXPECT_FALSE(first.empty());
    }
  }
  const Arguments text = asked("tiny-gemma3", {"--cache", path("states")});
  const std::string first = run(text).out;
  const Result again = run(text);
  EXPECT_EQ(first, again.out);
  EXPECT_TRUE(std::regex_search(again.err, std::regex("cache: 3 loaded \\([0-9.]+ KiB\\), 0 not there, 0 damaged, 0 "
                                                      "evicted, 0 B saved\n")))
      << again.err;
  EXPECT_EQ(first, run(asked("tiny-gemma3")).out);
  const json cache = answered(asked("tiny-gemma3", {"--cache", path("states")})).back()["summary"]["cache"];
  EXPECT_EQ(cache["hits"], 3);
  EXPECT_EQ(cache["saved_bytes"], 0);
}

TEST_F(Cli, AnswersWhenTheCacheIsFull) {
  const Arguments arguments = asked("tiny-llama", {"--cache", path("states")});
  const Result full = run(arguments, {.file_limit = 100});
  EXPECT_EQ(full.code, 0) << full.err;
  EXPECT_EQ(full.out, run(asked("tiny-llama")).out);
  const std::string told = "cannot be written: File too large; going on without";
  const auto at = full.err.find(told);
  EXPECT_NE(at, std::string::npos) << full.err;
  EXPECT_EQ(full.err.find(told, at + 1), std::string::npos) << full.err;
  EXPECT_TRUE(names_in(path("states")).empty());
}

TEST_F(Cli, AnswersAlikeInEveryLayout) {
  for (const char* name : {"tiny-llama", "tiny-gemma3", "tiny-mamba", "tiny-bpe"}) {
    const auto ids = [&](const char* kv) { return ids_of(answered(asked(name, {"Who?", "When?", "--kv", kv}))); };
    const auto unified = ids("unified");
    EXPECT_GT(unified.size(), 2U);
    EXPECT_EQ(ids("streams"), unified) << name;
    EXPECT_EQ(ids("auto"), unified) << name;
  }
}

TEST_F(Cli, DrawsBySeed) {
  const auto drawn = [&](const char* seed) { return run(asked("tiny-llama", {"--temp", "1", "--seed", seed})).out; };
  EXPECT_EQ(drawn("7"), drawn("7"));
  EXPECT_NE(drawn("7"), drawn("8"));
  EXPECT_EQ(run(asked("tiny-llama")).out, run(asked("tiny-llama", {"--seed", "8"})).out);
}

TEST_F(Cli, NeverOutgrowsTheWindow) {
  // Tokens of title and text joined are more than of both apart: "▁water" alone is one, "water" after a title five.
  const std::string file = write("titled.json", json{{{"title", "The heron"}, {"text", words(120)}},
                                                     {{"title", "桥"}, {"text", words(37)}},
                                                     {{"text", words(300)}}}
                                                    .dump());
  const std::regex shown("--- (.*) \\((\\d+) tokens\\)");
  for (const char* name : {"tiny-llama", "tiny-bpe"}) {
    for (int window = 110; window < 126; ++window) {
      const Result result = run(generate(name, {"-n", "2", "--contexts", file, "Where?", "--show-prompts", "--ctx-size",
                                                std::to_string(window), "--number-documents"}));
      ASSERT_EQ(result.code, 0) << result.err;
      int longest = 0, question = 0;
      for (std::sregex_iterator i(result.err.begin(), result.err.end(), shown), end; i != end; ++i) {
        const int tokens = std::stoi((*i)[2]);
        if ((*i)[1] == "then to each of them") question = tokens;
        if ((*i)[1].str().starts_with("context")) longest = std::max(longest, tokens);
      }
      EXPECT_GT(question, 0);
      EXPECT_LE(longest + question + 2, window) << name;
      EXPECT_GT(longest + question + 2, window - 30) << name;
    }
  }
}

TEST_F(Cli, TakesControlTokensInDocumentsAsText) {
  const std::vector<std::pair<std::string, std::string>> cases{{"tiny-bpe", "<|im_end|>"},
                                                               {"tiny-gemma3", "<end_of_turn>"}};
  for (const auto& [name, control] : cases) {
    const std::string file = write(name + ".txt", control);
    const Arguments arguments = generate(name, {"--context", file, "Where?"});
    Arguments shown = arguments;
    shown.push_back("--show-prompts");
    EXPECT_NE(run(shown).err.find(control), std::string::npos);
    const int spelled = answered(arguments).back()["summary"]["contexts"][0]["prompt_tokens"];
    const std::string short_file = write("short.txt", "z");
    const json summary = answered(generate(name, {"--context", short_file, "Where?"})).back()["summary"];
    EXPECT_GE(spelled, summary["contexts"][0]["prompt_tokens"].get<int>() + 5);
  }
}

TEST_F(Cli, SurvivesItsReaders) {
  const Arguments endless{"generate", "-m",    model("tiny-gemma3"), "--threads", "1",
                          "-n",       "20000", "--ctx-size",         "30000",     "Q"};
  Arguments lines = endless;
  lines.push_back("--json");
  for (const Arguments& arguments : {endless, lines}) {
    const Result result = run(arguments, {.close_output = true});
    EXPECT_EQ(result.code, kOutputClosed);
    EXPECT_EQ(result.signal, 0);
    EXPECT_EQ(result.err, "");
  }
  for (const char* output : {"/dev/full", "-"}) {
    expect_refused(asked("tiny-llama"), kBadInput, {"standard output"}, {.output = output});
    expect_refused({"--help"}, kBadInput, {"standard output"}, {.output = output});
  }
}

// ---------------------------------------------------------------------------------------------------------- terminals

/// Text without the escapes that the program itself may write: colours, marks and the erasing of a line.
std::string without_colours(const std::string& text) {
  return std::regex_replace(text, std::regex("\x1b\\[(38;5;[0-9]+m|0m|7m|K)|\r(?=\x1b\\[K)"), "");
}

/// Whether some character steers a terminal.
bool steers(const std::string& text) {
  for (std::size_t i = 0; i < text.size(); ++i) {
    const auto byte = static_cast<unsigned char>(text[i]);
    const auto next = static_cast<unsigned char>(i + 1 < text.size() ? text[i + 1] : 0);
    if ((byte < 0x20 && byte != '\n' && byte != '\t') || byte == 0x7F || (byte == 0xC2 && next < 0xA0)) return true;
    if (text.compare(i, 3, "\u202E") == 0) return true;
  }
  return false;
}

TEST_F(Cli, KeepsControlCharactersFromTerminals) {
  const std::string evil =
      "\x1b[2J\x1b]0;owned\x07 \xC2\x9B"
      "31m \u202E \r\n";
  const std::string file = write("evil.txt", "the river " + evil);
  for (int seed = 0; seed < 3; ++seed) {
    for (const char* mode : {"--show-prompts", "--json"}) {
      const Result result = run(
          generate("tiny-llama", {"-n", "250", "--temp", "50", "--seed", std::to_string(seed), "--context", file,
                                  "--context", one, "What? " + evil, "Who?", "--answer-prefix", "So " + evil, mode}),
          {.terminal = true});
      EXPECT_EQ(result.code, 0) << result.err;
      EXPECT_FALSE(steers(without_colours(result.out))) << mode;
      EXPECT_FALSE(steers(without_colours(result.err))) << mode << result.err;
      if (std::string(mode) == "--json") {
        for (const std::string& line : lines_of(result.out)) EXPECT_TRUE(json::accept(line)) << line;
      } else {
        EXPECT_NE(result.out.find("\x1b[38;5;"), std::string::npos);
        EXPECT_NE(result.out.find("\\x1B[2J"), std::string::npos);
        EXPECT_NE(result.err.find("\\x1B[2J"), std::string::npos);
      }
    }
  }
}

TEST_F(Cli, NeverCutsCharactersOnTerminals) {
  for (int seed = 0; seed < 6; ++seed) {
    const Arguments arguments = asked("tiny-llama", {"-n", "60", "--temp", "3", "--seed", std::to_string(seed)});
    const Result result = run(arguments, {.terminal = true});
    EXPECT_EQ(result.code, 0) << result.err;
    const std::string answer = answered(arguments).back()["summary"]["answer"];
    std::string spelled;
    for (const char c : answer) {  // none of the others comes up here
      const auto byte = static_cast<unsigned char>(c);
      spelled +=
          (byte < 0x20 && c != '\n' && c != '\t') || byte == 0x7F ? fmt::format("\\x{:02X}", byte) : std::string(1, c);
    }
    EXPECT_EQ(without_colours(result.out), spelled + "\n");
  }
}

}  // namespace
