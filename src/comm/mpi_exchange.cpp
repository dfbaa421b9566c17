#include "comm/mpi_exchange.hpp"

#include "base/error.hpp"
#include "comm/mpi_call.hpp"
#include "tensor/host_copy.hpp"

namespace konclave {

template <typename F>
void MpiExchange::with_type(std::byte* first, const std::vector<RowBlock>& blocks,
                            const F& f) const {
  if (blocks.size() == 1) {  // needs no type of its own
    const auto row = static_cast<std::size_t>(blocks[0].first);
    f(first + row * row_bytes(target_), to_mpi_count(blocks[0].rows, "number of rows", what_),
      row_->get());
  } else {
    const MpiType type(*row_, blocks, what_);
    f(first, 1, type.get());
  }
}

void MpiExchange::start(const Communicator& group, int tag, const ExecSpace& exec,
                        const AnyIn& send, const RowBlocks& send_blocks, const AnyView& receive,
                        const RowBlocks& receive_blocks) {
  const auto ranks = static_cast<std::size_t>(group.size()),
             mine = static_cast<std::size_t>(group.rank());
  row_ = std::make_unique<MpiType>(send, group.name());
  target_ = receive;
  copy_blocks(exec, send, send_blocks[mine], receive, receive_blocks[mine], what_);
  // MPI's interface has pointers to what it only reads.
  auto* source = static_cast<std::byte*>(const_cast<void*>(send.data()));
  auto* target = static_cast<std::byte*>(receive.data());
  if (staged_) {
    sent_ = std::make_unique_for_overwrite<std::byte[]>(send.bytes());
    received_ = std::make_unique_for_overwrite<std::byte[]>(receive.bytes());
    copy_to_host(exec, send, sent_.get());
    source = sent_.get();
    target = received_.get();
  } else {
    fence(exec, "konclave::MpiExchange");
  }
  // Each rank begins with its neighbour, so that not all send to the same one.
  for (std::size_t step = 1; step < ranks; ++step) {
    const std::size_t from = (mine + ranks - step) % ranks;
    const std::int64_t rows = rows_of(receive_blocks[from]);
    if (rows == 0) continue;
    Message& message = messages_.emplace_back();
    message.rows = to_mpi_count(rows, "number of rows", what_);
    if (staged_) {
      arriving_.insert(arriving_.end(), receive_blocks[from].begin(), receive_blocks[from].end());
    }
    with_type(target, receive_blocks[from], [&](void* address, int count, MPI_Datatype type) {
      check_mpi(MPI_Irecv(address, count, type, static_cast<int>(from), tag, group.handle(),
                          &message.request),
                "MPI_Irecv", what_);
    });
  }
  for (std::size_t step = 1; step < ranks; ++step) {
    const std::size_t to = (mine + step) % ranks;
    if (rows_of(send_blocks[to]) == 0) continue;
    Message& message = messages_.emplace_back();
    with_type(source, send_blocks[to], [&](const void* address, int count, MPI_Datatype type) {
      check_mpi(MPI_Isend(address, count, type, static_cast<int>(to), tag, group.handle(),
                          &message.request),
                "MPI_Isend", what_);
    });
  }
}

bool MpiExchange::poll() {
  bool done = true;
  for (const Message& message : messages_) done = is_done(message.request, what_) && done;
  return done;
}

void MpiExchange::finish(const ExecSpace& exec) {
  for (Message& message : messages_) {
    MPI_Status status;
    check_mpi(MPI_Wait(&message.request, &status), "MPI_Wait", what_);
    if (message.rows == 0) continue;
    // MPI itself complains of a message that is too long only.
    const int rows = row_->count_of(status, what_);
    require(rows == message.rows, what_ + ": " + std::to_string(rows) +
                                      " rows came, expected were " + std::to_string(message.rows));
  }
  for (const RowBlock& block : arriving_) {
    const auto first = static_cast<std::size_t>(block.first) * row_bytes(target_);
    copy_from_host(exec, received_.get() + first, target_.slice(block.first, block.rows));
  }
}

}  // namespace konclave
