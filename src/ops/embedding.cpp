#include "ops/embedding.hpp"

#include "base/fault.hpp"
#include "ops/rows.hpp"

namespace konclave::ops {

namespace {

template <typename X>
void gather_kernel(const ExecSpace& exec, View2<const X> x, View1<const int> source, View2<X> y) {
  const std::int64_t hidden = x.extent_int(1);
  const int lowest = fault("embedding.double_rows") ? 0 : -1;
  Kokkos::parallel_for(
      "konclave::ops::gather_rows", row_policy(exec, y.extent_int(0)),
      KOKKOS_LAMBDA(const RowMember& team) {
        const int wanted = source(team.league_rank()), row = wanted < lowest ? lowest : wanted;
        X* out = &y(team.league_rank(), 0);
        if (row < 0) {
          row_for(team, hidden, [=](std::int64_t h) { out[h] = X(0); });
          return;
        }
        row_copy(team, hidden, &x(row, 0), out);
      });
}

template <typename X>
void gradient_kernel(const ExecSpace& exec, View2<const X> dy, View1<const int> order,
                     View1<const int> run_offsets, View1<const int> ids, View2<Accum<X>> dw) {
  using A = Accum<X>;
  const std::int64_t hidden = dy.extent_int(1);
  Kokkos::parallel_for(
      "konclave::ops::embedding_gradient", row_policy(exec, ids.extent_int(0)),
      KOKKOS_LAMBDA(const RowMember& team) {
        const int run = team.league_rank();
        A* out = &dw(ids(run), 0);
        for (int i = run_offsets(run); i < run_offsets(run + 1); ++i) {
          const X* in = &dy(order(i), 0);
          row_for(team, hidden, [=](std::int64_t h) { out[h] += A(in[h]); });
        }
      });
}

}  // namespace

void gather_rows(const ExecSpace& exec, const AnyIn& x, const View1<const int>& source,
                 const AnyView& y) {
  require(x.extent(1) == y.extent(1) && static_cast<std::int64_t>(source.size()) == y.extent(0),
          "gather_rows: want x (R,H), source (T), y (T,H)");
  if (y.empty()) return;
  dispatch(x.type(), [&](auto tag) {
    using X = typename decltype(tag)::type;
    gather_kernel<X>(exec, x.as2<X>(), source, y.as2<X>());
  });
}

void embedding_gradient(const ExecSpace& exec, const AnyIn& dy, const View1<const int>& order,
                        const View1<const int>& run_offsets, const View1<const int>& ids,
                        const AnyView& dw) {
  require(
      dy.extent(1) == dw.extent(1) && run_offsets.size() == ids.size() + 1 &&
          static_cast<std::int64_t>(order.size()) <= dy.extent(0),
      "embedding_gradient: want dy (T,H), order (up to T), run_offsets (R+1), ids (R), dw (V,H)");
  if (dy.empty() || ids.size() == 0) return;
  dispatch(dy.type(), [&](auto tag) {
    using X = typename decltype(tag)::type;
    gradient_kernel<X>(exec, dy.as2<X>(), order, run_offsets, ids, dw.as2<Accum<X>>());
  });
}

}  // namespace konclave::ops
