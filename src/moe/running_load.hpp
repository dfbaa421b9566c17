#pragma once

#include "comm/transport.hpp"
#include "layers/context.hpp"
#include "moe/config.hpp"
#include "moe/moe_step.hpp"

namespace konclave {

/// The load that the global auxiliary loss of a layer goes by with moe.global_aux_counts =
/// "running":
///   load[e] = K N[e] / sum of N,  N[e] = assignments of expert e in the micro-batches so far
/// which is N over their tokens. counts (Q,E) are this rank's of the micro-batch; those of all
/// ranks of `sharing` and of `dp` are added to N in one exchange over each, and kept in
/// step.running. Where forward is done again, N is what it was, without an exchange.
void running_load(const Context& context, const MoeConfig& config, const Transport& sharing,
                  const Transport& dp, const MoeStep& step, const View2<const double>& counts,
                  int layer, const View1<double>& load);

}  // namespace konclave
