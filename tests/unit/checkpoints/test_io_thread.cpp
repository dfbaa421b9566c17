#include "checkpoints/hdf5_handles.hpp"
#include "checkpoints/io_thread.hpp"
#include "checkpoints/reader.hpp"
#include "checkpoints/tensor_file.hpp"
#include "tests/support/expect_error.hpp"
#include "tests/support/temporary_folder.hpp"
#include "tests/unit/checkpoints/sample.hpp"

#include <gtest/gtest.h>

#include <chrono>
#include <cstdlib>
#include <memory>
#include <set>
#include <sys/stat.h>
#include <thread>

namespace konclave {
namespace {

TEST(IoThread, GivesBackWhatTheWorkReturns) {
  const auto value = std::make_unique<int>(7);
  EXPECT_EQ(io_thread().run([&] { return *value; }), 7);
  EXPECT_EQ(*io_thread().run([] { return std::make_unique<int>(8); }), 8);
  bool ran = false;
  io_thread().run([&] { ran = true; });
  EXPECT_TRUE(ran);
}

TEST(IoThread, ThrowsWhatTheWorkThrows) {
  int alive = 0;
  const auto action = [&] {
    const std::shared_ptr<int> held(&alive, [](int* count) { --*count; });
    ++alive;
    fail("a full disk", ExitCode::io, {"somewhere.cpp", 12});
  };
  try {
    io_thread().run(action);
    ADD_FAILURE() << "no error was thrown";
  } catch (const Error& error) {
    EXPECT_STREQ(error.what(), "a full disk");
    EXPECT_EQ(error.exit_code(), ExitCode::io);
    EXPECT_EQ(error.where(), "somewhere.cpp:12");
    EXPECT_EQ(alive, 0) << "what the work holds ends with it";
  }
  EXPECT_EQ(io_thread().run([] { return 1; }), 1) << "the thread goes on";
}

TEST(IoThread, ItsWorkDoesNotWaitForIt) {
  const auto nested = [] { io_thread().run([] {}); };
  expect_error([&] { io_thread().run(nested); }, ExitCode::internal, {"waits for the I/O thread"});
}

TEST(IoThread, IsTheOnlyOneThatCallsHdf5) {
  EXPECT_FALSE(io_thread().runs_the_caller());
  EXPECT_TRUE(io_thread().run([] { return io_thread().runs_the_caller(); }));
  expect_error([] { const Hdf5Calls calls("x.h5", ExitCode::io); }, ExitCode::internal,
               {"outside the I/O thread"});
}

TEST(IoThread, SeveralThreadsSaveAndLoadAtOnce) {
  constexpr int kThreads = 4, kRounds = 5;
  const TemporaryFolder temporary;
  const std::vector<SampleTensor> tensors = sample_tensors();
  std::vector<std::thread::id> workers(kThreads);
  std::vector<std::thread> callers;
  for (int caller = 0; caller < kThreads; ++caller) {
    callers.emplace_back([&, caller] {
      for (int round = 0; round < kRounds; ++round) {
        const std::string folder =
            temporary.path(std::to_string(caller) + "-" + std::to_string(round));
        write_checkpoint_at(folder, content_of(round, tensors));
        Checkpoint::open(folder).verify();
      }
      workers[caller] = io_thread().run([] { return std::this_thread::get_id(); });
    });
  }
  for (std::thread& caller : callers) caller.join();
  EXPECT_EQ(std::set(workers.begin(), workers.end()).size(), 1);
  EXPECT_NE(workers[0], std::this_thread::get_id());
}

/// In a process of its own, which ends by exit while HDF5 hangs on a pipe that nobody writes to.
TEST(IoThreadDeathTest, AHangingReadDoesNotKeepTheProcess) {
  testing::FLAGS_gtest_death_test_style = "threadsafe";
  const auto hang_and_exit = [] {
    {
      const TemporaryFolder temporary;
      const std::string pipe = temporary.path("pipe");
      require(::mkfifo(pipe.c_str(), 0600) == 0, "no pipe");
      std::thread([pipe] { locate_tensors(pipe, {}); }).detach();
      std::this_thread::sleep_for(std::chrono::milliseconds(300));
    }
    std::exit(3);
  };
  EXPECT_EXIT(hang_and_exit(), testing::ExitedWithCode(3), "");
}

}  // namespace
}  // namespace konclave
