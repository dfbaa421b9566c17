#pragma once

#include "base/trace.hpp"
#include "comm/communicator.hpp"

#include <string>
#include <vector>

namespace konclave {

/// Seconds of a part of a step.
struct Phase {
  std::string name;
  double seconds = 0;
};

/// What the last `steps` steps of a trace were made of, each part as the mean over the steps, in
/// the order in which they end: "forward: attention", "update weights". Time within a part and
/// outside of what it contains is "forward: rest", that of the step itself "other"; so the parts
/// add up to the steps. Layers of a kind are one part.
std::vector<Phase> phases_of(const std::vector<TraceEvent>& events, int steps);

/// The mean over ranks, part by part, in the order of the first one.
std::vector<Phase> mean_phases(const std::vector<std::vector<Phase>>& per_rank);
/// The same of what each rank of `world` has, on rank 0; nothing elsewhere. Collective.
std::vector<Phase> mean_phases(const Communicator& world, const std::vector<Phase>& mine);

}  // namespace konclave
