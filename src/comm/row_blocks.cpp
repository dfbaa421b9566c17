#include "comm/row_blocks.hpp"

#include "base/error.hpp"

namespace konclave {

RowBlocks consecutive_blocks(std::span<const std::int64_t> rows) {
  RowBlocks blocks;
  std::int64_t first = 0;
  for (const std::int64_t count : rows) {
    blocks.push_back({{first, count}});
    first += count;
  }
  return blocks;
}

std::vector<RowBlock> packed(const std::vector<RowBlock>& blocks) {
  std::vector<RowBlock> result;
  std::int64_t first = 0;
  for (const RowBlock& block : blocks) {
    result.push_back({first, block.rows});
    first += block.rows;
  }
  return result;
}

std::size_t row_bytes(const AnyIn& view) {
  return static_cast<std::size_t>(view.extent(1) * view.extent(2)) * size_of(view.type());
}

std::int64_t rows_of(const std::vector<RowBlock>& blocks) {
  std::int64_t rows = 0;
  for (const RowBlock& block : blocks) rows += block.rows;
  return rows;
}

std::int64_t rows_of(const RowBlocks& blocks) {
  std::int64_t rows = 0;
  for (const std::vector<RowBlock>& of_rank : blocks) rows += rows_of(of_rank);
  return rows;
}

void require_blocks_within(const RowBlocks& blocks, const AnyIn& view, int ranks,
                           const std::string& what) {
  require(view.rank() > 0, what + ": a tensor without a shape cannot be sent");
  require(blocks.size() == static_cast<std::size_t>(ranks),
          what + ": want blocks for each rank, " + std::to_string(ranks));
  for (const std::vector<RowBlock>& of_rank : blocks) {
    for (const RowBlock& block : of_rank) {
      require(block.first >= 0 && block.rows >= 0 && block.first + block.rows <= view.extent(0),
              what + ": rows " + std::to_string(block.first) + " to " +
                  std::to_string(block.first + block.rows) + " are not within " + view.describe());
    }
  }
}

void require_same_rows(const AnyIn& send, const AnyIn& receive, const std::string& what) {
  require(send.type() == receive.type() && send.rank() == receive.rank() &&
              send.extent(1) == receive.extent(1) && send.extent(2) == receive.extent(2),
          what + ": rows differ, " + send.describe() + " is sent and " + receive.describe() +
              " received");
}

void copy_blocks(const ExecSpace& exec, const AnyIn& send, const std::vector<RowBlock>& send_blocks,
                 const AnyView& receive, const std::vector<RowBlock>& receive_blocks,
                 const std::string& what) {
  if (rows_of(send_blocks) == 0) return;
  bool is_one_to_one = send_blocks.size() == receive_blocks.size();
  for (std::size_t i = 0; is_one_to_one && i < send_blocks.size(); ++i) {
    is_one_to_one = send_blocks[i].rows == receive_blocks[i].rows;
  }
  require(is_one_to_one, what + ": the blocks that a rank sends to itself differ from those that " +
                             "it receives");
  for (std::size_t i = 0; i < send_blocks.size(); ++i) {
    const AnyIn from = send.slice(send_blocks[i].first, send_blocks[i].rows);
    const AnyView to = receive.slice(receive_blocks[i].first, receive_blocks[i].rows);
    if (to.empty()) continue;
    Kokkos::deep_copy(exec, View1<char>(static_cast<char*>(to.data()), to.bytes()),
                      View1<const char>(static_cast<const char*>(from.data()), from.bytes()));
  }
}

}  // namespace konclave
