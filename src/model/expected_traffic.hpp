#pragma once

#include "comm/traffic.hpp"
#include "model/config.hpp"
#include "model/recompute.hpp"
#include "parallel/config.hpp"

#include <array>
#include <cstdint>
#include <map>
#include <string>
#include <utility>
#include <vector>

namespace konclave {

/// A training step, as far as its communication goes.
struct StepShape {
  ModelDefinition definition;
  ParallelConfig parallel;
  int ranks = 1;
  int global_size = 1, micro_size = 1;  ///< of the batch, in sequences
  RecomputeConfig recompute = {};
};

using TrafficBytes = std::map<TrafficKey, std::int64_t>;

/// Bytes of a step. They follow from the sizes alone, with one exception: under moe.receive_budget,
/// rows that did not reach the experts in one round go there again in backward. Where it depends on
/// the router whether they do, `most` has them and `least` has not.
struct ExpectedTraffic {
  TrafficBytes least, most;
};

/// What all ranks together receive in one training step, by group and collective: the sum over the
/// ranks of what a CommunicationLog counts. Arithmetic alone, for any legal mapping.
ExpectedTraffic expected_traffic(const StepShape& step);

/// All groups that a TrafficKey may name, in the order in which they are shown.
inline constexpr std::array<const char*, 12> kGroupNames = {
    "tp", "cp", "dp", "pp", "tp_cp", "dp_cp", "tp_dp_cp", "etp", "ep", "etp_ep", "edp", "world"};

/// Bytes of all collectives of each of kGroupNames.
using GroupBytes = std::array<std::int64_t, kGroupNames.size()>;
GroupBytes bytes_of_groups(const TrafficBytes& bytes);
GroupBytes bytes_of_groups(const TrafficTable& table);

/// (group, "1.2 MiB (1290240 bytes)") of each group that has any, with a second such figure behind
/// " to " where `most` is more than `least`.
std::vector<std::pair<std::string, std::string>> describe_traffic(const GroupBytes& least,
                                                                  const GroupBytes& most);

}  // namespace konclave
