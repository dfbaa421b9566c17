#pragma once

#include "layers/context.hpp"
#include "layers/embedding.hpp"
#include "moe/moe_step.hpp"
#include "parallel/groups.hpp"

#include <cstdint>
#include <vector>

namespace konclave {

/// Tokens and labels of one micro-batch on the host, B whole sequences one after the other. All
/// ranks that share a micro-batch have it whole.
struct HostMicroBatch {
  std::vector<int> tokens, labels;  ///< a label below 0 is not scored
  /// Of its first sequence among all that the run trains on.
  std::int64_t first_sequence = 0;
};

/// What a rank has of a micro-batch of B sequences of S tokens, on the device, with everything
/// about it that the host works out once. Its rows are those of the region inside, T = B S / cp of
/// them.
struct MicroBatch {
  View1<const int> tokens;  ///< (T), numbers within this rank's part of the vocabulary, or -1
  View1<const int> labels;  ///< (T); below 0: not scored
  Sequences sequences;
  RoutingWindows windows;  ///< of the rows outside
  std::int64_t rows_outside = 0;
  TokenRuns runs;  ///< of the tokens in this rank's part of the vocabulary
};

/// How a micro-batch is cut and what is made of it.
struct MicroBatchForm {
  int sequence_length = 0;
  int window = 0;                       ///< sequences of a routing window; 0 takes all
  int first_token = 0, vocabulary = 0;  ///< this rank's part of the vocabulary
};

/// Copies this rank's share to memory of `arena`. Throws when B is no multiple of the window.
MicroBatch make_micro_batch(const ExecSpace& exec, Arena& arena, const HostMicroBatch& host,
                            const MicroBatchForm& form, const Groups& groups);

}  // namespace konclave
