#pragma once

#include "comm/traffic.hpp"

#include <array>
#include <cstdint>
#include <map>
#include <string>
#include <utility>
#include <vector>

namespace konclave {

/// Bytes by group and collective.
using TrafficBytes = std::map<TrafficKey, std::int64_t>;

/// All groups that a TrafficKey may name, in the order in which they are shown.
inline constexpr std::array<const char*, 12> kGroupNames = {
    "tp", "cp", "dp", "pp", "tp_cp", "dp_cp", "tp_dp_cp", "etp", "ep", "etp_ep", "edp", "world"};

/// Bytes of all collectives of each of kGroupNames. Throws Error for a group that is none of them.
using GroupBytes = std::array<std::int64_t, kGroupNames.size()>;
GroupBytes bytes_of_groups(const TrafficBytes& bytes);
GroupBytes bytes_of_groups(const TrafficTable& table);

/// (group, "1.2 MiB (1290240 bytes)") of each group that has any, with a second such figure behind
/// " to " where `most` is more than `least`.
std::vector<std::pair<std::string, std::string>> describe_traffic(const GroupBytes& least,
                                                                  const GroupBytes& most);

}  // namespace konclave
