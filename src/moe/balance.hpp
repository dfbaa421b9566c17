#pragma once

#include "comm/transport.hpp"
#include "layers/context.hpp"
#include "moe/config.hpp"
#include "moe/moe_step.hpp"
#include "ops/router.hpp"

namespace konclave {

/// The auxiliary loss of a layer for one micro-batch. Kept from forward for backward.
struct Balance {
  AnyView slope;       ///< (Q,E): d loss / d scores of a token of the sequence, scaled
  double z_scale = 0;  ///< factor of 2 lse softmax(l) in the gradient of the z-loss, scaled
};

/// The losses that keep experts evenly used, and their slopes:
///   aux_loss       mean over the windows w of  E c / (K Tw^2) sum over e of n[w,e] P[w,e]
///   seq_aux_loss   the same over the sequences, mean over them
///   global_aux_loss  E c / K sum over e of f[e] Pm[e], with the load f of the step before (or
///                  running_load) and the mean Pm of the scores over the tokens of the global batch
///   z-loss         c mean over tokens of lse^2
/// n are counts of the K largest scores, P sums of scores. Of an even load each but the last is c.
/// n and P are summed over `sharing`, the ranks that share the windows, in one exchange (in none
/// when no loss wants it), over `dp` only where running_load does; the rest is of this rank's
/// tokens, whose statistics ops::route has taken. The losses of the micro-batch and its assignments
/// are added to row `layer` of the statistics of the step, what is known of whole windows by one of
/// the ranks alone. `type` is the router's. In evaluation there is none of it.
Balance balance(const Context& context, const MoeConfig& config, const Transport& sharing,
                const Transport& dp, const MoeStep& step, const ops::RouteStatistics& routed,
                DType type, int layer);

}  // namespace konclave
