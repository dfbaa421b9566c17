#include "comm/observed_transport.hpp"

#include <utility>

namespace konclave {

namespace {

/// A communication as it is drawn.
struct Drawn {
  std::string collective, group;
  std::int64_t bytes = 0, begin = 0;
};

void draw(Trace& trace, const Drawn& drawn, std::int64_t wait_begin, std::int64_t end) {
  const double waited_us = static_cast<double>(end - wait_begin) / 1e3;
  trace.add({drawn.collective,
             "communication",
             drawn.group,
             drawn.begin,
             end,
             {{"bytes", drawn.bytes}, {"waited_us", waited_us}}});
  trace.add({"wait for " + drawn.collective + " of " + drawn.group,
             "wait",
             "compute",
             wait_begin,
             end,
             {}});
}

std::int64_t count(std::size_t bytes) { return static_cast<std::int64_t>(bytes); }

}  // namespace

/// What is under way in another request, and is drawn when that has been waited for.
class ObservedTransport::Traced final : public Request::Pending {
 public:
  Traced(Request inner, std::shared_ptr<const CommunicationLog> log, Drawn drawn)
      : inner_(std::move(inner)), log_(std::move(log)), drawn_(std::move(drawn)) {}

  void finish(const ExecSpace& exec) override {
    Trace* const trace = log_->recording_trace();
    const std::int64_t wait_begin = trace != nullptr ? trace->now() : 0;
    inner_.wait(exec);
    if (trace != nullptr) draw(*trace, drawn_, wait_begin, trace->now());
  }

 private:
  Request inner_;
  std::shared_ptr<const CommunicationLog> log_;
  Drawn drawn_;
};

Request ObservedTransport::observe(const char* collective, const AnyIn& received,
                                   const AnyIn& moved,
                                   const std::function<Request()>& start) const {
  log_->add({name(), collective}, count(received.bytes()));
  const Trace* const trace = log_->recording_trace();
  if (trace == nullptr) return start();
  Drawn drawn{collective, name(), count(moved.bytes()), trace->now()};
  return {std::string(collective) + " of group '" + name() + "'",
          std::make_unique<Traced>(start(), log_, std::move(drawn))};
}

Request ObservedTransport::start_all_gather_rows(const ExecSpace& exec, const AnyIn& send,
                                                 const AnyView& receive,
                                                 std::span<const std::int64_t> receive_rows) const {
  return observe("all_gather", receive, receive,
                 [&] { return inner_->start_all_gather_rows(exec, send, receive, receive_rows); });
}

Request ObservedTransport::start_all_to_all(const ExecSpace& exec, const AnyIn& send,
                                            std::span<const std::int64_t> send_rows,
                                            const AnyView& receive,
                                            std::span<const std::int64_t> receive_rows) const {
  return observe("all_to_all", receive, receive, [&] {
    return inner_->start_all_to_all(exec, send, send_rows, receive, receive_rows);
  });
}

Request ObservedTransport::start_send(const ExecSpace& exec, const AnyIn& send, int to,
                                      int channel) const {
  return observe("send", AnyIn(), send,
                 [&] { return inner_->start_send(exec, send, to, channel); });
}

Request ObservedTransport::start_receive(const ExecSpace& exec, const AnyView& receive, int from,
                                         int channel) const {
  return observe("receive", receive, receive,
                 [&] { return inner_->start_receive(exec, receive, from, channel); });
}

Request ObservedTransport::start_broadcast(const ExecSpace& exec, const AnyView& buffer,
                                           int root) const {
  return observe("broadcast", buffer, buffer,
                 [&] { return inner_->start_broadcast(exec, buffer, root); });
}

Request ObservedTransport::start_all_reduce(const ExecSpace& exec, const AnyView& buffer) const {
  return observe("all_reduce", buffer, buffer,
                 [&] { return inner_->start_all_reduce(exec, buffer); });
}

std::vector<std::byte> ObservedTransport::gather(std::span<const std::byte> mine) const {
  Trace* const trace = log_->recording_trace();
  const std::int64_t begin = trace != nullptr ? trace->now() : 0;
  std::vector<std::byte> all = inner_->gather(mine);
  log_->add({name(), "gather"}, count(all.size()));
  if (trace != nullptr)
    draw(*trace, {"gather", name(), count(all.size()), begin}, begin, trace->now());
  return all;
}

}  // namespace konclave
