#pragma once

#include "bench/report.hpp"
#include "run/phases.hpp"

#include <vector>

namespace konclave {

/// The median of each part over several calls, in the order of the first one.
std::vector<Phase> median_phases(const std::vector<std::vector<Phase>>& calls);

/// Of a layer's phases ("forward: MoE: router"), what the experts' products take and what all that
/// brings tokens to experts and back: router, plan, permute, combine.
struct RoutingShare {
  double routing = 0, experts = 0;  ///< seconds, forward and backward

  /// Of both: 0 without either.
  double share() const { return routing > 0 ? routing / (routing + experts) : 0; }
};
RoutingShare routing_share(const std::vector<Phase>& phases);

/// Adds the phases and the share to a report, for people and for programs.
void describe_routing_share(const std::vector<Phase>& phases, BenchReport& report);

}  // namespace konclave
