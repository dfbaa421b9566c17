#include "parallel/rank_grids.hpp"
#include "tests/support/expect_error.hpp"

#include <gtest/gtest.h>
#include <rapidcheck/gtest.h>

#include <algorithm>
#include <chrono>
#include <set>

namespace konclave {
namespace {

using Names = std::vector<std::string>;
using Ranks = std::vector<int>;

ParallelConfig sizes(int tp, int cp, int pp, int ep, int etp) {
  ParallelConfig parallel;
  parallel.tp = tp;
  parallel.cp = cp;
  parallel.pp = pp;
  parallel.ep = ep;
  parallel.etp = etp;
  return parallel;
}

ParallelConfig with_order(ParallelConfig parallel, const std::string& order) {
  parallel.order = order;
  return parallel;
}

TEST(RankGrids, OfDataAndExpertParallelRanks) {
  const RankGrids grids = make_rank_grids(sizes(1, 1, 1, 4, 1), 8);
  EXPECT_EQ(grids.ranks(), 8);
  EXPECT_EQ(grids.dense.size("dp"), 8);
  EXPECT_EQ(grids.experts.size("edp"), 2);
  EXPECT_EQ(grids.dense.coordinate(6, "dp"), 6);
  EXPECT_EQ(grids.experts.coordinate(6, "ep"), 2);
  EXPECT_EQ(grids.experts.coordinate(6, "edp"), 1);
  EXPECT_EQ(grids.dense.members(6, {"dp"}).size(), 8U);
  EXPECT_EQ(grids.experts.members(6, {"ep"}), (Ranks{4, 5, 6, 7}));
  EXPECT_EQ(grids.experts.members(6, {"edp"}), (Ranks{2, 6}));
}

TEST(RankGrids, OfAllAxes) {
  const RankGrids grids = make_rank_grids(sizes(2, 2, 2, 4, 1), 16);
  EXPECT_EQ(grids.dense.members(0, {"tp"}), (Ranks{0, 1}));
  EXPECT_EQ(grids.dense.members(1, {"cp"}), (Ranks{1, 3}));
  EXPECT_EQ(grids.dense.members(0, {"dp"}), (Ranks{0, 4}));
  EXPECT_EQ(grids.dense.members(0, {"pp"}), (Ranks{0, 8}));
  EXPECT_EQ(grids.experts.members(5, {"ep"}), (Ranks{4, 5, 6, 7})) << "across cp";
  EXPECT_EQ(grids.experts.members(1, {"edp"}), (Ranks{1, 5}));
  EXPECT_EQ(grids.experts.members(0, {"pp"}), (Ranks{0, 8}));
}

TEST(RankGrids, FollowTheOrder) {
  const RankGrids grids = make_rank_grids(with_order(sizes(1, 1, 1, 2, 1), "dp-ep"), 6);
  EXPECT_EQ(grids.experts.members(0, {"edp"}), (Ranks{0, 1, 2}));
  EXPECT_EQ(grids.experts.members(0, {"ep"}), (Ranks{0, 3}));
  EXPECT_EQ(grids.dense.coordinate(5, "tp"), 0) << "what is left out has size 1";
}

TEST(RankGrids, RankCountsThatDoNotDivideAreRefusedWithThoseThatWouldDo) {
  const auto refuse = [](const ParallelConfig& parallel, int ranks, const std::string& text) {
    expect_error([&] { make_rank_grids(parallel, ranks); }, ExitCode::resource, {text});
  };
  refuse(sizes(1, 1, 1, 4, 1), 6,
         "parallel.ep = 4 needs a number of ranks that is a multiple of 4; this run has 6, and 4 "
         "or 8 would do");
  refuse(sizes(1, 1, 1, 4, 1), 1, "this run has 1, and 4 would do");
  refuse(sizes(2, 1, 2, 3, 1), 13,
         "parallel.tp = 2, parallel.pp = 2, parallel.ep = 3 need a number of ranks that is a "
         "multiple of 12; this run has 13, and 12 or 24 would do");
  refuse(sizes(4096, 4096, 4096, 1, 1), 8, "more ranks than can be counted");
}

TEST(RankGrids, WrongOrdersAreRefused) {
  const auto refuse = [](const ParallelConfig& parallel, int ranks, const std::string& text) {
    expect_error([&] { make_rank_grids(parallel, ranks); }, ExitCode::deck,
                 {"parallel.order = \"" + parallel.order + "\"", text});
  };
  const ParallelConfig ones = sizes(1, 1, 1, 1, 1);
  refuse(with_order(ones, "tp-cp-ep-dp-xp"), 1, "there is no axis \"xp\"");
  refuse(with_order(ones, "tp-cp-ep-edp-pp"), 1, "there is no axis \"edp\"");
  refuse(with_order(ones, "TP-dp"), 1, "there is no axis \"TP\"");
  refuse(with_order(ones, "dp-"), 1, "there is no axis \"\"");
  refuse(with_order(ones, ""), 1, "there is no axis \"\"");
  refuse(with_order(ones, "tp-dp-tp"), 1, "tp is named twice");
  refuse(with_order(ones, "tp-pp"), 2, "leaves out dp, larger than 1 on 2 ranks");
  refuse(with_order(sizes(1, 1, 1, 2, 1), "tp-dp-pp"), 2, "leaves out ep");
  refuse(with_order(sizes(1, 1, 1, 1, 2), "dp-pp"), 2, "leaves out tp");
  refuse(with_order(sizes(2, 1, 2, 4, 1), "tp-cp-ep-pp-dp"), 16,
         "pp must come last, because dp = 4 and edp = 2 differ");
  refuse(with_order(sizes(2, 1, 2, 2, 1), "ep-pp-dp-tp"), 16, "different pipeline stages");
}

/// A legal mapping, its order any of those that the sizes allow.
struct Mapping {
  ParallelConfig parallel;
  int ranks = 1;
};

Mapping any_mapping() {
  const auto size = [] { return *rc::gen::inRange(1, 5); };
  ParallelConfig parallel = sizes(size(), size(), size(), size(), size());
  Names order{"tp", "cp", "ep", "dp", "pp"};
  for (std::size_t i = order.size() - 1; i > 0; --i) {
    std::swap(order[i], order[*rc::gen::inRange<std::size_t>(0, i + 1)]);
  }
  parallel.order = order[0];
  for (std::size_t i = 1; i < order.size(); ++i) parallel.order += "-" + order[i];
  const int ranks = smallest_ranks(parallel) * *rc::gen::inRange(1, 4);
  // Most orders suit no pipeline; rapidcheck would give up on so many.
  if (!order_fault(parallel, ranks).empty()) parallel.order = "tp-cp-ep-dp-pp";
  return {parallel, ranks};
}

int product(const Grid& grid, const Names& along) {
  int product = 1;
  for (const std::string& axis : along) product *= grid.size(axis);
  return product;
}

void check_groups(const Grid& grid, const Names& along) {
  const auto size = static_cast<std::size_t>(product(grid, along));
  std::vector<Ranks> by_color(static_cast<std::size_t>(grid.ranks()) / size);
  for (int rank = 0; rank < grid.ranks(); ++rank) {
    const auto color = static_cast<std::size_t>(grid.color(rank, along));
    RC_ASSERT(color < by_color.size());
    by_color[color].push_back(rank);
  }
  // Each rank has one colour, so the groups part the world; each is the one its members name.
  for (const Ranks& group : by_color) {
    RC_ASSERT(group.size() == size);
    for (const int rank : group) RC_ASSERT(grid.members(rank, along) == group);
  }
}

int rank_at_coordinates_of(const Grid& grid, int rank) {
  int result = 0, stride = 1;
  for (const Grid::Axis& axis : grid.axes()) {
    result += stride * grid.coordinate(rank, axis.name);
    stride *= axis.size;
  }
  return result;
}

RC_GTEST_PROP(RankGrids, GroupsAlongAnyAxesPartTheWorld, ()) {
  const Mapping mapping = any_mapping();
  const RankGrids grids = make_rank_grids(mapping.parallel, mapping.ranks);
  for (const Grid* grid : {&grids.dense, &grids.experts}) {
    RC_ASSERT(grid->ranks() == mapping.ranks);
    Names along;
    for (const Grid::Axis& axis : grid->axes()) {
      check_groups(*grid, {axis.name});
      if (*rc::gen::arbitrary<bool>()) along.push_back(axis.name);
    }
    check_groups(*grid, along);
  }
}

RC_GTEST_PROP(RankGrids, CoordinatesNameTheRank, ()) {
  const Mapping mapping = any_mapping();
  const RankGrids grids = make_rank_grids(mapping.parallel, mapping.ranks);
  for (int rank = 0; rank < mapping.ranks; ++rank) {
    RC_ASSERT(rank_at_coordinates_of(grids.dense, rank) == rank);
    RC_ASSERT(rank_at_coordinates_of(grids.experts, rank) == rank);
  }
}

RC_GTEST_PROP(RankGrids, PipelineStagesAreThoseOfBoth, ()) {
  const Mapping mapping = any_mapping();
  const RankGrids grids = make_rank_grids(mapping.parallel, mapping.ranks);
  for (int rank = 0; rank < mapping.ranks; ++rank) {
    RC_ASSERT(grids.dense.coordinate(rank, "pp") == grids.experts.coordinate(rank, "pp"));
    RC_ASSERT(grids.dense.members(rank, {"pp"}) == grids.experts.members(rank, {"pp"}));
  }
}

RC_GTEST_PROP(RankGrids, OnlyMultiplesOfTheSmallestDivide, ()) {
  const Mapping mapping = any_mapping();
  const int unit = smallest_ranks(mapping.parallel);
  for (int ranks = 1; ranks <= 2 * unit; ++ranks) {
    const ParallelConfig& parallel = mapping.parallel;
    const bool divides = ranks % (parallel.tp * parallel.cp * parallel.pp) == 0 &&
                         ranks % (parallel.etp * parallel.ep * parallel.pp) == 0;
    RC_ASSERT(divides == (ranks % unit == 0));
  }
}

TEST(RankGrids, OfManyRanksTakeTimeInProportionToTheGroups) {
  const auto start = std::chrono::steady_clock::now();
  const RankGrids grids = make_rank_grids(sizes(8, 2, 16, 64, 1), 16384);
  std::size_t visited = 0;
  std::set<int> stages;
  for (int rank = 0; rank < grids.ranks(); ++rank) {
    stages.insert(grids.dense.color(rank, {"tp", "cp", "dp"}));
    visited += grids.dense.members(rank, {"dp"}).size();
    visited += grids.experts.members(rank, {"ep"}).size();
    visited += grids.experts.members(rank, {"edp"}).size();
  }
  EXPECT_EQ(stages.size(), 16U);
  EXPECT_EQ(visited, 16384U * (64 + 64 + 16));
  // It takes 10 ms, and some seconds where every rank looks at every other one.
  EXPECT_LT(std::chrono::steady_clock::now() - start, std::chrono::seconds(2));
}

}  // namespace
}  // namespace konclave
