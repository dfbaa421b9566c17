#pragma once

#include "checkpoints/reader.hpp"

#include <string>

namespace konclave {

/// What is in a checkpoint, as a table: step, files, tensors with type, shape and bytes, totals.
std::string inspect(const Checkpoint& checkpoint);

}  // namespace konclave
