#include "base/error.hpp"
#include "bench/rounds.hpp"
#include "parallel/groups.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>
#include <string>
#include <thread>

namespace konclave {
namespace {

using ::testing::EndsWith;

TEST(SpreadOf, OddAndEvenNumbers) {
  const Spread odd = spread_of({5, 1, 3});
  EXPECT_DOUBLE_EQ(odd.median, 3);
  EXPECT_DOUBLE_EQ(odd.least, 1);
  EXPECT_DOUBLE_EQ(odd.most, 5);
  EXPECT_EQ(odd.count, 3);
  EXPECT_DOUBLE_EQ(spread_of({4, 1, 3, 100}).median, 3.5);
  EXPECT_THROW(spread_of({}), Error);
}

TEST(Rounds, TakePiecesInTurns) {
  std::string order;
  const Groups alone = Groups::alone();
  Rounds rounds(*alone.world, ExecSpace(), 3, /*shortest=*/0);
  rounds.add([&] { order += 'a'; });
  rounds.add_single([&] { order += 'b'; });
  rounds.run();
  // First each by itself, to make what it keeps.
  EXPECT_THAT(order, EndsWith("ababab"));
  EXPECT_EQ(rounds.timing(0).seconds.count, 3);
}

TEST(Rounds, CallShortPiecesOften) {
  int calls = 0, singles = 0;
  const Groups alone = Groups::alone();
  Rounds rounds(*alone.world, ExecSpace(), 7, /*shortest=*/1e-3);
  rounds.add([&] { ++calls; });
  rounds.add_single([&] { ++singles; });
  rounds.run();
  EXPECT_GT(calls, 100);
  EXPECT_EQ(singles, 8);
}

TEST(Rounds, TimeOneCall) {
  const auto sleep = [] { std::this_thread::sleep_for(std::chrono::milliseconds(2)); };
  const Groups alone = Groups::alone();
  Rounds rounds(*alone.world, ExecSpace(), 3, /*shortest=*/8e-3);
  rounds.add(sleep);
  rounds.run();
  const Timing& timing = rounds.timing(0);
  EXPECT_GE(timing.seconds.least, 2e-3);
  EXPECT_LT(timing.seconds.least, 8e-3);
  EXPECT_NEAR(timing.calls_per_second.median * timing.seconds.median, 1, 1e-9);
}

}  // namespace
}  // namespace konclave
