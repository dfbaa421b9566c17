#include "moe/dispatch_rounds.hpp"
#include "tests/support/expect_error.hpp"

#include <gtest/gtest.h>
#include <rapidcheck/gtest.h>

#include <algorithm>
#include <compare>

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

TEST(PlanDispatch, WithoutABudgetThereIsOneRound) {
  const DispatchRounds plan = plan_dispatch(two_by_two(), /*source=*/0, /*budget=*/0);
  ASSERT_EQ(plan.rounds.size(), 1U);
  EXPECT_EQ(chunks(plan.to_send), (Chunks{{0, 0, 2}, {2, 2, 1}, {3, 3, 3}}));
  const DispatchRound& round = plan.rounds[0];
  EXPECT_EQ(round.first_sent, 0);
  EXPECT_EQ(round.sent, 6);
  EXPECT_EQ(round.send_rows, (Rows{3, 3}));
  EXPECT_EQ(round.receive_rows, (Rows{3, 3}));
  EXPECT_EQ(round.received, 6);
  EXPECT_EQ(round.arrived, 6) << "with one rank of etp that is all";
  EXPECT_EQ(round.gather_rows, (Rows{6}));
  EXPECT_EQ(plan.largest, 6);
  EXPECT_EQ(round.expert_offsets, (Rows{0, 3, 6})) << "2 + 1 and 1 + 2 rows";
  // Arrival is source 0: e0 e0 e1, source 1: e0 e1 e1; local order e0 e0 e0 e1 e1 e1.
  EXPECT_EQ(chunks(round.to_local), (Chunks{{0, 0, 2}, {2, 3, 1}, {3, 2, 1}, {4, 4, 2}}));
}

TEST(PlanDispatch, ABudgetCutsTheRowsOfEachRank) {
  const DispatchRounds plan = plan_dispatch(two_by_two(), /*source=*/1, /*budget=*/3);
  ASSERT_EQ(plan.rounds.size(), 3U) << "7 rows for rank 1";
  // Rows for rank 0 are numbered s0e0 s0e0 s1e0 | s0e1 s1e1 s1e1, those for rank 1
  // s0e2 s0e2 s0e2 | s1e3 s1e3 s1e3 | s1e3.
  EXPECT_EQ(plan.rounds[0].send_rows, (Rows{1, 0}));
  EXPECT_EQ(plan.rounds[1].send_rows, (Rows{2, 3}));
  EXPECT_EQ(plan.rounds[2].send_rows, (Rows{0, 1}));
  EXPECT_EQ(plan.rounds[0].receive_rows, (Rows{3, 0}));
  EXPECT_EQ(plan.rounds[1].receive_rows, (Rows{0, 3}));
  EXPECT_EQ(plan.rounds[2].receive_rows, (Rows{0, 1}));
  EXPECT_EQ(plan.rounds[0].expert_offsets, (Rows{0, 3, 3}));
  EXPECT_EQ(plan.rounds[1].expert_offsets, (Rows{0, 0, 3}));
  EXPECT_EQ(plan.rounds[2].expert_offsets, (Rows{0, 0, 1}));
  EXPECT_EQ(plan.rounds[2].first_sent, 6);
  EXPECT_EQ(plan.largest, 3);
}

/// Two ranks of etp for each of the two of ep, four sources:
///   source 0 (etp 0, ep 0):  1 0 | 2 0     source 2 (etp 1, ep 0):  0 3 | 0 0
///   source 1 (etp 0, ep 1):  0 2 | 0 1     source 3 (etp 1, ep 1):  1 0 | 0 4
DispatchCounts with_slices() {
  return {2, 4, {1, 0, 2, 0, 0, 2, 0, 1, 0, 3, 0, 0, 1, 0, 0, 4}, /*etp=*/2};
}

TEST(PlanDispatch, WhatArrivesIsGatheredOverEtp) {
  const DispatchRounds plan = plan_dispatch(with_slices(), /*source=*/2, /*budget=*/0);
  ASSERT_EQ(plan.rounds.size(), 1U);
  const DispatchRound& round = plan.rounds[0];
  EXPECT_EQ(round.send_rows, (Rows{3, 0}));
  EXPECT_EQ(round.receive_rows, (Rows{3, 1})) << "from sources 2 and 3";
  EXPECT_EQ(round.arrived, 4);
  EXPECT_EQ(round.gather_rows, (Rows{3, 4})) << "1 + 2 arrived at rank 0 of etp";
  EXPECT_EQ(round.received, 7);
  EXPECT_EQ(plan.largest, 7);
  EXPECT_EQ(round.expert_offsets, (Rows{0, 2, 7}));
  // Gathered s0e0 s1e1 s1e1 s2e1 s2e1 s2e1 s3e0, local order s0e0 s3e0 s1e1 s1e1 s2e1 s2e1 s2e1.
  EXPECT_EQ(chunks(round.to_local), (Chunks{{0, 0, 1}, {1, 2, 2}, {3, 4, 3}, {6, 1, 1}}));
}

TEST(PlanDispatch, ABudgetBoundsWhatARankHasAfterTheGather) {
  const DispatchRounds plan = plan_dispatch(with_slices(), /*source=*/3, /*budget=*/4);
  ASSERT_EQ(plan.rounds.size(), 2U) << "7 rows for either rank of ep";
  // Rows for ep 1 are numbered s0e2 s0e2 s1e3 s3e3 | s3e3 s3e3 s3e3.
  EXPECT_EQ(plan.rounds[0].gather_rows, (Rows{3, 1}));
  EXPECT_EQ(plan.rounds[0].receive_rows, (Rows{0, 1}));
  EXPECT_EQ(plan.rounds[1].gather_rows, (Rows{0, 3}));
  EXPECT_EQ(plan.rounds[1].receive_rows, (Rows{0, 3}));
  EXPECT_EQ(plan.rounds[0].send_rows, (Rows{1, 1}));
  EXPECT_EQ(plan.rounds[1].send_rows, (Rows{0, 3}));
}

TEST(PlanDispatch, RoundsInterleaveWhatGoesToDifferentRanks) {
  // One source of four rows, two for each of two experts on ranks of their own.
  const DispatchRounds plan = plan_dispatch({2, 2, {2, 2, 0, 0}}, /*source=*/0, /*budget=*/1);
  ASSERT_EQ(plan.rounds.size(), 2U);
  EXPECT_EQ(chunks(plan.to_send), (Chunks{{0, 0, 1}, {2, 1, 1}, {1, 2, 1}, {3, 3, 1}}));
}

TEST(PlanDispatch, OneExpertOnEachRankKeepsTheOrderOfArrival) {
  const DispatchRounds plan = plan_dispatch({3, 3, {1, 2, 0, 4, 0, 1, 2, 2, 3}}, 0, 0);
  EXPECT_EQ(chunks(plan.rounds[0].to_local), (Chunks{{0, 0, 1}, {1, 1, 4}, {5, 5, 2}}));
}

TEST(PlanDispatch, NothingToSendIsOneEmptyRound) {
  for (const std::int64_t budget : {0, 5}) {
    const DispatchRounds plan = plan_dispatch({2, 4, Rows(8, 0)}, 1, budget);
    ASSERT_EQ(plan.rounds.size(), 1U);
    EXPECT_TRUE(plan.to_send.empty());
    EXPECT_EQ(plan.largest, 0);
    EXPECT_EQ(plan.rounds[0].send_rows, (Rows{0, 0}));
    EXPECT_EQ(plan.rounds[0].receive_rows, (Rows{0, 0}));
    EXPECT_EQ(plan.rounds[0].expert_offsets, (Rows{0, 0, 0}));
    EXPECT_TRUE(plan.rounds[0].to_local.empty());
  }
}

TEST(PlanDispatch, ExpertsMustSpreadEvenly) {
  expect_error(
      [] {
        plan_dispatch({2, 3, Rows(6, 1)}, 0, 0);
      },
      ExitCode::internal, {"multiple of ep"});
}

/// A row, in the order of local rows: by expert, source and place among the source's for it.
struct Row {
  int expert = 0, source = 0;
  std::int64_t token = 0;
  auto operator<=>(const Row&) const = default;
};

/// All rows of an exchange that a test carries out in the memory of one process.
class Exchange {
 public:
  Exchange(DispatchCounts counts, std::int64_t budget)
      : counts_(std::move(counts)), budget_(budget) {
    for (int source = 0; source < counts_.sources(); ++source) {
      plans_.push_back(plan_dispatch(counts_, source, budget));
      sent_.push_back(in_sending_order(source));
    }
  }

  void check() const {
    for (const DispatchRounds& plan : plans_) RC_ASSERT(plan.rounds.size() == rounds());
    for (int source = 0; source < counts_.sources(); ++source) check_received(source);
  }

 private:
  std::size_t rounds() const {
    std::int64_t most = 1;
    for (int rank = 0; rank < counts_.ep; ++rank) {
      most = std::max(most, static_cast<std::int64_t>(rows_for(rank).size()));
    }
    return budget_ == 0 ? 1 : static_cast<std::size_t>((most + budget_ - 1) / budget_);
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

  /// Moves rows by chunks, which must use each place before and after exactly once.
  static std::vector<Row> moved(const std::vector<Row>& rows,
                                const std::vector<DispatchChunk>& chunks) {
    std::vector<Row> result(rows.size(), Row{-1, -1, -1});
    std::vector<int> taken(rows.size(), 0);
    for (const DispatchChunk& chunk : chunks) {
      RC_ASSERT(chunk.rows > 0);
      for (std::int64_t i = 0; i < chunk.rows; ++i) {
        const auto from = static_cast<std::size_t>(chunk.from + i),
                   to = static_cast<std::size_t>(chunk.to + i);
        RC_ASSERT(from < rows.size() && to < rows.size());
        RC_ASSERT(result[to].expert == -1 && taken[from]++ == 0);
        result[to] = rows[from];
      }
    }
    RC_ASSERT(std::count(taken.begin(), taken.end(), 1) ==
              static_cast<std::ptrdiff_t>(taken.size()));
    return result;
  }

  std::vector<Row> in_sending_order(int source) const {
    std::vector<Row> rows;
    for (int expert = 0; expert < counts_.experts; ++expert) {
      for (std::int64_t i = 0; i < counts_(source, expert); ++i) {
        rows.push_back({expert, source, i});
      }
    }
    return moved(rows, plans_[static_cast<std::size_t>(source)].to_send);
  }

  const DispatchRound& round_of(int source, std::size_t round) const {
    return plans_[static_cast<std::size_t>(source)].rounds[round];
  }

  /// What a source sends to rank `rank` of ep in a round.
  std::vector<Row> message(int source, int rank, std::size_t round) const {
    const DispatchRound& counts = round_of(source, round);
    std::int64_t first = counts.first_sent;
    for (int r = 0; r < rank; ++r) first += counts.send_rows[static_cast<std::size_t>(r)];
    const std::int64_t rows = counts.send_rows[static_cast<std::size_t>(rank)];
    RC_ASSERT(first + rows <= counts.first_sent + counts.sent);
    const auto begin = sent_[static_cast<std::size_t>(source)].begin() + first;
    return {begin, begin + rows};
  }

  /// The rows that a rank has after the exchange over its group ep.
  std::vector<Row> arrived_at(int etp_rank, int ep_rank, std::size_t round) const {
    const DispatchRound& counts = round_of(etp_rank * counts_.ep + ep_rank, round);
    std::vector<Row> arrived;
    for (int p = 0; p < counts_.ep; ++p) {
      const std::vector<Row> rows = message(etp_rank * counts_.ep + p, ep_rank, round);
      RC_ASSERT(static_cast<std::int64_t>(rows.size()) ==
                counts.receive_rows[static_cast<std::size_t>(p)]);
      arrived.insert(arrived.end(), rows.begin(), rows.end());
    }
    RC_ASSERT(static_cast<std::int64_t>(arrived.size()) == counts.arrived);
    return arrived;
  }

  void check_received(int source) const {
    const DispatchRounds& plan = plans_[static_cast<std::size_t>(source)];
    const std::vector<Row> wanted = rows_for(source % counts_.ep);
    std::vector<Row> received;
    std::int64_t largest = 0;
    for (std::size_t round = 0; round < plan.rounds.size(); ++round) {
      const DispatchRound& counts = plan.rounds[round];
      const std::vector<Row> local = check_round(source, round);
      received.insert(received.end(), local.begin(), local.end());
      largest = std::max(largest, counts.received);
      const bool full = budget_ > 0 && counts.received == budget_;
      RC_ASSERT(full || received.size() == wanted.size());
    }
    // Across the rounds, too, rows are in the order of experts, sources and tokens.
    RC_ASSERT(received == wanted);
    RC_ASSERT(plan.largest == largest);
  }

  /// The rows that a source receives in a round, in local order.
  std::vector<Row> check_round(int source, std::size_t round) const {
    const DispatchRound& counts = round_of(source, round);
    const int rank = source % counts_.ep;
    RC_ASSERT(budget_ == 0 || counts.received <= budget_);
    std::vector<Row> gathered;
    for (int t = 0; t < counts_.etp; ++t) {
      const std::vector<Row> rows = arrived_at(t, rank, round);
      RC_ASSERT(static_cast<std::int64_t>(rows.size()) ==
                counts.gather_rows[static_cast<std::size_t>(t)]);
      gathered.insert(gathered.end(), rows.begin(), rows.end());
    }
    RC_ASSERT(static_cast<std::int64_t>(gathered.size()) == counts.received);
    std::vector<Row> local = moved(gathered, counts.to_local);
    RC_ASSERT(counts.expert_offsets.size() == static_cast<std::size_t>(counts_.local()) + 1);
    RC_ASSERT(counts.expert_offsets.front() == 0 &&
              counts.expert_offsets.back() == counts.received);
    for (int l = 0; l < counts_.local(); ++l) {
      for (std::int64_t i = counts.expert_offsets[static_cast<std::size_t>(l)];
           i < counts.expert_offsets[static_cast<std::size_t>(l) + 1]; ++i) {
        RC_ASSERT(local[static_cast<std::size_t>(i)].expert == rank * counts_.local() + l);
      }
    }
    return local;
  }

  DispatchCounts counts_;
  std::int64_t budget_;
  std::vector<DispatchRounds> plans_;
  std::vector<std::vector<Row>> sent_;  ///< of each rank, in the order of sending
};

RC_GTEST_PROP(PlanDispatch, EveryRowReachesItsExpertInOrderAndWithinTheBudget, ()) {
  const int ep = *rc::gen::inRange(1, 6);
  DispatchCounts counts{ep, ep * *rc::gen::inRange(1, 4), {}, *rc::gen::inRange(1, 4)};
  for (int i = 0; i < counts.sources() * counts.experts; ++i) {
    // Every other count or so is 0.
    counts.counts.push_back(std::max<std::int64_t>(0, *rc::gen::inRange<std::int64_t>(-6, 7)));
  }
  Exchange(counts, *rc::gen::inRange<std::int64_t>(0, 20)).check();
}

}  // namespace
}  // namespace konclave
