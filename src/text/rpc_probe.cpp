#include "rpc_probe.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <ggml-rpc.h>
#include <netdb.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <charconv>
#include <cstdint>
#include <cstring>
#include <memory>
#include <span>

#include "tuiqiao/error.h"

namespace tuiqiao {

namespace {

// The greeting of the protocol: a command byte, the request's size, the request (24 bytes of transport options, none
// wanted); the answer's size, then major, minor and patch version, a pad byte and the server's 24 bytes.
constexpr std::uint8_t kHello = 14;
constexpr std::size_t kOptions = 24;

class Socket {
 public:
  explicit Socket(int descriptor) : descriptor_(descriptor) {}
  ~Socket() {
    if (descriptor_ >= 0) ::close(descriptor_);
  }
  Socket(const Socket&) = delete;
  Socket& operator=(const Socket&) = delete;

  int get() const { return descriptor_; }
  bool wait(short events) const {
    pollfd poll_on{descriptor_, events, 0};
    return ::poll(&poll_on, 1, kRpcTimeoutSeconds * 1000) == 1;
  }
  bool send_all(std::span<const std::uint8_t> bytes) const {
    while (!bytes.empty()) {
      if (!wait(POLLOUT)) return false;
      const ssize_t sent = ::send(descriptor_, bytes.data(), bytes.size(), MSG_NOSIGNAL);
      if (sent <= 0) return false;
      bytes = bytes.subspan(static_cast<std::size_t>(sent));
    }
    return true;
  }
  bool receive_all(std::span<std::uint8_t> bytes) const {
    while (!bytes.empty()) {
      if (!wait(POLLIN)) return false;
      const ssize_t got = ::recv(descriptor_, bytes.data(), bytes.size(), 0);
      if (got <= 0) return false;
      bytes = bytes.subspan(static_cast<std::size_t>(got));
    }
    return true;
  }

 private:
  int descriptor_;
};

bool connects(const Socket& socket, const addrinfo& address) {
  ::fcntl(socket.get(), F_SETFL, O_NONBLOCK);
  if (::connect(socket.get(), address.ai_addr, address.ai_addrlen) == 0) return true;
  if (errno != EINPROGRESS || !socket.wait(POLLOUT)) return false;
  int error = 0;
  socklen_t size = sizeof error;
  return ::getsockopt(socket.get(), SOL_SOCKET, SO_ERROR, &error, &size) == 0 && error == 0;
}

}  // namespace

void probe_rpc_server(const std::string& server) {
  const auto fail = [&](const std::string& why) { throw Error(fmt::format("RPC server {}: {}", server, why)); };
  const std::size_t colon = server.find(':');
  int port = 0;
  if (colon != std::string::npos) {
    const char* end = server.data() + server.size();
    const auto [stop, error] = std::from_chars(server.data() + colon + 1, end, port);
    if (error != std::errc{} || stop != end) port = 0;
  }
  if (colon == 0 || port < 1 || port > 65535) fail("expected HOST:PORT");

  addrinfo hints{};
  hints.ai_family = AF_INET;
  hints.ai_socktype = SOCK_STREAM;
  addrinfo* found = nullptr;
  if (::getaddrinfo(server.substr(0, colon).c_str(), std::to_string(port).c_str(), &hints, &found) != 0)
    fail("unknown host");
  const std::unique_ptr<addrinfo, decltype(&::freeaddrinfo)> address(found, ::freeaddrinfo);

  const Socket socket(::socket(address->ai_family, address->ai_socktype, address->ai_protocol));
  if (socket.get() < 0 || !connects(socket, *address)) fail("cannot connect");

  std::array<std::uint8_t, 1 + 8 + kOptions> request{};
  request[0] = kHello;
  request[1] = kOptions;  // little-endian, as on every machine that llama.cpp's protocol joins
  std::array<std::uint8_t, 8> size{};
  std::array<std::uint8_t, 4 + kOptions> answer{};
  const bool answered =
      socket.send_all(request) && socket.receive_all(size) && size[0] == answer.size() && socket.receive_all(answer);
  if (!answered) fail("does not answer as a llama.cpp RPC server");
  if (answer[0] != RPC_PROTO_MAJOR_VERSION || answer[1] > RPC_PROTO_MINOR_VERSION) {
    fail(fmt::format("speaks version {}.{} of the protocol, this program {}.{}", answer[0], answer[1],
                     RPC_PROTO_MAJOR_VERSION, RPC_PROTO_MINOR_VERSION));
  }
}

}  // namespace tuiqiao
