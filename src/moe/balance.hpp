#pragma once

#include "comm/transport.hpp"
#include "layers/context.hpp"
#include "moe/config.hpp"

#include <cstdint>

namespace konclave {

/// Rows of a micro-batch over which balance is counted: window w has rows offsets(w) ..
/// offsets(w+1)-1 of this rank, perhaps none; the other ranks of tp and cp have the rest. Windows
/// never reach over a micro-batch.
struct RoutingWindows {
  int count = 0;
  View1<const int> offsets;  ///< (W+1)
  std::int64_t tokens = 0;   ///< of a whole window, over all ranks
};

/// What the loss terms of a micro-batch are divided by: the mean over all windows, and over all
/// tokens, of the global batch.
struct BalanceScale {
  double per_window = 0;  ///< 1 / windows of the global batch
  double per_token = 0;   ///< 1 / tokens of the global batch
};

/// Sums over the micro-batches of a step, on the device, in double: one row for each MoE layer.
/// Columns: auxiliary loss, z-loss, then assignments of each expert.   Shape (MoE layers, 2 + E).
struct MoeStatistics {
  View2<double> sums;
};

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
                const RoutingWindows& windows, const BalanceScale& scale, const AnyIn& scores,
                const AnyIn& lse, const View2<const int>& experts, int layer,
                const MoeStatistics& statistics);

}  // namespace konclave
