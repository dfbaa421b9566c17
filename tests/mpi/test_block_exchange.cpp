#include "tests/mpi/transport_case.hpp"
#include "tests/support/expect_error.hpp"

namespace konclave {
namespace {

constexpr DType kTypes[] = {DType::bf16, DType::fp32, DType::fp64};

/// Rows in blocks: `from` has `rows` of each of three kinds for every rank, which wants them by
/// kind and not by rank. Sent are those for the last rank first. With the parameter, tensors pass
/// through host buffers.
class BlocksTest : public TransportCase {
 protected:
  static constexpr std::int64_t kKinds = 3;

  /// Uneven, with zeros; all of a kind at times.
  static std::int64_t rows(int from, int to, std::int64_t kind) {
    return (from + 2 * to + kind) % 3;
  }
  /// A number that tells a row from all others, exact in bf16.
  static double number(int from, int to, std::int64_t kind) {
    return 32.0 * from + 6.0 * to + static_cast<double>(kind);
  }

  struct Side {
    RowBlocks blocks;
    std::int64_t rows = 0;
  };
  /// With `stays`, without what a rank has for itself.
  Side sending(bool stays) const {
    Side side{RowBlocks(std::size_t(size_)), 0};
    for (int to = size_ - 1; to >= 0; --to) {
      for (std::int64_t kind = 0; kind < kKinds; ++kind) {
        if (stays && to == rank_) continue;
        side.blocks[std::size_t(to)].push_back({side.rows, rows(rank_, to, kind)});
        side.rows += rows(rank_, to, kind);
      }
    }
    return side;
  }
  Side receiving() const {
    Side side{RowBlocks(std::size_t(size_)), 0};
    for (std::int64_t kind = 0; kind < kKinds; ++kind) {
      for (int from = 0; from < size_; ++from) {
        side.blocks[std::size_t(from)].push_back({side.rows, rows(from, rank_, kind)});
        side.rows += rows(from, rank_, kind);
      }
    }
    return side;
  }
  void set(const AnyView& view, const RowBlock& block, double value) {
    const AnyView part = view.slice(block.first, block.rows);
    from_doubles(exec_, std::vector<double>(std::size_t(part.size()), value), part);
  }
  AnyView to_send(DType type, const Side& side, std::int64_t columns) {
    const AnyView send = arena_.make(type, side.rows, columns);
    for (int to = 0; to < size_; ++to) {
      for (std::size_t kind = 0; kind < side.blocks[std::size_t(to)].size(); ++kind) {
        set(send, side.blocks[std::size_t(to)][kind],
            number(rank_, to, static_cast<std::int64_t>(kind)));
      }
    }
    return send;
  }
  std::vector<double> expected(std::int64_t columns) const {
    std::vector<double> all;
    for (std::int64_t kind = 0; kind < kKinds; ++kind) {
      for (int from = 0; from < size_; ++from) {
        all.insert(all.end(), std::size_t(rows(from, rank_, kind) * columns),
                   number(from, rank_, kind));
      }
    }
    return all;
  }
};

INSTANTIATE_TEST_SUITE_P(Direct, BlocksTest, ::testing::Values(false));
INSTANTIATE_TEST_SUITE_P(Staged, BlocksTest, ::testing::Values(true));

TEST_P(BlocksTest, ComeToTheirPlaces) {
  // The last ones are of 64 KiB and more: they are not sent before the receiver asks for them.
  for (const std::int64_t columns : {1, 3, 1 << 15}) {
    for (const DType type : kTypes) {
      const Side sent = sending(/*stays=*/false), received = receiving();
      const AnyView send = to_send(type, sent, columns);
      const AnyView receive = arena_.make(type, received.rows, columns);
      transport_.start_all_to_all_blocks(exec_, send, sent.blocks, receive, received.blocks)
          .wait(exec_);
      EXPECT_EQ(values(receive), expected(columns)) << name_of(type) << " on " << rank_;
    }
  }
}

TEST_P(BlocksTest, OfTheRankItselfMayBeThereAlready) {
  const Side sent = sending(/*stays=*/true), received = receiving();
  // Sent from where others are received, as when rows go home from among own ones.
  const AnyView all = arena_.make(DType::fp32, received.rows + sent.rows, 2);
  const AnyView send = to_send(DType::fp32, sent, 2);
  const AnyView copy = all.slice(received.rows, sent.rows);
  from_doubles(exec_, values(send), copy);
  RowBlocks behind = sent.blocks;
  for (std::vector<RowBlock>& to : behind) {
    for (RowBlock& block : to) block.first += received.rows;
  }
  for (std::size_t kind = 0; kind < std::size_t(kKinds); ++kind) {
    set(all, received.blocks[std::size_t(rank_)][kind],
        number(rank_, rank_, static_cast<std::int64_t>(kind)));
  }
  transport_.start_all_to_all_blocks(exec_, all, behind, all, received.blocks).wait(exec_);
  EXPECT_EQ(values(all.slice(0, received.rows)), expected(2)) << "on " << rank_;
  EXPECT_EQ(values(copy), values(send));
}

TEST_P(BlocksTest, ARowMayGoToEverybody) {
  const AnyView send = filled(DType::fp64, 4, 1, 10 * rank_);
  const RowBlocks to(std::size_t(size_), {{1, 1}, {3, 1}});
  RowBlocks from;
  for (int r = 0; r < size_; ++r) from.push_back({{r, 1}, {size_ + r, 1}});
  const AnyView receive = arena_.make(DType::fp64, 2 * size_, 1);
  transport_.start_all_to_all_blocks(exec_, send, to, receive, from).wait(exec_);
  std::vector<double> expected;
  for (const int row : {1, 3}) {
    for (int r = 0; r < size_; ++r) expected.push_back(10 * r + row);
  }
  EXPECT_EQ(values(receive), expected);
}

TEST_P(BlocksTest, SeveralExchangesMayBeUnderWay) {
  const Side sent = sending(false), received = receiving();
  std::vector<AnyView> results;
  std::vector<Request> requests;
  for (const std::int64_t columns : {1, 2, 3}) {
    const AnyView send = to_send(DType::fp32, sent, columns);
    results.push_back(arena_.make(DType::fp32, received.rows, columns));
    requests.push_back(transport_.start_all_to_all_blocks(exec_, send, sent.blocks, results.back(),
                                                          received.blocks));
  }
  for (std::size_t i = 3; i-- > 0;) requests[i].wait(exec_);
  for (std::size_t i = 0; i < 3; ++i) {
    EXPECT_EQ(values(results[i]), expected(static_cast<std::int64_t>(i) + 1));
  }
}

TEST_P(BlocksTest, ThatDoNotFitAreAnError) {
  const AnyView view = arena_.make(DType::fp32, 3, 2), other = arena_.make(DType::fp32, 3, 2);
  const std::string group = "all_to_all of group 'world'";
  const auto exchange = [&](const RowBlocks& sent, const RowBlocks& received) {
    transport_.start_all_to_all_blocks(exec_, view, sent, other, received).wait(exec_);
  };
  const auto ranks = static_cast<std::size_t>(size_);
  const RowBlocks none(ranks), beyond(ranks, {{2, 2}});
  expect_error([&] { exchange({}, none); }, ExitCode::internal, {group, "blocks for each rank"});
  expect_error([&] { exchange(beyond, none); }, ExitCode::internal,
               {group, "rows 2 to 4", "fp32 (3, 2)"});
  expect_error([&] { exchange(none, beyond); }, ExitCode::internal, {group, "rows 2 to 4"});
  RowBlocks one = none, two = none;
  one[std::size_t(rank_)] = {{0, 2}};
  two[std::size_t(rank_)] = {{0, 1}, {1, 1}};
  expect_error([&] { exchange(one, two); }, ExitCode::internal, {group, "sends to itself"});
  if (size_ == 1) return;
  one = two = none;
  one[std::size_t((rank_ + 1) % size_)] = {{0, 1}};
  two[std::size_t((rank_ + size_ - 1) % size_)] = {{0, 1}, {2, 1}};
  expect_error([&] { exchange(one, two); }, ExitCode::internal,
               {group, "1 rows came, expected were 2"});
}

}  // namespace
}  // namespace konclave
