#pragma once

#include <nlohmann/json.hpp>

#include <filesystem>

namespace konclave {

/// What a report shows of a routing.h5; null when it has no steps. The steps are cut into columns,
/// and of a very long file each column shows some of its steps:
///   layers (L), experts: E, columns (T): [first step, last step, steps that count],
///   load (L,T,E): assignments of an expert over the mean of the layer's; 1 is a fair share,
///   imbalance, entropy, dropped (L,T): means over the steps; dropped as a share of the
///   assignments, final (L,E): load over the last tenth of the steps, final_steps: [first, last].
/// Numbers are rounded to 4 digits behind the point. Throws Error(input) when the file cannot be
/// read.
nlohmann::json report_routing(const std::filesystem::path& file);

}  // namespace konclave
