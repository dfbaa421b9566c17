#include "comm/observed_transport.hpp"

#include <numeric>
#include <utility>

namespace konclave {

namespace {

/// A communication as it is drawn.
struct Drawn {
  std::string collective, group;
  std::int64_t bytes = 0;
  std::int64_t begin = 0, end = 0;  ///< by the trace; begin 0: not drawn
  double under_compute = 0;
};

void draw(Trace& trace, const Drawn& drawn, std::int64_t wait_begin, std::int64_t wait_end) {
  const double waited_us = static_cast<double>(wait_end - wait_begin) / 1e3;
  trace.add(
      {drawn.collective,
       "communication",
       drawn.group,
       drawn.begin,
       drawn.end,
       {{"bytes", drawn.bytes}, {"waited_us", waited_us}, {"under_compute", drawn.under_compute}}});
  trace.add({"wait for " + drawn.collective + " of " + drawn.group,
             "wait",
             "compute",
             wait_begin,
             wait_end,
             {}});
}

std::int64_t count(std::size_t bytes) { return static_cast<std::int64_t>(bytes); }

std::vector<int> all_if_none(std::vector<int> members, int size) {
  if (!members.empty()) return members;
  members.resize(static_cast<std::size_t>(size));
  std::iota(members.begin(), members.end(), 0);
  return members;
}

}  // namespace

/// What is under way in another request. It is drawn, if at all, when it has been waited for.
class ObservedTransport::Traced final : public Request::Pending {
 public:
  Traced(Request inner, std::shared_ptr<CommunicationLog> log, CallLedger::Call call,
         const CommunicationTime& begin, Drawn drawn)
      : inner_(std::move(inner)),
        log_(std::move(log)),
        call_(call),
        begin_(begin),
        drawn_(std::move(drawn)) {}

  bool poll() override {
    if (landed_ || !log_->poll([&] { return inner_.poll(); })) return landed_;
    const Trace* const trace = log_->recording_trace();
    if (trace == nullptr) drawn_.begin = 0;
    land(trace != nullptr ? trace->now() : 0);
    return true;
  }

  void finish(const ExecSpace& exec) override {
    Trace* const trace = drawn_.begin != 0 ? log_->recording_trace() : nullptr;
    const std::int64_t wait_begin = trace != nullptr ? trace->now() : 0;
    log_->ledger().wait(call_);
    log_->wait([&] { inner_.wait(exec); });
    log_->ledger().finish(call_);
    const std::int64_t wait_end = trace != nullptr ? trace->now() : 0;
    if (!landed_) land(wait_end);
    if (trace != nullptr) draw(*trace, drawn_, wait_begin, wait_end);
  }

 private:
  void land(std::int64_t end) {
    landed_ = true;
    drawn_.end = end;
    drawn_.under_compute = log_->land(drawn_.group, drawn_.bytes, begin_);
  }

  Request inner_;
  std::shared_ptr<CommunicationLog> log_;
  CallLedger::Call call_;
  CommunicationTime begin_;
  bool landed_ = false;
  Drawn drawn_;
};

ObservedTransport::ObservedTransport(std::shared_ptr<const Transport> inner,
                                     std::shared_ptr<CommunicationLog> log,
                                     std::vector<int> members)
    : inner_(std::move(inner)),
      log_(std::move(log)),
      members_(all_if_none(std::move(members), inner_->size())),
      together_(log_->ledger().open({inner_->name(), members_})) {}

CallLedger::Stream& ObservedTransport::messages(const char* direction, int peer,
                                                int channel) const {
  CallLedger::Stream*& stream = messages_[{direction, peer, channel}];
  if (stream == nullptr) {
    const int rank = members_.at(static_cast<std::size_t>(peer));
    stream = &log_->ledger().open({name(), members_, direction, rank, channel});
  }
  return *stream;
}

Request ObservedTransport::observe(CallLedger::Stream& stream, const char* collective,
                                   std::size_t received, std::size_t moved,
                                   const std::function<Request()>& start) const {
  log_->add({name(), collective}, count(received));
  const Trace* const trace = log_->recording_trace();
  Drawn drawn{collective, name(), count(moved), trace != nullptr ? trace->now() : 0};
  const CallLedger::Call call = CallLedger::begin(stream, collective, count(moved));
  const CommunicationTime begin = log_->time();
  Request inner = log_->wait(start);
  return {std::string(collective) + " of group '" + name() + "'",
          std::make_unique<Traced>(std::move(inner), log_, call, begin, std::move(drawn))};
}

Request ObservedTransport::start_all_gather_rows(const ExecSpace& exec, const AnyIn& send,
                                                 const AnyView& receive,
                                                 std::span<const std::int64_t> receive_rows) const {
  return observe(together_, "all_gather", receive.bytes(), receive.bytes(),
                 [&] { return inner_->start_all_gather_rows(exec, send, receive, receive_rows); });
}

Request ObservedTransport::start_all_to_all_blocks(const ExecSpace& exec, const AnyIn& send,
                                                   const RowBlocks& send_blocks,
                                                   const AnyView& receive,
                                                   const RowBlocks& receive_blocks) const {
  const auto rows = static_cast<std::size_t>(rows_of(receive_blocks));
  const std::size_t bytes = rows * row_bytes(receive);
  return observe(together_, "all_to_all", bytes, bytes, [&] {
    return inner_->start_all_to_all_blocks(exec, send, send_blocks, receive, receive_blocks);
  });
}

Request ObservedTransport::start_send(const ExecSpace& exec, const AnyIn& send, int to,
                                      int channel) const {
  return observe(messages("to", to, channel), "send", 0, send.bytes(),
                 [&] { return inner_->start_send(exec, send, to, channel); });
}

Request ObservedTransport::start_receive(const ExecSpace& exec, const AnyView& receive, int from,
                                         int channel) const {
  return observe(messages("from", from, channel), "receive", receive.bytes(), receive.bytes(),
                 [&] { return inner_->start_receive(exec, receive, from, channel); });
}

Request ObservedTransport::start_broadcast(const ExecSpace& exec, const AnyView& buffer,
                                           int root) const {
  return observe(together_, "broadcast", buffer.bytes(), buffer.bytes(),
                 [&] { return inner_->start_broadcast(exec, buffer, root); });
}

Request ObservedTransport::start_all_reduce(const ExecSpace& exec, const AnyView& buffer) const {
  return observe(together_, "all_reduce", buffer.bytes(), buffer.bytes(),
                 [&] { return inner_->start_all_reduce(exec, buffer); });
}

std::vector<std::byte> ObservedTransport::gather(std::span<const std::byte> mine) const {
  Trace* const trace = log_->recording_trace();
  const std::int64_t begin = trace != nullptr ? trace->now() : 0;
  const std::size_t bytes = mine.size() * static_cast<std::size_t>(size());
  const CallLedger::Call call = CallLedger::begin(together_, "gather", count(bytes));
  log_->ledger().wait(call);
  const CommunicationTime before = log_->time();
  std::vector<std::byte> all = log_->wait([&] { return inner_->gather(mine); });
  log_->ledger().finish(call);
  log_->add({name(), "gather"}, count(all.size()));
  const double share = log_->land(name(), count(all.size()), before);
  if (trace != nullptr) {
    const std::int64_t end = trace->now();
    draw(*trace, {"gather", name(), count(all.size()), begin, end, share}, begin, end);
  }
  return all;
}

}  // namespace konclave
