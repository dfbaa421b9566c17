#pragma once

#include "layers/context.hpp"
#include "layers/embedding.hpp"
#include "moe/balance.hpp"

#include <vector>

namespace konclave {

/// One micro-batch of B sequences of S tokens on the device, T = B S rows, with everything about
/// it that the host works out once: positions, runs of equal tokens, routing windows.
struct MicroBatch {
  View1<const int> tokens, labels;  ///< (T); a label below 0 is not scored
  Sequences sequences;
  RoutingWindows windows;
  TokenRuns runs;
  std::int64_t scored = 0;  ///< labels that are scored
};

/// Copies a micro-batch to memory of `arena`. `window` sequences make a routing window; 0 takes
/// all. Throws when B is no multiple of the window.
MicroBatch make_micro_batch(const ExecSpace& exec, Arena& arena, const std::vector<int>& tokens,
                            const std::vector<int>& labels, int sequence_length, int window);

}  // namespace konclave
