#pragma once

#include "deck/deck.hpp"
#include "run/compare_metrics.hpp"
#include "run/compare_weights.hpp"

#include <filesystem>
#include <optional>
#include <string>
#include <vector>

namespace konclave {

/// Two runs beside each other.
struct Comparison {
  std::string a, b;  ///< paths as given
  DType compute_a = DType::fp32, compute_b = DType::fp32;
  std::vector<DeckChange> decks;  ///< keys that differ, the run's name and place apart
  Figures figures;
  std::optional<MetricsComparison> metrics;
  std::optional<WeightsComparison> weights;
  std::vector<std::string> remarks;  ///< what was not compared and why; damage that was passed over

  /// Nothing that was compared is further away than the figures allow.
  bool within() const;
  /// Figures are for the first steps, and this looks at later ones.
  bool late() const;
};

/// Compares the metrics of all steps that both have, and the newest good checkpoints of the same
/// step. `a` and `b` are folders of runs, folders of checkpoints, or checkpoints; two single
/// checkpoints are compared whatever their steps. Involves no other rank and no device.
///
/// Throws Error(input) naming the path when there is no such run, and when the two have no step in
/// common, neither of metrics nor, lacking those, of checkpoints.
Comparison compare_runs(const std::filesystem::path& a, const std::filesystem::path& b,
                        std::optional<double> tolerance);

}  // namespace konclave
