#pragma once

#include "comm/mpi_transport.hpp"
#include "comm/transport.hpp"

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

namespace konclave {

/// Has the members of a group compare what they are about to do together: kind, size, element type
/// and number of the collective, its root, and how many rows go from whom to whom. Members that
/// differ get an Error that says who calls what, where MPI would hang, cut short or say nothing.
/// One small exchange more for each collective, so for debug builds (KONCLAVE_CHECK_COLLECTIVES).
/// Messages between two ranks pass unchecked: MpiTransport looks at their length.
class CheckedTransport final : public Transport {
 public:
  explicit CheckedTransport(std::shared_ptr<const MpiTransport> inner) : inner_(std::move(inner)) {}

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
  class Comparison;
  class Checked;

  std::unique_ptr<Comparison> compare(std::vector<std::int64_t> mine) const;

  std::shared_ptr<const MpiTransport> inner_;
  mutable std::int64_t calls_ = 0;
};

}  // namespace konclave
