#pragma once

#include "data/dataset.hpp"
#include "data/sampler.hpp"
#include "model/batch.hpp"
#include "train/config.hpp"

#include <cstdint>
#include <vector>

namespace konclave {

/// The sequences of a data set with these indices, one after the other.
HostMicroBatch read_sequences(const Dataset& data, const std::vector<std::int64_t>& indices);

/// Of the global batch that begins with sample `samples`, the micro-batches of rank `rank` of dp: a
/// contiguous block, so that the set of micro-batches does not depend on dp.
std::vector<HostMicroBatch> read_batch(const Dataset& data, const Sampler& sampler,
                                       const BatchConfig& batch, std::int64_t samples, int rank,
                                       int ranks);

}  // namespace konclave
