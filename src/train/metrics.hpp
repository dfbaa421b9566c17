#pragma once

#include "layers/context.hpp"
#include "moe/balance.hpp"
#include "parallel/groups.hpp"

#include <cstdint>

namespace konclave {

/// What one training step has to say; the names are those of metrics.jsonl.
struct StepMetrics {
  double loss = 0;       ///< mean cross entropy over the scored tokens of the global batch, nats
  double grad_norm = 0;  ///< before clipping
  double aux_loss = 0;   ///< coefficient included, mean over MoE layers
  double z_loss = 0;
  double load_imbalance = 1;  ///< busiest expert over mean, averaged over MoE layers
  std::int64_t tokens = 0;    ///< of this step
  bool finite = true;         ///< false: loss or norm is no number, and nothing was updated
};

/// Fills in the MoE figures from the sums of a step, added up over all ranks. Waits for `exec`.
void read_statistics(const ExecSpace& exec, const MoeStatistics& statistics, const Groups& groups,
                     StepMetrics& metrics);

}  // namespace konclave
