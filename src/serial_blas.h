#pragma once

namespace tuiqiao {

/// Keeps BLAS to the calling thread while one lives, in whatever thread: its callers spread over OpenMP's threads
/// themselves.
class SerialBlas {
 public:
  SerialBlas();
  ~SerialBlas();
  SerialBlas(const SerialBlas&) = delete;
  SerialBlas& operator=(const SerialBlas&) = delete;
};

}  // namespace tuiqiao
