#pragma once

#include "model/config.hpp"

#include <string>

namespace konclave {

/// Why the experts of `moe` cannot be slices and copies of a dense model's MLPs, or the rest of it
/// not that model's: with keys, numbers and what would do, one fault a line; or "".
std::string upcycling_fault(const ModelDefinition& dense, const ModelDefinition& moe);

}  // namespace konclave
