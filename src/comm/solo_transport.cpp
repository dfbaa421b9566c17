#include "comm/solo_transport.hpp"

#include "base/error.hpp"

namespace konclave {

namespace {

/// All was put on the execution space at the start.
class Done final : public Request::Pending {
 public:
  void finish(const ExecSpace&) override {}
};

Request done(std::string what) { return {std::move(what), std::make_unique<Done>()}; }

}  // namespace

Request SoloTransport::copy(const ExecSpace& exec, const AnyIn& send, const AnyView& receive,
                            const char* collective) const {
  std::string what = std::string(collective) + " of group '" + name_ + "'";
  require(send.type() == receive.type() && same_shape(send, receive),
          what + ": " + send.describe() + " is sent and " + receive.describe() + " received");
  const View1<const char> from(static_cast<const char*>(send.data()), send.bytes());
  const View1<char> to(static_cast<char*>(receive.data()), receive.bytes());
  if (send.bytes() > 0) Kokkos::deep_copy(exec, to, from);
  return done(std::move(what));
}

Request SoloTransport::start_all_gather_rows(const ExecSpace& exec, const AnyIn& send,
                                             const AnyView& receive,
                                             std::span<const std::int64_t> receive_rows) const {
  require(receive_rows.size() == 1 && receive_rows[0] == send.extent(0),
          "all_gather of group '" + name_ + "': want the rows of the one rank");
  return copy(exec, send, receive, "all_gather");
}

Request SoloTransport::start_all_to_all(const ExecSpace& exec, const AnyIn& send,
                                        std::span<const std::int64_t> send_rows,
                                        const AnyView& receive,
                                        std::span<const std::int64_t> receive_rows) const {
  require(send_rows.size() == 1 && receive_rows.size() == 1 && send_rows[0] == send.extent(0) &&
              receive_rows[0] == receive.extent(0),
          "all_to_all of group '" + name_ + "': want the rows of the one rank");
  return copy(exec, send, receive, "all_to_all");
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
