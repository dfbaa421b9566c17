#pragma once

#include "train/metrics.hpp"

#include <cstdint>
#include <filesystem>
#include <vector>

namespace konclave {

/// What the routers did over some steps (S), in the MoE layers of the model (L) with their experts
/// (E); row-major, and the datasets of routing.h5 by these names.
struct RoutingHistory {
  std::vector<std::int64_t> layer;         ///< (L): number of the layer in the model, from 0
  std::int64_t experts = 0;                ///< E
  std::vector<std::int64_t> step;          ///< (S): ascending
  std::vector<std::int64_t> chosen, kept;  ///< (S,L,E): assignments, as in LayerMetrics
  /// (S,L), as in LayerMetrics.
  std::vector<double> entropy, aux_loss, seq_aux_loss, global_aux_loss, z_loss;

  std::int64_t steps() const { return static_cast<std::int64_t>(step.size()); }
  std::int64_t layers() const { return static_cast<std::int64_t>(layer.size()); }
  /// Appends a step; one entry of `metrics` for each of the layers.
  void add(std::int64_t number, const std::vector<LayerMetrics>& metrics);
  /// Forgets all steps.
  void clear();
  /// Bytes of all steps.
  std::int64_t bytes() const;
};

/// Layers, experts and numbers of the steps of a routing.h5, without what belongs to the steps.
/// Steps that a killed process did not write whole are left out. Throws Error(input) when there is
/// no such file, or it is damaged.
RoutingHistory read_routing_steps(const std::filesystem::path& path);

/// `count` steps of the file from the `first` one (from 0) on, with all that belongs to them.
RoutingHistory read_routing(const std::filesystem::path& path, std::int64_t first,
                            std::int64_t count);

}  // namespace konclave
