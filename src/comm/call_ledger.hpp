#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

namespace konclave {

/// A row of communications that all who take part number alike: the collectives of a group, or the
/// messages to or from one of its ranks on one channel. The n-th of one member belongs to the n-th
/// of the others.
struct CallStream {
  std::string group;
  std::vector<int> members;            ///< ranks of the world, in the order of the group
  std::string direction = "together";  ///< "together", "to" or "from" the rank `peer`
  int peer = -1;                       ///< a rank of the world
  int channel = 0;

  bool operator==(const CallStream&) const = default;
};

/// One communication of a stream.
struct CallRecord {
  std::string kind;         ///< as in TrafficKey
  std::int64_t bytes = 0;   ///< in this rank's buffer, or sent
  std::int64_t number = 0;  ///< in its stream, from 1 on
  bool finished = false;
  double seconds = 0;  ///< since it began, or since its end
};

/// A stream as it stands.
struct StreamState {
  CallStream stream;
  std::int64_t calls = 0;        ///< begun so far
  std::vector<CallRecord> last;  ///< the last of them, oldest first
};

/// What a rank's only thread that communicates is waiting for; seconds since the wait began.
struct WaitState {
  std::size_t stream = 0;  ///< index into LedgerState::streams
  CallRecord call;
};

struct LedgerState {
  std::vector<StreamState> streams;
  std::optional<WaitState> wait;
};

/// Keeps the last communications of a rank for the day on which the job hangs. One thread writes,
/// without locks but for a new stream; any other may read at any time, wherever the first one is
/// stuck.
class CallLedger {
 public:
  class Stream;

  /// One communication: what `begin` hands out and `wait` and `finish` want back.
  struct Call {
    Stream* stream = nullptr;
    std::int64_t number = 0;
  };

  CallLedger();
  ~CallLedger();
  CallLedger(const CallLedger&) = delete;
  CallLedger& operator=(const CallLedger&) = delete;

  /// A new stream, which lives as long as the ledger.
  Stream& open(CallStream stream);
  /// `kind` lives for ever: a literal.
  static Call begin(Stream& stream, const char* kind, std::int64_t bytes);
  /// From here to `finish` the thread does nothing but wait for this call.
  void wait(const Call& call);
  void finish(const Call& call);

  LedgerState state() const;

 private:
  mutable std::mutex opening_;
  std::vector<std::unique_ptr<Stream>> streams_;
  std::atomic<const Stream*> waiting_{nullptr};
  std::atomic<std::int64_t> waiting_number_{0}, waiting_since_{0};
};

}  // namespace konclave
