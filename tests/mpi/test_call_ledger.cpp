#include "comm/call_ledger.hpp"
#include "comm/call_place.hpp"
#include "comm/mpi_transport.hpp"
#include "comm/observed_transport.hpp"
#include "tests/support/tensors.hpp"

#include <gtest/gtest.h>

#include <atomic>
#include <thread>

namespace konclave {
namespace {

TEST(CallLedger, KeepsTheLastCallsOfEachStream) {
  CallLedger ledger;
  CallLedger::Stream& world = ledger.open({"world", {0, 1}});
  CallLedger::Stream& to = ledger.open({"pp", {0, 1}, "to", 1, 2});
  for (int i = 1; i <= 20; ++i) ledger.finish(CallLedger::begin(world, "gather", 8 * i));
  CallLedger::begin(to, "send", 40);

  const LedgerState state = ledger.state();
  ASSERT_EQ(state.streams.size(), 2U);
  EXPECT_FALSE(state.wait);
  EXPECT_EQ(state.streams[0].stream, (CallStream{"world", {0, 1}}));
  EXPECT_EQ(state.streams[0].calls, 20);
  ASSERT_EQ(state.streams[0].last.size(), 8U);
  for (std::size_t i = 0; i < 8; ++i) {
    const CallRecord& call = state.streams[0].last[i];
    EXPECT_EQ(call.number, static_cast<std::int64_t>(13 + i)) << "oldest first";
    EXPECT_EQ(call.bytes, 8 * call.number);
    EXPECT_EQ(call.kind, "gather");
    EXPECT_TRUE(call.finished);
  }
  EXPECT_EQ(state.streams[1].stream.channel, 2);
  EXPECT_FALSE(state.streams[1].last.at(0).finished);
}

TEST(CallLedger, KnowsWhatIsWaitedFor) {
  CallLedger ledger;
  CallLedger::Stream& first = ledger.open({"ep", {0, 1}});
  CallLedger::Stream& second = ledger.open({"dp", {0, 1}});
  const CallLedger::Call early = CallLedger::begin(second, "all_gather", 96);
  ledger.finish(CallLedger::begin(first, "gather", 8));
  EXPECT_FALSE(ledger.state().wait);
  ledger.wait(early);
  const LedgerState state = ledger.state();
  ASSERT_TRUE(state.wait);
  EXPECT_EQ(state.wait->stream, 1U);
  EXPECT_EQ(state.wait->call.kind, "all_gather");
  EXPECT_EQ(state.wait->call.bytes, 96);
  EXPECT_EQ(state.wait->call.number, 1);

  // Also when so many came behind it that its own record is gone.
  for (int i = 0; i < 9; ++i) CallLedger::begin(second, "broadcast", 4);
  EXPECT_EQ(ledger.state().wait->call.number, 1);
  ledger.finish(early);
  const LedgerState after = ledger.state();
  EXPECT_FALSE(after.wait);
  for (const CallRecord& call : after.streams[1].last) EXPECT_FALSE(call.finished);
}

TEST(CallPlace, IsNotReadInTheMiddleOfAWrite) {
  CallPlace place;
  EXPECT_TRUE(place.read(0));
  place.write([&](std::memory_order order) {
    place.number.store(7, order);
    EXPECT_FALSE(place.read(0));
  });
  EXPECT_EQ(place.read(0).value().number, 7);
}

TEST(CallLedger, IsReadWhileItIsWritten) {
  CallLedger ledger;
  CallLedger::Stream& stream = ledger.open({"world", {0}});
  std::atomic<bool> stop{false};
  int mixed = 0;
  std::jthread reader([&] {
    while (!stop) {
      const LedgerState state = ledger.state();
      for (const CallRecord& call : state.streams[0].last) {
        const char* const kind = call.number % 2 == 0 ? "even" : "odd";
        mixed += call.bytes != 3 * call.number || call.kind != kind ? 1 : 0;
      }
    }
  });
  for (int i = 1; i <= 200000; ++i) {
    ledger.finish(CallLedger::begin(stream, i % 2 == 0 ? "even" : "odd", 3 * i));
  }
  stop = true;
  reader.join();
  EXPECT_EQ(mixed, 0);
}

TEST(CallLedger, HasWhatGoesThroughATransport) {
  const auto log = std::make_shared<CommunicationLog>();
  const ObservedTransport transport(std::make_shared<MpiTransport>(Communicator::world()), log);
  const ExecSpace exec;
  Tensors tensors(exec);
  const AnyView buffer = tensors.random("buffer", DType::fp32, 5);
  const int ranks = transport.size(), right = (transport.rank() + 1) % ranks,
            left = (transport.rank() + ranks - 1) % ranks;
  Request reduction = transport.start_all_reduce(exec, buffer);
  EXPECT_FALSE(log->ledger().state().streams[0].last.at(0).finished);
  reduction.wait(exec);
  transport.sum(std::int64_t{1});
  Request sent = transport.start_send(exec, buffer, right, 3);
  const AnyView other = tensors.poisoned(DType::fp32, 5);
  transport.start_receive(exec, other, left, 3).wait(exec);
  sent.wait(exec);

  const LedgerState state = log->ledger().state();
  ASSERT_EQ(state.streams.size(), 3U);
  EXPECT_EQ(state.streams[0].stream.group, "world");
  EXPECT_EQ(state.streams[0].stream.members.size(), static_cast<std::size_t>(ranks));
  EXPECT_EQ(state.streams[0].calls, 2);
  EXPECT_EQ(state.streams[0].last[0].kind, "all_reduce");
  EXPECT_EQ(state.streams[0].last[0].bytes, 20);
  EXPECT_TRUE(state.streams[0].last[0].finished);
  EXPECT_EQ(state.streams[0].last[1].kind, "gather");
  EXPECT_EQ(state.streams[1].stream,
            (CallStream{"world", state.streams[0].stream.members, "to", right, 3}));
  EXPECT_EQ(state.streams[1].last.at(0).bytes, 20) << "what a message has, not what is received";
  EXPECT_EQ(state.streams[2].stream.direction, "from");
  EXPECT_EQ(state.streams[2].stream.peer, left);
  EXPECT_FALSE(state.wait);
}

}  // namespace
}  // namespace konclave
