#pragma once

#include "ops/op_table.hpp"
#include "run/rank_place.hpp"

#include <nlohmann/json.hpp>

#include <string>
#include <vector>

namespace konclave {

/// What a result depends on besides the deck: versions, build, the place of each rank, command
/// line, environment variables that steer libraries and batch systems.
nlohmann::json provenance(const std::vector<std::string>& command_line,
                          const std::vector<BackendChoice>& choices,
                          const std::vector<RankPlace>& places);

}  // namespace konclave
