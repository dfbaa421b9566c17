#pragma once

#include "comm/launcher_watch.hpp"

namespace konclave {

/// MPI from construction to destruction; the first object of `main`. Errors on MPI_COMM_WORLD and
/// MPI_COMM_SELF are returned, so that they become an Error with a name. One thread a rank calls
/// MPI (the level is at least MPI_THREAD_FUNNELED); threads of Kokkos and for files never do. The
/// process ends when its launcher is gone.
class MpiEnvironment {
 public:
  MpiEnvironment(int& argc, char**& argv);
  /// Finalizing waits for all ranks: left out while unwinding.
  ~MpiEnvironment();
  MpiEnvironment(const MpiEnvironment&) = delete;
  MpiEnvironment& operator=(const MpiEnvironment&) = delete;

 private:
  LauncherWatch watch_;  // first to come and last to go: MPI_Init and MPI_Finalize may hang, too
};

/// Last stop of every exception: prints "[rank r] fatal: message" (and the place in the code when
/// the error is internal), and ends the whole job with the error's exit code, wherever the other
/// ranks are. Nothing is unwound, so no destructor waits on another rank.
[[noreturn]] void abort_job();

/// Makes abort_job the terminate handler. `main` then needs no catch and must have none.
void install_terminate_handler();

}  // namespace konclave
