#pragma once

#include "comm/traffic.hpp"
#include "comm/transport.hpp"

#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <tuple>
#include <vector>

namespace konclave {

/// Counts in a log what goes through another transport, and its ledger has each from `start_...` to
/// the end of `wait`. While the log's trace records, each communication is an event from
/// `start_...` until a poll or `wait` found it done, in a row of the group's name, with its bytes
/// and the share of them under compute (Flights); and `wait` is one of category "wait" in the row
/// "compute".
class ObservedTransport final : public Transport {
 public:
  /// `members`: the ranks of the world that the group consists of; without them, 0, 1, ...
  ObservedTransport(std::shared_ptr<const Transport> inner, std::shared_ptr<CommunicationLog> log,
                    std::vector<int> members = {});

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
  class Traced;

  /// Counts what `start` begins, bytes received, and has it drawn with the bytes moved.
  Request observe(CallLedger::Stream& stream, const char* collective, std::size_t received,
                  std::size_t moved, const std::function<Request()>& start) const;
  /// Of the messages to or from a rank of the group.
  CallLedger::Stream& messages(const char* direction, int peer, int channel) const;

  std::shared_ptr<const Transport> inner_;
  std::shared_ptr<CommunicationLog> log_;
  std::vector<int> members_;
  CallLedger::Stream& together_;
  mutable std::map<std::tuple<std::string_view, int, int>, CallLedger::Stream*> messages_;
};

}  // namespace konclave
