#pragma once

#include "base/trace.hpp"
#include "comm/call_ledger.hpp"

#include <compare>
#include <cstdint>
#include <map>
#include <memory>
#include <string>

namespace konclave {

/// Whose communication, and what: "all_gather", "all_to_all", "broadcast", "all_reduce", "send",
/// "receive", and "gather" for the one of the host.
struct TrafficKey {
  std::string group, collective;

  auto operator<=>(const TrafficKey&) const = default;
};

/// How much of it on this rank. Bytes are those that a call leaves in the rank's buffer, whoever
/// brought them: what a rank sends to itself counts, and so does the root's buffer of a broadcast.
/// So the bytes of a step, added up over the ranks, follow from the sizes alone, and not from where
/// tokens are routed. A send has calls only: its bytes are counted where they are received.
struct Traffic {
  std::int64_t calls = 0, bytes = 0;

  bool operator==(const Traffic&) const = default;
};

using TrafficTable = std::map<TrafficKey, Traffic>;

/// The communication of one rank: what ObservedTransports saw, and where they draw it.
class CommunicationLog {
 public:
  /// Without a trace it only counts.
  explicit CommunicationLog(std::shared_ptr<Trace> trace = nullptr) : trace_(std::move(trace)) {}

  void add(const TrafficKey& what, std::int64_t bytes);
  /// Since construction or the last reset; a copy is a snapshot.
  const TrafficTable& totals() const { return totals_; }
  void reset() { totals_.clear(); }

  /// The last of it, one by one.
  CallLedger& ledger() { return ledger_; }
  const CallLedger& ledger() const { return ledger_; }

  /// The trace if it records now, else nothing.
  Trace* recording_trace() const {
    return trace_ != nullptr && trace_->recording() ? trace_.get() : nullptr;
  }

 private:
  std::shared_ptr<Trace> trace_;
  TrafficTable totals_;
  CallLedger ledger_;
};

/// What came in addition to an earlier snapshot of the same log; what did not is left out.
TrafficTable traffic_since(const TrafficTable& earlier, const TrafficTable& later);

}  // namespace konclave
