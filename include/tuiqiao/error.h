#pragma once

#include <stdexcept>
#include <string>

namespace tuiqiao {

/// A broken file, model or device: something outside the program that the caller can mend. The text is one line that
/// names the thing and the problem. A caller's own mistake is std::invalid_argument instead.
class Error : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

/// Long work was stopped on request; nothing half-done is left behind.
class Interrupted : public Error {
 public:
  Interrupted() : Error("interrupted") {}
};

}  // namespace tuiqiao
