#include "comm/mpi_transport.hpp"
#include "comm/solo_transport.hpp"
#include "tests/support/delayed_transport.hpp"
#include "tests/support/expect_error.hpp"
#include "tests/support/tensors.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <numeric>

namespace konclave {
namespace {

using Counts = std::vector<std::int64_t>;

/// The parameter: over MPI, or over the transport of one rank that copies on the spot.
struct Delaying : testing::TestWithParam<bool> {
  std::shared_ptr<const Transport> inner() const {
    if (GetParam()) return std::make_shared<MpiTransport>(Communicator::world());
    return std::make_shared<SoloTransport>("alone");
  }
  AnyView filled(std::int64_t rows, double value) {
    return tensors.values(DType::fp64, std::vector<double>(static_cast<std::size_t>(rows), value),
                          rows, 1);
  }
  std::vector<double> values(const AnyIn& view) const { return to_doubles(exec, view); }
  bool all_nan(const AnyIn& view) const {
    const std::vector<double> all = values(view);
    return std::all_of(all.begin(), all.end(), [](double value) { return std::isnan(value); });
  }

  ExecSpace exec;
  Tensors tensors{exec};
  std::shared_ptr<VirtualClock> clock = std::make_shared<VirtualClock>();
  DelayedTransport transport{inner(), clock, {/*latency=*/10, /*bandwidth=*/16}};
  const int rank = transport.rank(), ranks = transport.size();
};

INSTANTIATE_TEST_SUITE_P(Mpi, Delaying, testing::Values(true));
INSTANTIATE_TEST_SUITE_P(Solo, Delaying, testing::Values(false));

TEST_P(Delaying, WhatIsReceivedIsPoisonUntilWait) {
  for (const DType type : {DType::bf16, DType::fp32, DType::fp64}) {
    const AnyView send = tensors.values(type, {rank + 1.0, rank + 1.0}, 2, 1);
    const AnyView receive = tensors.random("receive", type, 2 * ranks, 1);
    Request request = transport.start_all_gather(exec, send, receive);
    EXPECT_TRUE(all_nan(receive)) << name_of(type);
    request.wait(exec);
    for (int from = 0; from < ranks; ++from) {
      EXPECT_EQ(values(receive.slice(2 * from, 2)), std::vector<double>(2, from + 1.0));
    }
  }
}

TEST_P(Delaying, AllToAllBringsItsRowsAtWait) {
  // Rank s sends s rows to each, so that rank 0 sends nothing.
  Counts from(static_cast<std::size_t>(ranks));
  std::iota(from.begin(), from.end(), 0);
  const Counts to(from.size(), rank);
  const AnyView send = filled(std::int64_t{rank} * ranks, rank);
  const AnyView receive = filled(std::int64_t{ranks} * (ranks - 1) / 2, -1);
  Request request = transport.start_all_to_all(exec, send, to, receive, from);
  EXPECT_TRUE(all_nan(receive));
  request.wait(exec);
  std::vector<double> expected;
  for (int source = 0; source < ranks; ++source) {
    expected.insert(expected.end(), static_cast<std::size_t>(source), source);
  }
  EXPECT_EQ(values(receive), expected);
}

TEST_P(Delaying, BlocksComeAtWaitAndWhatStaysIsThereAllTheTime) {
  // Two rows from each other rank, apart; of the rank itself nothing is sent.
  RowBlocks to(static_cast<std::size_t>(ranks), {{0, 1}, {1, 1}}), from;
  to[static_cast<std::size_t>(rank)].clear();
  for (int r = 0; r < ranks; ++r) from.push_back({{r, 1}, {ranks + r, 1}});
  const AnyView send = filled(2, rank), receive = filled(2 * ranks, 7);
  Request request = transport.start_all_to_all_blocks(exec, send, to, receive, from);
  for (int row = 0; row < 2 * ranks; ++row) {
    const double value = values(receive.slice(row, 1)).front();
    EXPECT_EQ(std::isnan(value), row % ranks != rank) << row;
  }
  request.wait(exec);
  for (int row = 0; row < 2 * ranks; ++row) {
    const int source = row % ranks;
    EXPECT_EQ(values(receive.slice(row, 1)).front(), source == rank ? 7 : source) << row;
  }
  EXPECT_EQ(clock->now(), 10 + 2.0 * ranks * 8 / 16) << "all that there is of it in the end";
}

TEST_P(Delaying, AllGatherOfUnevenCountsBringsItsRowsAtWait) {
  // Rank s has s rows, so that rank 0 has none.
  Counts rows(static_cast<std::size_t>(ranks));
  std::iota(rows.begin(), rows.end(), 0);
  const AnyView send = filled(rank, rank);
  const AnyView receive = filled(std::int64_t{ranks} * (ranks - 1) / 2, -1);
  Request request = transport.start_all_gather_rows(exec, send, receive, rows);
  EXPECT_TRUE(all_nan(receive));
  request.wait(exec);
  std::vector<double> expected;
  for (int source = 0; source < ranks; ++source) {
    expected.insert(expected.end(), static_cast<std::size_t>(source), source);
  }
  EXPECT_EQ(values(receive), expected);
}

TEST_P(Delaying, BuffersOfBothDirections) {
  const AnyView sum = filled(3, rank + 1);
  Request reduced = transport.start_all_reduce(exec, sum);
  EXPECT_TRUE(all_nan(sum));
  reduced.wait(exec);
  EXPECT_EQ(values(sum), std::vector<double>(3, ranks * (ranks + 1) / 2));
  for (int root = 0; root < ranks; ++root) {
    const AnyView roots = filled(3, rank);
    Request request = transport.start_broadcast(exec, roots, root);
    EXPECT_EQ(all_nan(roots), rank != root) << "the root only sends";
    request.wait(exec);
    EXPECT_EQ(values(roots), std::vector<double>(3, root));
  }
}

TEST_P(Delaying, MessagesTakeLatencyAndTheTimeOfTheirBytes) {
  const AnyView send = filled(4, 1), receive = filled(4 * ranks, 0);
  clock->advance(5);
  Request request = transport.start_all_gather(exec, send, receive);
  EXPECT_EQ(clock->now(), 5) << "starting takes no time";
  request.wait(exec);
  EXPECT_EQ(clock->now(), 5 + 10 + 32.0 * ranks / 16) << "of what is received, which is more";
  EXPECT_EQ(transport.sum(std::int64_t{1}), ranks);
  EXPECT_EQ(clock->now(), 25 + 2.0 * ranks) << "the host's reductions take the latency";
}

TEST_P(Delaying, WorkHidesTheTimeOfAMessage) {
  const AnyView buffer = filled(2, 1);
  Request request = transport.start_all_reduce(exec, buffer);  // 11 s
  clock->advance(7);
  request.wait(exec);
  EXPECT_EQ(clock->now(), 11);
  Request other = transport.start_all_reduce(exec, buffer);
  clock->advance(100);
  other.wait(exec);
  EXPECT_EQ(clock->now(), 111) << "it was there long ago";
}

TEST_P(Delaying, TwoUnderWayTakeTheTimeOfTheLonger) {
  const AnyView brief = filled(2, 1), lengthy = filled(20, 1);
  Request one = transport.start_all_reduce(exec, lengthy);  // 20 s
  Request two = transport.start_all_reduce(exec, brief);    // 11 s
  two.wait(exec);
  EXPECT_EQ(clock->now(), 11);
  one.wait(exec);
  EXPECT_EQ(clock->now(), 20);
  EXPECT_EQ(values(lengthy), std::vector<double>(20, ranks));
}

/// Messages between two ranks, which need MPI even on one.
struct Messages : testing::Test {
  AnyView filled(std::int64_t rows, double value) {
    return tensors.values(DType::fp64, std::vector<double>(static_cast<std::size_t>(rows), value),
                          rows, 1);
  }
  std::vector<double> values(const AnyIn& view) const { return to_doubles(exec, view); }

  ExecSpace exec;
  Tensors tensors{exec};
  std::shared_ptr<VirtualClock> clock = std::make_shared<VirtualClock>();
  DelayedTransport transport{std::make_shared<MpiTransport>(Communicator::world()),
                             clock,
                             {/*latency=*/10, /*bandwidth=*/16}};
  const int rank = transport.rank(), ranks = transport.size();
  const int right = (rank + 1) % ranks, left = (rank + ranks - 1) % ranks;
};

TEST_F(Messages, ArePoisonUntilWaitAndKeepTheOrderOfTheirChannels) {
  const AnyView one = filled(3, rank), two = filled(2, 10 + rank), other = filled(1, 20 + rank);
  std::vector<Request> sent;
  sent.push_back(transport.start_send(exec, one, right, 0));
  sent.push_back(transport.start_send(exec, two, right, 0));
  sent.push_back(transport.start_send(exec, other, right, 1));
  const AnyView third = filled(1, -1), first = filled(3, -1), second = filled(2, -1);
  Request of_other = transport.start_receive(exec, third, left, 1);
  Request of_one = transport.start_receive(exec, first, left, 0);
  Request of_two = transport.start_receive(exec, second, left, 0);
  for (const AnyView& view : {first, second, third}) {
    for (const double value : values(view)) EXPECT_TRUE(std::isnan(value));
  }
  of_two.wait(exec);
  of_one.wait(exec);
  of_other.wait(exec);
  for (Request& request : sent) request.wait(exec);
  EXPECT_EQ(values(first), std::vector<double>(3, left));
  EXPECT_EQ(values(second), std::vector<double>(2, 10 + left));
  EXPECT_EQ(values(third), std::vector<double>(1, 20 + left));
}

TEST_F(Messages, MayBeOfNothing) {
  const AnyView none = filled(0, 0);
  Request sent = transport.start_send(exec, none, right, 0);
  transport.start_receive(exec, none, left, 0).wait(exec);
  sent.wait(exec);
  EXPECT_EQ(clock->now(), 10);
}

TEST_F(Messages, SetOffWhenSenderAndReceiverHaveStarted) {
  clock->advance(100 * rank);
  const AnyView send = filled(4, 1), receive = filled(4, 0);
  Request received = transport.start_receive(exec, receive, left, 0);
  Request sent = transport.start_send(exec, send, right, 0);
  EXPECT_EQ(clock->now(), 100 * rank) << "starting takes no time";
  received.wait(exec);
  EXPECT_EQ(clock->now(), 100.0 * std::max(rank, left) + 10 + 32.0 / 16) << "when both are there";
}

TEST(MovedOnBoth, TakesTheMomentsThatTwoHaveInCommon) {
  const double never = std::numeric_limits<double>::infinity();
  const std::vector<Stretch> one = {{0, 2}, {4, 6}, {9, never}}, other = {{1, 5}, {8, never}};
  EXPECT_EQ(moved_on_both(one, other, 0), 1);
  EXPECT_EQ(moved_on_both(one, other, 0.5), 1.5);
  EXPECT_EQ(moved_on_both(one, other, 1.5), 4.5);
  EXPECT_EQ(moved_on_both(one, other, 3), 10);
  EXPECT_EQ(moved_on_both(other, one, 3), 10);
}

TEST_F(Messages, MoveBehindTheCallsOfBothSides) {
  // Messages of 8 s, which move for 3 s behind each call, beside work of 12 s.
  enum class Polls { all, none, first };
  const auto time = [&](Polls polls) {
    const auto slow = std::make_shared<VirtualClock>(/*window=*/3);
    const DelayedTransport link(std::make_shared<MpiTransport>(Communicator::world()), slow,
                                {0, 4});
    const AnyView send = filled(4, rank), receive = filled(4, -1);
    Request received = link.start_receive(exec, receive, left, 0);
    Request sent = link.start_send(exec, send, right, 0);
    for (int i = 0; i < 6; ++i) {
      slow->advance(2);
      if (polls == Polls::all || (polls == Polls::first && rank == 0)) sent.poll();
    }
    received.wait(exec);
    EXPECT_EQ(values(receive), std::vector<double>(4, left));
    return slow->now();
  };
  EXPECT_EQ(time(Polls::all), 12);
  EXPECT_EQ(time(Polls::none), 12 + 8 - 3);
  EXPECT_EQ(time(Polls::first), ranks == 1 ? 12 : 12 + 8 - 3) << "the other side does not";
}

TEST_F(Messages, ThatAreTouchedTooEarlyAreFound) {
  const AnyView send = filled(2, rank), receive = filled(2, 0);
  Request received = transport.start_receive(exec, receive, left, 0);
  Request sent = transport.start_send(exec, send, right, 0);
  tensors.poison(send.slice(1, 1));
  from_doubles(exec, {3}, receive.slice(0, 1));
  expect_error([&] { received.wait(exec); }, ExitCode::internal,
               {"receive of group", "the receiver's buffer was written to"});
  expect_error([&] { sent.wait(exec); }, ExitCode::internal,
               {"send of group", "what is sent was changed"});
}

TEST_P(Delaying, ASenderThatWritesTooEarlyIsFound) {
  const AnyView send = filled(2, rank), receive = filled(2 * ranks, 0);
  Request request = transport.start_all_gather(exec, send, receive);
  tensors.poison(send.slice(1, 1));
  expect_error([&] { request.wait(exec); }, ExitCode::internal,
               {"all_gather of group", "what is sent was changed"});
}

TEST_P(Delaying, AReceiverThatWritesTooEarlyIsFound) {
  const AnyView send = filled(2, rank), receive = filled(2 * ranks, 0);
  Request request = transport.start_all_gather(exec, send, receive);
  from_doubles(exec, {3}, receive.slice(ranks, 1));
  expect_error([&] { request.wait(exec); }, ExitCode::internal,
               {"all_gather of group", "the receiver's buffer was written to"});
}

}  // namespace
}  // namespace konclave
