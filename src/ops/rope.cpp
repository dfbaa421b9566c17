#include "ops/rope.hpp"

#include "ops/rows.hpp"

namespace konclave::ops {

namespace {

template <typename X> struct Heads {
  X* data = nullptr;
  int count = 0;
};

template <typename X> struct Angles {
  View1<const int> positions;
  View2<const Accum<X>> cosine, sine;
  Accum<X> sign;
};

template <typename X>
KOKKOS_INLINE_FUNCTION void turn_head(const RowMember& team, std::int64_t half,
                                      const Accum<X>* cosine, const Accum<X>* sine, Accum<X> sign,
                                      X* low) {
  using A = Accum<X>;
  X* high = low + half;
  row_tiles(team, half, [=](auto tile, std::int64_t first) {
    A a[tile], b[tile], c[tile], s[tile];
    for (int l = 0; l < tile; ++l) a[l] = A(low[first + l]);
    for (int l = 0; l < tile; ++l) b[l] = A(high[first + l]);
    for (int l = 0; l < tile; ++l) c[l] = cosine[first + l];
    for (int l = 0; l < tile; ++l) s[l] = sine[first + l] * sign;
    for (int l = 0; l < tile; ++l) low[first + l] = X(a[l] * c[l] - b[l] * s[l]);
    for (int l = 0; l < tile; ++l) high[first + l] = X(b[l] * c[l] + a[l] * s[l]);
  });
}

/// The heads of one row.
template <typename X>
KOKKOS_INLINE_FUNCTION void turn(const RowMember& team, const Angles<X>& angles,
                                 const Heads<X>& heads) {
  const std::int64_t t = team.league_rank(), half = angles.cosine.extent_int(1);
  const int position = angles.positions(t);
  const Accum<X>*c = &angles.cosine(position, 0), *s = &angles.sine(position, 0);
  X* row = heads.data + t * heads.count * 2 * half;
  for (int head = 0; head < heads.count; ++head) {
    turn_head<X>(team, half, c, s, angles.sign, row + head * 2 * half);
  }
}

template <typename X>
void rotate_kernel(const ExecSpace& exec, Angles<X> angles, Heads<X> queries, Heads<X> keys) {
  Kokkos::parallel_for(
      "konclave::ops::rotate", row_policy(exec, angles.positions.extent_int(0)),
      KOKKOS_LAMBDA(const RowMember& team) {
        turn<X>(team, angles, queries);
        turn<X>(team, angles, keys);
      });
}

}  // namespace

void rotate(const ExecSpace& exec, const View1<const int>& positions, const AnyIn& cosine,
            const AnyIn& sine, bool inverse, const AnyView& q, const AnyView& k) {
  const std::int64_t tokens = q.extent(0), size = 2 * cosine.extent(1);
  require(same_shape(cosine, sine) && q.extent(1) % size == 0 &&
              (k.rank() == 0 ||
               (k.extent(0) == tokens && k.extent(1) % size == 0 && k.type() == q.type())) &&
              static_cast<std::int64_t>(positions.size()) == tokens,
          "rotate: want q (T, heads*D), k (T, heads*D), positions (T), cosine, sine (P, D/2)");
  if (q.empty()) return;
  dispatch(q.type(), [&](auto tag) {
    using X = typename decltype(tag)::type;
    using A = Accum<X>;
    const auto heads = [&](const AnyView& view) {
      return view.rank() == 0
                 ? Heads<X>{}
                 : Heads<X>{view.as2<X>().data(), static_cast<int>(view.extent(1) / size)};
    };
    rotate_kernel<X>(exec, {positions, cosine.as2<A>(), sine.as2<A>(), inverse ? A(-1) : A(1)},
                     heads(q), heads(k));
  });
}

}  // namespace konclave::ops
