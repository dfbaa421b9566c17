#include "ops/columns.hpp"
#include "tests/support/expect_error.hpp"
#include "tests/unit/kernels/kernel_test.hpp"

namespace konclave {
namespace {

class Columns : public KernelTest {};

TEST_F(Columns, CopyLeavesOtherColumnsAlone) {
  for_each_shape([&](DType type, int rows, int columns) {
    for (const int count : {0, 1, columns / 2, columns}) {
      const int first_x = columns - count, first_y = 2;
      const AnyView x = tensors_.random("x", type, rows, columns);
      const AnyView y = tensors_.random("y", type, rows, columns + 3);
      const Matrix from = read(x);
      Matrix expected = read(y);
      for (int t = 0; t < rows; ++t) {
        for (int i = 0; i < count; ++i) expected(t, first_y + i) = from(t, first_x + i);
      }
      ops::copy_columns(exec_, x, first_x, y, first_y, count);
      expect_close(y, expected.values, kExact, std::to_string(count));
    }
  });
}

TEST_F(Columns, CopyRoundsToAnotherType) {
  for_each_shape([&](DType type, int rows, int columns) {
    for (const DType other : kTypes) {
      const AnyView x = tensors_.random("x", type, rows, columns + 5);
      const AnyView y = tensors_.poisoned(other, rows, columns);
      const Matrix from = read(x);
      std::vector<double> expected;
      for (int t = 0; t < rows; ++t) {
        for (int i = 0; i < columns; ++i) expected.push_back(from(t, i + 4));
      }
      ops::copy_columns(exec_, x, 4, y, 0, columns);
      expect_close(y, rounded(other, expected), kExact, std::string(name_of(other)));
    }
  });
}

TEST_F(Columns, AddRoundsOnceAndLeavesOtherColumnsAlone) {
  for_each_shape([&](DType type, int rows, int columns) {
    const AnyView x = tensors_.random("x", accum_type(type), rows, columns);
    const AnyView y = tensors_.random("y", type, rows, columns + 3);
    const Matrix added = read(x);
    Matrix expected = read(y);
    for (int t = 0; t < rows; ++t) {
      for (int i = 0; i < columns; ++i) expected(t, 2 + i) += added(t, i);
    }
    ops::add_columns(exec_, x, y, /*first_y=*/2);
    expect_close(y, rounded(type, expected.values), tolerance(type), "y");
  });
}

TEST_F(Columns, SplitAndJoinMovePartsOfRanks) {
  for_each_shape([&](DType type, int rows, int columns) {
    for (const int ranks : {1, 2, 3}) {
      const AnyView x = tensors_.random("x", type, rows, ranks * columns);
      const AnyView parts = tensors_.poisoned(type, ranks * rows, columns);
      const AnyView joined = tensors_.poisoned(type, rows, ranks * columns);
      const Matrix whole = read(x);
      Matrix expected = zeros(ranks * rows, columns);
      for (int r = 0; r < ranks; ++r) {
        for (int t = 0; t < rows; ++t) {
          for (int i = 0; i < columns; ++i) expected(r * rows + t, i) = whole(t, r * columns + i);
        }
      }
      ops::split_columns(exec_, x, parts);
      expect_close(parts, expected.values, kExact, "split");
      ops::join_columns(exec_, parts, joined);
      expect_close(joined, whole.values, kExact, "joined");
    }
  });
}

TEST_F(Columns, WrongShapesAreRefused) {
  const AnyView x = tensors_.random("x", DType::fp32, 2, 6);
  const AnyView y = tensors_.poisoned(DType::fp32, 2, 4);
  expect_error([&] { ops::copy_columns(exec_, x, 3, y, 0, 4); }, ExitCode::internal,
               {"4 columns", "3", "fp32 (2, 6)"});
  EXPECT_THROW(ops::copy_columns(exec_, x, 0, y, 1, 4), Error);
  EXPECT_THROW(ops::split_columns(exec_, x, y), Error);
  EXPECT_THROW(ops::join_columns(exec_, y, x), Error);
}

}  // namespace
}  // namespace konclave
