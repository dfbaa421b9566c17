#include "run/run_lock.hpp"

#include "base/error.hpp"

#include <nlohmann/json.hpp>

#include <cerrno>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <fcntl.h>
#include <fstream>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

namespace konclave {

std::string host_name() {
  char name[256] = "unknown";
  ::gethostname(name, sizeof name - 1);
  return name;
}

std::string job_id() {
  for (const char* variable : {"SLURM_JOB_ID", "FLUX_JOB_ID", "PBS_JOBID", "LSB_JOBID"}) {
    if (const char* value = std::getenv(variable)) return value;
  }
  return "";
}

namespace {

/// What the lock file says of its holder, as one line of JSON; null when it says nothing.
nlohmann::json read_holder(const std::filesystem::path& file) {
  std::ifstream in(file);
  return nlohmann::json::parse(in, nullptr, /*allow_exceptions=*/false);
}

double seconds_since_change(const std::filesystem::path& file) {
  struct stat status {};
  if (::stat(file.c_str(), &status) != 0) return 0;
  const auto now = std::chrono::system_clock::now().time_since_epoch();
  return std::chrono::duration<double>(now).count() - static_cast<double>(status.st_mtime);
}

[[noreturn]] void refuse(const std::filesystem::path& file, const nlohmann::json& holder) {
  std::string who = "another process";
  if (holder.is_object()) {
    who = "process " + holder.value("pid", nlohmann::json()).dump() + " on " +
          holder.value("host", "an unknown host");
    if (const std::string job = holder.value("job", ""); !job.empty()) who += " (job " + job + ")";
  }
  fail("the folder " + file.parent_path().string() + " is in use by " + who +
           "; wait for its end, or give this run another run.name (and another checkpoint.folder, "
           "where that is set)",
       ExitCode::resource);
}

}  // namespace

RunLock::RunLock(const std::filesystem::path& folder, double heartbeat) : file_(folder / "lock") {
  descriptor_ = ::open(file_.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0644);
  require(descriptor_ >= 0, "cannot open " + file_.string() + ": " + std::strerror(errno),
          ExitCode::io);
  const nlohmann::json holder = read_holder(file_);
  if (::flock(descriptor_, LOCK_EX | LOCK_NB) != 0) refuse(file_, holder);
  const bool elsewhere = holder.is_object() && holder.value("host", "") != host_name();
  if (elsewhere && seconds_since_change(file_) < kStaleAfter) refuse(file_, holder);

  const std::string text =
      nlohmann::json{{"host", host_name()}, {"pid", ::getpid()}, {"job", job_id()}}.dump() + "\n";
  const bool written =
      ::ftruncate(descriptor_, 0) == 0 &&
      ::pwrite(descriptor_, text.data(), text.size(), 0) == static_cast<ssize_t>(text.size());
  require(written, "cannot write " + file_.string() + ": " + std::strerror(errno), ExitCode::io);
  heart_ = std::thread([this, heartbeat] { beat(heartbeat); });
}

void RunLock::beat(double heartbeat) {
  std::unique_lock lock(mutex_);
  const auto pause = std::chrono::duration<double>(heartbeat);
  while (!wake_.wait_for(lock, pause, [this] { return ending_; })) ::futimens(descriptor_, nullptr);
}

RunLock::~RunLock() {
  {
    const std::lock_guard lock(mutex_);
    ending_ = true;
  }
  wake_.notify_all();
  heart_.join();
  // Emptied, not removed: a process that waits for the file must not lock a deleted one. A failure
  // leaves a heartbeat that ages.
  [[maybe_unused]] const int status = ::ftruncate(descriptor_, 0);
  ::close(descriptor_);
}

}  // namespace konclave
