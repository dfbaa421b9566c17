#include "tests/mpi/all_ranks.hpp"

#include <gtest/gtest.h>

#include <cstring>

namespace konclave {
namespace {

/// Ranks in the world of the members of a group, in the group's order.
std::vector<int> members(const Transport& group, int rank) {
  const std::vector<std::byte> bytes = group.gather(std::as_bytes(std::span(&rank, 1)));
  std::vector<int> ranks(bytes.size() / sizeof(int));
  std::memcpy(ranks.data(), bytes.data(), bytes.size());
  return ranks;
}

struct Expected {
  std::string name;
  std::vector<int> members;
};

void expect_group(const Transport& group, int rank, const Expected& expected) {
  EXPECT_EQ(group.name(), expected.name);
  EXPECT_EQ(static_cast<std::size_t>(group.size()), expected.members.size());
  EXPECT_EQ(members(group, rank), expected.members) << expected.name;
  ASSERT_LT(static_cast<std::size_t>(group.rank()), expected.members.size());
  EXPECT_EQ(expected.members[static_cast<std::size_t>(group.rank())], rank) << expected.name;
}

std::vector<ParallelConfig> mappings() {
  std::vector<ParallelConfig> all;
  for (const char* order : {"tp-cp-ep-dp-pp", "dp-ep-tp", "tp-dp-ep"}) {
    for (const int tp : {1, 2}) {
      for (const int ep : {1, 2, 3, 4}) {
        ParallelConfig parallel;
        parallel.tp = tp;
        parallel.ep = ep;
        parallel.order = order;
        all.push_back(parallel);
      }
    }
  }
  return all;
}

TEST(Groups, AreThoseOfTheGrids) {
  const Communicator world = Communicator::world();
  const int rank = world.rank();
  int created = 0;
  for (const ParallelConfig& parallel : mappings()) {
    if (world.size() % smallest_ranks(parallel) != 0) continue;
    SCOPED_TRACE(testing::Message() << parallel.order << ", tp " << parallel.tp << ", ep "
                                    << parallel.ep << ", rank " << rank);
    const RankGrids grids = make_rank_grids(parallel, world.size());
    const Groups groups = Groups::create(world, grids);
    expect_group(*groups.world, rank, {"world", grids.dense.members(rank, {"tp", "dp"})});
    expect_group(*groups.dp, rank, {"dp", grids.dense.members(rank, {"dp"})});
    expect_group(*groups.ep, rank, {"ep", grids.experts.members(rank, {"ep"})});
    expect_group(*groups.expert_dp, rank, {"edp", grids.experts.members(rank, {"edp"})});
    ++created;
  }
  EXPECT_GE(created, 3) << "on any number of ranks there is a mapping for each order";
}

TEST(Groups, OutliveTheCommunicatorOfTheirMaking) {
  const Groups groups = AllRanks().groups;
  EXPECT_EQ(groups.dp->sum(std::int64_t{1}), groups.world->size());
}

TEST(Groups, OfOneRankAloneNeedNoOthers) {
  const Groups groups = Groups::alone();
  expect_group(*groups.world, 0, {"world", {0}});
  expect_group(*groups.dp, 0, {"dp", {0}});
  expect_group(*groups.ep, 0, {"ep", {0}});
  expect_group(*groups.expert_dp, 0, {"edp", {0}});
}

}  // namespace
}  // namespace konclave
