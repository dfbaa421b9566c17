#pragma once

#include "comm/transport.hpp"
#include "layers/context.hpp"
#include "moe/config.hpp"
#include "moe/moe_step.hpp"

namespace konclave {

/// The auxiliary loss of a layer for one micro-batch. Kept from forward for backward.
struct Balance {
  AnyView slope;       ///< (W,E): d loss / d scores of a token of the window, scaled
  double z_scale = 0;  ///< factor of 2 lse scores in the gradient of the z-loss, scaled
};

/// Counts over windows, the auxiliary and z-losses and their slopes:
///   aux[w] = E c / (K Tw^2) sum over e of n[w,e] P[w,e],  the switch loss of window w
///   z = c_z mean over tokens of lse^2
/// n and P are summed over `sharing`, the ranks that share the windows, in one exchange (in none
/// when c is 0); the rest is of this rank's tokens. Both losses add c * scale times their sum over
/// the micro-batch to row `layer` of the statistics, where aux enters on one of the ranks alone,
/// and the number of this rank's assignments of each expert. Shapes  scores (T,E)   lse (T) experts
/// (T,K).
Balance balance(const Context& context, const MoeConfig& config, const Transport& sharing,
                const MoeStep& step, const AnyIn& scores, const AnyIn& lse,
                const View2<const int>& experts, int layer);

}  // namespace konclave
