#pragma once

#include "tests/support/close.hpp"
#include "tests/support/tensors.hpp"
#include "tests/support/view_differences.hpp"

#include <gtest/gtest.h>

#include <string>
#include <utility>
#include <vector>

namespace konclave {

inline constexpr DType kTypes[] = {DType::bf16, DType::fp32, DType::fp64};
inline constexpr DType kAccumTypes[] = {DType::fp32, DType::fp64};
/// Rows and columns: none, one, primes, one past 32, 64 and 128.
inline constexpr std::pair<int, int> kShapes[] = {{0, 3},  {1, 1},   {2, 7},  {7, 32},
                                                  {3, 33}, {64, 13}, {5, 65}, {65, 131}};
inline constexpr Tolerance kExact{0, 0};

/// A view's elements on the host.
struct Matrix {
  std::int64_t rows = 0, columns = 0;
  std::vector<double> values;

  double& operator()(std::int64_t row, std::int64_t column) {
    return values[static_cast<std::size_t>(row * columns + column)];
  }
  double operator()(std::int64_t row, std::int64_t column) const {
    return values[static_cast<std::size_t>(row * columns + column)];
  }
};

/// What the tests of the portable operations share. Expected values are computed in double by
/// plain loops over the inputs as the type under test holds them.
class KernelTest : public testing::Test {
 protected:
  Matrix read(const AnyIn& view) const {
    return {view.extent(0), view.extent(1), to_doubles(exec_, view)};
  }
  Matrix zeros(std::int64_t rows, std::int64_t columns) const {
    return {rows, columns, std::vector<double>(static_cast<std::size_t>(rows * columns))};
  }
  /// A vector (rank 1) of given values.
  AnyView vector(DType type, const std::vector<double>& values) {
    const AnyView view = tensors_.poisoned(type, values.size());
    from_doubles(exec_, values, view);
    return view;
  }
  /// Integers to be written, full of NaN patterns.
  View1<int> integers(std::int64_t size) {
    void* const data = tensors_.poisoned(DType::fp32, size).data();
    return View1<int>(static_cast<int*>(data), static_cast<std::size_t>(size));
  }
  View1<double> doubles(std::int64_t size) {
    return tensors_.poisoned(DType::fp64, size).as1<double>();
  }
  /// The values after rounding to a type.
  std::vector<double> rounded(DType type, const std::vector<double>& values) {
    return to_doubles(exec_, vector(type, values));
  }

  /// f(type, rows, columns) for all types and shapes, with fresh memory each.
  template <typename F> void for_each_shape(F&& f) {
    for (const DType type : kTypes) {
      for (const auto& [rows, columns] : kShapes) {
        SCOPED_TRACE(std::string(name_of(type)) + " (" + std::to_string(rows) + ", " +
                     std::to_string(columns) + ")");
        tensors_ = Tensors(exec_);
        f(type, rows, columns);
      }
    }
  }

  void expect_close(const AnyIn& actual, const std::vector<double>& expected,
                    const Tolerance& allowed, const std::string& what, double typical = 0) const {
    EXPECT_TRUE(close(to_doubles(exec_, actual), expected, allowed, typical)) << what;
  }
  /// `gradient` against central differences of objective() by all elements of `input`.
  template <typename Objective>
  void expect_gradient(const AnyIn& gradient, const AnyView& input, Objective&& objective,
                       const std::string& what) const {
    expect_close(gradient, view_differences(exec_, input, objective), kDifferenceTolerance, what);
  }

  ExecSpace exec_;
  Tensors tensors_{exec_};
};

}  // namespace konclave
