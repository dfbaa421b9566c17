#pragma once

#include "comm/transport.hpp"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <memory>
#include <string>
#include <vector>

namespace konclave {

/// Seconds that pass only when somebody says so: the time of one rank. Messages of a rank move
/// inside its calls into the library of communication alone, and for a window of time behind each.
class VirtualClock {
 public:
  explicit VirtualClock(double window = std::numeric_limits<double>::infinity())
      : window_(window) {}

  double now() const { return now_; }
  /// Work that takes so long.
  void advance(double seconds) { now_ += seconds; }
  /// Waiting, in the library, for a moment that may be over.
  void advance_to(double moment) {
    call();
    spend(moment - now_);
  }

  /// A call into the library; gives back for how long messages have moved in all.
  double call() {
    moved_ += std::min(now_ - last_call_, window_);
    last_call_ = now_;
    return moved_;
  }
  /// Waiting until they have for so long.
  void wait_until_moved(double seconds) { spend(seconds - call()); }

  /// When a message is through that sets off now and takes `seconds` of a link that carries one at
  /// a time, in the time for which messages have moved.
  double through_link(double seconds) {
    link_free_ = std::max(link_free_, call()) + seconds;
    return link_free_;
  }

 private:
  void spend(double seconds) {
    now_ += std::max(0.0, seconds);
    moved_ += std::max(0.0, seconds);
    last_call_ = now_;
  }

  double window_, now_ = 0, last_call_ = 0, moved_ = 0, link_free_ = 0;
};

/// How long messages take: latency + bytes / bandwidth.
struct Link {
  double latency = 0;                                          ///< s
  double bandwidth = std::numeric_limits<double>::infinity();  ///< bytes/s
  /// Whether collectives under way at once wait for each other, or have a link each.
  bool shared = false;
};

/// Gives messages over another transport a time on the way, and shows where code reads what has not
/// arrived or touches what is still being sent.
///
/// What is received lies in memory of this transport until `wait`, which advances the clock to the
/// moment of arrival; until then the receiver's buffer is all ones, a NaN of every type. `wait`
/// throws Error when sender's or receiver's buffer was written to in between. The bytes that count
/// are the larger of those sent and received. The host's gather takes the latency.
///
/// A collective sets off when this rank starts it. A message to one rank sets off by the sender's
/// clock and takes its moment of arrival with it, so that waiting for it moves the receiver's clock
/// as far as the sender is ahead; the sender's `wait` lasts until the same moment.
class DelayedTransport final : public Transport {
 public:
  DelayedTransport(std::shared_ptr<const Transport> inner, std::shared_ptr<VirtualClock> clock,
                   Link link)
      : inner_(std::move(inner)), clock_(std::move(clock)), link_(link) {}

  int rank() const override { return inner_->rank(); }
  int size() const override { return inner_->size(); }
  const std::string& name() const override { return inner_->name(); }

  Request start_all_gather_rows(const ExecSpace& exec, const AnyIn& send, const AnyView& receive,
                                std::span<const std::int64_t> receive_rows) const override;
  Request start_all_to_all_blocks(const ExecSpace& exec, const AnyIn& send,
                                  const RowBlocks& send_blocks, const AnyView& receive,
                                  const RowBlocks& receive_blocks) const override;
  Request start_send(const ExecSpace& exec, const AnyIn& send, int to, int channel) const override;
  Request start_receive(const ExecSpace& exec, const AnyView& receive, int from,
                        int channel) const override;
  Request start_broadcast(const ExecSpace& exec, const AnyView& buffer, int root) const override;
  Request start_all_reduce(const ExecSpace& exec, const AnyView& buffer) const override;
  std::vector<std::byte> gather(std::span<const std::byte> mine) const override;

 private:
  class Delayed;

  /// A message of what is sent and received, either of which may be nothing.
  std::unique_ptr<Delayed> make(const ExecSpace& exec, const char* collective, const AnyIn& send,
                                const AnyView& receive) const;
  /// When a message of so many bytes to one rank arrives that sets off now.
  double arrival(std::size_t bytes) const;
  /// Hands a message over, once the inner transport has begun with it; without a number of bytes
  /// it has those of its views.
  Request send_off(const ExecSpace& exec, std::unique_ptr<Delayed> message, Request inner) const;
  Request send_off(const ExecSpace& exec, std::unique_ptr<Delayed> message, Request inner,
                   std::size_t bytes) const;

  std::shared_ptr<const Transport> inner_;
  std::shared_ptr<VirtualClock> clock_;
  Link link_;
};

}  // namespace konclave
