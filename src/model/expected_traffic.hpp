#pragma once

#include "model/config.hpp"
#include "model/group_bytes.hpp"
#include "model/recompute.hpp"
#include "parallel/config.hpp"

namespace konclave {

/// A training step, as far as its communication goes.
struct StepShape {
  ModelDefinition definition;
  ParallelConfig parallel;
  int ranks = 1;
  int global_size = 1, micro_size = 1;  ///< of the batch, in sequences
  RecomputeConfig recompute = {};
};

/// Bytes of a step. They follow from the sizes alone, with one exception: under moe.receive_budget,
/// rows that did not reach the experts in one round go there again in backward. Where it depends on
/// the router whether they do, `most` has them and `least` has not.
struct ExpectedTraffic {
  TrafficBytes least, most;
};

/// What all ranks together receive in one training step, by group and collective: the sum over the
/// ranks of what a CommunicationLog counts. Arithmetic alone, for any legal mapping.
ExpectedTraffic expected_traffic(const StepShape& step);

}  // namespace konclave
