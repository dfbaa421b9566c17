#pragma once

#include "moe/moe_step.hpp"

namespace konclave {

/// f(w, t) for the rows t of this rank in each window w.
template <typename F>
void for_each_window_row(const char* label, const ExecSpace& exec, const RoutingWindows& windows,
                         const F& f) {
  const View1<const int> offsets = windows.offsets;
  Kokkos::parallel_for(
      label, Kokkos::TeamPolicy<ExecSpace>(exec, windows.count, Kokkos::AUTO),
      KOKKOS_LAMBDA(const Team::member_type& team) {
        const int w = team.league_rank();
        Kokkos::parallel_for(Kokkos::TeamThreadRange(team, offsets(w), offsets(w + 1)),
                             [&](const int t) { f(w, t); });
      });
}

}  // namespace konclave
