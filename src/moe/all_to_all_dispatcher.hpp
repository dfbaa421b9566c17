#pragma once

#include "moe/all_to_all_dispatch.hpp"

namespace konclave {

/// moe.dispatcher = "alltoall": a row goes only to where it is needed. Under moe.receive_budget in
/// several rounds, the same number on all ranks, each of which brings at most so many rows to a
/// rank, after the gather over etp. With parallel.overlap_ep in several rounds, too, where there
/// are ranks to exchange with (DispatchCut).
class AllToAllDispatcher final : public Dispatcher {
 public:
  AllToAllDispatcher(const MoeConfig& config, const Groups& groups);

  /// On one rank without a budget there is nothing to exchange, and it does not wait.
  std::shared_ptr<const Dispatch> plan(const Context& context,
                                       const RoutingPlan& routing) const override;

 private:
  DispatchCounts exchange_counts(const Context& context, const RoutingPlan& routing) const;

  AllToAllRoute::Ranks ranks_;
  int num_experts_;
  DispatchCut cut_;
};

}  // namespace konclave
