#include "run/report_routing.hpp"

#include "run/routing_history.hpp"

#include <algorithm>
#include <cmath>
#include <cstdint>

namespace konclave {

namespace {

constexpr std::int64_t kMostColumns = 240, kMostCells = 400'000;
/// That are read of a file for one picture.
constexpr std::int64_t kMostBytes = std::int64_t{256} << 20;

double rounded(double value) { return std::round(value * 1e4) / 1e4; }

/// One MoE layer over some steps.
struct LayerPart {
  std::vector<double> load;  ///< (E): assignments
  double imbalance = 0, entropy = 0, chosen = 0, kept = 0;
};

std::vector<LayerPart> parts_of(const RoutingHistory& history, std::int64_t steps) {
  const auto layers = static_cast<std::size_t>(history.layers());
  const auto experts = static_cast<std::size_t>(history.experts);
  std::vector<LayerPart> parts(layers);
  for (std::size_t row = 0; row < static_cast<std::size_t>(steps) * layers; ++row) {
    LayerPart& part = parts[row % layers];
    part.load.resize(experts);
    std::int64_t all = 0, most = 0;
    for (std::size_t expert = 0; expert < experts; ++expert) {
      const std::int64_t chosen = history.chosen[row * experts + expert];
      part.load[expert] += static_cast<double>(chosen);
      part.kept += static_cast<double>(history.kept[row * experts + expert]);
      all += chosen;
      most = std::max(most, chosen);
    }
    part.chosen += static_cast<double>(all);
    part.imbalance += all > 0 ? static_cast<double>(most) * static_cast<double>(experts) /
                                    static_cast<double>(all)
                              : 1;
    part.entropy += history.entropy[row];
  }
  for (LayerPart& part : parts) {
    part.imbalance /= static_cast<double>(steps);
    part.entropy /= static_cast<double>(steps);
    for (double& load : part.load) {
      load = part.chosen > 0 ? load * static_cast<double>(experts) / part.chosen : 0;
    }
  }
  return parts;
}

nlohmann::json rounded(const std::vector<double>& values) {
  nlohmann::json list = nlohmann::json::array();
  for (const double value : values) list.push_back(rounded(value));
  return list;
}

}  // namespace

nlohmann::json report_routing(const std::filesystem::path& file) {
  const RoutingHistory shape = read_routing_steps(file);
  const std::int64_t steps = shape.steps(), layers = shape.layers();
  if (steps == 0 || layers == 0) return nullptr;
  const std::int64_t cells = layers * shape.experts, bytes = cells * 16 + layers * 40;
  const std::int64_t most = std::clamp<std::int64_t>(kMostCells / cells, 1, kMostColumns);
  const std::int64_t width = (steps + most - 1) / most;
  const std::int64_t columns = (steps + width - 1) / width;
  const std::int64_t read = std::clamp<std::int64_t>(kMostBytes / (bytes * columns), 1, width);

  nlohmann::json result = {{"layers", shape.layer}, {"experts", shape.experts}};
  for (const char* name : {"load", "imbalance", "entropy", "dropped"}) {
    result[name] =
        std::vector<nlohmann::json>(static_cast<std::size_t>(layers), nlohmann::json::array());
  }
  const auto step_at = [&](std::int64_t row) { return shape.step[static_cast<std::size_t>(row)]; };
  for (std::int64_t first = 0; first < steps; first += width) {
    const std::int64_t end = std::min(first + width, steps), count = std::min(read, end - first);
    result["columns"].push_back({step_at(first), step_at(end - 1), count});
    const std::vector<LayerPart> parts = parts_of(read_routing(file, first, count), count);
    for (std::size_t layer = 0; layer < parts.size(); ++layer) {
      const LayerPart& part = parts[layer];
      result["load"][layer].push_back(rounded(part.load));
      result["imbalance"][layer].push_back(rounded(part.imbalance));
      result["entropy"][layer].push_back(rounded(part.entropy));
      result["dropped"][layer].push_back(
          rounded(part.chosen > 0 ? (part.chosen - part.kept) / part.chosen : 0));
    }
  }
  const std::int64_t last =
      std::clamp<std::int64_t>(steps / 10, 1, std::max<std::int64_t>(kMostBytes / bytes, 1));
  const RoutingHistory end = read_routing(file, steps - last, last);
  result["final"] = nlohmann::json::array();
  for (const LayerPart& part : parts_of(end, last)) result["final"].push_back(rounded(part.load));
  result["final_steps"] = {step_at(steps - last), step_at(steps - 1)};
  return result;
}

}  // namespace konclave
