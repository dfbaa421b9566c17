#pragma once

#include "comm/call_ledger.hpp"

#include <atomic>
#include <cstdint>
#include <optional>

namespace konclave {

/// Of two moments in nanoseconds.
inline double seconds_since(std::int64_t then, std::int64_t at) {
  return static_cast<double>(at - then) * 1e-9;
}

/// A record of a CallLedger, which one thread writes while others read it, without a lock: the
/// writer makes `version` odd while it changes the rest, so that a reader notices. Each store
/// is a release and each load an acquire: who sees a new field sees the odd version, too.
struct CallPlace {
  std::atomic<std::int64_t> version{0};
  std::atomic<const char*> kind{""};
  std::atomic<std::int64_t> bytes{0}, number{0}, since{0};
  std::atomic<bool> finished{false};

  template <typename Change> void write(const Change& change) {
    constexpr auto order = std::memory_order_release;
    const std::int64_t before = version.load(std::memory_order_relaxed);
    version.store(before + 1, order);
    change(order);
    version.store(before + 2, order);
  }

  /// Nothing when the writer was faster, which it is not where it hangs.
  std::optional<CallRecord> read(std::int64_t at) const {
    constexpr auto order = std::memory_order_acquire;
    const std::int64_t before = version.load(order);
    CallRecord record{kind.load(order), bytes.load(order), number.load(order), finished.load(order),
                      seconds_since(since.load(order), at)};
    if (before % 2 != 0 || version.load(order) != before) return {};
    return record;
  }
};

}  // namespace konclave
