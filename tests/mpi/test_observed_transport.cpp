#include "comm/mpi_transport.hpp"
#include "comm/observed_transport.hpp"
#include "tests/support/expect_error.hpp"
#include "tests/support/tensors.hpp"

#include <gtest/gtest.h>

#include <chrono>
#include <numeric>
#include <thread>

namespace konclave {
namespace {

using Counts = std::vector<std::int64_t>;
constexpr std::chrono::milliseconds kBrief(20);

struct Observed : testing::Test {
  const Traffic& of(const std::string& collective) const {
    return log->totals().at({"world", collective});
  }
  const TraceEvent& drawn(std::size_t i) const { return trace->events().at(i); }

  ExecSpace exec;
  Tensors tensors{exec};
  std::shared_ptr<Trace> trace = std::make_shared<Trace>();
  std::shared_ptr<CommunicationLog> log = std::make_shared<CommunicationLog>(trace);
  ObservedTransport transport{std::make_shared<MpiTransport>(Communicator::world()), log};
  const int rank = transport.rank(), ranks = transport.size();
  const int right = (rank + 1) % ranks, left = (rank + ranks - 1) % ranks;
};

TEST_F(Observed, IsTheGroupThatItWraps) {
  EXPECT_EQ(transport.name(), "world");
  EXPECT_EQ(transport.size(), Communicator::world().size());
  EXPECT_EQ(transport.rank(), Communicator::world().rank());
  EXPECT_TRUE(log->totals().empty());
}

TEST_F(Observed, CountsWhatIsInTheBufferOfEachRank) {
  const AnyView one = tensors.random("one", DType::fp64, 2, 5);
  const AnyView all = tensors.poisoned(DType::fp64, 2 * ranks, 5);
  transport.start_all_gather(exec, one, all).wait(exec);
  transport.start_all_gather(exec, one, all).wait(exec);
  transport.start_all_reduce(exec, one).wait(exec);
  transport.start_broadcast(exec, one, ranks - 1).wait(exec);
  EXPECT_EQ(transport.sum(std::int64_t{1}), ranks);

  EXPECT_EQ(log->totals().size(), 4U);
  EXPECT_EQ(of("all_gather"), (Traffic{2, 2 * 80 * ranks})) << "its own rows, too";
  EXPECT_EQ(of("all_reduce"), (Traffic{1, 80}));
  EXPECT_EQ(of("broadcast"), (Traffic{1, 80})) << "also on the root";
  EXPECT_EQ(of("gather"), (Traffic{1, 8 * ranks}));
  for (const double value : to_doubles(exec, all)) EXPECT_EQ(value, value) << "goes through";
}

TEST_F(Observed, TheBytesOfAllRanksDoNotDependOnWhereRowsGo) {
  // Each rank has 6 rows: all for rank 0, then all for itself.
  for (const bool to_first : {true, false}) {
    log->reset();
    Counts to(static_cast<std::size_t>(ranks), 0), from(to);
    to[static_cast<std::size_t>(to_first ? 0 : rank)] = 6;
    if (!to_first) from[static_cast<std::size_t>(rank)] = 6;
    if (to_first && rank == 0) from.assign(from.size(), 6);
    const AnyView send = tensors.random("send", DType::fp32, 6, 3);
    const AnyView receive = tensors.poisoned(
        DType::fp32, std::accumulate(from.begin(), from.end(), std::int64_t{0}), 3);
    transport.start_all_to_all(exec, send, to, receive, from).wait(exec);
    EXPECT_EQ(of("all_to_all").bytes, static_cast<std::int64_t>(receive.bytes()));
    const std::int64_t mine = of("all_to_all").bytes;
    EXPECT_EQ(transport.sum(mine), ranks * 6 * 3 * 4);
  }
}

TEST_F(Observed, AMessagesBytesAreCountedWhereItArrives) {
  const AnyView send = tensors.random("send", DType::fp32, 4),
                receive = tensors.poisoned(DType::fp32, 4);
  Request sent = transport.start_send(exec, send, right, 2);
  transport.start_receive(exec, receive, left, 2).wait(exec);
  sent.wait(exec);
  EXPECT_EQ(of("send"), (Traffic{1, 0}));
  EXPECT_EQ(of("receive"), (Traffic{1, 16}));
  EXPECT_EQ(to_doubles(exec, receive), to_doubles(exec, send)) << "everybody sends the same";
}

TEST_F(Observed, CountsUnevenRows) {
  Counts rows(static_cast<std::size_t>(ranks));
  std::iota(rows.begin(), rows.end(), 0);
  const AnyView send = tensors.random("send", DType::bf16, rank, 3);
  const AnyView receive = tensors.poisoned(DType::bf16, ranks * (ranks - 1) / 2, 3);
  transport.start_all_gather_rows(exec, send, receive, rows).wait(exec);
  EXPECT_EQ(of("all_gather"), (Traffic{1, static_cast<std::int64_t>(receive.bytes())}));
}

TEST_F(Observed, GivesWhatCameSinceASnapshot) {
  const AnyView buffer = tensors.random("buffer", DType::fp32, 5);
  transport.start_all_reduce(exec, buffer).wait(exec);
  transport.start_broadcast(exec, buffer, 0).wait(exec);
  const TrafficTable snapshot = log->totals();
  transport.start_all_reduce(exec, buffer).wait(exec);
  transport.start_all_reduce(exec, buffer).wait(exec);
  EXPECT_EQ(traffic_since(snapshot, log->totals()),
            (TrafficTable{{{"world", "all_reduce"}, {2, 40}}}));
  EXPECT_EQ(traffic_since({}, snapshot), snapshot);
  log->reset();
  EXPECT_TRUE(log->totals().empty());
}

TEST_F(Observed, DrawsNothingUnlessTheTraceRecords) {
  const AnyView buffer = tensors.random("buffer", DType::fp32, 5);
  Request before = transport.start_all_reduce(exec, buffer);
  trace->set_recording(true);
  before.wait(exec);
  trace->set_recording(false);
  transport.start_all_reduce(exec, buffer).wait(exec);
  transport.sum(std::int64_t{1});
  EXPECT_TRUE(trace->events().empty());
  EXPECT_EQ(of("all_reduce").calls, 2);

  const ObservedTransport untraced(std::make_shared<MpiTransport>(Communicator::world()),
                                   std::make_shared<CommunicationLog>());
  untraced.start_all_reduce(exec, buffer).wait(exec);
}

TEST_F(Observed, DrawsFromTheStartToTheEndOfWait) {
  const AnyView buffer = tensors.random("buffer", DType::fp32, 5);
  trace->set_recording(true);
  const std::int64_t before = trace->now();
  Request request = transport.start_all_reduce(exec, buffer);
  const std::int64_t started = trace->now();
  EXPECT_TRUE(trace->events().empty());
  const std::int64_t waiting = trace->now();
  request.wait(exec);
  const std::int64_t after = trace->now();

  ASSERT_EQ(trace->events().size(), 2U);
  EXPECT_EQ(drawn(0).name, "all_reduce");
  EXPECT_EQ(drawn(0).category, "communication");
  EXPECT_EQ(drawn(0).row, "world");
  EXPECT_LE(before, drawn(0).begin);
  EXPECT_LE(drawn(0).begin, started);
  ASSERT_EQ(drawn(0).arguments.size(), 3U);
  EXPECT_EQ(drawn(0).arguments[0], TraceArgument("bytes", TraceValue(20)));
  EXPECT_EQ(drawn(0).arguments[1],
            TraceArgument("waited_us",
                          TraceValue(static_cast<double>(drawn(1).end - drawn(1).begin) / 1e3)));
  EXPECT_EQ(drawn(0).arguments[2].first, "under_compute");
  EXPECT_EQ(drawn(1).name, "wait for all_reduce of world");
  EXPECT_EQ(drawn(1).category, "wait");
  EXPECT_EQ(drawn(1).row, "compute");
  EXPECT_LE(waiting, drawn(1).begin);
  EXPECT_EQ(drawn(0).end, drawn(1).end);
  EXPECT_LE(drawn(1).end, after);
}

TEST_F(Observed, DrawsMessagesWithTheirBytesOnBothSides) {
  const AnyView send = tensors.random("send", DType::fp32, 4),
                receive = tensors.poisoned(DType::fp32, 4);
  trace->set_recording(true);
  {
    const Request sent = transport.start_send(exec, send, right, 0);
    transport.start_receive(exec, receive, left, 0).wait(exec);
  }
  transport.sum(std::int64_t{1});
  ASSERT_EQ(trace->events().size(), 6U);
  EXPECT_EQ(drawn(0).name, "receive");
  EXPECT_EQ(drawn(2).name, "send") << "waited for at its end";
  EXPECT_EQ(drawn(4).name, "gather");
  EXPECT_EQ(drawn(0).arguments[0].second, TraceValue(16));
  EXPECT_EQ(drawn(2).arguments[0].second, TraceValue(16));
  EXPECT_EQ(drawn(4).arguments[0].second, TraceValue(8 * ranks));
}

TEST_F(Observed, APollThatFindsItDoneIsTheEndOfIt) {
  const AnyView buffer = tensors.random("buffer", DType::fp32, 5);
  trace->set_recording(true);
  Request request = transport.start_all_reduce(exec, buffer);
  while (!request.poll()) std::this_thread::yield();
  const std::int64_t done = trace->now();
  EXPECT_TRUE(request.poll());
  std::this_thread::sleep_for(kBrief);
  request.wait(exec);
  ASSERT_EQ(trace->events().size(), 2U);
  EXPECT_LE(drawn(0).end, done);
  EXPECT_GE(drawn(1).begin, done + std::chrono::nanoseconds(kBrief).count());

  Request found_unseen = transport.start_all_reduce(exec, buffer);
  trace->set_recording(false);
  while (!found_unseen.poll()) std::this_thread::yield();
  trace->set_recording(true);
  found_unseen.wait(exec);
  EXPECT_EQ(trace->events().size(), 2U) << "its end is not known";
}

/// Shares by time, of which a loaded machine may take some: bounds are wide.
TEST_F(Observed, CountsBytesThatWereInFlightUnderCompute) {
  const AnyView buffer = tensors.random("buffer", DType::fp32, 1000);
  const auto flown = [&] { return log->flights().at("world"); };
  transport.start_all_reduce(exec, buffer).wait(exec);
  EXPECT_EQ(flown().bytes, 4000);
  EXPECT_LT(flown().under_compute, 2000) << "waited for at once";

  Flights before = flown();
  Request beside = transport.start_all_reduce(exec, buffer);
  std::this_thread::sleep_for(10 * kBrief);
  beside.wait(exec);
  EXPECT_EQ(flown().bytes, before.bytes + 4000);
  EXPECT_GT(flown().under_compute, before.under_compute + 2000);

  before = flown();
  Request long_over = transport.start_all_reduce(exec, buffer);
  while (!long_over.poll()) std::this_thread::yield();
  const std::int64_t landed = flown().under_compute;
  std::this_thread::sleep_for(kBrief);
  long_over.wait(exec);
  EXPECT_EQ(flown().under_compute, landed) << "nothing moves any more";
}

TEST_F(Observed, WaitingForAnotherIsNoCompute) {
  const AnyView buffer = tensors.random("buffer", DType::fp32, 10);
  Request under_way = transport.start_all_reduce(exec, buffer);
  if (rank == 0) std::this_thread::sleep_for(10 * kBrief);
  transport.sum(std::int64_t{1});
  under_way.wait(exec);
  const Flights flights = log->flights().at("world");
  if (rank == 0) return;
  EXPECT_LT(flights.under_compute, flights.bytes / 2);
}

TEST_F(Observed, ErrorsNameTheCommunicationAsWithoutIt) {
  trace->set_recording(true);
  const AnyView buffer = tensors.random("buffer", DType::fp32, 5);
  Request request = transport.start_all_reduce(exec, buffer);
  request.wait(exec);
  expect_error([&] { request.wait(exec); }, ExitCode::internal,
               {"all_reduce of group 'world'", "second time"});
}

}  // namespace
}  // namespace konclave
