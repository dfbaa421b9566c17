#pragma once

#include "comm/transport.hpp"
#include "moe/routing_plan.hpp"

#include <cstdint>
#include <vector>

namespace konclave {

/// How many of this rank's assignments each expert has. Waits for `exec`.
std::vector<std::int64_t> expert_counts(const Context& context, const RoutingPlan& routing);

/// The numbers of all ranks, rank 0 first; all pass equally many.
std::vector<std::int64_t> gather_counts(const Transport& group,
                                        const std::vector<std::int64_t>& mine);

}  // namespace konclave
