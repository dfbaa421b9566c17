#include "comm/solo_transport.hpp"

#include "base/error.hpp"

namespace konclave {

namespace {

/// All was put on the execution space at the start.
class Done final : public Request::Pending {
 public:
  void finish(const ExecSpace&) override {}
  bool poll() override { return true; }
};

Request done(std::string what) { return {std::move(what), std::make_unique<Done>()}; }

}  // namespace

Request SoloTransport::start_all_gather_rows(const ExecSpace& exec, const AnyIn& send,
                                             const AnyView& receive,
                                             std::span<const std::int64_t> receive_rows) const {
  std::string what = "all_gather of group '" + name_ + "'";
  require_same_rows(send, receive, what);
  require(receive_rows.size() == 1 && receive_rows[0] == send.extent(0) &&
              receive_rows[0] == receive.extent(0),
          what + ": want the rows of the one rank");
  const std::vector<RowBlock> all = {{0, send.extent(0)}};
  copy_blocks(exec, send, all, receive, all, what);
  return done(std::move(what));
}

Request SoloTransport::start_all_to_all_blocks(const ExecSpace& exec, const AnyIn& send,
                                               const RowBlocks& send_blocks, const AnyView& receive,
                                               const RowBlocks& receive_blocks) const {
  std::string what = "all_to_all of group '" + name_ + "'";
  require_same_rows(send, receive, what);
  require_blocks_within(send_blocks, send, 1, what);
  require_blocks_within(receive_blocks, receive, 1, what);
  copy_blocks(exec, send, send_blocks[0], receive, receive_blocks[0], what);
  return done(std::move(what));
}

Request SoloTransport::start_send(const ExecSpace&, const AnyIn&, int, int) const {
  fail("send of group '" + name_ + "': its one rank has nobody to send to");
}

Request SoloTransport::start_receive(const ExecSpace&, const AnyView&, int, int) const {
  fail("receive of group '" + name_ + "': its one rank has nobody to receive from");
}

Request SoloTransport::start_broadcast(const ExecSpace&, const AnyView&, int root) const {
  require(root == 0, "broadcast of group '" + name_ + "': no rank " + std::to_string(root));
  return done("broadcast");
}

Request SoloTransport::start_all_reduce(const ExecSpace&, const AnyView&) const {
  return done("all_reduce");
}

std::vector<std::byte> SoloTransport::gather(std::span<const std::byte> mine) const {
  return {mine.begin(), mine.end()};
}

}  // namespace konclave
