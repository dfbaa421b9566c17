#include "ops/rms_norm.hpp"

#include "ops/rows.hpp"

namespace konclave::ops {

namespace {

template <typename X>
void forward_kernel(const ExecSpace& exec, View2<const X> x, View1<const Accum<X>> w, Accum<X> eps,
                    View1<Accum<X>> r, View2<X> y) {
  using A = Accum<X>;
  const std::int64_t hidden = x.extent_int(1);
  const A* weight = w.data();
  Kokkos::parallel_for(
      "konclave::ops::rms_norm_forward", row_policy(exec, x.extent_int(0)),
      KOKKOS_LAMBDA(const RowMember& team) {
        const int t = team.league_rank();
        const X* in = &x(t, 0);
        X* out = &y(t, 0);
        const A squares =
            row_sum<A>(team, hidden, [=](std::int64_t h) { return A(in[h]) * A(in[h]); });
        const A scale = 1 / math::sqrt(squares / static_cast<A>(hidden) + eps);
        Kokkos::single(Kokkos::PerTeam(team), [&] { r(t) = scale; });
        row_for(team, hidden, [=](std::int64_t h) { out[h] = X(A(in[h]) * scale * weight[h]); });
      });
}

template <typename X>
void backward_kernel(const ExecSpace& exec, View2<const X> x, View1<const Accum<X>> w,
                     View1<const Accum<X>> r, View2<const X> dy, const X* residual, View2<X> dx) {
  using A = Accum<X>;
  const std::int64_t hidden = x.extent_int(1);
  const A* weight = w.data();
  Kokkos::parallel_for(
      "konclave::ops::rms_norm_backward", row_policy(exec, x.extent_int(0)),
      KOKKOS_LAMBDA(const RowMember& team) {
        const std::int64_t t = team.league_rank();
        const X *in = &x(t, 0), *up = &dy(t, 0);
        const X* pass = residual == nullptr ? nullptr : residual + t * hidden;
        X* out = &dx(t, 0);
        const A scale = r(t);
        const A dot = row_sum<A>(team, hidden,
                                 [=](std::int64_t h) { return A(up[h]) * weight[h] * A(in[h]); });
        const A pull = dot * scale * scale / static_cast<A>(hidden);
        if (pass == nullptr) {
          row_for(team, hidden, [=](std::int64_t h) {
            out[h] = X(scale * (A(up[h]) * weight[h] - A(in[h]) * pull));
          });
        } else {
          row_for(team, hidden, [=](std::int64_t h) {
            out[h] = X(A(pass[h]) + scale * (A(up[h]) * weight[h] - A(in[h]) * pull));
          });
        }
      });
}

template <typename X>
void weight_kernel(const ExecSpace& exec, View2<const X> x, View1<const Accum<X>> r,
                   View2<const X> dy, View1<Accum<X>> dw) {
  using A = Accum<X>;
  accumulate_columns<A>(
      "konclave::ops::rms_norm_weight_gradient", exec, x.extent_int(0), x.extent_int(1), dw,
      KOKKOS_LAMBDA(std::int64_t t, std::int64_t h) { return A(dy(t, h)) * A(x(t, h)) * r(t); });
}

}  // namespace

void rms_norm_forward(const ExecSpace& exec, const AnyIn& x, const AnyIn& w, double eps,
                      const AnyView& r, const AnyView& y) {
  require(same_shape(x, y) && w.extent(0) == x.extent(1) && r.extent(0) == x.extent(0),
          "rms_norm_forward: want x, y (T,H), w (H), r (T)");
  if (x.empty()) return;
  dispatch(x.type(), [&](auto tag) {
    using X = typename decltype(tag)::type;
    using A = Accum<X>;
    forward_kernel<X>(exec, x.as2<X>(), w.as1<A>(), static_cast<A>(eps), r.as1<A>(), y.as2<X>());
  });
}

void rms_norm_backward(const ExecSpace& exec, const AnyIn& x, const AnyIn& w, const AnyIn& r,
                       const AnyIn& dy, const AnyIn& residual, const AnyView& dw,
                       const AnyView& dx) {
  require(same_shape(x, dy) && same_shape(x, dx) && w.extent(0) == x.extent(1) &&
              r.extent(0) == x.extent(0) && dw.extent(0) == w.extent(0) &&
              (residual.empty() || same_shape(x, residual)),
          "rms_norm_backward: want x, dy, residual, dx (T,H), w, dw (H), r (T)");
  if (x.empty()) return;
  dispatch(x.type(), [&](auto tag) {
    using X = typename decltype(tag)::type;
    using A = Accum<X>;
    const X* pass = residual.empty() ? nullptr : residual.as2<X>().data();
    weight_kernel<X>(exec, x.as2<X>(), r.as1<A>(), dy.as2<X>(), dw.as1<A>());
    backward_kernel<X>(exec, x.as2<X>(), w.as1<A>(), r.as1<A>(), dy.as2<X>(), pass, dx.as2<X>());
  });
}

}  // namespace konclave::ops
