#include "comm/agreed.hpp"

#include "comm/mpi_call.hpp"

#include <mpi.h>

namespace konclave {

void agree_on_error(const Communicator& world, const std::optional<Error>& mine) {
  const int candidate = mine ? world.rank() : world.size();
  int speaker = 0;
  check_mpi(MPI_Allreduce(&candidate, &speaker, 1, MPI_INT, MPI_MIN, world.handle()),
            "MPI_Allreduce", world.name());
  if (speaker == world.size()) return;
  int code = mine ? static_cast<int>(mine->exit_code()) : 0;
  check_mpi(MPI_Bcast(&code, 1, MPI_INT, speaker, world.handle()), "MPI_Bcast", world.name());
  const std::string text = world.broadcast(mine ? mine->what() : "", speaker);
  throw AgreedError(text, static_cast<ExitCode>(code));
}

}  // namespace konclave
