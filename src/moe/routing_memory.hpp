#pragma once

#include "moe/config.hpp"
#include "moe/moe_step.hpp"
#include "tensor/arena.hpp"

#include <vector>

namespace konclave {

/// What RoutingState shows, and how it goes on from step to step. L MoE layers of the whole model,
/// E experts, the same on all ranks.
class RoutingMemory {
 public:
  /// As before the first step: no bias, an even load.
  RoutingMemory(const ExecSpace& exec, Arena& arena, int layers, const MoeConfig& config);

  RoutingState state() const { return {bias_.as2<float>(), load_.as2<double>()}; }
  /// (L,E) in fp32 and fp64: what a checkpoint has of it.
  const AnyView& expert_bias() const { return bias_; }
  const AnyView& previous_load() const { return load_; }

  /// Whether a step changes anything that a router reads.
  bool goes_on() const { return rate_ > 0 || keeps_load_; }

  /// After a step over a global batch of `tokens`:
  ///   bias[l,e] += rate sign(mean over the experts of chosen[l,:] - chosen[l,e]), with
  ///     moe.expert_bias,
  ///   load[l,e] = counted[l,e] / tokens
  /// chosen, counted (L E): assignments of the global batch as they were made, and as the scores
  /// alone would make them. Waits for `exec`.
  void update(const ExecSpace& exec, const std::vector<double>& chosen,
              const std::vector<double>& counted, double tokens);

 private:
  int experts_;
  double rate_;  ///< 0 without moe.expert_bias
  bool keeps_load_;
  AnyView bias_, load_;
};

}  // namespace konclave
