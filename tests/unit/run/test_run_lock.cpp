#include "run/run_lock.hpp"
#include "tests/support/expect_error.hpp"
#include "tests/support/temporary_folder.hpp"

#include <gtest/gtest.h>

#include <optional>

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

TEST(RunLock, NeedsAFolder) {
  expect_error([] { RunLock lock("/nowhere/at/all"); }, ExitCode::io, {"/nowhere/at/all"});
}

}  // namespace
}  // namespace konclave
