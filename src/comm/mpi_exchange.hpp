#pragma once

#include "comm/communicator.hpp"
#include "comm/mpi_row_type.hpp"
#include "comm/request.hpp"

#include <cstddef>
#include <memory>
#include <string>
#include <utility>
#include <vector>

namespace konclave {

/// An all-to-all of blocks under way: one message to and from each other rank, whose blocks are an
/// MPI datatype, so that rows go from and to their places; what a rank has for itself is copied on
/// the execution space. Messages and not one of MPI's collectives, because these take a view that
/// is received where it is sent for MPI_IN_PLACE.
class MpiExchange final : public Request::Pending {
 public:
  /// `staged`: tensors pass through host buffers.
  MpiExchange(std::string what, bool staged) : what_(std::move(what)), staged_(staged) {}

  /// Begins; `tag` is of this kind of communication alone. Fences `exec`.
  void start(const Communicator& group, int tag, const ExecSpace& exec, const AnyIn& send,
             const RowBlocks& send_blocks, const AnyView& receive, const RowBlocks& receive_blocks);
  void finish(const ExecSpace& exec) override;
  bool poll() override;

 private:
  struct Message {
    MPI_Request request = MPI_REQUEST_NULL;
    int rows = 0;  ///< that have to come; of a sent one nothing is asked
  };
  /// f(address, count, type) for blocks of a view whose first row is at `first`.
  template <typename F>
  void with_type(std::byte* first, const std::vector<RowBlock>& blocks, const F& f) const;

  std::string what_;
  bool staged_;
  std::unique_ptr<MpiType> row_;
  std::vector<Message> messages_;
  std::unique_ptr<std::byte[]> sent_, received_;
  AnyView target_;
  std::vector<RowBlock> arriving_;  ///< of the target, to be brought there from the host
};

}  // namespace konclave
