#include "comm/solo_transport.hpp"
#include "tests/mpi/transport_case.hpp"
#include "tests/support/expect_error.hpp"

#include <cmath>
#include <limits>
#include <numeric>
#include <utility>

namespace konclave {
namespace {

constexpr DType kTypes[] = {DType::bf16, DType::fp32, DType::fp64};

/// A function of its own: device compilers take no lambda from a member of a test.
void fill(const ExecSpace& exec, const View1<float>& view, float value) {
  Kokkos::parallel_for(
      "fill", Range(exec, 0, view.extent(0)), KOKKOS_LAMBDA(std::int64_t i) { view(i) = value; });
}

class TransportTest : public TransportCase {};

INSTANTIATE_TEST_SUITE_P(Direct, TransportTest, ::testing::Values(false));
INSTANTIATE_TEST_SUITE_P(Staged, TransportTest, ::testing::Values(true));

TEST_P(TransportTest, AllGatherStacksTheRowsOfAllRanks) {
  for (const DType type : kTypes) {
    const AnyView send = filled(type, 2, 3, 10 * rank_), receive = arena_.make(type, 2 * size_, 3);

    transport_.start_all_gather(exec_, send, receive).wait(exec_);

    for (int from = 0; from < size_; ++from) {
      const double first = 10 * from;
      EXPECT_EQ(values(receive.slice(2 * from, 2)),
                (std::vector<double>{first, first + 1, first + 2, first + 3, first + 4, first + 5}))
          << name_of(type) << " from " << from;
    }
  }
}

TEST_P(TransportTest, ARowOfACubeIsAMatrix) {
  const AnyView send = arena_.make(DType::fp32, 1, 2, 3);
  const AnyView receive = arena_.make(DType::fp32, size_, 2, 3);
  from_doubles(exec_, std::vector<double>(6, rank_ + 1.0), send);
  transport_.start_all_gather(exec_, send, receive).wait(exec_);
  for (int from = 0; from < size_; ++from) {
    EXPECT_EQ(values(receive.slice(from, 1)), std::vector<double>(6, from + 1.0));
  }
}

TEST_P(TransportTest, AllGatherOfRankOneAndOfNothing) {
  const AnyView one = arena_.make(DType::fp32, 1), all = arena_.make(DType::fp32, size_);
  from_doubles(exec_, {double(rank_)}, one);
  transport_.start_all_gather(exec_, one, all).wait(exec_);
  for (int from = 0; from < size_; ++from) EXPECT_EQ(values(all)[std::size_t(from)], from);

  const AnyView none = arena_.make(DType::bf16, 0, 3);
  transport_.start_all_gather(exec_, none, none).wait(exec_);
}

TEST_P(TransportTest, AllGatherOfUnevenCountsStacksThemInTheOrderOfRanks) {
  // Rank r has 2 r mod 3 rows: 0, 2, 1, 0.
  std::vector<std::int64_t> rows;
  std::int64_t total = 0;
  for (int from = 0; from < size_; ++from) {
    rows.push_back(2 * from % 3);
    total += rows.back();
  }
  for (const DType type : kTypes) {
    const AnyView send = filled(type, rows[std::size_t(rank_)], 2, 10 * rank_);
    const AnyView receive = arena_.make(type, total, 2);

    transport_.start_all_gather_rows(exec_, send, receive, rows).wait(exec_);

    std::vector<double> expected;
    for (int from = 0; from < size_; ++from) {
      for (int i = 0; i < 2 * rows[std::size_t(from)]; ++i) expected.push_back(10 * from + i);
    }
    EXPECT_EQ(values(receive), expected) << name_of(type) << " on " << rank_;
  }
}

TEST_P(TransportTest, OneRankAloneMayHaveAllRows) {
  // Matrices as rows. Above what travels before the receiver asks for it: 1 MiB.
  for (int source = 0; source < size_; ++source) {
    std::vector<std::int64_t> rows(std::size_t(size_), 0);
    rows[std::size_t(source)] = 4;
    const AnyView send = arena_.make(DType::fp64, rank_ == source ? 4 : 0, 256, 128);
    const AnyView receive = arena_.make(DType::fp64, 4, 256, 128);
    from_doubles(exec_, std::vector<double>(std::size_t(send.size()), source + 1.0), send);
    transport_.start_all_gather_rows(exec_, send, receive, rows).wait(exec_);
    EXPECT_EQ(values(receive), std::vector<double>(4 * 256 * 128, source + 1.0));
  }
}

/// How many rows `from` sends to `to`: uneven, with zeros, and no symmetry.
std::int64_t rows_between(int from, int to) { return (2 * from + to) % 3; }

TEST_P(TransportTest, AllToAllMovesUnevenCountsInTheOrderOfRanks) {
  std::vector<std::int64_t> send_rows, receive_rows;
  for (int other = 0; other < size_; ++other) {
    send_rows.push_back(rows_between(rank_, other));
    receive_rows.push_back(rows_between(other, rank_));
  }
  const auto total = [](const auto& rows) {
    return std::accumulate(rows.begin(), rows.end(), std::int64_t{0});
  };
  for (const DType type : kTypes) {
    // Row r of what a rank sends is (64 rank + 2 r, 64 rank + 2 r + 1), exact in bf16 up to 256.
    const AnyView send = filled(type, total(send_rows), 2, 64 * rank_);
    const AnyView receive = arena_.make(type, total(receive_rows), 2);

    transport_.start_all_to_all(exec_, send, send_rows, receive, receive_rows).wait(exec_);

    std::vector<double> expected;
    for (int from = 0; from < size_; ++from) {
      std::int64_t row = 0;
      for (int to = 0; to < rank_; ++to) row += rows_between(from, to);
      for (std::int64_t i = 0; i < 2 * receive_rows[std::size_t(from)]; ++i) {
        expected.push_back(64 * from + double(2 * row + i));
      }
    }
    EXPECT_EQ(values(receive), expected) << name_of(type) << " on " << rank_;
  }
}

TEST_P(TransportTest, AllToAllMayMoveNothing) {
  const AnyView none = arena_.make(DType::fp32, 0, 4);
  const std::vector<std::int64_t> zeros(std::size_t(size_), 0);
  transport_.start_all_to_all(exec_, none, zeros, none, zeros).wait(exec_);
}

TEST_P(TransportTest, AnEmptyViewMayHaveTheAddressOfAnother) {
  // 16 KiB: more than is sent before the receiver asks for it.
  const AnyView send = filled(DType::fp64, 64, 32, rank_);
  const bool first = rank_ == 0;
  const AnyView receive =
      first ? arena_.make(DType::fp64, 64 * size_, 32) : AnyView(send.slice(0, 0));
  std::vector<std::int64_t> sent(static_cast<std::size_t>(size_), 0), received(sent);
  sent[0] = 64;
  if (first) received.assign(received.size(), 64);
  for (int i = 0; i < 3; ++i) {
    transport_.start_all_to_all(exec_, send, sent, receive, received).wait(exec_);
  }
  for (int from = 0; first && from < size_; ++from) {
    EXPECT_EQ(values(receive)[static_cast<std::size_t>(from * 64 * 32)], from);
  }
}

TEST_P(TransportTest, OnARingEverybodySendsRightAndReceivesLeft) {
  const int right = (rank_ + 1) % size_, left = (rank_ + size_ - 1) % size_;
  for (const DType type : kTypes) {
    // From place to place around, as far as the one where it began.
    AnyView here = filled(type, 3, 2, 10 * rank_);
    for (int step = 1; step <= size_; ++step) {
      const AnyView arriving = arena_.make(type, 3, 2);
      Request sent = transport_.start_send(exec_, here, right, 0);
      transport_.start_receive(exec_, arriving, left, 0).wait(exec_);
      sent.wait(exec_);
      const double first = 10 * ((rank_ + size_ - step % size_) % size_);
      EXPECT_EQ(values(arriving),
                (std::vector<double>{first, first + 1, first + 2, first + 3, first + 4, first + 5}))
          << name_of(type) << ", step " << step;
      here = arriving;
    }
  }
}

TEST_P(TransportTest, ChannelsDoNotMeetAndEachKeepsItsOrder) {
  const int right = (rank_ + 1) % size_, left = (rank_ + size_ - 1) % size_;
  const auto number = [](int rank, int channel, int message) {
    return 64.0 * rank + 8 * channel + message;
  };
  // Sent: channel 0, 15, 0, 15, 0, 15. Received: first all of 15.
  std::vector<Request> sent;
  for (int message = 0; message < 3; ++message) {
    for (const int channel : {0, Transport::kChannels - 1}) {
      sent.push_back(transport_.start_send(
          exec_, filled(DType::fp64, 1, 1, number(rank_, channel, message)), right, channel));
    }
  }
  for (const int channel : {Transport::kChannels - 1, 0}) {
    std::vector<Request> requests;
    std::vector<AnyView> received;
    for (int message = 0; message < 3; ++message) {
      received.push_back(arena_.make(DType::fp64, 1, 1));
      requests.push_back(transport_.start_receive(exec_, received.back(), left, channel));
    }
    // They need not be waited for in the order in which they came.
    for (int message = 2; message >= 0; --message) {
      requests[std::size_t(message)].wait(exec_);
      EXPECT_EQ(values(received[std::size_t(message)]),
                (std::vector<double>{number(left, channel, message)}))
          << "channel " << channel;
    }
  }
  for (Request& request : sent) request.wait(exec_);
}

TEST_P(TransportTest, LargeMessagesOfAllPairsPassEachOther) {
  // 2 MiB each: far more than is sent before the receiver asks for it. All are sent first, and
  // waited for when everything has arrived.
  const std::int64_t rows = 1 << 10, columns = 256;
  std::vector<Request> requests;
  std::vector<AnyView> received;
  for (int to = 0; to < size_; ++to) {
    requests.push_back(
        transport_.start_send(exec_, filled(DType::fp64, rows, columns, rank_ + 100 * to), to, 3));
  }
  for (int from = 0; from < size_; ++from) {
    received.push_back(arena_.make(DType::fp64, rows, columns));
    requests.push_back(transport_.start_receive(exec_, received.back(), from, 3));
  }
  for (std::size_t i = requests.size(); i-- > 0;) requests[i].wait(exec_);
  std::vector<double> expected(std::size_t(rows * columns));
  for (int from = 0; from < size_; ++from) {
    std::iota(expected.begin(), expected.end(), from + 100 * rank_);
    EXPECT_EQ(values(received[std::size_t(from)]), expected) << "from " << from;
  }
}

TEST_P(TransportTest, AMessageOfNothingAndOneOfAnotherShape) {
  const int right = (rank_ + 1) % size_, left = (rank_ + size_ - 1) % size_;
  const AnyView none = arena_.make(DType::bf16, 0, 5);
  Request nothing = transport_.start_send(exec_, none, right, 1);
  Request flat = transport_.start_send(exec_, filled(DType::fp32, 2, 3, rank_), right, 1);
  transport_.start_receive(exec_, none, left, 1).wait(exec_);
  const AnyView receive = arena_.make(DType::fp32, 6);
  transport_.start_receive(exec_, receive, left, 1).wait(exec_);
  const double first = left;
  EXPECT_EQ(values(receive),
            (std::vector<double>{first, first + 1, first + 2, first + 3, first + 4, first + 5}));
  nothing.wait(exec_);
  flat.wait(exec_);
}

TEST_P(TransportTest, AMessageOfAnotherLengthIsAnError) {
  const AnyView send = filled(DType::fp32, 2, 3, 0);
  for (const std::int64_t rows : {1, 3}) {
    Request sent = transport_.start_send(exec_, send, rank_, 0);
    Request received = transport_.start_receive(exec_, arena_.make(DType::fp32, rows, 3), rank_, 0);
    expect_error([&] { received.wait(exec_); }, ExitCode::internal, {"receive of group 'world'"});
    sent.wait(exec_);
  }
}

TEST_P(TransportTest, MessagesGoToRanksAndChannelsThatThereAre) {
  const AnyView view = arena_.make(DType::fp32, 1);
  const std::string channel = "no channel " + std::to_string(Transport::kChannels);
  expect_error([&] { transport_.start_send(exec_, view, size_, 0); }, ExitCode::internal,
               {"send of group 'world'", "no rank"});
  expect_error([&] { transport_.start_receive(exec_, view, -1, 0); }, ExitCode::internal,
               {"receive of group 'world'", "no rank -1"});
  expect_error([&] { transport_.start_send(exec_, view, rank_, Transport::kChannels); },
               ExitCode::internal, {"send of group 'world'", channel});
  expect_error([&] { transport_.start_receive(exec_, view, rank_, Transport::kChannels); },
               ExitCode::internal, {"receive of group 'world'", channel});
  expect_error([&] { transport_.start_send(exec_, AnyView(), rank_, 0); }, ExitCode::internal,
               {"without a shape"});
  const SoloTransport alone("alone");
  expect_error([&] { alone.start_send(exec_, view, 0, 0); }, ExitCode::internal,
               {"send of group 'alone'", "nobody"});
  expect_error([&] { alone.start_receive(exec_, view, 0, 0); }, ExitCode::internal,
               {"receive of group 'alone'", "nobody"});
}

TEST_P(TransportTest, AllReduceAddsUpTheBuffers) {
  for (const DType type : {DType::fp32, DType::fp64}) {
    const AnyView buffer = filled(type, 2, 3, rank_);
    transport_.start_all_reduce(exec_, buffer).wait(exec_);
    const double ranks = size_, first = ranks * (ranks - 1) / 2;
    std::vector<double> expected;
    for (int i = 0; i < 6; ++i) expected.push_back(first + ranks * i);
    EXPECT_EQ(values(buffer), expected) << name_of(type);
  }
  const AnyView narrow = filled(DType::bf16, 2, 3, 0);
  expect_error([&] { transport_.start_all_reduce(exec_, narrow); }, ExitCode::internal,
               {"all_reduce", "bf16"});
}

TEST_P(TransportTest, BroadcastGivesTheRootsRows) {
  for (int root = 0; root < size_; ++root) {
    const AnyView buffer = filled(DType::fp32, 2, 2, 10 * rank_);
    transport_.start_broadcast(exec_, buffer, root).wait(exec_);
    const double first = 10 * root;
    EXPECT_EQ(values(buffer), (std::vector<double>{first, first + 1, first + 2, first + 3}));
  }
}

TEST_P(TransportTest, SeveralMayBeUnderWayAndEndInAnyOrder) {
  const AnyView first = filled(DType::fp32, 1, 2, rank_),
                second = filled(DType::fp64, 1, 2, -rank_);
  const AnyView firsts = arena_.make(DType::fp32, size_, 2);
  const AnyView seconds = arena_.make(DType::fp64, size_, 2);

  Request one = transport_.start_all_gather(exec_, first, firsts);
  Request two = transport_.start_all_gather(exec_, second, seconds);
  two.wait(exec_);
  one.wait(exec_);

  for (int from = 0; from < size_; ++from) {
    EXPECT_EQ(values(firsts.slice(from, 1)), (std::vector<double>{double(from), from + 1.0}));
    EXPECT_EQ(values(seconds.slice(from, 1)), (std::vector<double>{-double(from), 1.0 - from}));
  }
}

TEST_P(TransportTest, StartHandsOverWhatWasPutOnTheSpaceBefore) {
  const std::int64_t rows = 1 << 16;
  const View1<float> mine = arena_.make1<float>(rows);
  const AnyView receive = arena_.make(DType::fp32, size_ * rows);
  fill(exec_, mine, static_cast<float>(rank_ + 1));

  const AnyView send(DType::fp32, mine.data(), {rows, 1, 1}, 1);
  transport_.start_all_gather(exec_, send, receive).wait(exec_);

  for (int from = 0; from < size_; ++from) {
    EXPECT_EQ(values(receive.slice(from * rows, rows)),
              std::vector<double>(std::size_t(rows), from + 1.0));
  }
}

TEST_P(TransportTest, RefusesShapesThatDoNotFit) {
  const AnyView send = arena_.make(DType::fp32, 2, 3);
  const auto gather_into = [&](const AnyView& receive) {
    transport_.start_all_gather(exec_, send, receive).wait(exec_);
  };
  const std::string group = "all_gather of group 'world'";
  expect_error([&] { gather_into(arena_.make(DType::bf16, 2 * size_, 3)); }, ExitCode::internal,
               {group, "fp32 (2, 3)", "bf16"});
  expect_error([&] { gather_into(arena_.make(DType::fp32, 2 * size_, 4)); }, ExitCode::internal,
               {group, "rows differ"});
  expect_error([&] { gather_into(arena_.make(DType::fp32, 2 * size_ + 1, 3)); }, ExitCode::internal,
               {group, "counts add up to"});
  const AnyView fits_gather = arena_.make(DType::fp32, 2 * size_, 3);
  expect_error([&] { transport_.start_all_gather_rows(exec_, send, fits_gather, {}); },
               ExitCode::internal, {group, "one count per rank"});
  std::vector<std::int64_t> three(std::size_t(size_), 2);
  three[std::size_t(rank_)] = 3;
  expect_error([&] { transport_.start_all_gather_rows(exec_, send, fits_gather, three); },
               ExitCode::internal, {group, "3 rows are expected of this rank", "fp32 (2, 3)"});
  const std::vector<std::int64_t> counts(std::size_t(size_), 1);
  const AnyView fits = arena_.make(DType::fp32, size_, 3), less = fits.slice(0, size_ - 1);
  expect_error([&] { transport_.start_all_to_all(exec_, less, counts, fits, counts); },
               ExitCode::internal, {"all_to_all of group 'world'", "counts add up to"});
  expect_error([&] { transport_.start_all_to_all(exec_, fits, {}, fits, counts); },
               ExitCode::internal, {"counts add up to 0"});
  expect_error([&] { transport_.start_broadcast(exec_, fits, size_); }, ExitCode::internal,
               {"broadcast", "no rank"});
  expect_error([&] { transport_.start_broadcast(exec_, AnyView(), 0); }, ExitCode::internal,
               {"without a shape"});
}

TEST_P(TransportTest, WaitingTwiceIsAnError) {
  const AnyView send = filled(DType::fp32, 1, 1, rank_),
                receive = arena_.make(DType::fp32, size_, 1);
  Request request = transport_.start_all_gather(exec_, send, receive);
  request.wait(exec_);
  expect_error([&] { request.wait(exec_); }, ExitCode::internal,
               {"all_gather of group 'world'", "second time"});
}

TEST_P(TransportTest, AForgottenRequestIsWaitedForAtItsEnd) {
  const AnyView send = filled(DType::fp32, 1, 1, rank_),
                receive = arena_.make(DType::fp32, size_, 1);
  {
    Request first = transport_.start_all_gather(exec_, send, receive);
    const Request moved = std::move(first);
  }
  for (int from = 0; from < size_; ++from) EXPECT_EQ(values(receive)[std::size_t(from)], from);
}

TEST_P(TransportTest, SumIsTakenInTheOrderOfRanks) {
  // Rounding makes these depend on their order: 1 + 1e100 - 1e100 + 1 is 1, not 2.
  const double terms[] = {1, 1e100, -1e100, 1};
  double expected = terms[0];
  for (int from = 1; from < size_; ++from) expected += terms[from % 4];
  EXPECT_EQ(transport_.sum(terms[rank_ % 4]), expected);
}

TEST_P(TransportTest, ReductionsOfBothTypes) {
  const std::int64_t mine = rank_ + 1, n = size_;
  const std::int64_t beyond_double = (std::int64_t{1} << 60) + 1;
  EXPECT_EQ(transport_.sum(mine), n * (n + 1) / 2);
  EXPECT_EQ(transport_.max(mine + beyond_double), n + beyond_double) << "64 bits, not 53";
  EXPECT_EQ(transport_.min(mine), 1);
  EXPECT_EQ(transport_.max(-0.5 * rank_), 0);
  EXPECT_EQ(transport_.min(-0.5 * rank_), -0.5 * (size_ - 1));
}

TEST_P(TransportTest, ReductionsGoElementByElement) {
  std::vector<std::int64_t> counts{rank_, 1, -rank_};
  transport_.sum(std::span(counts));
  const std::int64_t n = size_;
  EXPECT_EQ(counts, (std::vector<std::int64_t>{n * (n - 1) / 2, n, -n * (n - 1) / 2}));
  std::vector<double> none;
  transport_.max(std::span(none));
  EXPECT_TRUE(none.empty());
}

TEST_P(TransportTest, ANaNOnAnyRankIsTheResultOnAll) {
  for (int bad = 0; bad < size_; ++bad) {
    const double mine = rank_ == bad ? std::numeric_limits<double>::quiet_NaN() : rank_;
    EXPECT_TRUE(std::isnan(transport_.max(mine))) << bad;
    EXPECT_TRUE(std::isnan(transport_.min(mine))) << bad;
    EXPECT_TRUE(std::isnan(transport_.sum(mine))) << bad;
  }
}

TEST_P(TransportTest, GatherHasTheBytesOfAllRanksInOrder) {
  const std::byte mine[] = {std::byte(rank_), std::byte(rank_ + 100)};
  const std::vector<std::byte> all = transport_.gather(mine);
  EXPECT_EQ(all.size(), 2 * std::size_t(size_));
  for (int from = 0; from < size_; ++from) {
    EXPECT_EQ(all[2 * std::size_t(from)], std::byte(from));
    EXPECT_EQ(all[2 * std::size_t(from) + 1], std::byte(from + 100));
  }
}

}  // namespace
}  // namespace konclave
