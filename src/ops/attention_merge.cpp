#include "ops/attention_merge.hpp"

#include "ops/fast_math.hpp"
#include "ops/rows.hpp"

#include <limits>

namespace konclave::ops {

namespace {

/// Arrays of one element for each query and head, and of `size` for each.
template <typename X> struct Parts {
  const X* part_o;
  const Accum<X>* part_lse;
  Accum<X>*o, *lse;
};

template <typename X>
void merge_kernel(const ExecSpace& exec, std::int64_t count, std::int64_t size,
                  const Parts<X>& parts) {
  using A = Accum<X>;
  const X* const part_o = parts.part_o;
  const A* const part_lse = parts.part_lse;
  A *const o = parts.o, *const lse = parts.lse;
  Kokkos::parallel_for(
      "konclave::ops::merge_attention", row_policy(exec, count),
      KOKKOS_LAMBDA(const RowMember& team) {
        constexpr A kNone = -std::numeric_limits<A>::infinity();
        const std::int64_t i = team.league_rank();
        const A here = lse[i], there = part_lse[i], largest = here > there ? here : there;
        // Infinities must not be subtracted from each other.
        const A base = largest == kNone ? A(0) : largest;
        const A of_here = fast_exp(here - base), of_there = fast_exp(there - base);
        const A sum = of_here + of_there, share = sum > 0 ? 1 / sum : A(0);
        const A weight = of_here * share, part_weight = of_there * share;
        A* const out = o + i * size;
        const X* const part = part_o + i * size;
        row_for(team, size,
                [=](std::int64_t j) { out[j] = weight * out[j] + part_weight * A(part[j]); });
        team.team_barrier();  // all have read lse
        Kokkos::single(Kokkos::PerTeam(team),
                       [&] { lse[i] = largest == kNone ? kNone : largest + A(math::log(sum)); });
      });
}

}  // namespace

void merge_attention(const ExecSpace& exec, const AnyIn& part_o, const AnyIn& part_lse,
                     const AnyView& o, const AnyView& lse) {
  require(same_shape(part_o, o) && same_shape(part_lse, lse) && lse.extent(0) == o.extent(0) &&
              lse.extent(1) > 0 && o.extent(1) % lse.extent(1) == 0,
          "merge_attention: want part_o, o (T, heads*D), part_lse, lse (T, heads)");
  if (o.empty()) return;
  dispatch(part_o.type(), [&](auto tag) {
    using X = typename decltype(tag)::type;
    using A = Accum<X>;
    merge_kernel<X>(exec, lse.size(), o.extent(1) / lse.extent(1),
                    {part_o.flat<X>().data(), part_lse.flat<A>().data(), o.flat<A>().data(),
                     lse.flat<A>().data()});
  });
}

}  // namespace konclave::ops
