#pragma once

#include <string>
#include <vector>

namespace konclave {

/// A pipeline: `stages` ranks of a pp group, each with `chunks` parts of the model, through which
/// `micro_batches` go. Chunk c of stage s is part c * stages + s of the way.
struct PipelineShape {
  int stages = 1, chunks = 1, micro_batches = 1;
  /// Micro-batches that pass a chunk before the stage turns to its next one; 0 takes `stages`.
  /// Plays no part with one chunk.
  int group = 0;
};

/// Forward or backward of one micro-batch through one chunk of a stage.
struct PipelineWork {
  enum class Kind { forward, backward };
  Kind kind = Kind::forward;
  int micro_batch = 0, chunk = 0;

  bool operator==(const PipelineWork&) const = default;
};

/// Why there is no schedule for these numbers, with what would do, or "".
std::string schedule_fault(const PipelineShape& shape);

/// What a stage does, in its order: 1F1B with one chunk, interleaved 1F1B (Narayanan et al. 2021)
/// with several, in Megatron-Core's order. Arithmetic alone. Throws Error(internal) when there is a
/// fault.
std::vector<PipelineWork> pipeline_schedule(const PipelineShape& shape, int stage);

/// (chunk, micro-batch) pairs whose activations are held behind each piece of work: forward takes
/// one, its backward frees it.
std::vector<int> slots_in_flight(const std::vector<PipelineWork>& schedule);

}  // namespace konclave
