#include "comm/mpi_transport.hpp"
#include "comm/solo_transport.hpp"
#include "tests/support/recording_transport.hpp"
#include "tests/support/tensors.hpp"

#include <gtest/gtest.h>

#include <numeric>

namespace konclave {
namespace {

using Counts = std::vector<std::int64_t>;

struct Recording : testing::Test {
  ExecSpace exec;
  Tensors tensors{exec};
  std::vector<TransportCall> log;
  RecordingTransport transport{std::make_shared<MpiTransport>(Communicator::world()), log};
  const int rank = transport.rank(), ranks = transport.size();
};

TEST_F(Recording, IsTheGroupThatItWraps) {
  EXPECT_EQ(transport.name(), "world");
  EXPECT_EQ(transport.size(), Communicator::world().size());
  EXPECT_TRUE(log.empty());
}

TEST_F(Recording, WritesDownRowsAndBytesOfEachRank) {
  // Rank s sends s + 1 rows to each.
  const std::int64_t mine = rank + 1, n = ranks, all = n * (n + 1) / 2;
  Counts from(static_cast<std::size_t>(ranks));
  std::iota(from.begin(), from.end(), 1);
  const Counts to(from.size(), mine);
  const AnyView send = tensors.random("send", DType::fp32, mine * n, 3);
  const AnyView receive = tensors.poisoned(DType::fp32, all, 3);

  transport.start_all_to_all(exec, send, to, receive, from).wait(exec);

  ASSERT_EQ(log.size(), 1U);
  EXPECT_EQ(log[0].group, "world");
  EXPECT_EQ(log[0].collective, "all_to_all");
  EXPECT_EQ(log[0].sent_rows, mine * n);
  EXPECT_EQ(log[0].received_rows, all);
  EXPECT_EQ(log[0].sent_bytes, send.bytes());
  EXPECT_EQ(log[0].received_bytes, static_cast<std::size_t>(all) * 3 * 4);
  EXPECT_EQ(log[0].rows_to, to);
  EXPECT_EQ(log[0].rows_from, from);
  for (const double value : to_doubles(exec, receive)) EXPECT_EQ(value, value) << "goes through";
}

TEST_F(Recording, CountsTheRowsOfBlocksAlone) {
  RowBlocks to(static_cast<std::size_t>(ranks), {{1, 2}, {5, 1}}), from;
  for (std::int64_t r = 0; r < ranks; ++r) from.push_back({{4 * r, 2}, {4 * r + 3, 1}});
  const AnyView send = tensors.random("send", DType::fp64, 7, 2);
  const AnyView receive = tensors.poisoned(DType::fp64, 4 * ranks, 2);
  transport.start_all_to_all_blocks(exec, send, to, receive, from).wait(exec);
  ASSERT_EQ(log.size(), 1U);
  EXPECT_EQ(log[0].collective, "all_to_all");
  EXPECT_EQ(log[0].rows_to, Counts(to.size(), 3));
  EXPECT_EQ(log[0].rows_from, Counts(to.size(), 3));
  EXPECT_EQ(log[0].received_bytes, static_cast<std::size_t>(3 * ranks) * 2 * 8);
}

TEST_F(Recording, WritesDownTheOtherCollectives) {
  const AnyView one = tensors.random("one", DType::fp64, 2, 5);
  const AnyView all = tensors.poisoned(DType::fp64, 2 * ranks, 5);
  transport.start_all_gather(exec, one, all).wait(exec);
  transport.start_all_reduce(exec, one).wait(exec);
  transport.start_broadcast(exec, one, ranks - 1).wait(exec);
  EXPECT_EQ(transport.sum(std::int64_t{1}), ranks);
  for (const TransportCall& call : log) {
    EXPECT_EQ(call.rows_from.empty(), call.collective != "all_gather");
    EXPECT_TRUE(call.rows_to.empty());
    EXPECT_FALSE(call.peer || call.channel);
  }

  ASSERT_EQ(log.size(), 4U);
  EXPECT_EQ(log[0].collective, "all_gather");
  EXPECT_EQ(log[0].sent_rows, 2);
  EXPECT_EQ(log[0].received_bytes, all.bytes());
  EXPECT_EQ(log[1].collective, "all_reduce");
  EXPECT_EQ(log[1].sent_bytes, one.bytes());
  EXPECT_EQ(log[1].received_rows, 2);
  EXPECT_EQ(log[2].collective, "broadcast");
  EXPECT_EQ(log[2].sent_bytes, rank == ranks - 1 ? one.bytes() : 0);
  EXPECT_EQ(log[2].received_bytes, rank == ranks - 1 ? 0 : one.bytes());
  EXPECT_EQ(log[3].collective, "gather");
  EXPECT_EQ(log[3].sent_bytes, 8U);
  EXPECT_EQ(log[3].received_bytes, 8U * static_cast<std::size_t>(ranks));
}

TEST_F(Recording, WritesDownTheCountsOfAnUnevenAllGather) {
  // Rank s has s rows.
  Counts rows(static_cast<std::size_t>(ranks));
  std::iota(rows.begin(), rows.end(), 0);
  const std::int64_t all = std::int64_t{ranks} * (ranks - 1) / 2;
  const AnyView send = tensors.random("send", DType::bf16, rank, 3);
  const AnyView receive = tensors.poisoned(DType::bf16, all, 3);
  transport.start_all_gather_rows(exec, send, receive, rows).wait(exec);
  ASSERT_EQ(log.size(), 1U);
  EXPECT_EQ(log[0].collective, "all_gather");
  EXPECT_EQ(log[0].sent_rows, rank);
  EXPECT_EQ(log[0].received_rows, all);
  EXPECT_EQ(log[0].sent_bytes, send.bytes());
  EXPECT_EQ(log[0].received_bytes, static_cast<std::size_t>(all) * 3 * 2);
  EXPECT_EQ(log[0].rows_from, rows);
  for (const double value : to_doubles(exec, receive)) EXPECT_EQ(value, value) << "goes through";
}

TEST_F(Recording, WritesDownMessagesBetweenTwoRanks) {
  const int right = (rank + 1) % ranks, left = (rank + ranks - 1) % ranks;
  const AnyView send = tensors.random("send", DType::fp64, 2, 5);
  const AnyView receive = tensors.poisoned(DType::fp64, 2, 5);
  Request sent = transport.start_send(exec, send, right, 4);
  transport.start_receive(exec, receive, left, 4).wait(exec);
  sent.wait(exec);
  EXPECT_EQ(to_doubles(exec, receive), to_doubles(exec, send)) << "everybody sends the same";
  ASSERT_EQ(log.size(), 2U);
  EXPECT_EQ(log[0].collective, "send");
  EXPECT_EQ(log[0].sent_rows, 2);
  EXPECT_EQ(log[0].sent_bytes, send.bytes());
  EXPECT_EQ(log[0].received_bytes, 0U);
  EXPECT_EQ(log[0].peer, right);
  EXPECT_EQ(log[0].channel, 4);
  EXPECT_EQ(log[1].collective, "receive");
  EXPECT_EQ(log[1].sent_bytes, 0U);
  EXPECT_EQ(log[1].received_rows, 2);
  EXPECT_EQ(log[1].received_bytes, send.bytes());
  EXPECT_EQ(log[1].peer, left);
  EXPECT_EQ(log[1].channel, 4);
}

TEST_F(Recording, SeveralShareALog) {
  const RecordingTransport other(std::make_shared<SoloTransport>("other"), log);
  const AnyView one = tensors.random("one", DType::bf16, 3);
  transport.start_all_reduce(exec, tensors.random("sum", DType::fp32, 1)).wait(exec);
  other.start_all_gather(exec, one, tensors.poisoned(DType::bf16, 3)).wait(exec);
  ASSERT_EQ(log.size(), 2U);
  EXPECT_EQ(log[0].group, "world");
  EXPECT_EQ(log[1].group, "other");
  EXPECT_EQ(log[1].received_bytes, 6U);
}

}  // namespace
}  // namespace konclave
