#pragma once

#include "data/dataset.hpp"
#include "train/trainer.hpp"

#include <cstdint>
#include <functional>
#include <vector>

namespace konclave {

/// The sequences of a data set with these indices, one after the other.
HostMicroBatch read_sequences(const Dataset& data, const std::vector<std::int64_t>& indices);

/// Cross entropy over the first `count` sequences, `micro_size` at a time. `each`, if given, gets
/// the logits of each micro-batch, row-major (T,V).
Evaluation evaluate(ModelRunner& runner, const Dataset& data, std::int64_t count, int micro_size,
                    const std::function<void(const std::vector<double>&)>& each = nullptr);

}  // namespace konclave
