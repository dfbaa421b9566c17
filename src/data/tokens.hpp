#pragma once

#include "data/dataset.hpp"

#include <string>
#include <vector>

namespace konclave {

/// Sequences of token ids made elsewhere: safetensors files with `input_ids` (N,S), I64 or I32, and
/// optionally `labels` (N,S), which are compared with the prediction at their own position: they
/// are not shifted, and negative ones are not scored. Without `labels` the inputs are shifted. The
/// rows of all files follow each other in the order given.
///
/// S must be `sequence_length`; 0 takes that of the first file. Ids and labels must be below
/// vocab_size. Throws Error(input) naming file and tensor, row and column.
/// Holds 8 bytes per token, all rows, on every rank.
TokenTable read_tokens(const std::vector<std::string>& files, int sequence_length, int vocab_size);

}  // namespace konclave
