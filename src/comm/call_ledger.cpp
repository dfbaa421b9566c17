#include "comm/call_ledger.hpp"

#include "comm/call_place.hpp"

#include <algorithm>
#include <array>
#include <chrono>
#include <utility>

namespace konclave {

namespace {

constexpr std::int64_t kKept = 8;  ///< calls of each stream

std::int64_t now() {
  using std::chrono::duration_cast, std::chrono::nanoseconds;
  return duration_cast<nanoseconds>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

}  // namespace

class CallLedger::Stream {
 public:
  explicit Stream(CallStream what) : what_(std::move(what)) {}

  std::int64_t begin(const char* kind, std::int64_t bytes) {
    const std::int64_t number = calls_.load(std::memory_order_relaxed) + 1;
    CallPlace& place = place_of(number);
    place.write([&](std::memory_order order) {
      place.kind.store(kind, order);
      place.bytes.store(bytes, order);
      place.number.store(number, order);
      place.since.store(now(), order);
      place.finished.store(false, order);
    });
    calls_.store(number, std::memory_order_release);
    return number;
  }

  void finish(std::int64_t number) {
    CallPlace& place = place_of(number);
    if (place.number.load(std::memory_order_relaxed) != number) return;  // long overwritten
    place.write([&](std::memory_order order) {
      place.since.store(now(), order);
      place.finished.store(true, order);
    });
  }

  StreamState state(std::int64_t at) const {
    StreamState state{what_, calls_.load(std::memory_order_acquire), {}};
    for (std::int64_t number = std::max<std::int64_t>(1, state.calls - kKept + 1);
         number <= state.calls; ++number) {
      const std::optional<CallRecord> record =
          places_[static_cast<std::size_t>(number % kKept)].read(at);
      if (record && record->number == number) state.last.push_back(*record);
    }
    return state;
  }

 private:
  CallPlace& place_of(std::int64_t number) {
    return places_[static_cast<std::size_t>(number % kKept)];
  }

  CallStream what_;
  std::atomic<std::int64_t> calls_{0};
  std::array<CallPlace, kKept> places_;
};

CallLedger::CallLedger() = default;
CallLedger::~CallLedger() = default;

CallLedger::Stream& CallLedger::open(CallStream stream) {
  const std::scoped_lock lock(opening_);
  return *streams_.emplace_back(std::make_unique<Stream>(std::move(stream)));
}

CallLedger::Call CallLedger::begin(Stream& stream, const char* kind, std::int64_t bytes) {
  return {&stream, stream.begin(kind, bytes)};
}

void CallLedger::wait(const Call& call) {
  waiting_number_.store(call.number, std::memory_order_relaxed);
  waiting_since_.store(now(), std::memory_order_relaxed);
  waiting_.store(call.stream, std::memory_order_release);
}

void CallLedger::finish(const Call& call) {
  waiting_.store(nullptr, std::memory_order_release);
  call.stream->finish(call.number);
}

LedgerState CallLedger::state() const {
  const std::scoped_lock lock(opening_);
  const std::int64_t at = now();
  LedgerState state;
  const Stream* const waiting = waiting_.load(std::memory_order_acquire);
  for (const auto& stream : streams_) {
    state.streams.push_back(stream->state(at));
    if (stream.get() != waiting) continue;
    WaitState wait{state.streams.size() - 1, {}};
    wait.call.kind = "communication";  // where newer ones have taken its place
    wait.call.number = waiting_number_.load(std::memory_order_relaxed);
    for (const CallRecord& record : state.streams.back().last) {
      if (record.number == wait.call.number) wait.call = record;
    }
    wait.call.seconds = seconds_since(waiting_since_.load(std::memory_order_relaxed), at);
    state.wait = wait;
  }
  return state;
}

}  // namespace konclave
