#include "tests/support/recording_transport.hpp"

namespace konclave {

namespace {

std::int64_t rows_of(const AnyIn& view) { return view.rank() == 0 ? 0 : view.extent(0); }

}  // namespace

TransportCall& RecordingTransport::add(const char* collective, const AnyIn& sent,
                                       const AnyIn& received) const {
  return log_.emplace_back(TransportCall{name(),
                                         collective,
                                         rows_of(sent),
                                         rows_of(received),
                                         sent.bytes(),
                                         received.bytes(),
                                         {},
                                         {},
                                         {},
                                         {}});
}

Request RecordingTransport::start_all_gather_rows(
    const ExecSpace& exec, const AnyIn& send, const AnyView& receive,
    std::span<const std::int64_t> receive_rows) const {
  TransportCall& call = add("all_gather", send, receive);
  call.rows_from.assign(receive_rows.begin(), receive_rows.end());
  return inner_->start_all_gather_rows(exec, send, receive, receive_rows);
}

Request RecordingTransport::start_all_to_all_blocks(const ExecSpace& exec, const AnyIn& send,
                                                    const RowBlocks& send_blocks,
                                                    const AnyView& receive,
                                                    const RowBlocks& receive_blocks) const {
  TransportCall& call = add("all_to_all", AnyIn(), AnyIn());
  for (const std::vector<RowBlock>& to : send_blocks) call.rows_to.push_back(rows_of(to));
  for (const std::vector<RowBlock>& from : receive_blocks) call.rows_from.push_back(rows_of(from));
  call.sent_rows = rows_of(send_blocks);
  call.received_rows = rows_of(receive_blocks);
  call.sent_bytes = static_cast<std::size_t>(call.sent_rows) * row_bytes(send);
  call.received_bytes = static_cast<std::size_t>(call.received_rows) * row_bytes(receive);
  return inner_->start_all_to_all_blocks(exec, send, send_blocks, receive, receive_blocks);
}

Request RecordingTransport::start_send(const ExecSpace& exec, const AnyIn& send, int to,
                                       int channel) const {
  TransportCall& call = add("send", send, AnyIn());
  call.peer = to;
  call.channel = channel;
  return inner_->start_send(exec, send, to, channel);
}

Request RecordingTransport::start_receive(const ExecSpace& exec, const AnyView& receive, int from,
                                          int channel) const {
  TransportCall& call = add("receive", AnyIn(), receive);
  call.peer = from;
  call.channel = channel;
  return inner_->start_receive(exec, receive, from, channel);
}

Request RecordingTransport::start_broadcast(const ExecSpace& exec, const AnyView& buffer,
                                            int root) const {
  const AnyIn none;
  add("broadcast", rank() == root ? AnyIn(buffer) : none, rank() == root ? none : AnyIn(buffer));
  return inner_->start_broadcast(exec, buffer, root);
}

Request RecordingTransport::start_all_reduce(const ExecSpace& exec, const AnyView& buffer) const {
  add("all_reduce", buffer, buffer);
  return inner_->start_all_reduce(exec, buffer);
}

std::vector<std::byte> RecordingTransport::gather(std::span<const std::byte> mine) const {
  std::vector<std::byte> all = inner_->gather(mine);
  log_.push_back({name(),
                  "gather",
                  static_cast<std::int64_t>(mine.size()),
                  static_cast<std::int64_t>(all.size()),
                  mine.size(),
                  all.size(),
                  {},
                  {},
                  {},
                  {}});
  return all;
}

}  // namespace konclave
