#include "comm/launcher_watch.hpp"

#include "base/error.hpp"

#include <chrono>
#include <condition_variable>
#include <csignal>
#include <cstdlib>
#include <mutex>
#include <poll.h>
#include <stop_token>
#include <unistd.h>

namespace konclave {

namespace {

constexpr std::chrono::milliseconds kPeriod{500};

// Open MPI; PMIx (srun --mpi=pmix, PRRTE); PMI (MPICH, Intel MPI, srun --mpi=pmi2); Flux; PALS.
constexpr const char* kRankVariables[] = {"OMPI_COMM_WORLD_RANK", "PMIX_RANK", "PMI_RANK",
                                          "FLUX_TASK_RANK", "PALS_RANKID"};

/// The line of farewell. What carried it may have died with the launcher, so neither SIGPIPE nor a
/// pipe that nobody empties may stop us here.
void say(const std::string& line) {
  std::signal(SIGPIPE, SIG_IGN);
  pollfd output{STDERR_FILENO, POLLOUT, 0};
  if (::poll(&output, 1, 0) == 1) {
    [[maybe_unused]] const auto written = ::write(STDERR_FILENO, line.data(), line.size());
  }
}

// Not prctl(PR_SET_PDEATHSIG): that signal comes when the *thread* that started us ends, which may
// be long before the launcher does.
void watch(const std::stop_token& stop, pid_t launcher, const std::string& rank) {
  std::mutex mutex;
  std::condition_variable_any wake;
  std::unique_lock lock(mutex);
  while (!wake.wait_for(lock, stop, kPeriod, [&] { return stop.stop_requested(); })) {
    if (::getppid() == launcher) continue;
    say("[rank " + rank + "] fatal: the launcher (process " + std::to_string(launcher) +
        ") is gone\n");
    ::_exit(static_cast<int>(ExitCode::internal));
  }
}

}  // namespace

std::optional<std::string> rank_from_launcher() {
  for (const char* variable : kRankVariables) {
    if (const char* const rank = std::getenv(variable)) return rank;
  }
  return {};
}

LauncherWatch::LauncherWatch() {
  const std::optional<std::string> rank = rank_from_launcher();
  if (!rank) return;
  thread_ = std::jthread([launcher = ::getppid(), rank = *rank](const std::stop_token& stop) {
    watch(stop, launcher, rank);
  });
}

}  // namespace konclave
