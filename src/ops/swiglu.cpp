#include "ops/swiglu.hpp"

#include "ops/fast_math.hpp"
#include "ops/rows.hpp"

namespace konclave::ops {

namespace {

/// 1 / (1 + exp(-x)); 0 where the exponential is infinite.
template <typename A> KOKKOS_INLINE_FUNCTION A sigmoid(A x) { return 1 / (1 + fast_exp(-x)); }

template <typename X>
void forward_kernel(const ExecSpace& exec, View2<const X> g, View2<const X> u,
                    const Accum<X>* weights, View2<X> y) {
  using A = Accum<X>;
  const std::int64_t width = g.extent_int(1);
  Kokkos::parallel_for(
      "konclave::ops::swiglu_forward", row_policy(exec, g.extent_int(0)),
      KOKKOS_LAMBDA(const RowMember& team) {
        const int t = team.league_rank();
        const X *gate = &g(t, 0), *up = &u(t, 0);
        X* out = &y(t, 0);
        const A p = weights == nullptr ? A(1) : weights[t];
        row_for(team, width, [=](std::int64_t f) {
          const A x = A(gate[f]);
          out[f] = X(p * x * sigmoid(x) * A(up[f]));
        });
      });
}

template <typename X> struct Gradients {
  View2<X> y, dg, du;
  Accum<X>* dp;
};

template <typename X>
void backward_kernel(const ExecSpace& exec, View2<const X> g, View2<const X> u,
                     const Accum<X>* weights, View2<const X> dy, Gradients<X> out) {
  using A = Accum<X>;
  const std::int64_t width = g.extent_int(1);
  Kokkos::parallel_for(
      "konclave::ops::swiglu_backward", row_policy(exec, g.extent_int(0)),
      KOKKOS_LAMBDA(const RowMember& team) {
        const int t = team.league_rank();
        const X *gate = &g(t, 0), *up = &u(t, 0), *upstream = &dy(t, 0);
        X *y = &out.y(t, 0), *dg = &out.dg(t, 0), *du = &out.du(t, 0);
        const A p = weights == nullptr ? A(1) : weights[t];
        const A dot = row_tiles_sum<A>(team, width, [=](auto tile, std::int64_t first, A* part) {
          A x[tile], v[tile], d[tile], of_y[tile], of_gate[tile];
          for (int l = 0; l < tile; ++l) {
            x[l] = A(gate[first + l]);
            v[l] = A(up[first + l]);
            d[l] = A(upstream[first + l]);
          }
          for (int l = 0; l < tile; ++l) {
            const A s = sigmoid(x[l]), silu = x[l] * s;
            of_y[l] = silu * v[l];
            part[l] += d[l] * of_y[l];
            of_gate[l] = d[l] * v[l] * s * (1 + x[l] * (1 - s));
            d[l] *= silu;
          }
          for (int l = 0; l < tile; ++l) y[first + l] = X(p * of_y[l]);
          for (int l = 0; l < tile; ++l) dg[first + l] = X(p * of_gate[l]);
          for (int l = 0; l < tile; ++l) du[first + l] = X(p * d[l]);
        });
        if (out.dp == nullptr) return;
        Kokkos::single(Kokkos::PerTeam(team), [&] { out.dp[t] = dot; });
      });
}

}  // namespace

void swiglu_forward(const ExecSpace& exec, const AnyIn& g, const AnyIn& u, const AnyIn& p,
                    const AnyView& y) {
  require(same_shape(g, u) && same_shape(g, y) && (p.rank() == 0 || p.extent(0) == g.extent(0)),
          "swiglu_forward: want g, u, y (T,F), p (T) or empty");
  if (g.empty()) return;
  dispatch(g.type(), [&](auto tag) {
    using X = typename decltype(tag)::type;
    const Accum<X>* weights = p.rank() == 0 ? nullptr : p.as1<Accum<X>>().data();
    forward_kernel<X>(exec, g.as2<X>(), u.as2<X>(), weights, y.as2<X>());
  });
}

void swiglu_backward(const ExecSpace& exec, const AnyIn& g, const AnyIn& u, const AnyIn& p,
                     const AnyIn& dy, const AnyView& y, const AnyView& dg, const AnyView& du,
                     const AnyView& dp) {
  require(same_shape(g, u) && same_shape(g, dy) && same_shape(g, y) && same_shape(g, dg) &&
              same_shape(g, du) && (p.rank() == 0 || same_shape(p, dp)),
          "swiglu_backward: want g, u, dy, y, dg, du (T,F), p, dp (T) or empty");
  if (g.empty()) return;
  dispatch(g.type(), [&](auto tag) {
    using X = typename decltype(tag)::type;
    using A = Accum<X>;
    const A* weights = p.rank() == 0 ? nullptr : p.as1<A>().data();
    A* gradient = p.rank() == 0 ? nullptr : dp.as1<A>().data();
    backward_kernel<X>(exec, g.as2<X>(), u.as2<X>(), weights, dy.as2<X>(),
                       {y.as2<X>(), dg.as2<X>(), du.as2<X>(), gradient});
  });
}

}  // namespace konclave::ops
