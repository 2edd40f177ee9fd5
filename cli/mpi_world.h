#pragma once

#include <cstdint>

namespace tuiqiao::cli {

/// The processes that mpirun started together; this one alone where it did not start it.
class MpiWorld {
 public:
  /// Joins the others. Throws: tuiqiao::Error where mpirun started several but this build was made without MPI.
  MpiWorld();
  ~MpiWorld();
  MpiWorld(const MpiWorld&) = delete;
  MpiWorld& operator=(const MpiWorld&) = delete;

  int rank() const { return rank_; }
  int size() const { return size_; }
  /// Waits until all have come here.
  void wait() const;
  /// The sum of what each has; waits for all.
  std::int64_t sum(std::int64_t own) const;
  /// Ends all of them, and this one, with an exit code.
  [[noreturn]] void abort(int code) const;

 private:
  int rank_ = 0, size_ = 1;
  bool joined_ = false;
};

}  // namespace tuiqiao::cli
