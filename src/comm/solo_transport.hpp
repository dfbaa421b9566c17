#pragma once

#include "comm/transport.hpp"

#include <string>

namespace konclave {

/// A group of one rank, without MPI: what is received is what was sent. There is nobody to send to
/// or to receive from, so those throw Error.
class SoloTransport final : public Transport {
 public:
  explicit SoloTransport(std::string name) : name_(std::move(name)) {}

  int rank() const override { return 0; }
  int size() const override { return 1; }
  const std::string& name() const override { return name_; }

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
  std::string name_;
};

}  // namespace konclave
