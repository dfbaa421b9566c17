#include "ops/columns.hpp"

#include "ops/rows.hpp"

namespace konclave::ops {

namespace {

template <typename X>
void copy_kernel(const ExecSpace& exec, View2<const X> x, std::int64_t first_x, View2<X> y,
                 std::int64_t first_y, std::int64_t count) {
  Kokkos::parallel_for(
      "konclave::ops::copy_columns", row_policy(exec, y.extent_int(0)),
      KOKKOS_LAMBDA(const RowMember& team) {
        const int row = team.league_rank();
        row_copy(team, count, &x(row, first_x), &y(row, first_y));
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
  dispatch(y.type(), [&](auto tag) {
    using X = typename decltype(tag)::type;
    copy_kernel<X>(exec, x.as2<X>(), first_x, y.as2<X>(), first_y, count);
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
