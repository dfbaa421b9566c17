#pragma once

#include <optional>
#include <string>
#include <thread>

namespace konclave {

/// The rank that a launcher (mpirun, srun, ...) put in this process' environment; nothing where
/// none did, as in a program started from a shell.
std::optional<std::string> rank_from_launcher();

/// Ends this process soon after its launcher has died: not every MPI library notices, and a rank
/// that stays keeps cores, memory and the lock of its run. From construction to destruction a
/// thread looks twice a second who the parent is. When it is another one than at first, the thread
/// prints one line and leaves with ExitCode::internal, at once and without exit handlers, wherever
/// the other threads are. Does nothing without a launcher: such a program may outlive its shell.
class LauncherWatch {
 public:
  LauncherWatch();

 private:
  std::jthread thread_;  // asked to stop and joined by its destructor
};

}  // namespace konclave
