#pragma once

#include "parallel/config.hpp"

#include <string>
#include <vector>

namespace konclave {

/// What of a model a chunk of a pipeline stage has: layers first_layer .. first_layer + layers - 1,
/// the embedding in front of them, norm and head behind them.
struct ModelPart {
  bool embedding = false, head = false;
  int first_layer = 0, layers = 0;

  bool operator==(const ModelPart&) const = default;
};

/// Which chunk of which stage has which part. Chunk c of stage s is the (c * stages + s)-th part.
class PipelineLayout {
 public:
  PipelineLayout(int stages, std::vector<ModelPart> parts);

  int stages() const { return stages_; }
  int chunks() const { return static_cast<int>(parts_.size()) / stages_; }
  const ModelPart& part(int stage, int chunk) const;

 private:
  int stages_;
  std::vector<ModelPart> parts_;
};

/// By parallel.layout where it is given, else evenly over parallel.pp stages of parallel.vpp
/// chunks, apart from first_stage_layers and last_stage_layers. Throws Error(deck) when there is a
/// fault.
PipelineLayout make_pipeline_layout(const ParallelConfig& parallel, int num_layers);

/// Why there is no such layout, naming keys, numbers and what would do, or "".
std::string layout_fault(const ParallelConfig& parallel, int num_layers);

}  // namespace konclave
