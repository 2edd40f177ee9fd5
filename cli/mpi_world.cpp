#include "mpi_world.h"

#include <cstdlib>

#include "tuiqiao/error.h"

#ifdef TUIQIAO_HAS_MPI
#include <mpi.h>
#endif

namespace tuiqiao::cli {

namespace {

/// MPI_Init takes a while, and only makes sense for what mpirun started: it says so in the environment.
bool started_together() {
  for (const char* of : {"OMPI_COMM_WORLD_SIZE", "PMI_SIZE"}) {
    const char* size = std::getenv(of);
    if (size && std::atoi(size) > 1) return true;
  }
  return false;
}

}  // namespace

#ifdef TUIQIAO_HAS_MPI

MpiWorld::MpiWorld() {
  if (!started_together()) return;
  int provided = 0;
  if (MPI_Init_thread(nullptr, nullptr, MPI_THREAD_FUNNELED, &provided) != MPI_SUCCESS)
    throw Error("MPI: cannot start");
  joined_ = true;
  MPI_Comm_rank(MPI_COMM_WORLD, &rank_);
  MPI_Comm_size(MPI_COMM_WORLD, &size_);
}
MpiWorld::~MpiWorld() {
  if (joined_) MPI_Finalize();
}
void MpiWorld::wait() const {
  if (joined_) MPI_Barrier(MPI_COMM_WORLD);
}
std::int64_t MpiWorld::sum(std::int64_t own) const {
  if (joined_) MPI_Allreduce(MPI_IN_PLACE, &own, 1, MPI_INT64_T, MPI_SUM, MPI_COMM_WORLD);
  return own;
}
void MpiWorld::abort(int code) const {
  if (joined_) MPI_Abort(MPI_COMM_WORLD, code);
  std::_Exit(code);
}

#else

MpiWorld::MpiWorld() {
  if (started_together())
    throw Error("mpirun started several processes, but this build was made without MPI (libopenmpi-dev)");
}
MpiWorld::~MpiWorld() = default;
void MpiWorld::wait() const {}
std::int64_t MpiWorld::sum(std::int64_t own) const { return own; }
void MpiWorld::abort(int code) const { std::_Exit(code); }

#endif

}  // namespace tuiqiao::cli
