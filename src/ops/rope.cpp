#include "ops/rope.hpp"

#include "ops/rows.hpp"

namespace konclave::ops {

namespace {

template <typename X>
void rotate_kernel(const ExecSpace& exec, View1<const int> positions, View2<const Accum<X>> cosine,
                   View2<const Accum<X>> sine, int heads, Accum<X> sign, View2<X> x) {
  using A = Accum<X>;
  const std::int64_t half = cosine.extent_int(1);
  Kokkos::parallel_for(
      "konclave::ops::rotate", row_policy(exec, x.extent_int(0)),
      KOKKOS_LAMBDA(const RowMember& team) {
        const int t = team.league_rank();
        const A *c = &cosine(positions(t), 0), *s = &sine(positions(t), 0);
        for (int head = 0; head < heads; ++head) {
          X* low = &x(t, 2 * half * head);
          X* high = low + half;
          row_for(team, half, [=](std::int64_t i) {
            const A a = A(low[i]), b = A(high[i]);
            low[i] = X(a * c[i] - b * s[i] * sign);
            high[i] = X(b * c[i] + a * s[i] * sign);
          });
        }
      });
}

}  // namespace

void rotate(const ExecSpace& exec, const View1<const int>& positions, const AnyIn& cosine,
            const AnyIn& sine, int heads, bool inverse, const AnyView& x) {
  require(same_shape(cosine, sine) && x.extent(1) == 2 * cosine.extent(1) * heads &&
              static_cast<std::int64_t>(positions.size()) == x.extent(0),
          "rotate: want x (T, heads*D), positions (T), cosine, sine (P, D/2)");
  if (x.empty()) return;
  dispatch(x.type(), [&](auto tag) {
    using X = typename decltype(tag)::type;
    using A = Accum<X>;
    rotate_kernel<X>(exec, positions, cosine.as2<A>(), sine.as2<A>(), heads, inverse ? A(-1) : A(1),
                     x.as2<X>());
  });
}

}  // namespace konclave::ops
