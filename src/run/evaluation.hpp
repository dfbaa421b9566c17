#pragma once

#include "data/dataset.hpp"
#include "train/trainer.hpp"

#include <cstdint>
#include <functional>
#include <vector>

namespace konclave {

/// Gets the logits, row-major (T,V), of the sequences from `first` on.
using LogitsSink = std::function<void(std::int64_t first, const std::vector<double>& logits)>;

/// Cross entropy over the first `count` sequences, `micro_size` at a time. Collective over the
/// runner's groups: the ranks of dp take blocks of the micro-batches, and each gets the result,
/// whose bits don't depend on their number. `each`, if given, is called on the rank that has the
/// logits, and `before_each` before each of this rank's micro-batches and the sum at the end.
Evaluation evaluate(ModelRunner& runner, const Dataset& data, std::int64_t count, int micro_size,
                    const LogitsSink& each = nullptr,
                    const std::function<void()>& before_each = nullptr);

}  // namespace konclave
