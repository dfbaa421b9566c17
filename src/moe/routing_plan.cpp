#include "moe/routing_plan.hpp"

#include "ops/permute.hpp"

namespace konclave {

RoutingPlan make_routing_plan(const Context& context, int num_experts,
                              const View1<const int>& token_offsets,
                              const View1<const int>& expert_ids, const AnyIn& weights) {
  const ArenaScope scope(context.scratch);
  const auto assignments = static_cast<std::int64_t>(expert_ids.size());
  const std::int64_t tokens = static_cast<std::int64_t>(token_offsets.size()) - 1;
  const ops::Permutation permutation{context.activations.make1<int>(num_experts + 1),
                                     context.activations.make1<int>(assignments),
                                     /*assignment_of=*/{}};
  const auto counters = context.scratch.make1<int>(ops::permutation_scratch(tokens, num_experts));
  ops::permutation(context.exec, expert_ids, token_offsets, counters, permutation);
  return {num_experts,       token_offsets, expert_ids, weights, permutation.expert_offsets,
          permutation.row_of};
}

}  // namespace konclave
