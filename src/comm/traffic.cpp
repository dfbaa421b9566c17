#include "comm/traffic.hpp"

#include <chrono>
#include <cmath>

namespace konclave {

void CommunicationLog::add(const TrafficKey& what, std::int64_t bytes) {
  Traffic& traffic = totals_[what];
  ++traffic.calls;
  traffic.bytes += bytes;
}

CommunicationTime CommunicationLog::time() const {
  const auto now = std::chrono::steady_clock::now().time_since_epoch();
  CommunicationTime time = time_;
  time.all = std::chrono::duration_cast<std::chrono::nanoseconds>(now).count();
  return time;
}

double CommunicationLog::land(const std::string& group, std::int64_t bytes,
                              const CommunicationTime& begin) {
  const CommunicationTime end = time();
  const auto in_flight = static_cast<double>(end.all - begin.all);
  const auto waiting = static_cast<double>(end.waiting - begin.waiting);
  const double share = in_flight > 0 ? 1 - waiting / in_flight : 0;
  Flights& flights = flights_[group];
  flights.bytes += bytes;
  flights.under_compute += std::llround(share * static_cast<double>(bytes));
  return share;
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

FlightTable flights_since(const FlightTable& earlier, const FlightTable& later) {
  FlightTable table = later;
  for (const auto& [group, flights] : earlier) {
    table[group].bytes -= flights.bytes;
    table[group].under_compute -= flights.under_compute;
  }
  return table;
}

}  // namespace konclave
