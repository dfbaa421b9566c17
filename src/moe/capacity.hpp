#pragma once

#include "comm/transport.hpp"
#include "layers/context.hpp"
#include "moe/config.hpp"
#include "moe/moe_step.hpp"
#include "moe/routing_plan.hpp"

namespace konclave {

/// Assignments that an expert takes of a routing window of Tw tokens:
///   C = ceil(Tw K / E * moe.capacity_factor), at most Tw
std::int64_t expert_capacity(const MoeConfig& config, std::int64_t window_tokens);

/// The assignments that are left where each expert takes at most C of a window.
///   drop_policy "probs": those of largest weight, equal ones (to about 1e-5 in fp32 and 1e-12 in
///     fp64) by lowest place in the window
///   drop_policy "position": those of the tokens that come first in the window
/// Which these are is known from the assignments of all ranks that share the window, so it does not
/// depend on how they share it. Weights stay as they are: nobody makes up for what is dropped.
/// With pad_to_capacity each expert gets exactly C: the first tokens of the window that did not
/// choose it fill up what is left, with weight 0, so that they change neither outputs nor
/// gradients.
class CapacityPlan {
 public:
  /// `experts` (T,K) as chosen, in ascending order for each token, with `weights` (T K). Exchanges
  /// a number for each (expert, token) of the windows over `sharing`; waits for `exec`. The plan's
  /// memory is an activation.
  CapacityPlan(const Context& context, const MoeConfig& config, const Transport& sharing,
               const RoutingWindows& windows, const View2<const int>& experts,
               const AnyIn& weights);
  CapacityPlan() = default;

  /// What is left, padding included.
  const RoutingPlan& routing() const { return routing_; }

  /// Adds to row `layer` of the statistics how many assignments of each expert are kept, without
  /// padding.
  void count(const ExecSpace& exec, const MoeStatistics& statistics, int layer) const;

  /// Gradients by the weights (T K) out of those of the plan's assignments (A): 0 of what was
  /// dropped. In scratch.
  AnyView gradient_of_choices(const Context& context, const AnyIn& of_assignments) const;

 private:
  RoutingPlan routing_;
  std::int64_t choices_ = 0;    ///< T K
  View1<const int> choice_of_;  ///< (A): the choice that an assignment is, or -1 for padding
};

}  // namespace konclave
