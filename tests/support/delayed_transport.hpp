#pragma once

#include "comm/transport.hpp"
#include "tests/support/virtual_clock.hpp"

#include <cstddef>
#include <cstdint>
#include <limits>
#include <memory>
#include <string>
#include <vector>

namespace konclave {

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
/// A collective sets off when this rank starts it, and goes by this rank's clock alone. A message
/// between two ranks moves while it does on both, as large ones do in MPI: from when both have
/// started it, and in the stretches behind calls of both. So waiting for it moves the receiver's
/// clock as far as the sender is ahead. Two inaccuracies: from the sender's next wait, for whatever
/// it is, the message is taken to move on its side, as what comes then is not known; and the
/// sender's `wait` lasts as long as if the receiver had been there. Each such message has a link of
/// its own; channels 0 to 7 are for the user.
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
  /// Hands a message over, once the inner transport has begun with it; without a number of bytes
  /// it has those of its views.
  Request send_off(const ExecSpace& exec, std::unique_ptr<Delayed> message, Request inner) const;
  Request send_off(const ExecSpace& exec, std::unique_ptr<Delayed> message, Request inner,
                   std::size_t bytes) const;
  /// The same with its arrival in the time for which messages have moved.
  Request hand_over(const ExecSpace& exec, std::unique_ptr<Delayed> message, Request inner,
                    double arrival) const;
  /// That of a message of so many bytes that sets off now and has a link of its own.
  double arrival(std::size_t bytes) const;

  std::shared_ptr<const Transport> inner_;
  std::shared_ptr<VirtualClock> clock_;
  Link link_;
};

}  // namespace konclave
