#pragma once

#include "tensor/view.hpp"

#include <cstdint>

/// Ranges of columns, such as those of some heads: a rank's part of a matrix, and back. All run on
/// `exec`; none allocates or fences. T may be 0.
namespace konclave::ops {

/// y[t, first_y + i] = x[t, first_x + i] in y's type, for 0 <= i < count; other columns of y keep
/// their values.   Shapes  x (T,N)   y (T,M), other memory.
void copy_columns(const ExecSpace& exec, const AnyIn& x, std::int64_t first_x, const AnyView& y,
                  std::int64_t first_y, std::int64_t count);

/// y[t, first_y + i] += x[t, i], rounded once.
/// Shapes  x (T,n), of the accumulation type of y   y (T,M), other memory.
void add_columns(const ExecSpace& exec, const AnyIn& x, const AnyView& y, std::int64_t first_y);

/// y[r T + t, i] = x[t, r n + i]: the columns of R parts one behind the other.
/// Shapes  x (T, R n)   y (R T, n) of x's type, other memory.
void split_columns(const ExecSpace& exec, const AnyIn& x, const AnyView& y);

/// y[t, r n + i] = x[r T + t, i], the inverse.
/// Shapes  x (R T, n)   y (T, R n) of x's type, other memory.
void join_columns(const ExecSpace& exec, const AnyIn& x, const AnyView& y);

}  // namespace konclave::ops
