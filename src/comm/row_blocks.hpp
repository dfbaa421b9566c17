#pragma once

#include "tensor/view.hpp"

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

namespace konclave {

/// Rows `first` .. `first + rows - 1` of a view; there may be none.
struct RowBlock {
  std::int64_t first = 0, rows = 0;

  bool operator==(const RowBlock&) const = default;
};

/// The blocks of a view that go to each rank of a group or come from it, in this order.
using RowBlocks = std::vector<std::vector<RowBlock>>;

/// One block a rank: `rows[r]` rows for rank r, those of rank 0 first.
RowBlocks consecutive_blocks(std::span<const std::int64_t> rows);

/// Blocks of the same sizes, one behind the other from row 0 on.
std::vector<RowBlock> packed(const std::vector<RowBlock>& blocks);

/// Bytes of a row of a view.
std::size_t row_bytes(const AnyIn& view);

std::int64_t rows_of(const std::vector<RowBlock>& blocks);
std::int64_t rows_of(const RowBlocks& blocks);

/// Throws Error naming `what` when there is not one list of blocks for each of `ranks`, or a block
/// is not within the view.
void require_blocks_within(const RowBlocks& blocks, const AnyIn& view, int ranks,
                           const std::string& what);

/// Throws Error naming `what` when rows of the two views are not of one type and shape.
void require_same_rows(const AnyIn& send, const AnyIn& receive, const std::string& what);

/// receive = send, block by block, on `exec`: what a rank sends to itself. Nothing to send means
/// that the rows are there already.
void copy_blocks(const ExecSpace& exec, const AnyIn& send, const std::vector<RowBlock>& send_blocks,
                 const AnyView& receive, const std::vector<RowBlock>& receive_blocks,
                 const std::string& what);

}  // namespace konclave
