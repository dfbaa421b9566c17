#include "base/error.hpp"
#include "comm/communicator.hpp"
#include "comm/mpi_call.hpp"
#include "tests/support/expect_error.hpp"

#include <gtest/gtest.h>
#include <mpi.h>

#include <string>
#include <utility>

namespace konclave {
namespace {

TEST(Communicator, WorldHasAllRanksInTheirOrder) {
  const Communicator world = Communicator::world();
  int rank = -1, size = 0;
  MPI_Comm_rank(MPI_COMM_WORLD, &rank);
  MPI_Comm_size(MPI_COMM_WORLD, &size);
  EXPECT_EQ(world.rank(), rank);
  EXPECT_EQ(world.size(), size);
  EXPECT_EQ(world.name(), "world");
  EXPECT_NE(world.handle(), MPI_COMM_WORLD) << "a context of its own";
}

TEST(Communicator, SplitKeepsTheOrderOfTheParent) {
  const Communicator world = Communicator::world();

  const Communicator half = Communicator::split(world.handle(), world.rank() % 2, "parity");

  EXPECT_EQ(half.rank(), world.rank() / 2);
  EXPECT_EQ(half.size(), (world.size() + 1 - world.rank() % 2) / 2);
  EXPECT_EQ(half.name(), "parity");
}

TEST(Communicator, SplitTakesNoNegativeColor) {
  expect_error([] { Communicator::split(MPI_COMM_WORLD, -1, "bad"); }, ExitCode::internal,
               {"'bad'", "-1"});
}

TEST(Communicator, AgreeIsFalseEverywhereWhenOneRankFails) {
  const Communicator all = Communicator::split(MPI_COMM_WORLD, /*color=*/0, "all");
  for (int failing = 0; failing < all.size(); ++failing) {
    EXPECT_FALSE(all.agree(all.rank() != failing)) << "rank " << all.rank() << " of " << all.size();
  }
  EXPECT_TRUE(all.agree(true));
}

TEST(Communicator, BroadcastGivesTheTextOfTheRoot) {
  const Communicator world = Communicator::world();
  for (int root = 0; root < world.size(); ++root) {
    const std::string zero_inside("a\0b", 3);
    const std::string text = zero_inside + std::to_string(root);
    const std::string mine = world.rank() == root ? text : "longer than what comes " + text;
    EXPECT_EQ(world.broadcast(mine, root), text);
    EXPECT_EQ(world.broadcast(world.rank() == root ? "" : "something", root), "");
  }
}

TEST(Communicator, BroadcastNeedsARootOfTheGroup) {
  const Communicator world = Communicator::world();
  for (const int root : {-1, world.size()}) {
    expect_error([&] { world.broadcast("text", root); }, ExitCode::internal,
                 {"'world'", "no rank " + std::to_string(root)});
  }
}

TEST(Communicator, GroupsDoNotMeetEachOther) {
  const Communicator first = Communicator::world();
  const Communicator second = Communicator::duplicate(first.handle(), "second");
  // The same ranks pass the two groups in opposite orders: in one context that would deadlock or
  // mix the messages.
  MPI_Request pending = MPI_REQUEST_NULL;
  int sum = 0;
  const int one = 1;
  MPI_Iallreduce(&one, &sum, 1, MPI_INT, MPI_SUM, first.handle(), &pending);
  EXPECT_EQ(second.broadcast(second.rank() == 0 ? "text" : "", 0), "text");
  MPI_Wait(&pending, MPI_STATUS_IGNORE);
  EXPECT_EQ(sum, first.size());
}

TEST(Communicator, MovesLeaveNothingBehind) {
  Communicator first = Communicator::world();
  const MPI_Comm handle = first.handle();

  Communicator second = std::move(first);
  EXPECT_EQ(second.handle(), handle);
  EXPECT_EQ(second.name(), "world");
  // NOLINTNEXTLINE(bugprone-use-after-move,clang-analyzer-cplusplus.Move): what the move promises
  EXPECT_EQ(first.handle(), MPI_COMM_NULL);

  Communicator third = Communicator::duplicate(handle, "third");
  third = std::move(second);
  EXPECT_EQ(third.handle(), handle);
  EXPECT_EQ(third.name(), "world");
  EXPECT_TRUE(third.agree(true));
}

/// The first attribute of a communicator is deleted when the communicator is freed.
int count_frees(MPI_Comm, int, void* count, void*) {
  ++*static_cast<int*>(count);
  return MPI_SUCCESS;
}

TEST(Communicator, IsFreedOnceButNotWhileUnwinding) {
  int frees = 0, key = MPI_KEYVAL_INVALID;
  MPI_Comm_create_keyval(MPI_COMM_NULL_COPY_FN, &count_frees, &key, nullptr);
  {
    const Communicator group = Communicator::world();
    MPI_Comm_set_attr(group.handle(), key, &frees);
  }
  EXPECT_EQ(frees, 1);
  MPI_Comm leaked = MPI_COMM_NULL;
  try {
    const Communicator group = Communicator::world();
    MPI_Comm_set_attr(group.handle(), key, &frees);
    leaked = group.handle();
    fail("unwinds");
  } catch (const Error&) {
    EXPECT_EQ(frees, 1) << "freeing is collective and would wait for the others";
  }
  MPI_Comm_free(&leaked);
  EXPECT_EQ(frees, 2);
  MPI_Comm_free_keyval(&key);
}

TEST(Communicator, AssignmentFreesWhatWasThere) {
  int frees = 0, key = MPI_KEYVAL_INVALID;
  MPI_Comm_create_keyval(MPI_COMM_NULL_COPY_FN, &count_frees, &key, nullptr);
  Communicator group = Communicator::world();
  MPI_Comm_set_attr(group.handle(), key, &frees);
  group = Communicator::duplicate(MPI_COMM_WORLD, "other");
  EXPECT_EQ(frees, 1);
  EXPECT_EQ(group.name(), "other");
  MPI_Comm_free_keyval(&key);
}

TEST(CheckMpi, NamesCallGroupAndReason) {
  const Communicator world = Communicator::world();
  // Errors are returned by the communicators of this class, not fatal.
  const int status = MPI_Bcast(nullptr, 1, MPI_INT, world.size() + 5, world.handle());
  expect_error([&] { check_mpi(status, "MPI_Bcast", world.name()); }, ExitCode::internal,
               {"MPI_Bcast of group 'world' failed", "root"});
  EXPECT_NO_THROW(check_mpi(MPI_SUCCESS, "MPI_Bcast", "world"));
}

TEST(ToMpiCount, RefusesWhatAnIntDoesNotHold) {
  EXPECT_EQ(to_mpi_count(0, "rows", "tp"), 0);
  EXPECT_EQ(to_mpi_count(2147483647, "rows", "tp"), 2147483647);
  expect_error([] { to_mpi_count(std::int64_t{1} << 31, "rows", "tp"); }, ExitCode::internal,
               {"'tp'", "rows is 2147483648"});
  expect_error([] { to_mpi_count(-1, "rows", "tp"); }, ExitCode::internal, {"rows is -1"});
}

}  // namespace
}  // namespace konclave
