#pragma once

#include "run/compare_figures.hpp"

#include <nlohmann/json.hpp>

#include <cstdint>
#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <vector>

namespace konclave {

/// The lines of a metrics.jsonl by their step.
using MetricLines = std::map<std::int64_t, nlohmann::json>;

/// A line that does not parse is the end of a killed run and is left out. Throws Error(input) when
/// the file cannot be read.
MetricLines read_metrics(const std::filesystem::path& file);

/// How one metric of two runs differs over the steps where both have it.
struct MetricDifference {
  std::string name;
  Figure figure;
  std::int64_t steps = 0;
  double largest = 0;               ///< relative
  std::int64_t largest_step = 0;    ///< 0 when nothing differs
  double mean = 0;                  ///< of |a - b|
  std::int64_t first_exceeded = 0;  ///< step; 0: none
  std::int64_t first_unequal = 0;   ///< step; 0: none
  bool within = true;
};

struct MetricsComparison {
  std::vector<std::int64_t> steps;           ///< that both have
  std::vector<std::int64_t> only_a, only_b;  ///< that one alone has
  std::vector<MetricDifference> fields;

  bool within() const;
  /// The first step at which any metric differs in any bit; 0: none.
  std::int64_t first_unequal() const;
};

/// Compares what does not depend on the clock. A value that is missing or null (NaN) on one side
/// only is infinitely far away; the validation loss counts where both validated.
MetricsComparison compare_metrics(const MetricLines& a, const MetricLines& b,
                                  const Figures& figures);

}  // namespace konclave
