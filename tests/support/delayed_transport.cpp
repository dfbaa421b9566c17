#include "tests/support/delayed_transport.hpp"

#include "base/error.hpp"
#include "tensor/host_copy.hpp"

#include <chrono>
#include <functional>
#include <optional>
#include <thread>
#include <utility>

namespace konclave {

namespace {

constexpr std::byte kPoison{0xff};
/// Of the inner transport, for what the sender says of a message; so many stretches at most.
constexpr int kNoteChannels = Transport::kChannels / 2;
constexpr std::size_t kNoteStretches = 256;

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
        note_memory_("konclave::DelayedTransport", (1 + 2 * kNoteStretches) * sizeof(double)) {
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

  /// What travels beside a message between two ranks: how many stretches, and these.
  AnyView note() const {
    return {DType::fp64, note_memory_.data(), {1 + 2 * kNoteStretches, 1, 1}, 1};
  }
  /// Of a message that is sent: `send_note` sends the note of its sender's stretches, once that is
  /// through or waits for something.
  void tell(VirtualClock& clock, std::function<Request()> send_note) {
    telling_ = clock.keep([this, &clock, begin = clock.now(), send_note = std::move(send_note)] {
      std::vector<double> numbers = {0};
      for (const Stretch& stretch : clock.moving_since(begin)) {
        numbers.insert(numbers.end(), {stretch.begin, stretch.end});
      }
      require(numbers.size() <= 1 + 2 * kNoteStretches, what_ + ": moves in too many stretches");
      numbers[0] = static_cast<double>(numbers.size() / 2);
      from_doubles(ExecSpace(), numbers, note().slice(0, std::ssize(numbers)));
      note_on_its_way_.emplace(send_note());
      telling_.reset();
    });
  }
  /// Of a message that is received from now on.
  void expect(double now, double seconds, double latency, Request note) {
    expected_ = {now, seconds, latency};
    note_on_its_way_.emplace(std::move(note));
  }

  void set_off(const ExecSpace& exec, Request request, std::shared_ptr<VirtualClock> clock,
               double arrival) {
    inner_.emplace(std::move(request));
    clock_ = std::move(clock);
    arrival_ = arrival;
    for (const RowBlock& block : arriving_) set_bytes(exec, poison(block), part(receive_, block));
  }

  /// By this transport's time: what has arrived in it gets a moment to do so in the inner one too.
  /// Of a message from another rank `finish` alone learns when it arrives.
  bool poll() override {
    if (!clock_->polls_count() || clock_->call() < arrival_ || expected_) return false;
    if (telling_) clock_->tell(*telling_);
    constexpr std::chrono::milliseconds kPatience(5);
    const auto end = std::chrono::steady_clock::now() + kPatience;
    while (!inner_->poll()) {
      if (std::chrono::steady_clock::now() > end) return false;
      std::this_thread::yield();
    }
    return true;
  }

  void finish(const ExecSpace& exec) override {
    clock_->tell_all();
    if (note_on_its_way_) note_on_its_way_->wait(exec);
    inner_->wait(exec);
    if (expected_) {
      clock_->advance_to(arrival_by_note(exec));
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
  /// A message from another rank.
  struct Expected {
    double since, seconds, latency;
  };

  double arrival_by_note(const ExecSpace& exec) const {
    const std::vector<double> numbers = to_doubles(exec, note());
    std::vector<Stretch> senders;
    for (std::size_t i = 0; i < static_cast<std::size_t>(numbers[0]); ++i) {
      senders.push_back({numbers[1 + 2 * i], numbers[2 + 2 * i]});
    }
    return expected_->latency +
           moved_on_both(senders, clock_->moving_since(expected_->since), expected_->seconds);
  }
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
  Kokkos::View<char*, MemSpace> sent_memory_, received_memory_, note_memory_;
  std::optional<Request> note_on_its_way_, inner_;
  std::optional<VirtualClock::News::iterator> telling_;
  std::optional<Expected> expected_;
  std::shared_ptr<VirtualClock> clock_;
  double arrival_ = 0;  ///< in the time for which messages have moved
};

std::unique_ptr<DelayedTransport::Delayed> DelayedTransport::make(const ExecSpace& exec,
                                                                  const char* collective,
                                                                  const AnyIn& send,
                                                                  const AnyView& receive) const {
  return std::make_unique<Delayed>(exec, std::string(collective) + " of group '" + name() + "'",
                                   send, receive, all_of(receive));
}

double DelayedTransport::arrival(std::size_t bytes) const {
  return clock_->call() + static_cast<double>(bytes) / link_.bandwidth + link_.latency;
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
  return hand_over(exec, std::move(message), std::move(inner), arrives + link_.latency);
}

Request DelayedTransport::hand_over(const ExecSpace& exec, std::unique_ptr<Delayed> message,
                                    Request inner, double arrival) const {
  message->set_off(exec, std::move(inner), clock_, arrival);
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
  require(channel < kNoteChannels, "the upper channels are for notes");
  auto message = make(exec, "send", send, AnyView());
  clock_->call();
  message->tell(*clock_, [inner = inner_, note = message->note(), to, channel] {
    return inner->start_send(ExecSpace(), note, to, kNoteChannels + channel);
  });
  Request inner = inner_->start_send(exec, message->sent(), to, channel);
  return hand_over(exec, std::move(message), std::move(inner), arrival(send.bytes()));
}

Request DelayedTransport::start_receive(const ExecSpace& exec, const AnyView& receive, int from,
                                        int channel) const {
  require(channel < kNoteChannels, "the upper channels are for notes");
  auto message = make(exec, "receive", AnyIn(), receive);
  clock_->call();
  message->expect(clock_->now(), static_cast<double>(receive.bytes()) / link_.bandwidth,
                  link_.latency,
                  inner_->start_receive(exec, message->note(), from, kNoteChannels + channel));
  Request inner = inner_->start_receive(exec, message->received(), from, channel);
  return hand_over(exec, std::move(message), std::move(inner), arrival(receive.bytes()));
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
  clock_->tell_all();
  clock_->advance(link_.latency);
  return inner_->gather(mine);
}

}  // namespace konclave
