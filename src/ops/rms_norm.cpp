#include "ops/rms_norm.hpp"

#include "ops/rows.hpp"

namespace konclave::ops {

namespace {

/// Rows that a team goes through in backward, and over which it sums the weight's gradient.
constexpr std::int64_t kBlockRows = 16;

std::int64_t blocks_of(std::int64_t rows) { return (rows + kBlockRows - 1) / kBlockRows; }

/// out = in * scale * weight: the same bits in forward and when it is done again.
template <typename X>
KOKKOS_INLINE_FUNCTION void scale_row(const RowMember& team, std::int64_t hidden, const X* in,
                                      Accum<X> scale, const Accum<X>* weight, X* out) {
  using A = Accum<X>;
  row_for(team, hidden, [=](std::int64_t h) { out[h] = X(A(in[h]) * scale * weight[h]); });
}

/// The row that is normalised, x + addend, is written to `sum` on the way.
template <typename X> struct Sum {
  const X* addend = nullptr;
  X* sum = nullptr;
};

template <typename X>
void forward_kernel(const ExecSpace& exec, View2<const X> x, Sum<X> added, View1<const Accum<X>> w,
                    Accum<X> eps, View1<Accum<X>> r, View2<X> y) {
  using A = Accum<X>;
  const std::int64_t hidden = x.extent_int(1);
  const A* weight = w.data();
  Kokkos::parallel_for(
      "konclave::ops::rms_norm_forward", row_policy(exec, x.extent_int(0)),
      KOKKOS_LAMBDA(const RowMember& team) {
        const std::int64_t t = team.league_rank();
        const X *in = &x(t, 0), *normed = in;
        X* out = &y(t, 0);
        A squares = 0;
        if (added.sum == nullptr) {
          squares = row_sum<A>(team, hidden, [=](std::int64_t h) { return A(in[h]) * A(in[h]); });
        } else {
          const X* addend = added.addend + t * hidden;
          X* sum = added.sum + t * hidden;
          squares = row_tiles_sum<A>(team, hidden, [=](auto tile, std::int64_t first, A* part) {
            X rounded[tile];
            for (int l = 0; l < tile; ++l) rounded[l] = X(A(in[first + l]) + A(addend[first + l]));
            for (int l = 0; l < tile; ++l) part[l] += A(rounded[l]) * A(rounded[l]);
            for (int l = 0; l < tile; ++l) sum[first + l] = rounded[l];
          });
          normed = sum;
        }
        const A scale = 1 / math::sqrt(squares / static_cast<A>(hidden) + eps);
        Kokkos::single(Kokkos::PerTeam(team), [&] { r(t) = scale; });
        scale_row(team, hidden, normed, scale, weight, out);
      });
}

template <typename X>
void again_kernel(const ExecSpace& exec, View2<const X> x, View1<const Accum<X>> w,
                  View1<const Accum<X>> r, View2<X> y) {
  using A = Accum<X>;
  const std::int64_t hidden = x.extent_int(1);
  const A* weight = w.data();
  Kokkos::parallel_for(
      "konclave::ops::rms_norm_again", row_policy(exec, x.extent_int(0)),
      KOKKOS_LAMBDA(const RowMember& team) {
        const std::int64_t t = team.league_rank();
        scale_row(team, hidden, &x(t, 0), r(t), weight, &y(t, 0));
      });
}

template <typename X> struct BackwardInput {
  View2<const X> x;
  View1<const Accum<X>> w, r;
  View2<const X> dy;
  const X* residual;
};

/// dx, and the sums of a block's rows for dw: each element of the inputs is read once from memory.
template <typename X>
void backward_kernel(const ExecSpace& exec, BackwardInput<X> in, View2<Accum<X>> block_dw,
                     View2<X> dx) {
  using A = Accum<X>;
  const std::int64_t rows = in.x.extent_int(0), hidden = in.x.extent_int(1);
  const A* weight = in.w.data();
  Kokkos::parallel_for(
      "konclave::ops::rms_norm_backward", row_policy(exec, block_dw.extent_int(0)),
      KOKKOS_LAMBDA(const RowMember& team) {
        const std::int64_t begin = team.league_rank() * kBlockRows;
        const std::int64_t end = begin + kBlockRows < rows ? begin + kBlockRows : rows;
        A* dw = &block_dw(team.league_rank(), 0);
        row_for(team, hidden, [=](std::int64_t h) { dw[h] = 0; });
        for (std::int64_t t = begin; t < end; ++t) {
          const X *x = &in.x(t, 0), *up = &in.dy(t, 0);
          const X* pass = in.residual == nullptr ? nullptr : in.residual + t * hidden;
          X* out = &dx(t, 0);
          const A scale = in.r(t);
          const A dot = row_sum<A>(team, hidden,
                                   [=](std::int64_t h) { return A(up[h]) * weight[h] * A(x[h]); });
          const A pull = dot * scale * scale / static_cast<A>(hidden);
          row_tiles(team, hidden, [=](auto tile, std::int64_t first) {
            A g[tile], v[tile], passed[tile] = {};
            for (int l = 0; l < tile; ++l) g[l] = A(up[first + l]);
            for (int l = 0; l < tile; ++l) v[l] = A(x[first + l]);
            if (pass != nullptr) {
              for (int l = 0; l < tile; ++l) passed[l] = A(pass[first + l]);
            }
            for (int l = 0; l < tile; ++l) dw[first + l] += g[l] * v[l] * scale;
            for (int l = 0; l < tile; ++l) {
              out[first + l] = X(passed[l] + scale * (g[l] * weight[first + l] - v[l] * pull));
            }
          });
        }
      });
}

/// dw += the sums of all blocks.
template <typename A>
void weight_gradient(const ExecSpace& exec, View2<const A> block_dw, const View1<A>& dw) {
  accumulate_columns<A>(
      "konclave::ops::rms_norm_weight_gradient", exec, block_dw.extent_int(0),
      block_dw.extent_int(1), dw,
      KOKKOS_LAMBDA(std::int64_t block, std::int64_t h) { return block_dw(block, h); });
}

template <typename X>
void forward(const ExecSpace& exec, const AnyIn& x, Sum<X> added, const AnyIn& w, double eps,
             const AnyView& r, const AnyView& y) {
  using A = Accum<X>;
  forward_kernel<X>(exec, x.as2<X>(), added, w.as1<A>(), static_cast<A>(eps), r.as1<A>(),
                    y.as2<X>());
}

}  // namespace

void rms_norm_forward(const ExecSpace& exec, const AnyIn& x, const AnyIn& w, double eps,
                      const AnyView& r, const AnyView& y) {
  require(same_shape(x, y) && w.extent(0) == x.extent(1) && r.extent(0) == x.extent(0),
          "rms_norm_forward: want x, y (T,H), w (H), r (T)");
  if (x.empty()) return;
  dispatch(x.type(), [&](auto tag) {
    using X = typename decltype(tag)::type;
    forward<X>(exec, x, {}, w, eps, r, y);
  });
}

void add_rms_norm_forward(const ExecSpace& exec, const AnyIn& x, const AnyIn& addend,
                          const AnyIn& w, double eps, const AnyView& sum, const AnyView& r,
                          const AnyView& y) {
  require(same_shape(x, addend) && same_shape(x, sum) && same_shape(x, y) &&
              w.extent(0) == x.extent(1) && r.extent(0) == x.extent(0),
          "add_rms_norm_forward: want x, addend, sum, y (T,H), w (H), r (T)");
  if (x.empty()) return;
  dispatch(x.type(), [&](auto tag) {
    using X = typename decltype(tag)::type;
    forward<X>(exec, x, {addend.as2<X>().data(), sum.as2<X>().data()}, w, eps, r, y);
  });
}

void rms_norm_again(const ExecSpace& exec, const AnyIn& x, const AnyIn& w, const AnyIn& r,
                    const AnyView& y) {
  require(same_shape(x, y) && w.extent(0) == x.extent(1) && r.extent(0) == x.extent(0),
          "rms_norm_again: want x, y (T,H), w (H), r (T)");
  if (x.empty()) return;
  dispatch(x.type(), [&](auto tag) {
    using X = typename decltype(tag)::type;
    using A = Accum<X>;
    again_kernel<X>(exec, x.as2<X>(), w.as1<A>(), r.as1<A>(), y.as2<X>());
  });
}

std::int64_t rms_norm_scratch(std::int64_t rows, std::int64_t hidden) {
  return blocks_of(rows) * hidden;
}

void rms_norm_backward(const ExecSpace& exec, const AnyIn& x, const AnyIn& w, const AnyIn& r,
                       const AnyIn& dy, const AnyIn& residual, const AnyView& scratch,
                       const AnyView& dw, const AnyView& dx) {
  const std::int64_t rows = x.extent(0), hidden = x.extent(1);
  require(same_shape(x, dy) && same_shape(x, dx) && w.extent(0) == hidden && r.extent(0) == rows &&
              dw.extent(0) == hidden && (residual.empty() || same_shape(x, residual)) &&
              scratch.size() >= rms_norm_scratch(rows, hidden),
          "rms_norm_backward: want x, dy, residual, dx (T,H), w, dw (H), r (T)");
  if (x.empty()) return;
  dispatch(x.type(), [&](auto tag) {
    using X = typename decltype(tag)::type;
    using A = Accum<X>;
    const X* pass = residual.empty() ? nullptr : residual.as2<X>().data();
    const View2<A> block_dw(scratch.as1<A>().data(), static_cast<std::size_t>(blocks_of(rows)),
                            static_cast<std::size_t>(hidden));
    backward_kernel<X>(exec, {x.as2<X>(), w.as1<A>(), r.as1<A>(), dy.as2<X>(), pass}, block_dw,
                       dx.as2<X>());
    weight_gradient<A>(exec, block_dw, dw.as1<A>());
  });
}

}  // namespace konclave::ops
