#include "tests/support/delayed_transport.hpp"

#include "base/error.hpp"
#include "tensor/host_copy.hpp"

#include <optional>
#include <utility>

namespace konclave {

namespace {

constexpr std::byte kPoison{0xff};

std::vector<std::byte> bytes_of(const ExecSpace& exec, const AnyIn& view) {
  std::vector<std::byte> bytes(view.bytes());
  copy_to_host(exec, view, bytes.data());
  return bytes;
}

void set_bytes(const ExecSpace& exec, const std::vector<std::byte>& bytes, const AnyView& view) {
  copy_from_host(exec, bytes.data(), view);
}

}  // namespace

/// A message under way: the inner transport works on memory that this object owns.
class DelayedTransport::Delayed final : public Request::Pending {
 public:
  Delayed(const ExecSpace& exec, std::string what, const AnyIn& send, const AnyView& receive)
      : what_(std::move(what)),
        send_(send),
        receive_(receive),
        sent_bytes_(bytes_of(exec, send)),
        sent_memory_("konclave::DelayedTransport", send.bytes()),
        received_memory_("konclave::DelayedTransport", receive.bytes()),
        moment_memory_("konclave::DelayedTransport", sizeof(double)) {
    set_bytes(exec, sent_bytes_, sent());
    set_bytes(exec, bytes_of(exec, receive), received());
  }

  const std::string& what() const { return what_; }
  /// Copies of what is sent and of the receiver's buffer.
  AnyView sent() const {
    return {send_.type(), sent_memory_.data(), send_.extents(), send_.rank()};
  }
  AnyView received() const {
    return {receive_.type(), received_memory_.data(), receive_.extents(), receive_.rank()};
  }

  /// The moment of arrival, as it travels ahead of a message between two ranks.
  AnyView moment() const { return {DType::fp64, moment_memory_.data(), {1, 1, 1}, 1}; }
  void announce(Request request) { announcement_.emplace(std::move(request)); }

  void set_off(const ExecSpace& exec, Request request, std::shared_ptr<VirtualClock> clock,
               double arrival) {
    inner_.emplace(std::move(request));
    clock_ = std::move(clock);
    arrival_ = arrival;
    set_bytes(exec, poison(), receive_);
  }

  void finish(const ExecSpace& exec) override {
    if (announcement_) {
      announcement_->wait(exec);
      arrival_ = to_doubles(exec, moment()).front();
    }
    inner_->wait(exec);
    clock_->advance_to(arrival_);
    require(bytes_of(exec, send_) == sent_bytes_, what_ + ": what is sent was changed before wait");
    require(bytes_of(exec, receive_) == poison(),
            what_ + ": the receiver's buffer was written to before wait");
    set_bytes(exec, bytes_of(exec, received()), receive_);
  }

 private:
  std::vector<std::byte> poison() const {
    return std::vector<std::byte>(receive_.bytes(), kPoison);
  }

  std::string what_;
  AnyIn send_;
  AnyView receive_;
  std::vector<std::byte> sent_bytes_;
  Kokkos::View<char*, MemSpace> sent_memory_, received_memory_, moment_memory_;
  std::optional<Request> announcement_, inner_;
  std::shared_ptr<VirtualClock> clock_;
  double arrival_ = 0;
};

std::unique_ptr<DelayedTransport::Delayed> DelayedTransport::make(const ExecSpace& exec,
                                                                  const char* collective,
                                                                  const AnyIn& send,
                                                                  const AnyView& receive) const {
  return std::make_unique<Delayed>(exec, std::string(collective) + " of group '" + name() + "'",
                                   send, receive);
}

double DelayedTransport::arrival(const Delayed& message) const {
  const auto bytes =
      static_cast<double>(std::max(message.sent().bytes(), message.received().bytes()));
  return clock_->now() + link_.latency + bytes / link_.bandwidth;
}

Request DelayedTransport::send_off(const ExecSpace& exec, std::unique_ptr<Delayed> message,
                                   Request inner) const {
  message->set_off(exec, std::move(inner), clock_, arrival(*message));
  std::string what = message->what();
  return {std::move(what), std::move(message)};
}

Request DelayedTransport::start_all_gather_rows(const ExecSpace& exec, const AnyIn& send,
                                                const AnyView& receive,
                                                std::span<const std::int64_t> receive_rows) const {
  auto message = make(exec, "all_gather", send, receive);
  Request inner =
      inner_->start_all_gather_rows(exec, message->sent(), message->received(), receive_rows);
  return send_off(exec, std::move(message), std::move(inner));
}

Request DelayedTransport::start_all_to_all(const ExecSpace& exec, const AnyIn& send,
                                           std::span<const std::int64_t> send_rows,
                                           const AnyView& receive,
                                           std::span<const std::int64_t> receive_rows) const {
  auto message = make(exec, "all_to_all", send, receive);
  Request inner =
      inner_->start_all_to_all(exec, message->sent(), send_rows, message->received(), receive_rows);
  return send_off(exec, std::move(message), std::move(inner));
}

Request DelayedTransport::start_send(const ExecSpace& exec, const AnyIn& send, int to,
                                     int channel) const {
  auto message = make(exec, "send", send, AnyView());
  from_doubles(exec, {arrival(*message)}, message->moment());
  message->announce(inner_->start_send(exec, message->moment(), to, channel));
  Request inner = inner_->start_send(exec, message->sent(), to, channel);
  return send_off(exec, std::move(message), std::move(inner));
}

Request DelayedTransport::start_receive(const ExecSpace& exec, const AnyView& receive, int from,
                                        int channel) const {
  auto message = make(exec, "receive", AnyIn(), receive);
  message->announce(inner_->start_receive(exec, message->moment(), from, channel));
  Request inner = inner_->start_receive(exec, message->received(), from, channel);
  return send_off(exec, std::move(message), std::move(inner));
}

Request DelayedTransport::start_broadcast(const ExecSpace& exec, const AnyView& buffer,
                                          int root) const {
  const bool sends = rank() == root;
  auto message =
      make(exec, "broadcast", sends ? AnyIn(buffer) : AnyIn(), sends ? AnyView() : buffer);
  Request inner =
      inner_->start_broadcast(exec, sends ? message->sent() : message->received(), root);
  return send_off(exec, std::move(message), std::move(inner));
}

Request DelayedTransport::start_all_reduce(const ExecSpace& exec, const AnyView& buffer) const {
  auto message = make(exec, "all_reduce", AnyIn(), buffer);
  Request inner = inner_->start_all_reduce(exec, message->received());
  return send_off(exec, std::move(message), std::move(inner));
}

std::vector<std::byte> DelayedTransport::gather(std::span<const std::byte> mine) const {
  clock_->advance(link_.latency);
  return inner_->gather(mine);
}

}  // namespace konclave
