#pragma once

#include "deck/deck.hpp"

#include <cstdint>
#include <string>

namespace konclave {

struct ParameterCount {
  std::int64_t total = 0;
  std::int64_t active = 0;  ///< those that one token meets: top_k of the experts
};

/// Parameters of a model, counted by formula. Per layer, with D the size of a head, Nkv key heads:
///   attention  2 H N D + 2 H Nkv D, bias (N + 2 Nkv) D, q/k norm 2 D;   norms 2 H
///   dense MLP  3 H F;   MoE  E H + E * 3 H F
/// and V H for the embedding, H for the last norm, V H for a head of its own.
ParameterCount count_parameters(const ModelDefinition& definition);

/// Parameters on a rank, by the ranks that hold the same ones.
struct StageParameters {
  std::int64_t parted = 0;      ///< those of dp and cp
  std::int64_t replicated = 0;  ///< norms and routers: those of tp too
  std::int64_t routed = 0;      ///< those of edp

  std::int64_t total() const { return parted + replicated + routed; }
};

/// Parameters on the rank of a stage that has most. Of the formula above, tp shares out V (the last
/// part is then the largest), N, F and Nkv, of which each rank has one at least; norms and router
/// are on all of its ranks. ep shares out E, and etp the F of experts. The last stage has a copy of
/// a tied embedding that is on another stage.
StageParameters count_parameters_of_stage(const ModelDefinition& definition,
                                          const ParallelConfig& parallel, int stage);
/// Those of them whose optimizer state a rank keeps, on average: all, but with
/// parallel.distributed_optimizer its share of those that other ranks hold too.
std::int64_t count_owned_parameters(const StageParameters& parameters,
                                    const ParallelConfig& parallel, int ranks);

/// Bytes that a model and its optimizer take on one rank, without activations.
struct StateBytes {
  std::int64_t weights = 0, gradients = 0;
  std::int64_t master_weights = 0;  ///< fp32 copy of bf16 weights
  std::int64_t moments = 0;

  std::int64_t total() const { return weights + gradients + master_weights + moments; }
};
/// Weights and gradients of `parameters`, the optimizer's state of `owned` ones.
StateBytes count_state_bytes(std::int64_t parameters, std::int64_t owned, DType compute,
                             const OptimizerConfig& optimizer = {});

/// What `konclave check` prints: the effective deck, and below it, as comments of it, the numbers
/// that follow: parameters, tokens and micro-batches of a step, MoE layers, what each of `ranks`
/// ranks holds and does, which layers each stage has, and the bytes that a step moves between
/// ranks. Throws what place_ranks throws.
std::string check_report(const Deck& deck, int ranks);

}  // namespace konclave
