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

/// Bytes of communications that are over, and how many of them were in flight under compute. A byte
/// counts as such by the share of its communication's time, from `start_...` until a poll or `wait`
/// found it done, in which this rank neither started nor waited for any communication. Both ends of
/// a message count, each from its own start: a receive is in flight from then on, whether or not
/// the other rank has sent.
struct Flights {
  std::int64_t bytes = 0, under_compute = 0;
};
using FlightTable = std::map<std::string, Flights>;  ///< by group

/// Time of a rank in ns: all of it up to now, by a steady clock, and what starting and waiting took
/// of it, and polling.
struct CommunicationTime {
  std::int64_t all = 0, waiting = 0, polling = 0;
};

/// The communication of one rank: what ObservedTransports saw, and where they draw it.
class CommunicationLog {
 public:
  /// Without a trace it only counts.
  explicit CommunicationLog(std::shared_ptr<Trace> trace = nullptr) : trace_(std::move(trace)) {}

  void add(const TrafficKey& what, std::int64_t bytes);
  /// Since construction or the last reset; a copy is a snapshot.
  const TrafficTable& totals() const { return totals_; }
  void reset() { totals_.clear(); }

  CommunicationTime time() const;
  /// Run a call into communication, whose time is then one of waiting or polling.
  template <typename Call> decltype(auto) wait(Call&& call) {
    const Span span(*this, time_.waiting);
    return call();
  }
  template <typename Call> decltype(auto) poll(Call&& call) {
    const Span span(*this, time_.polling);
    return call();
  }
  /// A communication that set off at `begin` is found done now; gives back the share of its time
  /// that was under compute.
  double land(const std::string& group, std::int64_t bytes, const CommunicationTime& begin);
  const FlightTable& flights() const { return flights_; }

  /// The last of it, one by one.
  CallLedger& ledger() { return ledger_; }
  const CallLedger& ledger() const { return ledger_; }

  /// The trace if it records now, else nothing.
  Trace* recording_trace() const {
    return trace_ != nullptr && trace_->recording() ? trace_.get() : nullptr;
  }

 private:
  class Span {
   public:
    Span(const CommunicationLog& log, std::int64_t& sum)
        : log_(log), sum_(sum), begin_(log.time().all) {}
    ~Span() { sum_ += log_.time().all - begin_; }
    Span(const Span&) = delete;
    Span& operator=(const Span&) = delete;

   private:
    const CommunicationLog& log_;
    std::int64_t& sum_;
    std::int64_t begin_;
  };

  std::shared_ptr<Trace> trace_;
  TrafficTable totals_;
  FlightTable flights_;
  CommunicationTime time_;
  CallLedger ledger_;
};

/// What came in addition to an earlier snapshot of the same log; what did not is left out.
TrafficTable traffic_since(const TrafficTable& earlier, const TrafficTable& later);
FlightTable flights_since(const FlightTable& earlier, const FlightTable& later);

}  // namespace konclave
