#pragma once

#include "comm/traffic.hpp"
#include "comm/transport.hpp"

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

namespace konclave {

/// Counts in a log what goes through another transport. While the log's trace records, each
/// communication is an event from `start_...` to the end of `wait`, in a row of the group's name,
/// and the part that `wait` took is one of category "wait" in the row "compute".
class ObservedTransport final : public Transport {
 public:
  ObservedTransport(std::shared_ptr<const Transport> inner, std::shared_ptr<CommunicationLog> log)
      : inner_(std::move(inner)), log_(std::move(log)) {}

  int rank() const override { return inner_->rank(); }
  int size() const override { return inner_->size(); }
  const std::string& name() const override { return inner_->name(); }

  Request start_all_gather_rows(const ExecSpace& exec, const AnyIn& send, const AnyView& receive,
                                std::span<const std::int64_t> receive_rows) const override;
  Request start_all_to_all(const ExecSpace& exec, const AnyIn& send,
                           std::span<const std::int64_t> send_rows, const AnyView& receive,
                           std::span<const std::int64_t> receive_rows) const override;
  Request start_send(const ExecSpace& exec, const AnyIn& send, int to, int channel) const override;
  Request start_receive(const ExecSpace& exec, const AnyView& receive, int from,
                        int channel) const override;
  Request start_broadcast(const ExecSpace& exec, const AnyView& buffer, int root) const override;
  Request start_all_reduce(const ExecSpace& exec, const AnyView& buffer) const override;
  std::vector<std::byte> gather(std::span<const std::byte> mine) const override;

 private:
  class Traced;

  /// Counts what `start` begins, and has it drawn with the bytes of `moved`.
  Request observe(const char* collective, const AnyIn& received, const AnyIn& moved,
                  const std::function<Request()>& start) const;

  std::shared_ptr<const Transport> inner_;
  std::shared_ptr<CommunicationLog> log_;
};

}  // namespace konclave
