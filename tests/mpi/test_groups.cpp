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

/// Each of these sizes with each of the others, and two orders of the axes.
std::vector<ParallelConfig> mappings() {
  std::vector<ParallelConfig> all;
  ParallelConfig parallel;
  parallel.sp = true;
  parallel.cp_comm = "a2a";
  for (const char* order : {"tp-cp-ep-dp-pp", "dp-ep-cp-tp-pp"}) {
    parallel.order = order;
    for (parallel.tp = 1; parallel.tp <= 2; ++parallel.tp) {
      for (parallel.cp = 1; parallel.cp <= 2; ++parallel.cp) {
        for (parallel.pp = 1; parallel.pp <= 2; ++parallel.pp) {
          for (parallel.etp = 1; parallel.etp <= 2; ++parallel.etp) {
            for (parallel.ep = 1; parallel.ep <= 4; ++parallel.ep) all.push_back(parallel);
          }
        }
      }
    }
  }
  return all;
}

void expect_groups(const Groups& groups, const RankGrids& grids, int rank) {
  const Grid &dense = grids.dense, &experts = grids.experts;
  expect_group(*groups.world, rank, {"world", dense.members(rank, {"tp", "cp", "dp", "pp"})});
  expect_group(*groups.tp, rank, {"tp", dense.members(rank, {"tp"})});
  expect_group(*groups.cp, rank, {"cp", dense.members(rank, {"cp"})});
  expect_group(*groups.dp, rank, {"dp", dense.members(rank, {"dp"})});
  expect_group(*groups.pp, rank, {"pp", dense.members(rank, {"pp"})});
  expect_group(*groups.tp_cp, rank, {"tp_cp", dense.members(rank, {"tp", "cp"})});
  expect_group(*groups.dp_cp, rank, {"dp_cp", dense.members(rank, {"dp", "cp"})});
  expect_group(*groups.tp_dp_cp, rank, {"tp_dp_cp", dense.members(rank, {"tp", "dp", "cp"})});
  expect_group(*groups.etp, rank, {"etp", experts.members(rank, {"etp"})});
  expect_group(*groups.ep, rank, {"ep", experts.members(rank, {"ep"})});
  expect_group(*groups.etp_ep, rank, {"etp_ep", experts.members(rank, {"etp", "ep"})});
  expect_group(*groups.expert_dp, rank, {"edp", experts.members(rank, {"edp"})});
  EXPECT_EQ(groups.pp->rank(), dense.coordinate(rank, "pp")) << "rank s is stage s";
}

TEST(Groups, AreThoseOfTheGrids) {
  const Communicator world = Communicator::world();
  const int rank = world.rank();
  int created = 0;
  for (const ParallelConfig& parallel : mappings()) {
    if (world.size() % smallest_ranks(parallel) != 0) continue;
    if (!order_fault(parallel, world.size()).empty()) continue;
    SCOPED_TRACE(testing::Message() << parallel.order << ", tp " << parallel.tp << ", cp "
                                    << parallel.cp << ", pp " << parallel.pp << ", etp "
                                    << parallel.etp << ", ep " << parallel.ep << ", rank " << rank);
    const RankGrids grids = make_rank_grids(parallel, world.size());
    const Groups groups = Groups::create(world, grids, parallel);
    expect_groups(groups, grids, rank);
    EXPECT_TRUE(groups.parallel.sp);
    EXPECT_EQ(groups.parallel.cp_comm, "a2a");
    ++created;
  }
  EXPECT_GE(created, 2) << "on any number of ranks there is a mapping for each order";
}

TEST(Groups, OutliveTheCommunicatorOfTheirMaking) {
  const Groups groups = AllRanks().groups;
  EXPECT_EQ(groups.dp->sum(std::int64_t{1}), groups.world->size());
}

TEST(Groups, OfSeveralRanksAreObservedWhereThereIsALog) {
  const Communicator world = Communicator::world();
  ParallelConfig parallel;
  parallel.tp = world.size();
  const auto log = std::make_shared<CommunicationLog>();
  const Groups groups =
      Groups::create(world, make_rank_grids(parallel, world.size()), parallel, log);
  EXPECT_EQ(groups.tp->sum(std::int64_t{1}), world.size());
  EXPECT_EQ(groups.world->sum(std::int64_t{1}), world.size());
  EXPECT_EQ(groups.dp->sum(std::int64_t{1}), 1);
  const TrafficTable expected = {{{"tp", "gather"}, {1, 8 * world.size()}},
                                 {{"world", "gather"}, {1, 8 * world.size()}}};
  EXPECT_EQ(log->totals(), world.size() > 1 ? expected : TrafficTable());
}

TEST(Groups, OfOneRankAloneNeedNoOthers) {
  expect_groups(Groups::alone(), make_rank_grids(ParallelConfig(), 1), 0);
}

}  // namespace
}  // namespace konclave
