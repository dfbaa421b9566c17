#pragma once

#include "tensor/view.hpp"

#include <cstdint>

namespace konclave {

/// How the rows outside of a micro-batch that this rank has lie in its sequences and routing
/// windows. A window is some whole sequences; sequence q has rows sequence_offsets(q) ..
/// sequence_offsets(q+1)-1 of this rank, window w rows offsets(w) .. offsets(w+1)-1, either perhaps
/// none; the other ranks of tp and cp have the rest. Windows never reach over a micro-batch.
struct RoutingWindows {
  int count = 0;
  View1<const int> offsets;           ///< (W+1)
  std::int64_t tokens = 0;            ///< of a whole window, over all ranks
  int sequences = 0;                  ///< of the micro-batch; count * (sequences of a window)
  View1<const int> sequence_offsets;  ///< (Q+1)
  /// (T): place of a row in its window, 0 .. tokens-1, in the order of sequences and positions.
  View1<const int> places;
  /// Number of the first token of the micro-batch among all that the run trains on, so that
  /// first_token + w * tokens + places(t) names a token whatever the mapping.
  std::int64_t first_token = 0;

  int sequences_per_window() const { return count == 0 ? 0 : sequences / count; }
};

/// What the loss terms of a micro-batch are divided by: the mean over all windows, and over all
/// tokens, of the global batch.
struct BalanceScale {
  double per_window = 0;    ///< 1 / windows of the global batch
  double per_token = 0;     ///< 1 / tokens of the global batch
  double per_sequence = 0;  ///< 1 / sequences of the global batch
};

/// Sums over the micro-batches of a step, on the device, in double: one row for each MoE layer.
/// Shape (MoE layers, columns(E)): the terms in the order of `Term`, then the assignments of each
/// expert as the router chose them, those that were kept where an expert's capacity is bounded, and
/// those that the scores alone would make, which auxiliary losses count.
struct MoeStatistics {
  enum Term : int { kAuxLoss, kSeqAuxLoss, kGlobalAuxLoss, kZLoss, kEntropy, kTerms };

  View2<double> sums;

  KOKKOS_INLINE_FUNCTION static constexpr int columns(int experts) { return kTerms + 3 * experts; }
  KOKKOS_INLINE_FUNCTION static constexpr int chosen(int expert) { return kTerms + expert; }
  KOKKOS_INLINE_FUNCTION static constexpr int kept(int experts, int expert) {
    return kTerms + experts + expert;
  }
  KOKKOS_INLINE_FUNCTION static constexpr int counted(int experts, int expert) {
    return kTerms + 2 * experts + expert;
  }
};

/// What a router keeps from step to step besides its parameters, one row for each MoE layer of the
/// whole model; the same on all ranks.
struct RoutingState {
  /// (L,E): added to the scores where experts are chosen (moe.expert_bias); else zeros.
  View2<const float> expert_bias;
  /// (L,E): assignments that the scores alone would make, of each
  /// expert in the global batch of the step before, divided by its tokens; K / E before the first.
  View2<const double> previous_load;
};

/// With moe.global_aux_counts = "running": assignments that the scores alone would make, of each
/// expert in each MoE layer, from the first micro-batch of a step to this one, with those of the
/// same place in the step that the ranks of dp have. Noted in forward, which passes the
/// micro-batches of a layer in their order; there still where it is done again for backward.
struct RunningCounts {
  View2<double> sums;   ///< (micro-batches L, E), L MoE layers of the whole model
  int layers = 0;       ///< L
  int micro_batch = 0;  ///< number of the micro-batch in the step, from 0 on

  KOKKOS_INLINE_FUNCTION std::int64_t row(int layer) const {
    return std::int64_t{micro_batch} * layers + layer;
  }
};

/// The experts of all tokens that this rank's micro-batches of a step have, outside of the routers:
/// noted there as they are chosen, or taken from there instead (moe.replay).
struct ExpertChoices {
  enum class Use { none, record, replay };

  Use use = Use::none;
  View2<int> experts;            ///< (tokens L, K), a row for each token and MoE layer
  std::int64_t first_token = 0;  ///< number of the first token among all that the run trains on
  int layers = 0;                ///< L: MoE layers of the whole model
};

/// What a step hands to every MoE layer.
struct MoeStep {
  RoutingWindows windows;
  BalanceScale scale;
  MoeStatistics statistics;
  RoutingState state;
  RunningCounts running;
  ExpertChoices choices;
  /// In evaluation nothing is random, dropped or balanced.
  bool training = false;
  /// Key of the router's random numbers, and which step of the run this is.
  std::uint64_t seed = 0;
  std::int64_t number = 0;
  /// False where a forward pass is done again for backward: statistics are counted once.
  bool counts = true;
};

}  // namespace konclave
