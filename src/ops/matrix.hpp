#pragma once

#include "tensor/view.hpp"

#include <cstdint>
#include <string>
#include <type_traits>

namespace konclave::ops {

/// A block of a row-major matrix on the device, as BLAS sees it: element (i,j) is
/// data[i*stride + j]. For instance the columns of one head of q (T, heads*dk). Borrows.
template <typename X> struct Matrix {
  X* data = nullptr;
  std::int64_t rows = 0, columns = 0, stride = 0;

  bool empty() const { return rows == 0 || columns == 0; }
  Matrix row_block(std::int64_t first, std::int64_t count) const {
    return {data + first * stride, count, columns, stride};
  }
  operator Matrix<const X>() const requires(!std::is_const_v<X>) {
    return {data, rows, columns, stride};
  }
};

/// A tagged view of rank 2 and element type X as a matrix.
template <typename X> Matrix<const X> matrix_of(const AnyIn& view) {
  return {view.as2<X>().data(), view.extent(0), view.extent(1), view.extent(1)};
}
template <typename X> Matrix<X> matrix_of(const AnyView& view) {
  return {view.as2<X>().data(), view.extent(0), view.extent(1), view.extent(1)};
}

/// A matrix as it enters a product: as it is, or transposed.
template <typename A> struct Factor {
  Matrix<const A> matrix;
  bool transposed = false;

  std::int64_t rows() const { return transposed ? matrix.columns : matrix.rows; }
  std::int64_t columns() const { return transposed ? matrix.rows : matrix.columns; }
};
template <typename A> Factor<std::remove_const_t<A>> transposed(const Matrix<A>& matrix) {
  return {matrix, true};
}

/// c = alpha a b + beta c, what a backend brings for algorithms made of products.
/// Asynchronous on `exec`. Any extent may be 0; c is not read when beta is 0.
template <typename A>
using MatrixProduct = void (*)(const ExecSpace& exec, A alpha, const Factor<A>& a,
                               const Factor<A>& b, A beta, const Matrix<A>& c);

/// The functions below run on `exec`; they neither allocate nor fence.

/// to = from, exactly.
void widen(const ExecSpace& exec, Matrix<const Bf16> from, Matrix<float> to);
/// to = from, or to + from when `accumulate`; rounded once.
void round(const ExecSpace& exec, Matrix<const float> from, Matrix<Bf16> to,
           bool accumulate = false);
/// to = 0. Instantiated for float and double.
template <typename A> void set_zero(const ExecSpace& exec, Matrix<A> to);

/// Hands out pieces of a workspace, one behind the other and each aligned to 64 bytes. Passed by
/// value, it takes back at the end of a function what was handed out in it.
template <typename A> class Workspace {
 public:
  explicit Workspace(const AnyView& view)
      : next_(static_cast<A*>(view.data())),
        left_(static_cast<std::int64_t>(view.bytes() / sizeof(A))) {}

  Matrix<A> take(std::int64_t rows, std::int64_t columns) {
    const std::int64_t size = piece(rows, columns);
    require(size <= left_, "a workspace has " + std::to_string(left_) + " elements left where " +
                               std::to_string(size) + " are wanted");
    const Matrix<A> taken{next_, rows, columns, columns};
    next_ += size;
    left_ -= size;
    return taken;
  }
  /// Elements that `take` uses up.
  static std::int64_t piece(std::int64_t rows, std::int64_t columns) {
    constexpr std::int64_t kLine = 64 / sizeof(A);
    return (rows * columns + kLine - 1) / kLine * kLine;
  }

 private:
  A* next_;
  std::int64_t left_;
};

/// `from` in the type that sums are taken in: itself, or a copy in the workspace.
template <typename X>
Matrix<const Accum<X>> widened(const ExecSpace& exec, Matrix<const X> from,
                               Workspace<Accum<X>>& workspace) {
  if constexpr (std::is_same_v<X, Accum<X>>) {
    return from;
  } else {
    const Matrix<Accum<X>> wide = workspace.take(from.rows, from.columns);
    widen(exec, from, wide);
    return wide;
  }
}

/// Where to make `result` in the type that sums are taken in: in place, or in the workspace, and
/// then `store` rounds it.
template <typename X>
Matrix<Accum<X>> wide_result(const Matrix<X>& result, Workspace<Accum<X>>& workspace) {
  if constexpr (std::is_same_v<X, Accum<X>>) {
    return result;
  } else {
    return workspace.take(result.rows, result.columns);
  }
}
template <typename X>
void store(const ExecSpace& exec, const Matrix<Accum<X>>& wide, const Matrix<X>& result) {
  if constexpr (!std::is_same_v<X, Accum<X>>) round(exec, wide, result);
}

}  // namespace konclave::ops
