#pragma once

#include "comm/traffic.hpp"

#include <chrono>
#include <condition_variable>
#include <filesystem>
#include <memory>
#include <mutex>
#include <stop_token>
#include <string>
#include <thread>

namespace konclave {

/// Where watchdogs meet: a folder that exists only once a job hangs, and that all ranks see.
struct HangFolder {
  std::filesystem::path path;
  int rank = 0, ranks = 1;
};

/// A path OUT/NAME/hang (or hang-2, ...) at which nothing is yet.
std::filesystem::path fresh_hang_folder(const std::filesystem::path& run);

/// Ends a job that hangs. A thread of its own counts the time of what the rank is doing; time in
/// which the process itself was stopped does not count. Past the limit, or when another rank is
/// past its own, the thread writes what it knows to rank-R.json in the folder. The lowest rank that
/// has done so reads all of them, prints why the job hangs (explain_hang) and keeps it as
/// report.txt. Then each rank leaves with ExitCode::internal, at once and without exit handlers,
/// wherever its main thread is. MPI is not called: it is the main thread's.
class Watchdog {
 public:
  Watchdog(HangFolder folder, std::shared_ptr<const CommunicationLog> log);

  /// From now on the rank does `what`, for at most so many seconds; 0 is for ever.
  void expect(std::string what, double seconds);
  /// From now on it may take its time.
  void rest() { expect("the rest of the run", 0); }

 private:
  using Clock = std::chrono::steady_clock;

  /// What the rank does, and for how long it has.
  struct Task {
    std::string what = "its start";
    double limit = 0, seconds = 0;
  };

  void watch(const std::stop_token& stop);
  [[noreturn]] void end_job(const Task& task) const;
  void leave_evidence(const Task& task) const;
  /// Until all ranks have left theirs, or for as long as it takes the others to notice; the lowest
  /// that has, or -1.
  int wait_for_evidence() const;
  void report() const;
  std::filesystem::path file_of(int rank) const;

  HangFolder folder_;
  std::shared_ptr<const CommunicationLog> log_;
  std::mutex mutex_;  ///< of the task
  std::condition_variable_any wake_;
  Task task_;
  std::jthread thread_;  // the last to come and the first to go
};

}  // namespace konclave
