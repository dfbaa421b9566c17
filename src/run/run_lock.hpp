#pragma once

#include <condition_variable>
#include <filesystem>
#include <mutex>
#include <string>
#include <thread>

namespace konclave {

/// Keeps a run's folder to one writer. The kernel's lock on FOLDER/lock goes with the process,
/// however it ends; where it does not reach (another host of a shared file system), the file's
/// host, job and heartbeat tell: a heartbeat older than kStaleAfter seconds is a dead one.
class RunLock {
 public:
  static constexpr double kHeartbeat = 10, kStaleAfter = 120;

  /// Throws Error(resource) naming host, process and job of the holder. `heartbeat` is in seconds.
  explicit RunLock(const std::filesystem::path& folder, double heartbeat = kHeartbeat);
  ~RunLock();
  RunLock(const RunLock&) = delete;
  RunLock& operator=(const RunLock&) = delete;

 private:
  void beat(double heartbeat);

  std::filesystem::path file_;
  int descriptor_ = -1;
  std::mutex mutex_;
  std::condition_variable wake_;
  bool ending_ = false;
  std::thread heart_;
};

/// This machine's name.
std::string host_name();
/// The batch system's id of this job, or "".
std::string job_id();

}  // namespace konclave
