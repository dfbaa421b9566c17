#pragma once

#include "model/config.hpp"

namespace konclave {

/// Floating-point operations that the model itself needs for one token of a training step (forward
/// and twice that backward): 6 for each weight of a product that the token passes, the head
/// included and the embedding not, plus causal attention, which counts half of the square.
/// Recomputation does not count.
double training_flops_per_token(const ModelDefinition& definition);

}  // namespace konclave
