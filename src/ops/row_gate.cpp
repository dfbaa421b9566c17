#include "ops/row_gate.hpp"

#include "ops/rows.hpp"

namespace konclave::ops {

namespace {

template <typename X>
void forward_kernel(const ExecSpace& exec, View2<const X> x, View1<const Accum<X>> w,
                    View2<const X> s, View1<Accum<X>> g, View2<X> y) {
  using A = Accum<X>;
  const std::int64_t hidden = x.extent_int(1);
  const A* const weight = w.data();
  Kokkos::parallel_for(
      "konclave::ops::row_gate_forward", row_policy(exec, x.extent_int(0)),
      KOKKOS_LAMBDA(const RowMember& team) {
        const std::int64_t t = team.league_rank();
        const X *const in = &x(t, 0), *const shared = &s(t, 0);
        X* const out = &y(t, 0);
        const A z = row_sum<A>(team, hidden, [=](std::int64_t h) { return A(in[h]) * weight[h]; });
        const A gate = 1 / (1 + math::exp(-z));
        Kokkos::single(Kokkos::PerTeam(team), [&] { g(t) = gate; });
        row_tiles(team, hidden, [=](auto tile, std::int64_t first) {
          A sum[tile];
          for (int l = 0; l < tile; ++l) {
            sum[l] = A(out[first + l]) + gate * A(shared[first + l]);
          }
          for (int l = 0; l < tile; ++l) out[first + l] = X(sum[l]);
        });
      });
}

template <typename X>
void backward_kernel(const ExecSpace& exec, View2<const X> dy, View2<const X> s,
                     View1<const Accum<X>> g, View2<X> ds, View1<Accum<X>> dz) {
  using A = Accum<X>;
  const std::int64_t hidden = dy.extent_int(1);
  Kokkos::parallel_for(
      "konclave::ops::row_gate_backward", row_policy(exec, dy.extent_int(0)),
      KOKKOS_LAMBDA(const RowMember& team) {
        const std::int64_t t = team.league_rank();
        const X *const up = &dy(t, 0), *const shared = &s(t, 0);
        X* const out = &ds(t, 0);
        const A gate = g(t);
        const A dot = row_tiles_sum<A>(team, hidden, [=](auto tile, std::int64_t first, A* part) {
          A v[tile], u[tile];
          for (int l = 0; l < tile; ++l) v[l] = A(shared[first + l]);
          for (int l = 0; l < tile; ++l) u[l] = A(up[first + l]);
          for (int l = 0; l < tile; ++l) part[l] += u[l] * v[l];
          for (int l = 0; l < tile; ++l) out[first + l] = X(gate * u[l]);
        });
        Kokkos::single(Kokkos::PerTeam(team), [&] { dz(t) = gate * (1 - gate) * dot; });
      });
}

/// dw += sum over t of dz[t] x[t].
template <typename X>
void weight_gradient(const ExecSpace& exec, View1<const Accum<X>> dz, View2<const X> x,
                     const View1<Accum<X>>& dw) {
  using A = Accum<X>;
  accumulate_columns<A>(
      "konclave::ops::row_product_weight_gradient", exec, x.extent_int(0), x.extent_int(1), dw,
      KOKKOS_LAMBDA(std::int64_t t, std::int64_t h) { return dz(t) * A(x(t, h)); });
}

template <typename X>
void add_outer_kernel(const ExecSpace& exec, View1<const Accum<X>> dz, View1<const Accum<X>> w,
                      View2<X> dx) {
  using A = Accum<X>;
  const std::int64_t hidden = dx.extent_int(1);
  const A* const weight = w.data();
  Kokkos::parallel_for(
      "konclave::ops::row_product_backward", row_policy(exec, dx.extent_int(0)),
      KOKKOS_LAMBDA(const RowMember& team) {
        const std::int64_t t = team.league_rank();
        X* const out = &dx(t, 0);
        const A slope = dz(t);
        row_for(team, hidden, [=](std::int64_t h) { out[h] = X(A(out[h]) + slope * weight[h]); });
      });
}

}  // namespace

void row_gate_forward(const ExecSpace& exec, const AnyIn& x, const AnyIn& w, const AnyIn& s,
                      const AnyView& g, const AnyView& y) {
  require(
      same_shape(x, s) && same_shape(x, y) && w.size() == x.extent(1) && g.size() == x.extent(0),
      "row_gate_forward: want x, s, y (T,H), w (H), g (T)");
  if (x.empty()) return;
  dispatch(x.type(), [&](auto tag) {
    using X = typename decltype(tag)::type;
    using A = Accum<X>;
    forward_kernel<X>(exec, x.as2<X>(), w.as1<A>(), s.as2<X>(), g.as1<A>(), y.as2<X>());
  });
}

void row_gate_backward(const ExecSpace& exec, const AnyIn& dy, const AnyIn& s, const AnyIn& g,
                       const AnyView& ds, const AnyView& dz) {
  require(same_shape(dy, s) && same_shape(dy, ds) && g.size() == dy.extent(0) &&
              dz.size() == dy.extent(0),
          "row_gate_backward: want dy, s, ds (T,H), g, dz (T)");
  if (dy.empty()) return;
  dispatch(dy.type(), [&](auto tag) {
    using X = typename decltype(tag)::type;
    using A = Accum<X>;
    backward_kernel<X>(exec, dy.as2<X>(), s.as2<X>(), g.as1<A>(), ds.as2<X>(), dz.as1<A>());
  });
}

void row_product_backward(const ExecSpace& exec, const AnyIn& dz, const AnyIn& x, const AnyIn& w,
                          const AnyView& dw, const AnyView& dx) {
  require(same_shape(x, dx) && w.size() == x.extent(1) && dw.size() == x.extent(1) &&
              dz.size() == x.extent(0),
          "row_product_backward: want x, dx (T,H), dz (T), w, dw (H)");
  if (x.empty()) return;
  dispatch(x.type(), [&](auto tag) {
    using X = typename decltype(tag)::type;
    using A = Accum<X>;
    weight_gradient<X>(exec, dz.as1<A>(), x.as2<X>(), dw.as1<A>());
    add_outer_kernel<X>(exec, dz.as1<A>(), w.as1<A>(), dx.as2<X>());
  });
}

}  // namespace konclave::ops
