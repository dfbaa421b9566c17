#include "model/group_bytes.hpp"

#include "base/error.hpp"
#include "base/text.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cstddef>

namespace konclave {

GroupBytes bytes_of_groups(const TrafficBytes& bytes) {
  GroupBytes sums{};
  for (const auto& [key, amount] : bytes) {
    const auto found = std::find(kGroupNames.begin(), kGroupNames.end(), key.group);
    require(found != kGroupNames.end(), "there is no group '" + key.group + "'");
    sums[static_cast<std::size_t>(found - kGroupNames.begin())] += amount;
  }
  return sums;
}

GroupBytes bytes_of_groups(const TrafficTable& table) {
  TrafficBytes bytes;
  for (const auto& [key, traffic] : table) bytes[key] = traffic.bytes;
  return bytes_of_groups(bytes);
}

std::vector<std::pair<std::string, std::string>> describe_traffic(const GroupBytes& least,
                                                                  const GroupBytes& most) {
  const auto text = [](std::int64_t bytes) {
    return fmt::format("{} ({} bytes)", format_bytes(bytes), bytes);
  };
  std::vector<std::pair<std::string, std::string>> lines;
  for (std::size_t i = 0; i < kGroupNames.size(); ++i) {
    if (most[i] == 0) continue;
    const std::string range = most[i] > least[i] ? " to " + text(most[i]) : "";
    lines.emplace_back(kGroupNames[i], text(least[i]) + range);
  }
  return lines;
}

}  // namespace konclave
