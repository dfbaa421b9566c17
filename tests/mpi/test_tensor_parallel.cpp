#include "parallel/entering.hpp"
#include "parallel/leaving.hpp"
#include "parallel/tensor_parallel.hpp"
#include "tests/mpi/all_ranks.hpp"
#include "tests/support/expect_error.hpp"
#include "tests/support/tensors.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <numeric>

namespace konclave {
namespace {

using Values = std::vector<double>;

constexpr std::int64_t kHidden = 5;

Values slice_of(const Values& all, std::int64_t first, std::int64_t count) {
  return {all.begin() + first, all.begin() + first + count};
}

double product(const Values& a, const Values& b) {
  return std::inner_product(a.begin(), a.end(), b.begin(), 0.0);
}

/// The sizes that tp can have on the ranks of this job.
struct TensorParallelTest : testing::Test {
  template <typename Check> void for_each_size(bool sp, Check check, bool overlap = false) {
    const int world = Communicator::world().size();
    for (int tp = 1; tp <= world; ++tp) {
      if (world % tp != 0) continue;
      SCOPED_TRACE(testing::Message() << "tp " << tp);
      ParallelConfig parallel;
      parallel.tp = tp;
      parallel.sp = sp;
      parallel.overlap_tp = overlap;
      const AllRanks all(parallel);
      check(TensorParallel(all.groups), *all.groups.tp);
    }
  }
  /// Numbers that differ from rank to rank, and those of another.
  static Values numbers(const char* purpose, const Transport& tp, int rank, std::int64_t count) {
    return random_values(
        std::string(purpose) + " of " + std::to_string(rank) + "/" + std::to_string(tp.size()),
        count);
  }
  static Values sum_over(const char* purpose, const Transport& tp, std::int64_t count) {
    Values sums(static_cast<std::size_t>(count), 0);
    for (int rank = 0; rank < tp.size(); ++rank) {
      const Values theirs = numbers(purpose, tp, rank, count);
      for (std::size_t i = 0; i < sums.size(); ++i) sums[i] += theirs[i];
    }
    return sums;
  }

  ExecSpace exec;
  Tensors tensors{exec};
  MemoryAccount account;
  Arena arena{account, MemoryClass::buffers, "arena"};
};

TEST_F(TensorParallelTest, IsTheGroup) {
  for_each_size(true, [](const TensorParallel& parallel, const Transport& tp) {
    EXPECT_EQ(parallel.rank(), tp.rank());
    EXPECT_EQ(parallel.ranks(), tp.size());
    EXPECT_EQ(&parallel.group(), &tp);
    EXPECT_EQ(parallel.shares_rows(), tp.size() > 1);
    EXPECT_EQ(parallel.rows_inside(3), 3 * tp.size());
    EXPECT_EQ(parallel.rows_outside(3 * tp.size()), 3);
    if (tp.size() > 1) {
      expect_error([&] { static_cast<void>(parallel.rows_outside(tp.size() + 1)); },
                   ExitCode::internal, {"over tp"});
    }
  });
  for_each_size(false, [](const TensorParallel& parallel, const Transport&) {
    EXPECT_FALSE(parallel.shares_rows());
    EXPECT_EQ(parallel.rows_inside(3), 3);
    EXPECT_EQ(parallel.rows_outside(3), 3);
  });
}

TEST_F(TensorParallelTest, WithoutSharedRowsEnteringIsNothingAndLeavingAddsUp) {
  for_each_size(false, [&](const TensorParallel& parallel, const Transport& tp) {
    const std::int64_t size = 3 * kHidden;
    const AnyView x = tensors.random("x", DType::fp64, 3, kHidden);
    EXPECT_EQ(parallel.enter(exec, arena, x).data(), x.data());

    const AnyView y = tensors.poisoned(DType::fp64, 3, kHidden);
    const AnyView partial = parallel.partial(arena, y);
    EXPECT_EQ(partial.data() == y.data(), tp.size() == 1);
    ASSERT_TRUE(same_shape(partial, y));
    from_doubles(exec, numbers("partial", tp, tp.rank(), size), partial);
    parallel.leave(exec, arena, partial, y);
    EXPECT_EQ(to_doubles(exec, y), sum_over("partial", tp, size));
  });
}

TEST_F(TensorParallelTest, WithSharedRowsEnteringGathersThemAndLeavingGivesTheSumsOnesBack) {
  for_each_size(true, [&](const TensorParallel& parallel, const Transport& tp) {
    const std::int64_t size = 3 * kHidden;
    const AnyView x = tensors.values(DType::fp64, numbers("x", tp, tp.rank(), size), 3, kHidden);
    const AnyIn all = parallel.enter(exec, arena, x);
    ASSERT_EQ(all.extent(0), 3 * tp.size());
    for (int from = 0; from < tp.size(); ++from) {
      EXPECT_EQ(to_doubles(exec, all.slice(3 * from, 3)), numbers("x", tp, from, size));
    }

    const AnyView y = tensors.poisoned(DType::fp64, 3, kHidden);
    const AnyView partial = parallel.partial(arena, y);
    ASSERT_EQ(partial.extent(0), 3 * tp.size());
    from_doubles(exec, numbers("partial", tp, tp.rank(), size * tp.size()), partial);
    parallel.leave(exec, arena, partial, y);
    EXPECT_EQ(to_doubles(exec, y),
              slice_of(sum_over("partial", tp, size * tp.size()), size * tp.rank(), size));
  });
}

TEST_F(TensorParallelTest, EachWayIsTheGradientOfTheOther) {
  for_each_size(true, [&](const TensorParallel& parallel, const Transport& tp) {
    const std::int64_t size = 2 * kHidden;
    const AnyView x = tensors.values(DType::fp64, numbers("x", tp, tp.rank(), size), 2, kHidden);
    const AnyIn entered = parallel.enter(exec, arena, x);
    const AnyView back = tensors.poisoned(DType::fp64, 2, kHidden);
    const AnyView gradient = parallel.partial(arena, back);
    const Values of_inside = numbers("g", tp, tp.rank(), size * tp.size());
    from_doubles(exec, of_inside, gradient);
    parallel.leave(exec, arena, gradient, back);
    // <enter(x), g> = <x, leave(g)>, added up over the ranks.
    EXPECT_NEAR(tp.sum(product(to_doubles(exec, entered), of_inside)),
                tp.sum(product(to_doubles(exec, x), to_doubles(exec, back))), 1e-10);
  });
}

TEST_F(TensorParallelTest, ThereMayBeNoRows) {
  for (const bool sp : {false, true}) {
    for_each_size(sp, [&](const TensorParallel& parallel, const Transport&) {
      const AnyView none = tensors.poisoned(DType::bf16, 0, kHidden);
      EXPECT_EQ(parallel.enter(exec, arena, none).extent(0), 0);
      parallel.leave(exec, arena, parallel.partial(arena, none), none);
    });
  }
}

TEST_F(TensorParallelTest, PiecesAreAllRowsOnceAndNoneIsSmall) {
  for_each_size(
      true,
      [](const TensorParallel& parallel, const Transport& tp) {
        EXPECT_EQ(parallel.overlaps(), tp.size() > 1);
        if (tp.size() == 1) return;
        for (const std::int64_t rows : {0, 1, 63, 127, 128, 201, 1000, 100000}) {
          std::int64_t next = 0;
          const std::vector<RowBlock> pieces = parallel.pieces(rows);
          for (const RowBlock& piece : pieces) {
            EXPECT_EQ(piece.first, next);
            EXPECT_GE(piece.rows, std::min<std::int64_t>(rows, 64));
            next += piece.rows;
          }
          EXPECT_EQ(next, rows);
          const std::size_t of_others = pieces.size() * (parallel.ranks() - 1);
          EXPECT_GE(of_others, rows == 100000 ? 8U : 0U);
          EXPECT_LT(of_others, 8U + parallel.ranks());
        }
      },
      /*overlap=*/true);
}

/// With and without overlap: rows of one piece, and of several.
TEST_F(TensorParallelTest, PieceByPieceTheSameRowsEnterAndTheSameSumsLeave) {
  Operations operations({}, {}, account);
  for (const bool overlap : {false, true}) {
    for (const std::int64_t rows : {0, 3, 201}) {
      SCOPED_TRACE(testing::Message() << rows << " rows, overlap " << overlap);
      for_each_size(
          true,
          [&](const TensorParallel& parallel, const Transport& tp) {
            const std::int64_t size = rows * kHidden;
            const AnyView x =
                tensors.values(DType::fp64, numbers("x", tp, tp.rank(), size), rows, kHidden);
            const Values expected = to_doubles(exec, parallel.enter(exec, arena, x));
            Entering entering(exec, operations, arena, parallel, x);
            std::vector<int> seen(static_cast<std::size_t>(parallel.rows_inside(rows)), 0);
            entering.each([&](const RowBlock& piece, const AnyIn& values) {
              EXPECT_EQ(to_doubles(exec, values),
                        slice_of(expected, piece.first * kHidden, piece.rows * kHidden));
              for (std::int64_t i = 0; i < piece.rows; ++i) ++seen[piece.first + i];
            });
            EXPECT_EQ(seen, std::vector<int>(seen.size(), 1));
            EXPECT_EQ(to_doubles(exec, entering.all()), expected);
            Entering all_at_once(exec, operations, arena, parallel, x);
            EXPECT_EQ(to_doubles(exec, all_at_once.all()), expected);

            const AnyView y = tensors.poisoned(DType::fp64, rows, kHidden);
            const Values mine = numbers("partial", tp, tp.rank(), size * tp.size());
            Leaving leaving(exec, operations, arena, parallel, y);
            leaving.each([&](const RowBlock& piece, const AnyView& partial) {
              from_doubles(exec, slice_of(mine, piece.first * kHidden, piece.rows * kHidden),
                           partial);
            });
            leaving.finish();
            EXPECT_EQ(to_doubles(exec, y),
                      slice_of(sum_over("partial", tp, size * tp.size()), size * tp.rank(), size));
          },
          overlap);
    }
  }
}

TEST_F(TensorParallelTest, OneRankMakesItsResultInItsPlace) {
  const TensorParallel parallel(Groups::alone());
  const AnyView y = tensors.random("y", DType::fp32, 3, kHidden);
  const Values before = to_doubles(exec, y);
  parallel.leave(exec, arena, parallel.partial(arena, y), y);
  EXPECT_EQ(to_doubles(exec, y), before);
  const AnyView other = tensors.random("other", DType::fp32, 3, kHidden);
  expect_error([&] { parallel.leave(exec, arena, other, y); }, ExitCode::internal, {"leave"});
}

}  // namespace
}  // namespace konclave
