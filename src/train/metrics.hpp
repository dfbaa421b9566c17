#pragma once

#include "layers/context.hpp"
#include "moe/balance.hpp"
#include "parallel/groups.hpp"

#include <cstdint>
#include <vector>

namespace konclave {

/// What the routers of one MoE layer did in a step, over the global batch.
struct LayerMetrics {
  double aux_loss = 0, seq_aux_loss = 0, global_aux_loss = 0;  ///< coefficients included
  double z_loss = 0;
  double entropy = 0;  ///< mean over tokens of -sum of score * log(score), nats
  /// (E): assignments; kept: those within capacity; counted: those that the scores alone would
  /// make.
  std::vector<double> chosen, kept, counted;

  double balance_loss() const { return aux_loss + seq_aux_loss + global_aux_loss; }
  double dropped_fraction() const;  ///< of the chosen assignments
  double load_imbalance() const;    ///< chosen of the busiest expert over the mean; 1 without any
  /// Rows kept for the experts of the busiest of `ranks` ranks that have equal parts of them, over
  /// the mean; 1 without any.
  double overload_factor(int ranks) const;
};

/// What one training step has to say; the names are those of metrics.jsonl.
struct StepMetrics {
  double loss = 0;       ///< mean cross entropy over the scored tokens of the global batch, nats
  double grad_norm = 0;  ///< before clipping
  double aux_loss = 0;   ///< coefficient included, mean over MoE layers
  double z_loss = 0;
  double load_imbalance = 1;         ///< busiest expert over mean, averaged over MoE layers
  double dropped_fraction = 0;       ///< of all assignments
  std::vector<LayerMetrics> layers;  ///< of the MoE layers of the whole model
  std::int64_t tokens = 0;           ///< of this step
  bool finite = true;                ///< false: loss or norm is no number, and nothing was updated
};

/// Fills in the MoE figures from the sums of a step, added up over all ranks. Waits for `exec`.
void read_statistics(const ExecSpace& exec, const MoeStatistics& statistics, const Groups& groups,
                     StepMetrics& metrics);

}  // namespace konclave
