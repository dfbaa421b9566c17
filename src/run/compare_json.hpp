#pragma once

#include "run/compare.hpp"

#include <nlohmann/json.hpp>

namespace konclave {

/// A comparison for programs; a distance that is no finite number is null.
nlohmann::json comparison_json(const Comparison& comparison);

}  // namespace konclave
