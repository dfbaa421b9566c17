#include "parallel/grid.hpp"
#include "tests/support/expect_error.hpp"

#include <gtest/gtest.h>

namespace konclave {
namespace {

using Ranks = std::vector<int>;

/// rank = x + 2 (y + 3 z)
Grid small_grid() { return Grid({{"x", 2}, {"y", 3}, {"z", 2}}); }

TEST(Grid, TheFirstAxisVariesFastest) {
  const Grid grid = small_grid();
  EXPECT_EQ(grid.ranks(), 12);
  EXPECT_EQ(grid.size("y"), 3);
  EXPECT_EQ(grid.coordinate(1, "x"), 1);
  EXPECT_EQ(grid.coordinate(1, "y"), 0);
  EXPECT_EQ(grid.coordinate(9, "x"), 1);
  EXPECT_EQ(grid.coordinate(9, "y"), 1);
  EXPECT_EQ(grid.coordinate(9, "z"), 1);
}

TEST(Grid, ColoursAreThoseOfTheOtherAxes) {
  const Grid grid = small_grid();
  EXPECT_EQ(grid.color(9, {"y"}), 3) << "x + 2 z";
  EXPECT_EQ(grid.color(9, {"x", "z"}), 1) << "y";
  EXPECT_EQ(grid.color(9, {}), 9) << "alone";
  EXPECT_EQ(grid.color(9, {"x", "y", "z"}), 0) << "all together";
}

TEST(Grid, MembersAreAscendingWhoeverAsks) {
  const Grid grid = small_grid();
  for (const int rank : {1, 3, 5}) EXPECT_EQ(grid.members(rank, {"y"}), (Ranks{1, 3, 5}));
  for (const int rank : {2, 3, 8, 9}) {
    EXPECT_EQ(grid.members(rank, {"z", "x"}), (Ranks{2, 3, 8, 9})) << "in whatever order named";
  }
  EXPECT_EQ(grid.members(7, {}), (Ranks{7}));
  EXPECT_EQ(grid.members(7, {"x", "y", "z"}).size(), 12U);
}

TEST(Grid, WithoutAxesHasOneRank) {
  const Grid grid({});
  EXPECT_EQ(grid.ranks(), 1);
  EXPECT_EQ(grid.color(0, {}), 0);
  EXPECT_EQ(grid.members(0, {}), (Ranks{0}));
}

TEST(Grid, RefusesWhatItDoesNotKnow) {
  const Grid grid = small_grid();
  expect_error([&] { grid.coordinate(0, "w"); }, ExitCode::internal, {"no axis w"});
  expect_error([&] { grid.size("w"); }, ExitCode::internal, {"no axis w"});
  expect_error([&] { grid.color(0, {"x", "w"}); }, ExitCode::internal, {"no axis w"});
  expect_error([&] { grid.members(0, {"w"}); }, ExitCode::internal, {"no axis w"});
  expect_error([&] { grid.coordinate(12, "x"); }, ExitCode::internal, {"rank 12", "of 12"});
  expect_error([&] { grid.color(-1, {}); }, ExitCode::internal, {"rank -1"});
  expect_error([&] { grid.members(12, {}); }, ExitCode::internal, {"rank 12"});
}

TEST(Grid, RefusesAxesThatFactorNothing) {
  expect_error([] { Grid({{"x", 0}}); }, ExitCode::internal, {"axis x", "at least 1"});
  expect_error([] { Grid({{"x", 2}, {"x", 2}}); }, ExitCode::internal, {"two axes x"});
  expect_error([] { Grid({{"x", 1 << 20}, {"y", 1 << 20}}); }, ExitCode::internal, {"too many"});
}

}  // namespace
}  // namespace konclave
