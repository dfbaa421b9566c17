#include "run/run_lock.hpp"
#include "tests/support/expect_error.hpp"
#include "tests/support/temporary_folder.hpp"

#include <gtest/gtest.h>

#include <chrono>
#include <filesystem>
#include <optional>
#include <thread>

namespace konclave {
namespace {

TEST(RunLock, KeepsOutASecondHolderUntilItIsGone) {
  const TemporaryFolder folder;
  std::optional<RunLock> first(std::in_place, folder.path(""));

  expect_error([&] { RunLock second(folder.path("")); }, ExitCode::resource,
               {"in use", std::to_string(::getpid()), host_name()});
  first.reset();
  EXPECT_NO_THROW(RunLock third(folder.path("")));
}

TEST(RunLock, TakesOverWhatADeadProcessOfThisHostLeft) {
  const TemporaryFolder folder;
  folder.write("lock", R"({"host": ")" + host_name() + R"(", "pid": 1, "job": ""})");

  EXPECT_NO_THROW(RunLock lock(folder.path("")));
}

TEST(RunLock, RespectsAHeartbeatOfAnotherHost) {
  const TemporaryFolder folder;
  folder.write("lock", R"({"host": "elsewhere", "pid": 7, "job": "99"})");

  expect_error([&] { RunLock lock(folder.path("")); }, ExitCode::resource,
               {"elsewhere", "7", "job 99"});
}

/// Without it the lock of a run that lives would be a dead one's to other hosts.
TEST(RunLock, BeatsAsLongAsItIsHeld) {
  using std::chrono_literals::operator""ms, std::chrono_literals::operator""min;
  const TemporaryFolder folder;
  const std::string file = folder.path("lock");
  std::filesystem::file_time_type last;
  {
    const RunLock lock(folder.path(""), /*heartbeat=*/0.01);
    for (int beat = 0; beat < 3; ++beat) {
      const auto old = std::filesystem::last_write_time(file) - 60min;
      std::filesystem::last_write_time(file, old);
      for (int wait = 0; wait < 500 && std::filesystem::last_write_time(file) == old; ++wait) {
        std::this_thread::sleep_for(10ms);
      }
      EXPECT_GT(std::filesystem::last_write_time(file), old + 30min) << "beat " << beat;
    }
    last = std::filesystem::last_write_time(file);
  }
  std::filesystem::last_write_time(file, last - 60min);
  std::this_thread::sleep_for(50ms);
  EXPECT_EQ(std::filesystem::last_write_time(file), last - 60min) << "it ends with the lock";
}

TEST(RunLock, NeedsAFolder) {
  expect_error([] { RunLock lock("/nowhere/at/all"); }, ExitCode::io, {"/nowhere/at/all"});
}

}  // namespace
}  // namespace konclave
