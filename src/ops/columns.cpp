#include "ops/columns.hpp"

#include "ops/rows.hpp"

#include <type_traits>

namespace konclave::ops {

namespace {

/// Asks for `count` elements from `row` on.
template <typename X>
KOKKOS_INLINE_FUNCTION void prefetch_columns(const X* row, std::int64_t count) {
  constexpr std::int64_t kOfLine = 64 / sizeof(X);
  for (std::int64_t i = 0; i < count; i += kOfLine) prefetch(row + i);
}

/// Columns of neighbouring rows are far from each other: they are asked for so many rows ahead.
constexpr int kRowsAhead = 8;

template <typename X, typename Y>
void copy_kernel(const ExecSpace& exec, View2<const X> x, std::int64_t first_x, View2<Y> y,
                 std::int64_t first_y, std::int64_t count) {
  const int rows = y.extent_int(0);
  Kokkos::parallel_for(
      "konclave::ops::copy_columns", row_policy(exec, rows), KOKKOS_LAMBDA(const RowMember& team) {
        const int row = team.league_rank();
        const X* from = &x(row, first_x);
        Y* to = &y(row, first_y);
        if (row + kRowsAhead < rows) prefetch_columns(&x(row + kRowsAhead, first_x), count);
        if constexpr (std::is_same_v<X, Y>) {
          row_copy(team, count, from, to);
        } else {
          row_tiles(team, count, [&](auto tile, std::int64_t i) {
            Y part[tile];
            for (int l = 0; l < tile; ++l) part[l] = Y(from[i + l]);
            for (int l = 0; l < tile; ++l) to[i + l] = part[l];
          });
        }
      });
}

template <typename Y>
void add_kernel(const ExecSpace& exec, View2<const Accum<Y>> x, View2<Y> y, std::int64_t first_y) {
  const std::int64_t count = x.extent_int(1);
  const int rows = y.extent_int(0);
  Kokkos::parallel_for(
      "konclave::ops::add_columns", row_policy(exec, rows), KOKKOS_LAMBDA(const RowMember& team) {
        const int row = team.league_rank();
        const Accum<Y>* from = &x(row, 0);
        Y* to = &y(row, first_y);
        if (row + kRowsAhead < rows) prefetch_columns(&y(row + kRowsAhead, first_y), count);
        row_tiles(team, count, [&](auto tile, std::int64_t i) {
          Accum<Y> sum[tile];
          for (int l = 0; l < tile; ++l) sum[l] = Accum<Y>(to[i + l]) + from[i + l];
          for (int l = 0; l < tile; ++l) to[i + l] = Y(sum[l]);
        });
      });
}

bool has_columns(const AnyIn& view, std::int64_t first, std::int64_t count) {
  return first >= 0 && count >= 0 && first + count <= view.extent(1);
}

/// Of a view (T, R n) and one (R T, n).
bool are_parts(const AnyIn& whole, const AnyIn& parts) {
  return parts.extent(1) > 0 && whole.extent(1) % parts.extent(1) == 0 &&
         whole.size() == parts.size();
}

}  // namespace

void copy_columns(const ExecSpace& exec, const AnyIn& x, std::int64_t first_x, const AnyView& y,
                  std::int64_t first_y, std::int64_t count) {
  require(x.extent(0) == y.extent(0) && has_columns(x, first_x, count) &&
              has_columns(y, first_y, count),
          "copy_columns: " + std::to_string(count) + " columns from " + std::to_string(first_x) +
              " of " + x.describe() + " to " + std::to_string(first_y) + " of " + y.describe());
  if (count == 0 || x.empty()) return;
  dispatch(x.type(), [&](auto from) {
    using X = typename decltype(from)::type;
    dispatch(y.type(), [&](auto to) {
      using Y = typename decltype(to)::type;
      copy_kernel<X, Y>(exec, x.as2<X>(), first_x, y.as2<Y>(), first_y, count);
    });
  });
}

void add_columns(const ExecSpace& exec, const AnyIn& x, const AnyView& y, std::int64_t first_y) {
  require(x.extent(0) == y.extent(0) && x.type() == accum_type(y.type()) &&
              has_columns(y, first_y, x.extent(1)),
          "add_columns: " + x.describe() + " to columns from " + std::to_string(first_y) + " of " +
              y.describe());
  if (x.empty()) return;
  dispatch(y.type(), [&](auto tag) {
    using Y = typename decltype(tag)::type;
    add_kernel<Y>(exec, x.as2<Accum<Y>>(), y.as2<Y>(), first_y);
  });
}

void split_columns(const ExecSpace& exec, const AnyIn& x, const AnyView& y) {
  require(are_parts(x, y), "split_columns: want x (T, R n), y (R T, n)");
  const std::int64_t rows = x.extent(0), columns = y.extent(1);
  for (std::int64_t r = 0; r < x.extent(1) / columns; ++r) {
    copy_columns(exec, x, r * columns, y.slice(r * rows, rows), 0, columns);
  }
}

void join_columns(const ExecSpace& exec, const AnyIn& x, const AnyView& y) {
  require(are_parts(y, x), "join_columns: want x (R T, n), y (T, R n)");
  const std::int64_t rows = y.extent(0), columns = x.extent(1);
  for (std::int64_t r = 0; r < y.extent(1) / columns; ++r) {
    copy_columns(exec, x.slice(r * rows, rows), 0, y, r * columns, columns);
  }
}

}  // namespace konclave::ops
