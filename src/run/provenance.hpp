#pragma once

#include "ops/op_table.hpp"

#include <nlohmann/json.hpp>

#include <string>
#include <vector>

namespace konclave {

/// What a result depends on besides the deck: versions, build, place, command line, environment
/// variables that steer libraries and batch systems.
nlohmann::json provenance(const std::vector<std::string>& command_line,
                          const std::vector<BackendChoice>& choices);

}  // namespace konclave
