#include "moe/sinkhorn.hpp"

#include "base/fault.hpp"
#include "parallel/collectives.hpp"
#include "tensor/host_copy.hpp"

#include <algorithm>

namespace konclave {

namespace {

constexpr double kEnough = 1e-4, kGuard = 1e-8;

/// What the iteration works on.
struct Iteration {
  View1<const int> offsets;  ///< (W+1)
  std::int64_t window_tokens;
  View2<const double> costs;  ///< (T,E): C
  View2<double> sums;         ///< (W,E): of the rows of a window
  View2<double> of_experts;   ///< (W,E): d1
  View1<double> changes;      ///< (W): mean change of d1 in the last round
};

template <typename A>
void costs_kernel(const ExecSpace& exec, View2<const A> l, View2<double> costs) {
  const int experts = l.extent_int(1);
  Kokkos::parallel_for(
      "konclave::moe::sinkhorn_costs", Range(exec, 0, l.extent_int(0)),
      KOKKOS_LAMBDA(const std::int64_t t) {
        A largest = l(t, 0);
        for (int e = 1; e < experts; ++e) largest = l(t, e) > largest ? l(t, e) : largest;
        for (int e = 0; e < experts; ++e) {
          costs(t, e) = math::exp(static_cast<double>(l(t, e) - largest));
        }
      });
}

/// d0 of a row.
KOKKOS_INLINE_FUNCTION double of_row(const double* costs, const double* of_experts, int experts,
                                     std::int64_t window_tokens) {
  double sum = 0;
  for (int e = 0; e < experts; ++e) sum += costs[e] * of_experts[e];
  return 1 / (static_cast<double>(window_tokens) * (sum + kGuard));
}

void start_kernel(const ExecSpace& exec, Iteration it) {
  const int experts = it.of_experts.extent_int(1);
  Kokkos::parallel_for(
      "konclave::moe::sinkhorn_start", Range(exec, 0, it.of_experts.extent_int(0)),
      KOKKOS_LAMBDA(const std::int64_t w) {
        it.changes(w) = 1;
        for (int e = 0; e < experts; ++e) it.of_experts(w, e) = 1;
      });
}

void sums_kernel(const ExecSpace& exec, Iteration it) {
  const int experts = it.sums.extent_int(1);
  Kokkos::parallel_for(
      "konclave::moe::sinkhorn_sums", Range(exec, 0, it.sums.extent_int(0)),
      KOKKOS_LAMBDA(const std::int64_t w) {
        double* const sums = &it.sums(w, 0);
        for (int e = 0; e < experts; ++e) sums[e] = 0;
        for (int t = it.offsets(w); t < it.offsets(w + 1); ++t) {
          const double* const costs = &it.costs(t, 0);
          const double row = of_row(costs, &it.of_experts(w, 0), experts, it.window_tokens);
          for (int e = 0; e < experts; ++e) sums[e] += costs[e] * row;
        }
      });
}

void update_kernel(const ExecSpace& exec, Iteration it, View2<const double> sums) {
  const int experts = sums.extent_int(1);
  Kokkos::parallel_for(
      "konclave::moe::sinkhorn_update", Range(exec, 0, sums.extent_int(0)),
      KOKKOS_LAMBDA(const std::int64_t w) {
        if (it.changes(w) <= kEnough) return;
        double change = 0;
        for (int e = 0; e < experts; ++e) {
          const double now = 1 / (experts * (sums(w, e) + kGuard));
          const double far = now - it.of_experts(w, e);
          change += far < 0 ? -far : far;
          it.of_experts(w, e) = now;
        }
        it.changes(w) = change / experts;
      });
}

template <typename A> void plan_kernel(const ExecSpace& exec, Iteration it, View2<A> plan) {
  const int experts = plan.extent_int(1);
  Kokkos::parallel_for(
      "konclave::moe::sinkhorn_plan",
      Kokkos::TeamPolicy<ExecSpace>(exec, it.of_experts.extent_int(0), Kokkos::AUTO),
      KOKKOS_LAMBDA(const Team::member_type& team) {
        const int w = team.league_rank();
        Kokkos::parallel_for(
            Kokkos::TeamThreadRange(team, it.offsets(w), it.offsets(w + 1)), [&](const int t) {
              const double *const costs = &it.costs(t, 0), *const scale = &it.of_experts(w, 0);
              const double row = of_row(costs, scale, experts, it.window_tokens);
              for (int e = 0; e < experts; ++e) {
                plan(t, e) = static_cast<A>(row * costs[e] * scale[e]);
              }
            });
      });
}

/// Of all ranks that share the windows.
View2<const double> sum_over(const Context& context, const Transport& sharing,
                             const AnyView& mine) {
  if (sharing.size() == 1 || fault("sinkhorn.local_sums")) return mine.as2<double>();
  const AnyView whole = context.scratch.make(DType::fp64, mine.extent(0), mine.extent(1));
  all_reduce_in_order(context.exec, context.scratch, sharing, mine, whole);
  return whole.as2<double>();
}

}  // namespace

AnyView sinkhorn_plan(const Context& context, const Transport& sharing,
                      const RoutingWindows& windows, const AnyIn& l) {
  const AnyView plan = context.scratch.make(l.type(), l.extent(0), l.extent(1));
  const ArenaScope scope(context.scratch);
  const std::int64_t experts = l.extent(1);
  const AnyView costs = context.scratch.make(DType::fp64, l.extent(0), experts);
  const AnyView sums = context.scratch.make(DType::fp64, windows.count, experts);
  const AnyView of_experts = context.scratch.make(DType::fp64, windows.count, experts);
  const Iteration it{windows.offsets,          windows.tokens,
                     costs.as2<double>(),      sums.as2<double>(),
                     of_experts.as2<double>(), context.scratch.make1<double>(windows.count)};
  if (!l.empty()) {
    dispatch_accum(l.type(), [&](auto tag) {
      using A = typename decltype(tag)::type;
      costs_kernel<A>(context.exec, l.as2<A>(), costs.as2<double>());
    });
  }
  start_kernel(context.exec, it);
  for (int round = 0; round < kMostSinkhornRounds; ++round) {
    const ArenaScope round_scope(context.scratch);
    sums_kernel(context.exec, it);
    update_kernel(context.exec, it, sum_over(context, sharing, sums));
    const std::vector<double> changes = to_host(context.exec, it.changes);
    // Written so that a NaN ends it as well: it would not go away.
    if (std::none_of(changes.begin(), changes.end(), [](double c) { return c > kEnough; })) break;
  }
  if (l.empty()) return plan;
  dispatch_accum(l.type(), [&](auto tag) {
    using A = typename decltype(tag)::type;
    plan_kernel<A>(context.exec, it, plan.as2<A>());
  });
  return plan;
}

}  // namespace konclave
