#pragma once

namespace tuiqiao {

/// Keeps BLAS to the calling thread while it lives: its callers spread over OpenMP's threads themselves.
class SerialBlas {
 public:
  SerialBlas();
  ~SerialBlas();
  SerialBlas(const SerialBlas&) = delete;
  SerialBlas& operator=(const SerialBlas&) = delete;

 private:
  int threads_ = 0;
};

}  // namespace tuiqiao
