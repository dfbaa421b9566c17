#include "ops/elementwise.hpp"
#include "tests/unit/kernels/kernel_test.hpp"

#include <limits>

namespace konclave {
namespace {

class Elementwise : public KernelTest {};

TEST_F(Elementwise, AddRoundsOnceAndMayWorkInPlace) {
  for_each_shape([&](DType type, int rows, int columns) {
    const AnyView a = tensors_.random("a", type, rows, columns), a_sum = tensors_.copy(a);
    const AnyView b = tensors_.random("b", type, rows, columns), b_sum = tensors_.copy(b);
    const AnyView sum = tensors_.poisoned(type, rows, columns);
    const std::vector<double> read_a = read(a).values;
    std::vector<double> expected = read_a;
    const std::vector<double> added = read(b).values;
    for (std::size_t i = 0; i < expected.size(); ++i) expected[i] += added[i];
    expected = rounded(type, expected);

    ops::add(exec_, a, b, sum);
    ops::add(exec_, a_sum, b, a_sum);
    ops::add(exec_, a, b_sum, b_sum);
    const AnyView wide = tensors_.random("wide", accum_type(type), rows, columns);
    const AnyView wide_sum = tensors_.copy(a);
    ops::add(exec_, wide_sum, wide, wide_sum);

    expect_close(sum, expected, kExact, "y apart");
    expect_close(a_sum, expected, kExact, "y is a");
    expect_close(b_sum, expected, kExact, "y is b");
    std::vector<double> of_wide = read(wide).values;
    for (std::size_t i = 0; i < of_wide.size(); ++i) of_wide[i] += read_a[i];
    expect_close(wide_sum, rounded(type, of_wide), kExact, "b is wide");
  });
}

TEST_F(Elementwise, AddTakesAnyRank) {
  const AnyView row = tensors_.random("r", DType::fp32, 5);
  const AnyView cube = tensors_.random("c", DType::fp32, 2, 3, 5);
  for (const AnyView& view : {row, cube}) {
    std::vector<double> twice = to_doubles(exec_, view);
    for (double& value : twice) value *= 2;
    ops::add(exec_, view, view, view);
    expect_close(view, twice, kExact, view.describe());
  }
}

TEST_F(Elementwise, CastRoundsToTheTypeOfY) {
  for_each_shape([&](DType from, int rows, int columns) {
    for (const DType to : kTypes) {
      const AnyView x = tensors_.random("x", from, rows, columns);
      const AnyView y = tensors_.poisoned(to, rows, columns);
      ops::cast(exec_, x, y);
      expect_close(y, rounded(to, read(x).values), kExact, std::string(name_of(to)));
    }
  });
}

TEST_F(Elementwise, FillZero) {
  for_each_shape([&](DType type, int rows, int columns) {
    const AnyView y = tensors_.poisoned(type, rows, columns);
    ops::fill_zero(exec_, y);
    expect_close(y, zeros(rows, columns).values, kExact, "y");
  });
}

TEST_F(Elementwise, AllFiniteSeesOneBadElement) {
  const double infinity = std::numeric_limits<double>::infinity();
  for (const DType type : kTypes) {
    for (const double bad : {infinity, -infinity, std::numeric_limits<double>::quiet_NaN()}) {
      std::vector<double> values(1000, 1e30);
      EXPECT_TRUE(ops::all_finite(exec_, vector(type, values)));
      values[997] = bad;
      EXPECT_FALSE(ops::all_finite(exec_, vector(type, values))) << bad;
    }
    EXPECT_TRUE(ops::all_finite(exec_, tensors_.poisoned(type, 0, 3)));
  }
}

TEST_F(Elementwise, AddBiasIsAddedToEveryRow) {
  for_each_shape([&](DType type, int rows, int columns) {
    const AnyView b = tensors_.random("b", type, columns);
    const AnyView y = tensors_.random("y", type, rows, columns);
    const Matrix bias = read(b);
    Matrix expected = read(y);
    for (int t = 0; t < rows; ++t) {
      for (int h = 0; h < columns; ++h) expected(t, h) += bias(h, 0);
    }
    ops::add_bias(exec_, b, y);
    expect_close(y, rounded(type, expected.values), kExact, "y");
  });
}

TEST_F(Elementwise, AccumulateRowsAddsColumnSums) {
  for_each_shape([&](DType type, int rows, int columns) {
    const AnyView dy = tensors_.random("dy", type, rows, columns);
    const AnyView db = tensors_.random("db", accum_type(type), columns);
    const Matrix upstream = read(dy);
    std::vector<double> expected = to_doubles(exec_, db);
    for (int t = 0; t < rows; ++t) {
      for (int h = 0; h < columns; ++h) expected[static_cast<std::size_t>(h)] += upstream(t, h);
    }
    ops::accumulate_rows(exec_, dy, db);
    expect_close(db, expected, tolerance(accum_type(type)), "db", /*typical=*/1);
  });
}

TEST_F(Elementwise, AccumulateRowsIsTheGradientOfAddBias) {
  const AnyView b = tensors_.random("b", DType::fp64, 5);
  const AnyView start = tensors_.random("y", DType::fp64, 3, 5);
  const AnyView dy = tensors_.random("dy", DType::fp64, 3, 5);
  const AnyView db = vector(DType::fp64, {0, 0, 0, 0, 0});
  ops::accumulate_rows(exec_, dy, db);
  const auto objective = [&] {
    const AnyView y = tensors_.copy(start);
    ops::add_bias(exec_, b, y);
    return dot(read(y).values, read(dy).values);
  };
  expect_gradient(db, b, objective, "db");
}

}  // namespace
}  // namespace konclave
