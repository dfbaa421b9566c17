#include "ops/elementwise.hpp"

#include "ops/rows.hpp"

namespace konclave::ops {

namespace {

template <typename X, typename B>
void add_kernel(const ExecSpace& exec, View1<const X> a, View1<const B> b, View1<X> y) {
  using A = Accum<X>;
  const X* pa = a.data();
  const B* pb = b.data();
  X* py = y.data();
  Kokkos::parallel_for(
      "konclave::ops::add", Range(exec, 0, static_cast<std::int64_t>(y.size())),
      KOKKOS_LAMBDA(const std::int64_t i) { py[i] = X(A(pa[i]) + A(pb[i])); });
}

template <typename X, typename Y>
void cast_kernel(const ExecSpace& exec, View1<const X> x, View1<Y> y) {
  const X* px = x.data();
  Y* py = y.data();
  Kokkos::parallel_for(
      "konclave::ops::cast", Range(exec, 0, static_cast<std::int64_t>(y.size())),
      KOKKOS_LAMBDA(const std::int64_t i) { py[i] = Y(static_cast<Accum<Y>>(Accum<X>(px[i]))); });
}

template <typename X> void add_bias_kernel(const ExecSpace& exec, View1<const X> b, View2<X> y) {
  using A = Accum<X>;
  const std::int64_t columns = y.extent_int(1);
  Kokkos::parallel_for(
      "konclave::ops::add_bias", row_policy(exec, y.extent_int(0)),
      KOKKOS_LAMBDA(const RowMember& team) {
        X* row = &y(team.league_rank(), 0);
        row_for(team, columns, [&](std::int64_t h) { row[h] = X(A(row[h]) + A(b(h))); });
      });
}

template <typename X>
void accumulate_rows_kernel(const ExecSpace& exec, View2<const X> x, View1<Accum<X>> sum) {
  accumulate_columns<Accum<X>>(
      "konclave::ops::accumulate_rows", exec, x.extent_int(0), x.extent_int(1), sum,
      KOKKOS_LAMBDA(std::int64_t t, std::int64_t h) { return Accum<X>(x(t, h)); });
}

template <typename X> bool all_finite_kernel(const ExecSpace& exec, View1<const X> x) {
  using A = Accum<X>;
  const X* px = x.data();
  std::int64_t bad = 0;
  Kokkos::parallel_reduce(
      "konclave::ops::all_finite", Range(exec, 0, static_cast<std::int64_t>(x.size())),
      KOKKOS_LAMBDA(const std::int64_t i, std::int64_t& count) {
        const A value = A(px[i]);
        // Only of a finite number is the difference 0.
        count += value - value == A(0) ? 0 : 1;
      },
      bad);
  return bad == 0;
}

}  // namespace

void add(const ExecSpace& exec, const AnyIn& a, const AnyIn& b, const AnyView& y) {
  require(same_shape(a, b) && same_shape(a, y), "add: a, b and y differ in shape");
  if (y.empty()) return;
  dispatch(y.type(), [&](auto tag) {
    using X = typename decltype(tag)::type;
    if (b.type() == y.type()) {
      add_kernel<X, X>(exec, a.flat<X>(), b.flat<X>(), y.flat<X>());
    } else {
      add_kernel<X, Accum<X>>(exec, a.flat<X>(), b.flat<Accum<X>>(), y.flat<X>());
    }
  });
}

void cast(const ExecSpace& exec, const AnyIn& x, const AnyView& y) {
  require(x.size() == y.size(), "cast: x and y differ in size");
  if (y.empty()) return;
  dispatch(x.type(), [&](auto from) {
    using X = typename decltype(from)::type;
    dispatch(y.type(), [&](auto to) {
      using Y = typename decltype(to)::type;
      cast_kernel<X, Y>(exec, x.flat<X>(), y.flat<Y>());
    });
  });
}

void fill_zero(const ExecSpace& exec, const AnyView& y) {
  if (y.empty()) return;
  Kokkos::deep_copy(exec, View1<char>(static_cast<char*>(y.data()), y.bytes()), char{0});
}

void add_bias(const ExecSpace& exec, const AnyIn& b, const AnyView& y) {
  require(b.extent(0) == y.extent(1), "add_bias: want b (H), y (T,H)");
  if (y.empty()) return;
  dispatch(y.type(), [&](auto tag) {
    using X = typename decltype(tag)::type;
    add_bias_kernel<X>(exec, b.as1<X>(), y.as2<X>());
  });
}

void accumulate_rows(const ExecSpace& exec, const AnyIn& x, const AnyView& sum) {
  require(sum.extent(0) == x.extent(1), "accumulate_rows: want x (T,H), sum (H)");
  dispatch(x.type(), [&](auto tag) {
    using X = typename decltype(tag)::type;
    accumulate_rows_kernel<X>(exec, x.as2<X>(), sum.as1<Accum<X>>());
  });
}

bool all_finite(const ExecSpace& exec, const AnyIn& x) {
  if (x.empty()) return true;
  bool result = true;
  dispatch(x.type(), [&](auto tag) {
    using X = typename decltype(tag)::type;
    result = all_finite_kernel<X>(exec, x.flat<X>());
  });
  return result;
}

}  // namespace konclave::ops
