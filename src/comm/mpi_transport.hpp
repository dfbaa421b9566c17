#pragma once

#include "comm/communicator.hpp"
#include "comm/transport.hpp"

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

namespace konclave {

/// Communication by non-blocking MPI calls. MPI has no notion of execution spaces, so this
/// is the one implementation that fences: `exec` before a buffer is handed to MPI.
class MpiTransport final : public Transport {
 public:
  /// With `stage_through_host` tensors pass through host buffers, for an MPI that cannot read the
  /// memory of the device; without it MPI gets the tensors' own addresses.
  explicit MpiTransport(Communicator group, bool stage_through_host = !kHostAccessible);

  const Communicator& communicator() const { return group_; }

  int rank() const override { return group_.rank(); }
  int size() const override { return group_.size(); }
  const std::string& name() const override { return group_.name(); }

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
  std::string label(const char* collective) const;
  void require_one_each(std::span<const std::int64_t> rows, const std::string& what) const;
  void require_member(int rank, const std::string& what) const;
  void require_peer(int rank, int channel, const std::string& what) const;

  Communicator group_;
  bool staged_;
};

}  // namespace konclave
