#include "comm/mpi_transport.hpp"
#include "comm/solo_transport.hpp"
#include "parallel/collectives.hpp"
#include "tests/support/delayed_transport.hpp"
#include "tests/support/expect_error.hpp"
#include "tests/support/recording_transport.hpp"
#include "tests/support/tensors.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <numeric>

namespace konclave {
namespace {

using Counts = std::vector<std::int64_t>;
using Values = std::vector<double>;

constexpr DType kTypes[] = {DType::bf16, DType::fp32, DType::fp64};

/// What `rank` brings: of such different sizes that rounding makes sums depend on their order.
Values numbers_of(DType type, int rank, std::int64_t count) {
  Values numbers = random_values("rank " + std::to_string(rank), count);
  for (double& number : numbers) {
    number *= std::pow(100.0, (rank + 1) % 3);
    if (type == DType::bf16) number = Bf16(static_cast<float>(number));
    if (type == DType::fp32) number = static_cast<float>(number);
  }
  return numbers;
}

/// The numbers of the ranks in `order` added in it one by one, and rounded to the type at the end.
Values sum_of(DType type, const std::vector<int>& order, std::int64_t count) {
  Values sums(static_cast<std::size_t>(count), 0);
  for (const int rank : order) {
    const Values numbers = numbers_of(type, rank, count);
    for (std::size_t i = 0; i < sums.size(); ++i) {
      sums[i] += numbers[i];
      if (type != DType::fp64) sums[i] = static_cast<float>(sums[i]);
    }
  }
  if (type == DType::bf16) {
    for (double& sum : sums) sum = Bf16(static_cast<float>(sum));
  }
  return sums;
}

/// The parameter: messages arrive at once or late.
struct Collectives : testing::TestWithParam<bool> {
  static std::shared_ptr<const Transport> make_group() {
    auto world = std::make_shared<MpiTransport>(Communicator::world());
    if (!GetParam()) return world;
    return std::make_shared<DelayedTransport>(world, std::make_shared<VirtualClock>(),
                                              Link{1e-5, 1e9});
  }
  /// All elements of what a rank brings, in a shape of `rows` rows.
  AnyView mine(DType type, std::int64_t rows, std::int64_t columns) {
    return tensors.values(type, numbers_of(type, rank, rows * columns), rows, columns);
  }
  Values expected(DType type, std::int64_t count) const {
    std::vector<int> order(static_cast<std::size_t>(ranks));
    std::iota(order.begin(), order.end(), 0);
    return sum_of(type, order, count);
  }
  void expect_equal_on_all_ranks(const AnyIn& y) const {
    std::vector<std::byte> bytes(y.bytes());
    copy_to_host(exec, y, bytes.data());
    const std::vector<std::byte> all = group->gather(bytes);
    for (int from = 0; from < ranks; ++from) {
      const auto first = all.begin() + static_cast<std::ptrdiff_t>(bytes.size()) * from;
      EXPECT_TRUE(std::equal(bytes.begin(), bytes.end(), first)) << "rank " << from;
    }
  }
  void expect_scattered(DType type, const Counts& rows, std::int64_t columns) {
    const std::int64_t total = std::reduce(rows.begin(), rows.end());
    const std::int64_t count = rows[static_cast<std::size_t>(rank)];
    const std::int64_t first = std::reduce(rows.begin(), rows.begin() + rank);
    const AnyView partial = mine(type, total, columns);
    const AnyView y = tensors.poisoned(type, count, columns);
    reduce_scatter_in_order(exec, scratch, *group, partial, rows, y);
    const Values all = expected(type, total * columns);
    EXPECT_EQ(to_doubles(exec, y),
              Values(all.begin() + first * columns, all.begin() + (first + count) * columns));
    EXPECT_EQ(to_doubles(exec, partial), numbers_of(type, rank, total * columns)) << "only read";
    EXPECT_EQ(scratch.mark().total, 0U) << "all scratch memory is given back";
  }

  ExecSpace exec;
  Tensors tensors{exec};
  MemoryAccount account;
  Arena scratch{account, MemoryClass::buffers, "scratch"};
  std::shared_ptr<const Transport> group = make_group();
  const int rank = group->rank(), ranks = group->size();
};

INSTANTIATE_TEST_SUITE_P(Direct, Collectives, testing::Values(false));
INSTANTIATE_TEST_SUITE_P(Delayed, Collectives, testing::Values(true));

TEST(NumbersOfThisTest, ShowTheOrderInWhichTheyAreAddedAndHowOftenSumsAreRounded) {
  for (const DType type : {DType::fp32, DType::fp64}) {
    EXPECT_NE(sum_of(type, {0, 1, 2}, 100), sum_of(type, {2, 1, 0}, 100)) << name_of(type);
  }
  const Values last = numbers_of(DType::bf16, 2, 100), once = sum_of(DType::bf16, {0, 1, 2}, 100);
  Values each_time = sum_of(DType::bf16, {0, 1}, 100);
  for (std::size_t i = 0; i < last.size(); ++i) {
    each_time[i] = Bf16(static_cast<float>(each_time[i] + last[i]));
  }
  EXPECT_NE(once, each_time);
}

TEST_P(Collectives, AShiftGoesRoundTheGroup) {
  for (int distance = 1; distance < ranks; ++distance) {
    const AnyView send = mine(DType::fp32, 5, 3), receive = tensors.poisoned(DType::fp32, 5, 3);
    start_shift(exec, *group, distance, send, receive).wait(exec);
    EXPECT_EQ(to_doubles(exec, receive),
              numbers_of(DType::fp32, (rank + ranks - distance) % ranks, 15));
  }
  const AnyView rows = mine(DType::fp32, 5, 3);
  for (const int distance : {0, ranks}) {
    expect_error([&] { start_shift(exec, *group, distance, rows, rows).wait(exec); },
                 ExitCode::internal, {"shift of group", std::to_string(distance)});
  }
}

TEST_P(Collectives, EachRankGetsItsRowsOfTheSum) {
  for (const DType type : kTypes) {
    for (const std::int64_t columns : {1, 7, 130}) {
      SCOPED_TRACE(testing::Message() << name_of(type) << ", " << columns << " columns");
      const AnyView partial = mine(type, 3 * ranks, columns);
      const AnyView y = tensors.poisoned(type, 3, columns);
      reduce_scatter_in_order(exec, scratch, *group, partial, y);
      const Values all = expected(type, 3 * ranks * columns);
      EXPECT_EQ(to_doubles(exec, y),
                Values(all.begin() + 3 * rank * columns, all.begin() + 3 * (rank + 1) * columns));
    }
  }
}

TEST_P(Collectives, RowsMayBeUnevenAndNone) {
  const auto n = static_cast<std::size_t>(ranks);
  Counts uneven, all_to_last(n, 0);
  for (int r = 0; r < ranks; ++r) uneven.push_back((2 * r + 1) % 4);  // 1, 3, 1, 3
  uneven.front() = 0;
  all_to_last.back() = 5;
  for (const DType type : kTypes) {
    for (const Counts& rows : {uneven, all_to_last, Counts(n, 0)}) {
      SCOPED_TRACE(testing::Message() << name_of(type) << ", last " << rows.back());
      expect_scattered(type, rows, 6);
    }
  }
}

TEST_P(Collectives, AllGetTheSumWhateverItsShape) {
  const std::vector<std::array<std::int64_t, 3>> shapes = {{1, 1, 1}, {2, 1, 1}, {5, 3, 1},
                                                           {3, 5, 7}, {0, 4, 2}, {1, 1000, 1}};
  for (const DType type : kTypes) {
    for (const auto& [depth, rows, columns] : shapes) {
      SCOPED_TRACE(testing::Message()
                   << name_of(type) << " (" << depth << ", " << rows << ", " << columns << ")");
      const std::int64_t size = depth * rows * columns;
      const AnyView x = tensors.poisoned(type, depth, rows, columns);
      from_doubles(exec, numbers_of(type, rank, size), x);
      const AnyView y = tensors.poisoned(type, depth, rows, columns);
      all_reduce_in_order(exec, scratch, *group, x, y);
      EXPECT_EQ(to_doubles(exec, y), expected(type, size));
      EXPECT_EQ(to_doubles(exec, x), numbers_of(type, rank, size)) << "only read";
      expect_equal_on_all_ranks(y);
      all_reduce_in_order(exec, scratch, *group, x, x);
      EXPECT_EQ(to_doubles(exec, x), to_doubles(exec, y)) << "in its place";
      EXPECT_EQ(scratch.mark().total, 0U);
    }
  }
}

TEST_P(Collectives, SumsOfRankOneAndTwo) {
  const AnyView flat = tensors.poisoned(DType::fp32, 9);
  from_doubles(exec, numbers_of(DType::fp32, rank, 9), flat);
  all_reduce_in_order(exec, scratch, *group, flat, flat);
  EXPECT_EQ(to_doubles(exec, flat), expected(DType::fp32, 9));
  const AnyView matrix = mine(DType::bf16, 3, 3);
  all_reduce_in_order(exec, scratch, *group, matrix, matrix);
  EXPECT_EQ(to_doubles(exec, matrix), expected(DType::bf16, 9));
}

TEST_P(Collectives, OfOneRankAreItsOwn) {
  const SoloTransport alone("alone");
  const AnyView x = mine(DType::bf16, 4, 3), y = tensors.poisoned(DType::bf16, 4, 3);
  reduce_scatter_in_order(exec, scratch, alone, x, y);
  EXPECT_EQ(to_doubles(exec, y), to_doubles(exec, x));
  tensors.poison(y);
  all_reduce_in_order(exec, scratch, alone, x, y);
  EXPECT_EQ(to_doubles(exec, y), to_doubles(exec, x));
}

TEST_P(Collectives, NarrowNumbersTravelNarrow) {
  std::vector<TransportCall> log;
  const RecordingTransport recorded(group, log);
  const AnyView x = mine(DType::bf16, 2 * ranks, 8);
  all_reduce_in_order(exec, scratch, recorded, x, x);
  ASSERT_EQ(log.size(), 2U);
  EXPECT_EQ(log[0].collective, "all_to_all");
  EXPECT_EQ(log[0].received_bytes, x.bytes());
  EXPECT_EQ(log[1].collective, "all_gather");
  EXPECT_EQ(log[1].received_bytes, x.bytes());
}

TEST_P(Collectives, RefuseShapesThatDoNotFit) {
  const AnyView partial = mine(DType::fp32, 2 * ranks, 3), y = tensors.poisoned(DType::fp32, 2, 3);
  const auto scatter = [&](const AnyIn& from, const Counts& rows, const AnyView& to) {
    expect_error([&] { reduce_scatter_in_order(exec, scratch, *group, from, rows, to); },
                 ExitCode::internal, {"reduce_scatter of group 'world'", to.describe()});
  };
  const Counts twos(static_cast<std::size_t>(ranks), 2);
  Counts more(twos);
  more[static_cast<std::size_t>(rank)] = 3;
  scatter(partial, {}, y);
  scatter(partial, more, y);
  scatter(mine(DType::fp32, 2 * ranks + 1, 3), twos, y);
  scatter(partial, twos, tensors.poisoned(DType::fp32, 2, 4));
  scatter(partial, twos, tensors.poisoned(DType::bf16, 2, 3));
  const AnyView other = tensors.poisoned(DType::fp32, 3, 2 * ranks);
  expect_error([&] { all_reduce_in_order(exec, scratch, *group, partial, other); },
               ExitCode::internal, {"all_reduce of group 'world'", "differ"});
}

}  // namespace
}  // namespace konclave
