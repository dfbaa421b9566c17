#pragma once

#include "bench/setup.hpp"
#include "model/batch.hpp"

#include <cstdint>
#include <vector>

namespace konclave {

/// A micro-batch of random tokens, the same wherever `number` is asked for; all are scored but the
/// last of each sequence.
HostMicroBatch random_micro_batch(const ModelConfig& model, int sequences, std::uint64_t number);

/// This rank's micro-batches of global batch `step` of the deck: others in each step.
std::vector<HostMicroBatch> random_batch(const BenchSetup& setup, std::int64_t step);

}  // namespace konclave
