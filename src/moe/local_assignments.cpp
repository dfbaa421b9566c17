#include "moe/local_assignments.hpp"

#include "moe/row_order.hpp"
#include "ops/permute.hpp"

namespace konclave {

namespace {

/// starts(a) = local assignments before assignment a, (A+1), and of each of them its local expert
/// and which assignment it is.
void scan(const ExecSpace& exec, View1<const int> expert_ids, int first, int local,
          View1<int> starts, View1<int> experts, View1<int> chosen) {
  const auto assignments = static_cast<std::int64_t>(expert_ids.size());
  Kokkos::parallel_scan(
      "konclave::moe::pick_local", Range(exec, 0, assignments + 1),
      KOKKOS_LAMBDA(const std::int64_t a, int& place, const bool final) {
        const int expert = a < assignments ? expert_ids(a) - first : -1;
        const bool is_local = expert >= 0 && expert < local;
        if (final) starts(a) = place;
        if (final && is_local) {
          experts(place) = expert;
          chosen(place) = static_cast<int>(a);
        }
        place += is_local ? 1 : 0;
      });
}

}  // namespace

LocalAssignments pick_local(const Context& context, const View1<const int>& token_offsets,
                            const View1<const int>& expert_ids, int first, int local,
                            std::int64_t rows) {
  const ArenaScope scope(context.scratch);
  const auto starts = context.scratch.make1<int>(static_cast<std::int64_t>(expert_ids.size()) + 1);
  const auto experts = context.scratch.make1<int>(rows), chosen = context.scratch.make1<int>(rows);
  scan(context.exec, expert_ids, first, local, starts, experts, chosen);
  const View1<const int> offsets = compose(context, starts, token_offsets);
  const std::int64_t tokens = static_cast<std::int64_t>(offsets.size()) - 1;
  const ops::Permutation order{context.activations.make1<int>(local + 1),
                               context.activations.make1<int>(rows),
                               context.scratch.make1<int>(rows)};
  ops::permutation(context.exec, experts, offsets,
                   context.scratch.make1<int>(ops::permutation_scratch(tokens, local)), order);
  return {offsets, order.row_of, compose(context, chosen, order.assignment_of),
          order.expert_offsets};
}

}  // namespace konclave
