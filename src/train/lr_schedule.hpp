#pragma once

#include "train/config.hpp"

#include <cstdint>

namespace konclave {

/// Learning rate of update `step` = 1 .. total_steps. It rises linearly to lr over warmup_steps,
/// then by `schedule`:
///   constant  stays
///   linear    falls to min_lr on a line over decay_steps
///   cosine    the same on half a cosine
///   wsd       stays, and falls on a line to min_lr over the last decay_steps
/// and stays at min_lr behind the decay.
double learning_rate(const OptimizerConfig& config, std::int64_t step, std::int64_t total_steps);

}  // namespace konclave
