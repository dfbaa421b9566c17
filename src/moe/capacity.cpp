#include "moe/capacity.hpp"

#include "base/fault.hpp"
#include "moe/window_rows.hpp"
#include "ops/elementwise.hpp"
#include "parallel/collectives.hpp"
#include "tensor/host_copy.hpp"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <type_traits>

namespace konclave {

namespace {

/// Everything that decides, known to every rank: table(w E + e, p) is the weight with which the
/// token at place p of window w chose expert e, and 0 where it did not.
template <typename A> struct Table {
  View2<const A> weights;    ///< (W E, Tw)
  View1<const int> chosen;   ///< (W E): how many did
  View1<const int> pad_end;  ///< (W E): places below it that did not are padding
  int experts;
  int capacity;
  bool by_weight, padded;

  KOKKOS_INLINE_FUNCTION bool takes(int w, int e, int place) const {
    const int line = w * experts + e;
    if (chosen(line) <= capacity) return true;
    const A* const others = &weights(line, 0);
    const A mine = others[place];
    int better = 0;
    for (int p = 0; p < place; ++p) {
      better += others[p] != 0 && (!by_weight || others[p] >= mine) ? 1 : 0;
    }
    if (by_weight) {
      const int tokens = weights.extent_int(1);
      for (int p = place + 1; p < tokens; ++p) better += others[p] > mine ? 1 : 0;
    }
    return better < capacity;
  }
  KOKKOS_INLINE_FUNCTION bool pads(int w, int e, int place) const {
    const int line = w * experts + e;
    return place < pad_end(line) && weights(line, place) == 0;
  }
};

/// A weight as it is compared. Tokens may be equal for what the model knows of them (one that is
/// repeated from the start of a sequence sees nothing else), and their weights then differ by
/// rounding alone, which depends on the mapping: so a quarter of the bits is rounded off, and the
/// place decides. A weight that has become 0 is a choice all the same.
template <typename A> KOKKOS_INLINE_FUNCTION A comparable(A weight) {
  using Bits = std::conditional_t<sizeof(A) == 8, std::uint64_t, std::uint32_t>;
  constexpr int kDropped = sizeof(A) == 8 ? 14 : 7;
  Bits bits = 0;
  std::memcpy(&bits, &weight, sizeof bits);
  bits = ((bits + (Bits{1} << (kDropped - 1))) >> kDropped) << kDropped;
  A rounded = 0;
  std::memcpy(&rounded, &bits, sizeof rounded);
  return rounded == 0 ? std::numeric_limits<A>::min() : rounded;
}

template <typename A>
void fill_table(const ExecSpace& exec, const RoutingWindows& windows, View2<const int> experts,
                View1<const A> weights, int num_experts, View2<A> table) {
  const int top_k = experts.extent_int(1);
  for_each_window_row(
      "konclave::moe::capacity_table", exec, windows, KOKKOS_LAMBDA(const int w, const int t) {
        for (int k = 0; k < top_k; ++k) {
          table(w * num_experts + experts(t, k), windows.places(t)) =
              comparable(weights(t * top_k + k));
        }
      });
}

/// Of each line of the table: how many chose the expert, and where its padding ends.
template <typename A>
void survey(const ExecSpace& exec, View2<const A> table, int capacity, View1<int> chosen,
            View1<int> pad_end) {
  const int tokens = table.extent_int(1);
  Kokkos::parallel_for(
      "konclave::moe::capacity_survey", Range(exec, 0, table.extent_int(0)),
      KOKKOS_LAMBDA(const std::int64_t line) {
        const A* const weights = &table(line, 0);
        int count = 0;
        for (int p = 0; p < tokens; ++p) count += weights[p] != 0 ? 1 : 0;
        chosen(line) = count;
        int end = 0;
        for (int wanted = capacity - count; wanted > 0; ++end) wanted -= weights[end] == 0 ? 1 : 0;
        pad_end(line) = end;
      });
}

/// visit(e, choice) for what a token keeps, in ascending order of expert; -1 is padding.
template <typename A, typename Visit>
KOKKOS_INLINE_FUNCTION void visit_kept(const Table<A>& table, const View2<const int>& experts,
                                       int w, int t, int place, const Visit& visit) {
  const int top_k = experts.extent_int(1);
  int k = 0;
  if (!table.padded) {
    for (; k < top_k; ++k) {
      if (table.takes(w, experts(t, k), place)) visit(experts(t, k), t * top_k + k);
    }
    return;
  }
  for (int e = 0; e < table.experts; ++e) {
    if (k < top_k && experts(t, k) == e) {
      if (table.takes(w, e, place)) visit(e, t * top_k + k);
      ++k;
    } else if (table.pads(w, e, place)) {
      visit(e, -1);
    }
  }
}

/// offsets(t+1) = assignments of row t, to be summed up; offsets(0) = 0.
template <typename A>
void count_kept(const ExecSpace& exec, const Table<A>& table, const RoutingWindows& windows,
                View2<const int> experts, View1<int> offsets) {
  for_each_window_row(
      "konclave::moe::capacity_count", exec, windows, KOKKOS_LAMBDA(const int w, const int t) {
        int count = 0;
        visit_kept(table, experts, w, t, windows.places(t), [&](int, int) { ++count; });
        offsets(t + 1) = count;
      });
}

template <typename A>
void write_kept(const ExecSpace& exec, const Table<A>& table, const RoutingWindows& windows,
                View2<const int> experts, View1<const int> offsets, View1<int> expert_ids,
                View1<int> choice_of) {
  for_each_window_row(
      "konclave::moe::capacity_write", exec, windows, KOKKOS_LAMBDA(const int w, const int t) {
        int at = offsets(t);
        visit_kept(table, experts, w, t, windows.places(t), [&](int e, int choice) {
          expert_ids(at) = e;
          choice_of(at) = choice;
          ++at;
        });
      });
}

/// Weights of the assignments; padding has 0.
template <typename X>
void pick(const ExecSpace& exec, View1<const X> of_choices, View1<const int> choice_of,
          View1<X> of_assignments) {
  Kokkos::parallel_for(
      "konclave::moe::capacity_weights", Range(exec, 0, choice_of.extent_int(0)),
      KOKKOS_LAMBDA(const std::int64_t a) {
        of_assignments(a) = choice_of(a) < 0 ? X(0) : of_choices(choice_of(a));
      });
}

/// The inverse: each choice is one assignment at most.
template <typename X>
void put(const ExecSpace& exec, View1<const X> of_assignments, View1<const int> choice_of,
         View1<X> of_choices) {
  Kokkos::parallel_for(
      "konclave::moe::capacity_gradients", Range(exec, 0, choice_of.extent_int(0)),
      KOKKOS_LAMBDA(const std::int64_t a) {
        if (choice_of(a) >= 0) of_choices(choice_of(a)) = of_assignments(a);
      });
}

/// The ends of the rows' assignments, summed up in place; the number of all of them.
std::int64_t sum_up(const ExecSpace& exec, View1<int> offsets) {
  int all = 0;
  Kokkos::parallel_scan(
      "konclave::moe::capacity_offsets", Range(exec, 0, offsets.extent_int(0)),
      KOKKOS_LAMBDA(const std::int64_t i, int& sum, const bool is_final) {
        sum += i == 0 ? 0 : offsets(i);
        if (is_final) offsets(i) = sum;
      },
      all);
  fence(exec, "konclave::CapacityPlan");
  return all;
}

}  // namespace

std::int64_t expert_capacity(const MoeConfig& config, std::int64_t window_tokens) {
  const double assignments = static_cast<double>(window_tokens) * config.top_k;
  const double capacity = std::ceil(assignments / config.num_experts * config.capacity_factor);
  return static_cast<std::int64_t>(std::min(capacity, static_cast<double>(window_tokens)));
}

CapacityPlan::CapacityPlan(const Context& context, const MoeConfig& config,
                           const Transport& sharing, const RoutingWindows& windows,
                           const View2<const int>& experts, const AnyIn& weights)
    : choices_(weights.size()) {
  const ArenaScope scope(context.scratch);
  const ExecSpace& exec = context.exec;
  const int num_experts = config.num_experts;
  const std::int64_t lines = std::int64_t{windows.count} * num_experts;
  const auto offsets =
      context.activations.make1<int>(static_cast<std::int64_t>(experts.extent(0)) + 1);
  View1<int> expert_ids, choice_of;
  dispatch_accum(weights.type(), [&](auto tag) {
    using A = typename decltype(tag)::type;
    AnyView mine = context.scratch.make(weights.type(), lines, windows.tokens);
    ops::fill_zero(exec, mine);
    fill_table<A>(exec, windows, experts, weights.as1<A>(), num_experts, mine.as2<A>());
    if (sharing.size() > 1 && !fault("capacity.local_windows")) {
      // Each element is one rank's alone.
      all_reduce_in_order(exec, context.scratch, sharing, mine, mine);
    }
    const auto chosen = context.scratch.make1<int>(lines),
               pad_end = context.scratch.make1<int>(lines);
    const auto capacity = static_cast<int>(expert_capacity(config, windows.tokens));
    survey<A>(exec, mine.as2<A>(), capacity, chosen, pad_end);
    const Table<A> table{mine.as2<A>(),         chosen,   pad_end,
                         num_experts,           capacity, config.drop_policy == "probs",
                         config.pad_to_capacity};
    count_kept<A>(exec, table, windows, experts, offsets);
    const std::int64_t kept = sum_up(exec, offsets);
    expert_ids = context.activations.make1<int>(kept);
    choice_of = context.activations.make1<int>(kept);
    write_kept<A>(exec, table, windows, experts, offsets, expert_ids, choice_of);
  });
  choice_of_ = choice_of;
  const AnyView of_assignments =
      context.activations.make(weights.type(), static_cast<std::int64_t>(choice_of.size()));
  dispatch_accum(weights.type(), [&](auto tag) {
    using A = typename decltype(tag)::type;
    pick<A>(exec, weights.as1<A>(), choice_of, of_assignments.as1<A>());
  });
  routing_ = make_routing_plan(context, num_experts, offsets, expert_ids, of_assignments);
}

void CapacityPlan::count(const ExecSpace& exec, const MoeStatistics& statistics, int layer) const {
  const View2<double> sums = statistics.sums;
  const View1<const int> expert_ids = routing_.expert_ids, choice_of = choice_of_;
  const int experts = routing_.num_experts;
  Kokkos::parallel_for(
      "konclave::moe::capacity_statistics", Range(exec, 0, 1), KOKKOS_LAMBDA(const std::int64_t) {
        for (int a = 0; a < expert_ids.extent_int(0); ++a) {
          if (choice_of(a) >= 0) sums(layer, MoeStatistics::kept(experts, expert_ids(a))) += 1;
        }
      });
}

AnyView CapacityPlan::gradient_of_choices(const Context& context,
                                          const AnyIn& of_assignments) const {
  const AnyView of_choices = context.scratch.make(of_assignments.type(), choices_);
  ops::fill_zero(context.exec, of_choices);
  dispatch_accum(of_assignments.type(), [&](auto tag) {
    using A = typename decltype(tag)::type;
    put<A>(context.exec, of_assignments.as1<A>(), choice_of_, of_choices.as1<A>());
  });
  return of_choices;
}

}  // namespace konclave
