#pragma once

#include "model/config.hpp"
#include "run/tensorboard_writer.hpp"
#include "train/metrics.hpp"

#include <nlohmann/json.hpp>

#include <cstdint>
#include <vector>

namespace konclave {

/// What a run knows of a step besides its metrics.
struct StepFacts {
  std::int64_t step = 0, tokens = 0;  ///< tokens so far
  double learning_rate = 0;
  double seconds = 0, flops = 0;
  double validation_loss = -1;    ///< below 0: none
  std::int64_t memory_bytes = 0;  ///< peak so far, of the rank that needs most
};

/// Numbers of the MoE layers of a model, from 0.
std::vector<std::int64_t> moe_layers(const ModelDefinition& definition);

/// The line of metrics.jsonl, without the layers.
nlohmann::json metrics_line(const StepFacts& facts, const StepMetrics& metrics);

/// Its list `layers`: one object for each MoE layer. The losses of kinds that moe.balancing does
/// not name are left out. overload_factor is that of `ep` ranks and the one figure that depends on
/// the mapping.
nlohmann::json layer_lines(const StepMetrics& metrics, const ModelDefinition& definition, int ep);

/// What TensorBoard gets of a line: "loss", ..., and of each layer "layer_03/entropy", ...
std::vector<Scalar> scalars_of(const nlohmann::json& line);

}  // namespace konclave
