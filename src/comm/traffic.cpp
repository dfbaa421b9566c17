#include "comm/traffic.hpp"

namespace konclave {

void CommunicationLog::add(const TrafficKey& what, std::int64_t bytes) {
  Traffic& traffic = totals_[what];
  ++traffic.calls;
  traffic.bytes += bytes;
}

TrafficTable traffic_since(const TrafficTable& earlier, const TrafficTable& later) {
  TrafficTable table;
  for (const auto& [key, traffic] : later) {
    const auto before = earlier.find(key);
    const Traffic known = before == earlier.end() ? Traffic() : before->second;
    if (traffic == known) continue;
    table[key] = {traffic.calls - known.calls, traffic.bytes - known.bytes};
  }
  return table;
}

}  // namespace konclave
