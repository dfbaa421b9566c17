#pragma once

#include "layers/context.hpp"

namespace konclave {

/// Which rows go to which experts: plain data, made by the router and read by the dispatcher. An
/// assignment is one (token, expert) pair; those of token t are token_offsets(t) ..
/// token_offsets(t+1)-1, in ascending order of expert, so K may vary per token.
struct RoutingPlan {
  int num_experts = 0;
  View1<const int> token_offsets;   ///< (T+1)
  View1<const int> expert_ids;      ///< (A), logical ids
  AnyIn weights;                    ///< (A), the router's type
  View1<const int> expert_offsets;  ///< (E+1), rows of each expert in permuted order
  View1<const int> row_of;          ///< (A), permuted row of an assignment

  std::int64_t tokens() const { return static_cast<std::int64_t>(token_offsets.size()) - 1; }
  std::int64_t assignments() const { return static_cast<std::int64_t>(expert_ids.size()); }
};

/// The plan for chosen experts: rows of an expert in order of their tokens. Memory of the plan is
/// an activation.   Shapes  expert_ids, weights (A)   token_offsets (T+1).
RoutingPlan make_routing_plan(const Context& context, int num_experts,
                              const View1<const int>& token_offsets,
                              const View1<const int>& expert_ids, const AnyIn& weights);

}  // namespace konclave
