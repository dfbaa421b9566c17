#pragma once

#include "comm/transport.hpp"

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

namespace konclave {

/// One call, as this rank made it.
struct TransportCall {
  /// "all_to_all", ..., "send", "receive", and "gather" for the one of the host.
  std::string group, collective;
  std::int64_t sent_rows = 0, received_rows = 0;
  std::size_t sent_bytes = 0, received_bytes = 0;
  /// Rows to each rank of an all-to-all, and from each one of an all-to-all or an all-gather.
  std::vector<std::int64_t> rows_to, rows_from;
  /// Of a message to or from one rank.
  std::optional<int> peer, channel;
};

/// Writes down what goes through another transport. Several may share a log, which has to outlive
/// them: then it has the calls of all groups in their order. In a broadcast the root sends and the
/// others receive; the rows of the host's gather are bytes.
class RecordingTransport final : public Transport {
 public:
  RecordingTransport(std::shared_ptr<const Transport> inner, std::vector<TransportCall>& log)
      : inner_(std::move(inner)), log_(log) {}

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
  /// Adds a call with what it sends and receives, either of which may be nothing.
  TransportCall& add(const char* collective, const AnyIn& sent, const AnyIn& received) const;

  std::shared_ptr<const Transport> inner_;
  std::vector<TransportCall>& log_;
};

}  // namespace konclave
