#include "comm/environment.hpp"

#include "base/error.hpp"
#include "comm/mpi_call.hpp"

#include <mpi.h>

#include <chrono>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <thread>

namespace konclave {

MpiEnvironment::MpiEnvironment(int& argc, char**& argv) {
  int provided = MPI_THREAD_SINGLE;
  check_mpi(MPI_Init_thread(&argc, &argv, MPI_THREAD_FUNNELED, &provided), "MPI_Init_thread",
            "world");
  // Errors of what belongs to no communicator any more, such as a request that is done, go to the
  // world's handler (MPI 3, MPICH 4.0) or to that of the process alone (MPI 4).
  for (const MPI_Comm handle : {MPI_COMM_WORLD, MPI_COMM_SELF}) {
    check_mpi(MPI_Comm_set_errhandler(handle, MPI_ERRORS_RETURN), "MPI_Comm_set_errhandler",
              handle == MPI_COMM_WORLD ? "world" : "self");
  }
  require(provided >= MPI_THREAD_FUNNELED,
          "this MPI library allows no threads beside the one that calls it "
          "(MPI_THREAD_FUNNELED is needed)",
          ExitCode::resource);
}

MpiEnvironment::~MpiEnvironment() {
  if (std::uncaught_exceptions() == 0) MPI_Finalize();
}

namespace {

constexpr auto kRankZeroFirst = std::chrono::milliseconds(500);

/// The exit code of the exception in flight, after printing it.
int report_exception(int rank) {
  int exit_code = static_cast<int>(ExitCode::internal);
  try {
    if (const auto error = std::current_exception()) std::rethrow_exception(error);
    std::fprintf(stderr, "[rank %d] fatal: terminated without an exception\n", rank);
  } catch (const Error& error) {
    exit_code = static_cast<int>(error.exit_code());
    const bool internal = error.exit_code() == ExitCode::internal;
    std::fprintf(stderr, "[rank %d] fatal: %s%s%s%s\n", rank, error.what(), internal ? " (" : "",
                 internal ? error.where().c_str() : "", internal ? ")" : "");
  } catch (const std::exception& error) {
    std::fprintf(stderr, "[rank %d] fatal: %s\n", rank, error.what());
  } catch (...) {
    std::fprintf(stderr, "[rank %d] fatal: unknown exception\n", rank);
  }
  std::fflush(stderr);
  return exit_code;
}

bool mpi_is_running() {
  int initialized = 0, finalized = 0;
  MPI_Initialized(&initialized);
  MPI_Finalized(&finalized);
  return initialized && !finalized;
}

}  // namespace

void abort_job() {
  const bool running = mpi_is_running();
  int rank = 0;
  if (running) MPI_Comm_rank(MPI_COMM_WORLD, &rank);
  // When all ranks fail alike, rank 0 speaks, and its MPI_Abort ends the others before they do.
  std::signal(SIGTERM, SIG_DFL);
  if (rank > 0) std::this_thread::sleep_for(kRankZeroFirst);
  const int exit_code = report_exception(rank);
  if (running) MPI_Abort(MPI_COMM_WORLD, exit_code);
  std::_Exit(exit_code);
}

void install_terminate_handler() { std::set_terminate(&abort_job); }

}  // namespace konclave
