#pragma once

#include "train/optimizer.hpp"

namespace konclave {

/// Updates a whole parameter that is packed by strips of rows, whose new values are still in a
/// cache when they are packed. Runs on `exec`.
void update_and_pack(const ExecSpace& exec, Operations& operations, Arena& scratch,
                     const ops::AdamW& rule, ops::ChanceRounding rounding,
                     const Optimizer::State& state);

}  // namespace konclave
