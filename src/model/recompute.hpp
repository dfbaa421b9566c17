#pragma once

#include <algorithm>
#include <string>
#include <vector>

namespace konclave {

/// Deck section [recompute]: what forward does not keep for backward, which does it once more. The
/// results have the same bits.
struct RecomputeConfig {
  std::string granularity = "none";  ///< "none", "selective" or "full"
  /// With "selective": "core_attn", "layernorm", "moe_act", "mlp", "moe", "shared_experts".
  std::vector<std::string> modules = {"core_attn"};
  std::string method = "uniform";  ///< with "full": "uniform" or "block"
  int layers = 1;  ///< uniform: of a group that keeps its input alone; block: of each chunk

  /// Whether a module is done again by itself.
  bool repeats(const std::string& module) const {
    return granularity == "selective" &&
           std::find(modules.begin(), modules.end(), module) != modules.end();
  }
};

/// Layers of a chunk, first .. last-1, that are done again together, or one that is kept.
struct LayerGroup {
  int first = 0, last = 0;
  bool again = false;
};

/// The layers 0 .. layers-1 of a chunk in their order.
std::vector<LayerGroup> layer_groups(const RecomputeConfig& config, int layers);

}  // namespace konclave
