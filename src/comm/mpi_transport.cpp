#include "comm/mpi_transport.hpp"

#include "base/error.hpp"
#include "comm/mpi_call.hpp"
#include "comm/mpi_exchange.hpp"
#include "comm/mpi_row_type.hpp"
#include "tensor/host_copy.hpp"

#include <mpi.h>

#include <memory>
#include <optional>
#include <utility>

namespace konclave {

namespace {

/// All-to-alls are messages of a channel of their own.
constexpr int kExchangeTag = Transport::kChannels;

/// Row counts of all ranks and where their rows begin, as MPI wants them.
struct Slices {
  std::vector<int> counts, offsets;

  Slices() = default;
  Slices(std::span<const std::int64_t> rows, const AnyIn& view, const std::string& what) {
    std::int64_t total = 0;
    for (const std::int64_t count : rows) {
      counts.push_back(to_mpi_count(count, "a count of rows", what));
      offsets.push_back(to_mpi_count(total, "an offset in rows", what));
      total += count;
    }
    require(total == view.extent(0), what + ": counts add up to " + std::to_string(total) +
                                         " rows, the view is " + view.describe());
  }
};

/// An MPI request and what has to live as long as it.
class MpiPending final : public Request::Pending {
 public:
  MpiPending(std::string what, bool staged) : what_(std::move(what)), staged_(staged) {}

  /// The address that MPI may read in place of `view`'s, once `exec` has filled it.
  const void* source(const ExecSpace& exec, const AnyIn& view) {
    if (view.bytes() == 0) return &nothing_sent_;
    if (!staged_) {
      fence(exec, "konclave::MpiTransport");
      return view.data();
    }
    sent_ = std::make_unique_for_overwrite<std::byte[]>(view.bytes());
    copy_to_host(exec, view, sent_.get());
    return sent_.get();
  }

  /// The address that MPI may write in place of `view`'s; `finish` brings the bytes there.
  void* target(const ExecSpace& exec, const AnyView& view) {
    if (view.bytes() == 0) return &nothing_received_;
    if (!staged_) {
      fence(exec, "konclave::MpiTransport");
      return view.data();
    }
    target_ = view;
    received_ = std::make_unique_for_overwrite<std::byte[]>(view.bytes());
    return received_.get();
  }

  /// The address of memory that MPI may both read and write in place of `view`'s.
  void* in_place(const ExecSpace& exec, const AnyView& view) {
    void* const address = target(exec, view);
    if (staged_) copy_to_host(exec, view, address);
    return address;
  }

  MPI_Request* request() { return &request_; }

  bool poll() override { return is_done(request_, what_); }

  void finish(const ExecSpace& exec) override {
    MPI_Status status;
    check_mpi(MPI_Wait(&request_, &status), "MPI_Wait", what_);
    if (row) require_all_of(status);
    if (received_ != nullptr) copy_from_host(exec, received_.get(), target_);
  }

  Slices receiving;            ///< of an all-gather
  std::optional<MpiType> row;  ///< of a message from one rank ...
  int expected_rows = 0;       ///< ... that has so many

 private:
  /// MPI itself complains of a message that is too long only.
  void require_all_of(const MPI_Status& status) const {
    const int rows = row->count_of(status, what_);
    require(rows == expected_rows,
            what_ + ": " + (rows == MPI_UNDEFINED ? "no whole number of" : std::to_string(rows)) +
                " rows came, expected were " + std::to_string(expected_rows));
  }

  std::string what_;
  bool staged_;
  MPI_Request request_ = MPI_REQUEST_NULL;
  std::unique_ptr<std::byte[]> sent_, received_;
  AnyView target_;
  /// Stand in for empty views. Two of these, or an empty one and another, may have one address, and
  /// Open MPI's non-blocking collectives take equal addresses for MPI_IN_PLACE.
  std::byte nothing_sent_{}, nothing_received_{};
};

}  // namespace

MpiTransport::MpiTransport(Communicator group, bool stage_through_host)
    : group_(std::move(group)), staged_(stage_through_host) {}

std::string MpiTransport::label(const char* collective) const {
  return std::string(collective) + " of group '" + name() + "'";
}

void MpiTransport::require_one_each(std::span<const std::int64_t> rows,
                                    const std::string& what) const {
  require(rows.size() == static_cast<std::size_t>(size()),
          what + ": want one count per rank, " + std::to_string(size()));
}

void MpiTransport::require_member(int rank, const std::string& what) const {
  require(rank >= 0 && rank < size(),
          what + ": no rank " + std::to_string(rank) + " among " + std::to_string(size()));
}

void MpiTransport::require_peer(int rank, int channel, const std::string& what) const {
  require_member(rank, what);
  require(channel >= 0 && channel < kChannels,
          what + ": no channel " + std::to_string(channel) + " among " + std::to_string(kChannels));
}

Request MpiTransport::start_all_gather_rows(const ExecSpace& exec, const AnyIn& send,
                                            const AnyView& receive,
                                            std::span<const std::int64_t> receive_rows) const {
  const std::string what = label("all_gather");
  require_same_rows(send, receive, what);
  require_one_each(receive_rows, what);
  require(receive_rows[static_cast<std::size_t>(rank())] == send.extent(0),
          what + ": " + std::to_string(receive_rows[static_cast<std::size_t>(rank())]) +
              " rows are expected of this rank, which sends " + send.describe());
  const MpiType row(send, name());
  auto pending = std::make_unique<MpiPending>(what, staged_);
  pending->receiving = Slices(receive_rows, receive, what);
  const int rows = to_mpi_count(send.extent(0), "number of rows", name());
  const void* const source = pending->source(exec, send);
  void* const target = pending->target(exec, receive);
  check_mpi(MPI_Iallgatherv(source, rows, row.get(), target, pending->receiving.counts.data(),
                            pending->receiving.offsets.data(), row.get(), group_.handle(),
                            pending->request()),
            "MPI_Iallgatherv", name());
  return {what, std::move(pending)};
}

Request MpiTransport::start_all_to_all_blocks(const ExecSpace& exec, const AnyIn& send,
                                              const RowBlocks& send_blocks, const AnyView& receive,
                                              const RowBlocks& receive_blocks) const {
  const std::string what = label("all_to_all");
  require_same_rows(send, receive, what);
  require_blocks_within(send_blocks, send, size(), what);
  require_blocks_within(receive_blocks, receive, size(), what);
  auto exchange = std::make_unique<MpiExchange>(what, staged_);
  exchange->start(group_, kExchangeTag, exec, send, send_blocks, receive, receive_blocks);
  return {what, std::move(exchange)};
}

Request MpiTransport::start_send(const ExecSpace& exec, const AnyIn& send, int to,
                                 int channel) const {
  const std::string what = label("send");
  require_peer(to, channel, what);
  const int rows = to_mpi_count(send.extent(0), "number of rows", name());
  const MpiType row(send, name());
  auto pending = std::make_unique<MpiPending>(what, staged_);
  const void* const source = pending->source(exec, send);
  check_mpi(MPI_Isend(source, rows, row.get(), to, channel, group_.handle(), pending->request()),
            "MPI_Isend", name());
  return {what, std::move(pending)};
}

Request MpiTransport::start_receive(const ExecSpace& exec, const AnyView& receive, int from,
                                    int channel) const {
  const std::string what = label("receive");
  require_peer(from, channel, what);
  const int rows = to_mpi_count(receive.extent(0), "number of rows", name());
  auto pending = std::make_unique<MpiPending>(what, staged_);
  pending->row.emplace(receive, name());
  pending->expected_rows = rows;
  void* const target = pending->target(exec, receive);
  check_mpi(MPI_Irecv(target, rows, pending->row->get(), from, channel, group_.handle(),
                      pending->request()),
            "MPI_Irecv", name());
  return {what, std::move(pending)};
}

Request MpiTransport::start_broadcast(const ExecSpace& exec, const AnyView& buffer,
                                      int root) const {
  const std::string what = label("broadcast");
  require_member(root, what);
  const int rows = to_mpi_count(buffer.extent(0), "number of rows", name());
  const MpiType row(buffer, name());
  auto pending = std::make_unique<MpiPending>(what, staged_);
  // The root only sends: MPI's interface has one pointer for both directions.
  void* const data = rank() == root ? const_cast<void*>(pending->source(exec, buffer))
                                    : pending->target(exec, buffer);
  check_mpi(MPI_Ibcast(data, rows, row.get(), root, group_.handle(), pending->request()),
            "MPI_Ibcast", name());
  return {what, std::move(pending)};
}

Request MpiTransport::start_all_reduce(const ExecSpace& exec, const AnyView& buffer) const {
  const std::string what = label("all_reduce");
  require(buffer.type() != DType::bf16, what + ": MPI cannot add " + buffer.describe());
  const int count = to_mpi_count(buffer.size(), "number of elements", name());
  auto pending = std::make_unique<MpiPending>(what, staged_);
  void* const data = pending->in_place(exec, buffer);
  check_mpi(MPI_Iallreduce(MPI_IN_PLACE, data, count,
                           buffer.type() == DType::fp64 ? MPI_DOUBLE : MPI_FLOAT, MPI_SUM,
                           group_.handle(), pending->request()),
            "MPI_Iallreduce", name());
  return {what, std::move(pending)};
}

std::vector<std::byte> MpiTransport::gather(std::span<const std::byte> mine) const {
  const int count = to_mpi_count(static_cast<std::int64_t>(mine.size()), "bytes to gather", name());
  std::vector<std::byte> all(mine.size() * static_cast<std::size_t>(size()));
  check_mpi(
      MPI_Allgather(mine.data(), count, MPI_BYTE, all.data(), count, MPI_BYTE, group_.handle()),
      "MPI_Allgather", name());
  return all;
}

}  // namespace konclave
