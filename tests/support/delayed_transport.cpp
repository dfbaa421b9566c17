#include "tests/support/delayed_transport.hpp"

#include "base/error.hpp"
#include "tensor/host_copy.hpp"

#include <chrono>
#include <optional>
#include <thread>
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

/// All rows of a view.
std::vector<RowBlock> all_of(const AnyIn& view) {
  if (view.empty()) return {};
  return {{0, view.extent(0)}};
}

/// What comes to a rank, by what it sends to itself.
std::vector<RowBlock> arriving(const RowBlocks& send, const RowBlocks& receive, int rank) {
  std::vector<RowBlock> blocks;
  for (std::size_t from = 0; from < receive.size(); ++from) {
    const bool stays = from == static_cast<std::size_t>(rank) && rows_of(send[from]) == 0;
    if (!stays) blocks.insert(blocks.end(), receive[from].begin(), receive[from].end());
  }
  return blocks;
}

}  // namespace

/// A message under way: the inner transport works on memory that this object owns.
class DelayedTransport::Delayed final : public Request::Pending {
 public:
  /// `arriving`: what comes of the rows of `receive`.
  Delayed(const ExecSpace& exec, std::string what, const AnyIn& send, const AnyView& receive,
          std::vector<RowBlock> arriving)
      : what_(std::move(what)),
        send_(send),
        receive_(receive),
        arriving_(std::move(arriving)),
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
    for (const RowBlock& block : arriving_) set_bytes(exec, poison(block), part(receive_, block));
  }

  /// By this transport's time: what has arrived in it gets a moment to do so in the inner one too.
  /// Of a message between two ranks nobody knows before its moment has come, which `finish` reads.
  bool poll() override {
    if (clock_->call() < arrival_ || announcement_) return false;
    constexpr std::chrono::milliseconds kPatience(5);
    const auto end = std::chrono::steady_clock::now() + kPatience;
    while (!inner_->poll()) {
      if (std::chrono::steady_clock::now() > end) return false;
      std::this_thread::yield();
    }
    return true;
  }

  void finish(const ExecSpace& exec) override {
    if (announcement_) {
      announcement_->wait(exec);
      arrival_ = to_doubles(exec, moment()).front();
    }
    inner_->wait(exec);
    if (announcement_) {
      clock_->advance_to(arrival_);
    } else {
      clock_->wait_until_moved(arrival_);
    }
    require(bytes_of(exec, send_) == sent_bytes_, what_ + ": what is sent was changed before wait");
    for (const RowBlock& block : arriving_) {
      require(bytes_of(exec, part(receive_, block)) == poison(block),
              what_ + ": the receiver's buffer was written to before wait");
      set_bytes(exec, bytes_of(exec, part(received(), block)), part(receive_, block));
    }
  }

 private:
  static AnyView part(const AnyView& view, const RowBlock& block) {
    return view.slice(block.first, block.rows);
  }
  std::vector<std::byte> poison(const RowBlock& block) const {
    return std::vector<std::byte>(part(receive_, block).bytes(), kPoison);
  }

  std::string what_;
  AnyIn send_;
  AnyView receive_;
  std::vector<RowBlock> arriving_;
  std::vector<std::byte> sent_bytes_;
  Kokkos::View<char*, MemSpace> sent_memory_, received_memory_, moment_memory_;
  std::optional<Request> announcement_, inner_;
  std::shared_ptr<VirtualClock> clock_;
  double arrival_ = 0;  ///< of a message between two ranks the time, else for how long it moves
};

std::unique_ptr<DelayedTransport::Delayed> DelayedTransport::make(const ExecSpace& exec,
                                                                  const char* collective,
                                                                  const AnyIn& send,
                                                                  const AnyView& receive) const {
  return std::make_unique<Delayed>(exec, std::string(collective) + " of group '" + name() + "'",
                                   send, receive, all_of(receive));
}

double DelayedTransport::arrival(std::size_t bytes) const {
  return clock_->now() + link_.latency + static_cast<double>(bytes) / link_.bandwidth;
}

Request DelayedTransport::send_off(const ExecSpace& exec, std::unique_ptr<Delayed> message,
                                   Request inner) const {
  const std::size_t bytes = std::max(message->sent().bytes(), message->received().bytes());
  return send_off(exec, std::move(message), std::move(inner), bytes);
}

Request DelayedTransport::send_off(const ExecSpace& exec, std::unique_ptr<Delayed> message,
                                   Request inner, std::size_t bytes) const {
  const double on_link = static_cast<double>(bytes) / link_.bandwidth;
  const double arrives = link_.shared ? clock_->through_link(on_link) : clock_->call() + on_link;
  message->set_off(exec, std::move(inner), clock_, arrives + link_.latency);
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

Request DelayedTransport::start_all_to_all_blocks(const ExecSpace& exec, const AnyIn& send,
                                                  const RowBlocks& send_blocks,
                                                  const AnyView& receive,
                                                  const RowBlocks& receive_blocks) const {
  auto message = std::make_unique<Delayed>(exec, "all_to_all of group '" + name() + "'", send,
                                           receive, arriving(send_blocks, receive_blocks, rank()));
  Request inner = inner_->start_all_to_all_blocks(exec, message->sent(), send_blocks,
                                                  message->received(), receive_blocks);
  const std::int64_t rows = std::max(rows_of(send_blocks), rows_of(receive_blocks));
  return send_off(exec, std::move(message), std::move(inner),
                  static_cast<std::size_t>(rows) * row_bytes(send));
}

Request DelayedTransport::start_send(const ExecSpace& exec, const AnyIn& send, int to,
                                     int channel) const {
  auto message = make(exec, "send", send, AnyView());
  from_doubles(exec, {arrival(message->sent().bytes())}, message->moment());
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
