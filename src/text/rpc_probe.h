#pragma once

#include <string>

namespace tuiqiao {

/// Connects to a llama.cpp RPC server and exchanges greetings, because llama.cpp aborts the process when it cannot.
/// Throws: tuiqiao::Error "RPC server HOST:PORT: ..." when the name is malformed, nobody listens, the server speaks
/// another protocol or another version of it, or does not answer within kRpcTimeoutSeconds.
void probe_rpc_server(const std::string& server);

inline constexpr int kRpcTimeoutSeconds = 10;

}  // namespace tuiqiao
