// Models whose layers lie on llama.cpp RPC servers: two processes of rpc_server on this machine.

#include <arpa/inet.h>
#include <fmt/format.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <chrono>
#include <functional>
#include <optional>
#include <thread>

#include "llama_fixtures.h"
#include "text/rpc_probe.h"
#include "tuiqiao/error.h"
#include "tuiqiao/text/nbce.h"

/// llama.cpp keeps what it knows of a server until the process ends; LeakSanitizer asks for this name.
extern "C" const char* __lsan_default_suppressions();
extern "C" const char* __lsan_default_suppressions() { return "leak:libggml-rpc"; }

namespace tuiqiao {
namespace {

using namespace test;

/// Largest difference of a log-probability between a model here and one spread over servers. Measured with both on one
/// processor: 0.
constexpr double kRpcNats = 0.01;

/// Words at least that lead by more than that before the first tie.
constexpr int kLeastCompared = 6;

/// A TCP socket on a free port of the loopback.
class Listener {
 public:
  Listener() : descriptor_(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t size = sizeof address;
    if (::bind(descriptor_, reinterpret_cast<sockaddr*>(&address), size) != 0 || ::listen(descriptor_, 8) != 0 ||
        ::getsockname(descriptor_, reinterpret_cast<sockaddr*>(&address), &size) != 0) {
      throw std::runtime_error("no port");
    }
    port_ = ntohs(address.sin_port);
  }
  ~Listener() { ::close(descriptor_); }
  Listener(const Listener&) = delete;
  Listener& operator=(const Listener&) = delete;

  std::string endpoint() const { return fmt::format("127.0.0.1:{}", port_); }
  int accept() const { return ::accept(descriptor_, nullptr, nullptr); }

 private:
  int descriptor_;
  int port_ = 0;
};

/// A port where nobody listens: one that was just given back.
std::string free_endpoint() { return Listener().endpoint(); }

/// A process that serves this machine's processor; killed with the object.
class Server {
 public:
  Server() : endpoint_(free_endpoint()), process_(::fork()) {
    if (process_ == 0) {
      if (!std::freopen("/dev/null", "w", stdout) || !std::freopen("/dev/null", "w", stderr)) ::_exit(2);
      ::execl(TUIQIAO_RPC_SERVER, TUIQIAO_RPC_SERVER, endpoint_.c_str(), nullptr);
      ::_exit(127);
    }
    for (int i = 0; i < 600 && !answers(); ++i) std::this_thread::sleep_for(std::chrono::milliseconds(50));
  }
  ~Server() {
    ::kill(process_, SIGKILL);
    ::waitpid(process_, nullptr, 0);
  }
  Server(const Server&) = delete;
  Server& operator=(const Server&) = delete;
  const std::string& endpoint() const { return endpoint_; }

  /// How often it has waited so far: at least once a request.
  long waits() const {
    const std::string status = read_file(fmt::format("/proc/{}/status", process_)), key = "\nvoluntary_ctxt_switches:";
    return std::stol(status.substr(status.find(key) + key.size()));
  }
  /// Whether it comes to wait more often: its last answer may be here before it waits again.
  bool waits_beyond(long before) const {
    for (int tries = 0; waits() <= before && tries < 1000; ++tries)
      std::this_thread::sleep_for(std::chrono::milliseconds(5));
    return waits() > before;
  }
  bool answers() const {
    try {
      probe_rpc_server(endpoint_);
      return true;
    } catch (const Error&) {
      return false;
    }
  }

 private:
  std::string endpoint_;
  pid_t process_;
};

LlamaModel load_over(const std::string& name, const std::vector<std::string>& servers) {
  LlamaModelOptions options;
  options.rpc_servers = servers;
  return LlamaModel(tiny_path(name), options);
}

LlamaDecoderOptions settings() {
  LlamaDecoderOptions options;
  options.max_branches = 4;
  options.window = 200;
  options.threads = 1;
  return options;
}

class Rpc : public testing::TestWithParam<const char*> {};

TEST_P(Rpc, TwoServersGiveTheRowsOfThisMachine) {
  const Server first, second;
  const LlamaModel& local = tiny(GetParam());
  const LlamaModel remote = load_over(GetParam(), {first.endpoint(), second.endpoint()});
  const auto texts = texts_of(local, {3, 40, 90, 61});
  const std::vector<Token> question = random_tokens(local.vocabulary(), 12, 5);
  std::vector<std::vector<LogRow>> rows;
  for (const LlamaModel* model : {&local, &remote}) {
    LlamaDecoder decoder(*model, settings());
    const auto branches = decoder.read(texts);
    const std::array before{first.waits(), second.waits()};
    std::vector<Extension> extensions;
    for (const Branch branch : branches) extensions.push_back({branch, question, Rows::all});
    decoder.extend(extensions);
    if (model == &remote) {  // each does its share
      EXPECT_TRUE(first.waits_beyond(before[0]));
      EXPECT_TRUE(second.waits_beyond(before[1]));
    } else {
      EXPECT_EQ(first.waits(), before[0]);
      EXPECT_EQ(second.waits(), before[1]);
    }
    auto& found = rows.emplace_back();
    for (const Branch branch : branches) {
      for (const Row& row : decoder.rows(branch)) found.push_back(copy_row(row));
    }
  }
  EXPECT_LE(distance(rows[0], rows[1]), kRpcNats);
}

TEST_P(Rpc, TwoServersGiveTheSamePooledText) {
  const Server first, second;
  const LlamaModel& local = tiny(GetParam());
  const LlamaModel remote = load_over(GetParam(), {first.endpoint(), second.endpoint()});
  LlamaDecoder here(local, settings()), there(remote, settings());
  NbceDecoder pooled_here(here, here.read(texts_of(local, {3, 40, 90, 61})), {}),
      pooled_there(there, there.read(texts_of(local, {3, 40, 90, 61})), {});
  // As far as the best token leads by more than the two can differ.
  std::vector<Token> next = random_tokens(local.vocabulary(), 12, 5);
  int compared = 0;
  for (int step = 0; step < 24; ++step, ++compared) {
    pooled_here.extend({0, next, Rows::last});
    pooled_there.extend({0, next, Rows::last});
    const LogRow row = copy_row(pooled_here.row(0));
    if (margin(row) <= 4 * kRpcNats) break;
    ASSERT_EQ(best_token(copy_row(pooled_there.row(0))), best_token(row)) << step;
    EXPECT_EQ(pooled_there.steps(0).back().context, pooled_here.steps(0).back().context) << step;
    next = {best_token(row)};
  }
  EXPECT_GE(compared, kLeastCompared);
}

TEST_P(Rpc, KeepsStatesOfServersApartFromThoseOfThisMachine) {
  const Server server;
  const ScratchFolder folder;
  StateStore store(folder.path);
  const LlamaModel remote = load_over(GetParam(), {server.endpoint()});
  const auto texts = texts_of(remote, {3, 40, 90, 61});
  for (const LlamaModel* model : {&tiny(GetParam()), &remote}) {
    LlamaDecoder decoder(*model, settings());
    decoder.read(texts, &store);
    EXPECT_EQ(store.statistics().hits, 0);
  }
  const std::vector<Token> question = random_tokens(remote.vocabulary(), 12, 5);
  std::vector<LogRow> rows;
  for (StateStore* use : {static_cast<StateStore*>(nullptr), &store}) {
    LlamaDecoder decoder(remote, settings());
    const Branch branch = decoder.read(texts, use)[2];
    decoder.extend({branch, question, Rows::last});
    rows.push_back(copy_row(decoder.row(branch)));
  }
  EXPECT_EQ(store.statistics().hits, 4);
  EXPECT_EQ(distance(rows[0], rows[1]), 0);
}

INSTANTIATE_TEST_SUITE_P(Models, Rpc, testing::Values("tiny-llama", "tiny-gemma3"));

// ---- servers that are none ----

std::string message_of(const std::string& server) {
  try {
    load_over("tiny-llama", {server});
  } catch (const Error& e) {
    return e.what();
  }
  return "nothing thrown";
}

TEST(RpcProbe, RefusesMalformedNames) {
  for (const std::string name : {"", ":", "localhost", "localhost:", ":50052", "localhost:abc", "localhost:0",
                                 "localhost:-1", "localhost:65536", "localhost:5 ", "1:2:3", "localhost:99999999999"}) {
    EXPECT_EQ(message_of(name), fmt::format("RPC server {}: expected HOST:PORT", name));
  }
  EXPECT_EQ(message_of("no such host:50052"), "RPC server no such host:50052: unknown host");
}

TEST(RpcProbe, SaysThatNobodyListens) {
  const std::string endpoint = free_endpoint();
  EXPECT_EQ(message_of(endpoint), fmt::format("RPC server {}: cannot connect", endpoint));
}

/// What a peer that answers `says` and hangs up (or, if it says nothing, stays silent) is taken for.
std::string message_from(const std::optional<std::string>& says) {
  const Listener listener;
  std::jthread peer([&] {
    const int client = listener.accept();
    std::array<char, 64> request{};
    if (::recv(client, request.data(), request.size(), 0) > 0 && says) {
      (void)::send(client, says->data(), says->size(), MSG_NOSIGNAL);
    } else {
      while (::recv(client, request.data(), request.size(), 0) > 0) continue;  // until the other side gives up
    }
    ::close(client);
  });
  std::string message = message_of(listener.endpoint());
  const std::string start = fmt::format("RPC server {}: ", listener.endpoint());
  EXPECT_TRUE(message.starts_with(start)) << message;
  return message.substr(start.size());
}

/// A greeting as the server sends it: size, version, the rest.
std::string greeting(char major, char minor) {
  std::string bytes(8 + 28, '\0');
  bytes[0] = 28;
  bytes[8] = major;
  bytes[9] = minor;
  return bytes;
}

TEST(RpcProbe, RefusesOtherProtocols) {
  const std::string stranger = "does not answer as a llama.cpp RPC server";
  EXPECT_EQ(message_from("HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"), stranger);
  EXPECT_EQ(message_from(""), stranger);                            // hangs up
  EXPECT_EQ(message_from(greeting(7, 0).substr(0, 20)), stranger);  // in the middle
  EXPECT_EQ(message_from(std::nullopt), stranger);                  // ten seconds of silence
  EXPECT_TRUE(message_from(greeting(3, 0)).starts_with("speaks version 3.0 of the protocol, this program "));
  EXPECT_TRUE(message_from(greeting(99, 1)).starts_with("speaks version 99.1 of the protocol, this program "));
}

TEST(RpcProbe, RefusesAListWithOneBadServer) {
  const Server server;
  const std::string absent = free_endpoint();
  EXPECT_THROW(load_over("tiny-llama", {server.endpoint(), absent}), Error);
  EXPECT_NO_THROW(load_over("tiny-llama", {server.endpoint()}));
}

}  // namespace
}  // namespace tuiqiao
