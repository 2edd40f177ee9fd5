// Prints the devices that tensor operations can run on.
#include <cstdio>

#include "tuiqiao/torch.h"

int main() {
  tuiqiao::set_torch_threads(0);
  for (const auto& device : tuiqiao::torch_system().devices) std::printf("%s\n", device.c_str());
}
