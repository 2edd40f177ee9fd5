// Serves this machine's processor by llama.cpp's RPC protocol until it is killed. Usage: rpc_server HOST:PORT

#include <ggml-backend.h>
#include <ggml-rpc.h>
#include <sys/prctl.h>

#include <csignal>
#include <cstdio>

int main(int argc, char** argv) {
  if (argc != 2) {
    std::fprintf(stderr, "usage: rpc_server HOST:PORT\n");
    return 2;
  }
  ::prctl(PR_SET_PDEATHSIG, SIGKILL);  // a test that crashes leaves no server behind
  ggml_backend_dev_t device = ggml_backend_dev_by_type(GGML_BACKEND_DEVICE_TYPE_CPU);
  ggml_backend_rpc_start_server(argv[1], nullptr, 1, 1, &device);
  return 1;  // it comes back only when it cannot serve
}
