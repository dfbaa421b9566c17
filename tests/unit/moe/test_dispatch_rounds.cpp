#include "moe/dispatch_rounds.hpp"
#include "tests/support/expect_error.hpp"

#include <gtest/gtest.h>
#include <rapidcheck/gtest.h>

#include <algorithm>
#include <compare>
#include <utility>
#include <vector>

namespace konclave {
namespace {

using Rows = std::vector<std::int64_t>;
/// (from, to, rows) of each chunk.
using Chunks = std::vector<Rows>;

Chunks chunks(const std::vector<DispatchChunk>& all) {
  Chunks result;
  for (const DispatchChunk& chunk : all) result.push_back({chunk.from, chunk.to, chunk.rows});
  return result;
}

/// Two ranks of two experts.
///   source 0:  2 1 | 3 0
///   source 1:  1 2 | 0 4
DispatchCounts two_by_two() { return {2, 4, {2, 1, 3, 0, 1, 2, 0, 4}}; }

/// (first, rows) of each block of each rank.
using Blocks = std::vector<Chunks>;

Blocks blocks(const RowBlocks& all) {
  Blocks result;
  for (const std::vector<RowBlock>& of_rank : all) {
    result.emplace_back();
    for (const RowBlock& block : of_rank) result.back().push_back({block.first, block.rows});
  }
  return result;
}

TEST(PlanDispatch, WithoutABudgetOwnRowsStayAndAllComeToTheirPlaces) {
  const DispatchRounds plan = plan_dispatch(two_by_two(), /*source=*/0, {});
  ASSERT_EQ(plan.rounds.size(), 1U);
  const DispatchRound& round = plan.rounds[0];
  // Arrival is e0: s0 s0 s1, e1: s0 s1 s1; three rows for rank 1 follow at home.
  EXPECT_TRUE(round.own_stays);
  EXPECT_EQ(round.first_arrived, 0);
  EXPECT_EQ(round.arrived, 6);
  EXPECT_EQ(blocks(round.arrival), (Blocks{{{0, 2}, {3, 1}}, {{2, 1}, {4, 2}}}));
  EXPECT_EQ(round.first_sent, 6);
  EXPECT_EQ(round.sent, 3);
  EXPECT_EQ(blocks(round.home), (Blocks{{{0, 2}, {3, 1}}, {{6, 3}}}));
  EXPECT_EQ(chunks(plan.to_home), (Chunks{{0, 0, 2}, {2, 3, 1}, {3, 6, 3}, {6, 9, 0}}));
  EXPECT_EQ(plan.at_home, 9);
  EXPECT_EQ(round.received, 6);
  EXPECT_EQ(blocks(round.local), (Blocks{{{0, 3}, {3, 3}}})) << "with one rank of etp that is all";
  EXPECT_EQ(plan.largest, 6);
  EXPECT_EQ(round.expert_offsets, (Rows{0, 3, 6})) << "2 + 1 and 1 + 2 rows";
}

TEST(PlanDispatch, ABudgetCutsTheRowsOfEachRank) {
  const DispatchRounds plan = plan_dispatch(two_by_two(), /*source=*/1, {.budget = 3});
  ASSERT_EQ(plan.rounds.size(), 3U) << "7 rows for rank 1";
  // Rows for rank 0 are numbered s0e0 s0e0 s1e0 | s0e1 s1e1 s1e1, those for rank 1
  // s0e2 s0e2 s0e2 | s1e3 s1e3 s1e3 | s1e3.
  EXPECT_FALSE(plan.rounds[0].own_stays) << "the next round takes the place";
  EXPECT_EQ(blocks(plan.rounds[0].home), (Blocks{{{0, 1}}, {}}));
  EXPECT_EQ(blocks(plan.rounds[1].home), (Blocks{{{1, 2}}, {{3, 3}}}));
  EXPECT_EQ(blocks(plan.rounds[2].home), (Blocks{{}, {{6, 1}}}));
  EXPECT_EQ(blocks(plan.rounds[0].arrival), (Blocks{{{0, 3}}, {}}));
  EXPECT_EQ(blocks(plan.rounds[1].arrival), (Blocks{{}, {{0, 3}}}));
  EXPECT_EQ(blocks(plan.rounds[2].arrival), (Blocks{{}, {{0, 1}}}));
  EXPECT_EQ(plan.rounds[0].expert_offsets, (Rows{0, 3, 3}));
  EXPECT_EQ(plan.rounds[1].expert_offsets, (Rows{0, 0, 3}));
  EXPECT_EQ(plan.rounds[2].expert_offsets, (Rows{0, 0, 1}));
  EXPECT_EQ(plan.rounds[2].first_sent, 6);
  EXPECT_EQ(plan.at_home, 7);
  EXPECT_EQ(plan.largest, 3);
}

/// Rows for rank 0 are s0e0 s0e0 s0e0 | s0e0 s1e0 s0e1 s0e1 ... in two rounds of 8; those for rank
/// 1, of which there are 3, in 1 and 2.
TEST(PlanDispatch, ForOverlapEachRanksRowsAreCutEvenlyAndOwnOnesStay) {
  const DispatchCounts counts{2, 2, {9, 2, 7, 1}};
  const DispatchRounds plan = plan_dispatch(counts, /*source=*/0, {.overlaps = true});
  ASSERT_EQ(plan.rounds.size(), 2U) << "16 rows for rank 0";
  EXPECT_TRUE(plan.kept);
  EXPECT_EQ(blocks(plan.rounds[0].arrival), (Blocks{{{0, 8}}, {}}));
  EXPECT_EQ(blocks(plan.rounds[1].arrival), (Blocks{{{0, 1}}, {{1, 7}}}));
  // At home are 8 that stay, one that is sent; then what arrives in the second round, and the
  // other.
  EXPECT_TRUE(plan.rounds[1].own_stays);
  EXPECT_EQ(plan.rounds[1].first_arrived, 9);
  EXPECT_EQ(plan.rounds[1].first_sent, 17);
  EXPECT_EQ(blocks(plan.rounds[0].home), (Blocks{{{0, 8}}, {{8, 1}}}));
  EXPECT_EQ(blocks(plan.rounds[1].home), (Blocks{{{9, 1}}, {{17, 1}}}));
  EXPECT_EQ(plan.at_home, 18);
}

TEST(PlanDispatch, ForOverlapTwoRoundsKeepToTheBudget) {
  const DispatchCounts counts{2, 2, {9, 2, 7, 1}};
  const auto rounds = [&](std::int64_t budget) {
    const DispatchRounds plan =
        plan_dispatch(counts, /*source=*/0, {.budget = budget, .overlaps = true});
    EXPECT_EQ(plan.kept, budget >= 16);
    EXPECT_EQ(plan.rounds[0].own_stays, plan.kept);
    return plan.rounds.size();
  };
  EXPECT_EQ(rounds(16), 2U) << "all rows may be there at once";
  EXPECT_EQ(rounds(15), 3U) << "7 rows at most";
  EXPECT_EQ(rounds(4), 8U);
  EXPECT_EQ(rounds(1), 16U) << "one row at the least";
}

TEST(PlanDispatch, ForOverlapThereAreFewRounds) {
  for (const auto& [rows, rounds] :
       std::vector<std::pair<std::int64_t, std::size_t>>{{0, 1}, {15, 1}, {16, 2}, {9999, 4}}) {
    EXPECT_EQ(plan_dispatch({1, 1, {rows}}, 0, {.overlaps = true}).rounds.size(), rounds) << rows;
  }
}

TEST(PlanDispatch, OnOneRankOwnRowsStayInEveryRound) {
  const DispatchRounds plan = plan_dispatch({1, 2, {3, 2}}, /*source=*/0, {.budget = 2});
  ASSERT_EQ(plan.rounds.size(), 3U);
  for (std::size_t i = 0; i < 3; ++i) {
    EXPECT_TRUE(plan.rounds[i].own_stays);
    EXPECT_EQ(plan.rounds[i].first_arrived, static_cast<std::int64_t>(2 * i));
    EXPECT_EQ(plan.rounds[i].sent, 0);
  }
  EXPECT_EQ(chunks(plan.to_home), (Chunks{{0, 0, 2}, {2, 2, 1}, {3, 3, 1}, {4, 4, 1}}));
}

/// Two ranks of etp for each of the two of ep, four sources:
///   source 0 (etp 0, ep 0):  1 0 | 2 0     source 2 (etp 1, ep 0):  0 3 | 0 0
///   source 1 (etp 0, ep 1):  0 2 | 0 1     source 3 (etp 1, ep 1):  1 0 | 0 4
DispatchCounts with_slices() {
  return {2, 4, {1, 0, 2, 0, 0, 2, 0, 1, 0, 3, 0, 0, 1, 0, 0, 4}, /*etp=*/2};
}

TEST(PlanDispatch, WhatArrivesIsGatheredOverEtp) {
  const DispatchRounds plan = plan_dispatch(with_slices(), /*source=*/2, {});
  ASSERT_EQ(plan.rounds.size(), 1U);
  const DispatchRound& round = plan.rounds[0];
  EXPECT_EQ(blocks(round.arrival), (Blocks{{{1, 3}}, {{0, 1}}}))
      << "from sources 2 and 3: s3e0 comes before s2e1";
  EXPECT_EQ(round.arrived, 4);
  EXPECT_EQ(round.received, 7);
  EXPECT_EQ(plan.largest, 7);
  EXPECT_EQ(round.expert_offsets, (Rows{0, 2, 7}));
  // Local order: s0e0 s3e0 s1e1 s1e1 s2e1 s2e1 s2e1.
  EXPECT_EQ(blocks(round.local), (Blocks{{{0, 1}, {2, 2}}, {{1, 1}, {4, 3}}}));
}

TEST(PlanDispatch, ABudgetBoundsWhatARankHasAfterTheGather) {
  const DispatchRounds plan = plan_dispatch(with_slices(), /*source=*/3, {.budget = 4});
  ASSERT_EQ(plan.rounds.size(), 2U) << "7 rows for either rank of ep";
  // Rows for ep 1 are numbered s0e2 s0e2 s1e3 s3e3 | s3e3 s3e3 s3e3.
  EXPECT_EQ(blocks(plan.rounds[0].local), (Blocks{{{0, 2}, {2, 1}}, {{3, 1}}}));
  EXPECT_EQ(blocks(plan.rounds[0].arrival), (Blocks{{}, {{0, 1}}}));
  EXPECT_EQ(blocks(plan.rounds[1].local), (Blocks{{}, {{0, 3}}}));
  EXPECT_EQ(blocks(plan.rounds[1].arrival), (Blocks{{}, {{0, 3}}}));
  EXPECT_EQ(blocks(plan.rounds[0].home), (Blocks{{{0, 1}}, {{1, 1}}}));
  EXPECT_EQ(blocks(plan.rounds[1].home), (Blocks{{}, {{2, 3}}}));
}

TEST(PlanDispatch, RoundsInterleaveWhatGoesToDifferentRanks) {
  // One source of four rows, two for each of two experts on ranks of their own.
  const DispatchRounds plan = plan_dispatch({2, 2, {2, 2, 0, 0}}, /*source=*/0, {.budget = 1});
  ASSERT_EQ(plan.rounds.size(), 2U);
  EXPECT_EQ(chunks(plan.to_home), (Chunks{{0, 0, 1}, {2, 1, 1}, {1, 2, 1}, {3, 3, 1}}));
}

TEST(PlanDispatch, NothingToSendIsOneEmptyRound) {
  for (const std::int64_t budget : {0, 5}) {
    const DispatchRounds plan = plan_dispatch({2, 4, Rows(8, 0)}, 1, {budget});
    ASSERT_EQ(plan.rounds.size(), 1U);
    EXPECT_EQ(plan.largest, 0);
    EXPECT_EQ(plan.at_home, 0);
    EXPECT_EQ(blocks(plan.rounds[0].home), (Blocks{{}, {}}));
    EXPECT_EQ(blocks(plan.rounds[0].arrival), (Blocks{{}, {}}));
    EXPECT_EQ(blocks(plan.rounds[0].local), (Blocks{{}}));
    EXPECT_EQ(plan.rounds[0].expert_offsets, (Rows{0, 0, 0}));
  }
}

TEST(RowBlocks, WithoutARankAndCountedFromAnotherPlace) {
  const RowBlocks all = {{{3, 2}}, {{5, 1}, {9, 4}}};
  EXPECT_EQ(blocks(without(all, 0)), (Blocks{{}, {{5, 1}, {9, 4}}}));
  EXPECT_EQ(blocks(counted_from(3, all)), (Blocks{{{0, 2}}, {{2, 1}, {6, 4}}}));
}

TEST(PlanDispatch, ExpertsMustSpreadEvenly) {
  expect_error(
      [] {
        plan_dispatch({2, 3, Rows(6, 1)}, 0, {});
      },
      ExitCode::internal, {"multiple of ep"});
}

/// A row, in the order of local rows: by expert, source and place among the source's for it.
struct Row {
  int expert = 0, source = 0;
  std::int64_t token = 0;
  auto operator<=>(const Row&) const = default;
};

const Row kNone{-1, -1, -1};

/// All rows of an exchange that a test carries out in the memory of one process.
class Exchange {
 public:
  Exchange(DispatchCounts counts, const DispatchCut& cut)
      : counts_(std::move(counts)), budget_(cut.budget), overlaps_(cut.overlaps) {
    for (int source = 0; source < counts_.sources(); ++source) {
      plans_.push_back(plan_dispatch(counts_, source, cut));
      home_.push_back(at_home(source));
    }
  }

  void check() const {
    for (const DispatchRounds& plan : plans_) RC_ASSERT(plan.rounds.size() == rounds());
    for (int source = 0; source < counts_.sources(); ++source) check_received(source);
    for (int source = 0; source < counts_.sources(); ++source) check_home(source);
  }

 private:
  std::size_t rounds() const {
    std::int64_t most = 1;
    for (int rank = 0; rank < counts_.ep; ++rank) {
      most = std::max(most, static_cast<std::int64_t>(rows_for(rank).size()));
    }
    const std::int64_t piece = overlaps_ ? std::max<std::int64_t>(1, budget_ / 2) : budget_;
    if (budget_ > 0 && most > budget_) return static_cast<std::size_t>((most + piece - 1) / piece);
    return overlaps_ ? static_cast<std::size_t>(std::clamp<std::int64_t>(most / 8, 1, 4)) : 1;
  }
  /// For the experts of a rank of ep.
  std::vector<Row> rows_for(int rank) const {
    std::vector<Row> rows;
    for (int expert = rank * counts_.local(); expert < (rank + 1) * counts_.local(); ++expert) {
      for (int source = 0; source < counts_.sources(); ++source) {
        for (std::int64_t i = 0; i < counts_(source, expert); ++i) {
          rows.push_back({expert, source, i});
        }
      }
    }
    return rows;
  }

  /// Rows that a source has, at their places; those of others stay empty.
  std::vector<Row> at_home(int source) const {
    const DispatchRounds& plan = plans_[static_cast<std::size_t>(source)];
    std::vector<Row> rows, home(static_cast<std::size_t>(plan.at_home), kNone);
    for (int expert = 0; expert < counts_.experts; ++expert) {
      for (std::int64_t i = 0; i < counts_(source, expert); ++i) {
        rows.push_back({expert, source, i});
      }
    }
    std::size_t taken = 0;
    for (const DispatchChunk& chunk : plan.to_home) {
      for (std::int64_t i = 0; i < chunk.rows; ++i, ++taken) {
        Row& place = home.at(static_cast<std::size_t>(chunk.to + i));
        RC_ASSERT(place == kNone);
        place = rows.at(static_cast<std::size_t>(chunk.from + i));
      }
    }
    RC_ASSERT(taken == rows.size());
    return home;
  }

  const DispatchRound& round_of(int source, std::size_t round) const {
    return plans_[static_cast<std::size_t>(source)].rounds[round];
  }

  /// to = from, block by block.
  static void move(const std::vector<Row>& from, const std::vector<RowBlock>& at,
                   std::vector<Row>& to, const std::vector<RowBlock>& places) {
    RC_ASSERT(at.size() == places.size());
    for (std::size_t b = 0; b < at.size(); ++b) {
      RC_ASSERT(at[b].rows == places[b].rows && at[b].rows > 0);
      for (std::int64_t i = 0; i < at[b].rows; ++i) {
        Row& place = to.at(static_cast<std::size_t>(places[b].first + i));
        RC_ASSERT(place == kNone);
        place = from.at(static_cast<std::size_t>(at[b].first + i));
      }
    }
  }

  /// The rows that a source has after the exchange over its group ep.
  std::vector<Row> arrived_at(int source, std::size_t round) const {
    const DispatchRound& leg = round_of(source, round);
    std::vector<Row> arrived(static_cast<std::size_t>(leg.arrived), kNone);
    for (int p = 0; p < counts_.ep; ++p) {
      const int from = source / counts_.ep * counts_.ep + p;
      move(home_[static_cast<std::size_t>(from)],
           round_of(from, round).home[static_cast<std::size_t>(source % counts_.ep)], arrived,
           leg.arrival[static_cast<std::size_t>(p)]);
    }
    if (leg.own_stays) check_own(source, leg, arrived);
    return arrived;
  }
  /// What stays is at home where it arrives.
  void check_own(int source, const DispatchRound& leg, const std::vector<Row>& arrived) const {
    const std::vector<Row>& home = home_[static_cast<std::size_t>(source)];
    for (std::size_t i = 0; i < arrived.size(); ++i) {
      const Row& there = home.at(static_cast<std::size_t>(leg.first_arrived) + i);
      RC_ASSERT(there == (arrived[i].source == source ? arrived[i] : kNone));
    }
  }

  /// Each row that a source has goes in one of the rounds, and none of them meet.
  void check_home(int source) const {
    std::vector<int> sent(home_[static_cast<std::size_t>(source)].size(), 0);
    for (std::size_t round = 0; round < rounds(); ++round) {
      const DispatchRound& leg = round_of(source, round);
      for (int p = 0; p < counts_.ep; ++p) {
        const bool stays = leg.own_stays && p == source % counts_.ep;
        for (const RowBlock& block : leg.home[static_cast<std::size_t>(p)]) {
          RC_ASSERT(stays || (block.first >= leg.first_sent &&
                              block.first + block.rows <= leg.first_sent + leg.sent));
          for (std::int64_t i = 0; i < block.rows; ++i) {
            ++sent.at(static_cast<std::size_t>(block.first + i));
          }
        }
      }
    }
    for (std::size_t place = 0; place < sent.size(); ++place) {
      const bool taken = home_[static_cast<std::size_t>(source)][place] != kNone;
      RC_ASSERT(sent[place] == (taken ? 1 : 0));
    }
  }

  void check_received(int source) const {
    const DispatchRounds& plan = plans_[static_cast<std::size_t>(source)];
    const std::vector<Row> wanted = rows_for(source % counts_.ep);
    std::vector<Row> received;
    std::int64_t largest = 0;
    for (std::size_t round = 0; round < plan.rounds.size(); ++round) {
      const DispatchRound& leg = plan.rounds[round];
      const std::vector<Row> local = check_round(source, round);
      received.insert(received.end(), local.begin(), local.end());
      largest = std::max(largest, leg.received);
      const bool full = budget_ > 0 && leg.received == budget_;
      RC_ASSERT(full || overlaps_ || received.size() == wanted.size());
      if (!overlaps_) continue;
      const std::size_t even = wanted.size() / plan.rounds.size();
      RC_ASSERT(local.size() >= even && local.size() <= even + 1);
    }
    // Across the rounds, too, rows are in the order of experts, sources and tokens.
    RC_ASSERT(received == wanted);
    RC_ASSERT(plan.largest == largest);
  }

  /// The rows that a source receives in a round, in local order.
  std::vector<Row> check_round(int source, std::size_t round) const {
    const DispatchRound& leg = round_of(source, round);
    const int rank = source % counts_.ep;
    const bool halved = overlaps_ && !plans_[static_cast<std::size_t>(source)].kept;
    const std::int64_t most = halved ? budget_ / 2 : budget_;
    RC_ASSERT(budget_ == 0 || leg.received <= std::max<std::int64_t>(1, most));
    std::vector<Row> local(static_cast<std::size_t>(leg.received), kNone);
    for (int slice = 0; slice < counts_.etp; ++slice) {
      const std::vector<Row> arrived = arrived_at(slice * counts_.ep + rank, round);
      const std::vector<RowBlock>& places = leg.local[static_cast<std::size_t>(slice)];
      RC_ASSERT(rows_of(places) == static_cast<std::int64_t>(arrived.size()));
      move(arrived, packed(places), local, places);
    }
    RC_ASSERT(leg.expert_offsets.size() == static_cast<std::size_t>(counts_.local()) + 1);
    RC_ASSERT(leg.expert_offsets.front() == 0 && leg.expert_offsets.back() == leg.received);
    for (int l = 0; l < counts_.local(); ++l) {
      for (std::int64_t i = leg.expert_offsets[static_cast<std::size_t>(l)];
           i < leg.expert_offsets[static_cast<std::size_t>(l) + 1]; ++i) {
        RC_ASSERT(local[static_cast<std::size_t>(i)].expert == rank * counts_.local() + l);
      }
    }
    return local;
  }

  DispatchCounts counts_;
  std::int64_t budget_;
  bool overlaps_;
  std::vector<DispatchRounds> plans_;
  std::vector<std::vector<Row>> home_;  ///< of each rank
};

RC_GTEST_PROP(PlanDispatch, EveryRowReachesItsExpertInOrderAndWithinTheBudget, ()) {
  const int ep = *rc::gen::inRange(1, 6);
  DispatchCounts counts{ep, ep * *rc::gen::inRange(1, 4), {}, *rc::gen::inRange(1, 4)};
  for (int i = 0; i < counts.sources() * counts.experts; ++i) {
    // Every other count or so is 0.
    counts.counts.push_back(std::max<std::int64_t>(0, *rc::gen::inRange<std::int64_t>(-6, 7)));
  }
  Exchange(counts, {*rc::gen::inRange<std::int64_t>(0, 20), *rc::gen::arbitrary<bool>()}).check();
}

}  // namespace
}  // namespace konclave
