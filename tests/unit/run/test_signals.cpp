#include "run/signals.hpp"

#include <gtest/gtest.h>

#include <csignal>

namespace konclave {
namespace {

TEST(StopSignals, RemembersTheFirst) {
  const StopSignals signals;
  EXPECT_EQ(signals.received(), 0);

  std::raise(SIGUSR1);
  std::raise(SIGTERM);

  EXPECT_EQ(signals.received(), SIGUSR1);
}

/// A handler on the interrupted stack overwrites what generated matrix kernels keep below its
/// pointer: rare crashes at a checkpoint signal.
TEST(StopSignals, HandlersHaveAStackOfTheirOwn) {
  const StopSignals signals;
  for (const int number : {SIGTERM, SIGUSR1, SIGINT}) {
    struct sigaction action {};
    sigaction(number, nullptr, &action);
    EXPECT_NE(action.sa_flags & SA_ONSTACK, 0) << number;
  }
  stack_t stack{};
  sigaltstack(nullptr, &stack);
  EXPECT_EQ(stack.ss_flags & SS_DISABLE, 0);
  EXPECT_GE(stack.ss_size, static_cast<std::size_t>(SIGSTKSZ));
}

TEST(StopSignals, LeavesDefaultsBehind) {
  { const StopSignals signals; }
  struct sigaction action {};
  sigaction(SIGTERM, nullptr, &action);
  EXPECT_EQ(action.sa_handler, SIG_DFL);
}

}  // namespace
}  // namespace konclave
