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

TEST_F(Recording, WritesDownTheOtherCollectives) {
  const AnyView one = tensors.random("one", DType::fp64, 2, 5);
  const AnyView all = tensors.poisoned(DType::fp64, 2 * ranks, 5);
  transport.start_all_gather(exec, one, all).wait(exec);
  transport.start_all_reduce(exec, one).wait(exec);
  transport.start_broadcast(exec, one, ranks - 1).wait(exec);
  EXPECT_EQ(transport.sum(std::int64_t{1}), ranks);

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
  for (const TransportCall& call : log) EXPECT_TRUE(call.rows_from.empty());
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
