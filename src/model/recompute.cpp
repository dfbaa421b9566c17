#include "model/recompute.hpp"

namespace konclave {

std::vector<LayerGroup> layer_groups(const RecomputeConfig& config, int layers) {
  const bool full = config.granularity == "full", uniform = config.method == "uniform";
  std::vector<LayerGroup> groups;
  for (int first = 0; first < layers;) {
    const bool again = full && (uniform || first < config.layers);
    const int last = again && uniform ? std::min(first + config.layers, layers) : first + 1;
    groups.push_back({first, last, again});
    first = last;
  }
  return groups;
}

}  // namespace konclave
