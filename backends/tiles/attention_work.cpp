#include "tiles/attention_work.hpp"

#include "tiles/packing.hpp"

#include <algorithm>
#include <cstring>

namespace konclave::tiles {

namespace {

constexpr std::int64_t kFloatsOfLine = 16, kHalvesOfLine = 32;

/// The next odd number of lines from full blocks on.
std::int64_t padded_row(std::int64_t columns, std::int64_t line) {
  return blocks_of(columns) * kBlock / (2 * line) * (2 * line) + line;
}

std::int64_t elements_of_blocks(std::int64_t rows, std::int64_t columns) {
  return blocks_of(rows) * blocks_of(columns) * kBlockSize;
}

/// order_block for a part of the columns of a matrix. Rows that end within a block are brought
/// together first: the next head begins behind them.
void order_block_of_head(BlockOrder order, const HeadRows& from, std::int64_t row,
                         std::int64_t column, std::uint16_t* to) {
  const auto view = [](const std::uint16_t* data, std::int64_t rows, std::int64_t columns) {
    return BitRows(AnyIn(DType::bf16, data, {rows, columns, 1}, 2));
  };
  if (column + kBlock <= from.columns) {
    order_block(order, view(from.data + column, from.rows, from.stride), row, 0, to);
    return;
  }
  std::uint16_t rest[kBlockSize];
  const std::int64_t rows = std::min<std::int64_t>(kBlock, from.rows - row),
                     columns = from.columns - column;
  for (std::int64_t i = 0; i < rows; ++i) {
    std::memcpy(rest + i * columns, from.row(row + i) + column,
                static_cast<std::size_t>(columns) * sizeof(std::uint16_t));
  }
  order_block(order, view(rest, rows, columns), 0, 0, to);
}

/// All blocks: those of a row one behind the other, or those of a column.
void order_by_rows(BlockOrder order, const HeadRows& from, std::int64_t first_row,
                   std::uint16_t* to) {
  for (std::int64_t row = first_row; row < from.rows; row += kBlock) {
    for (std::int64_t column = 0; column < from.columns; column += kBlock, to += kBlockSize) {
      order_block_of_head(order, from, row, column, to);
    }
  }
}
void order_by_columns(BlockOrder order, const HeadRows& from, std::uint16_t* to) {
  for (std::int64_t column = 0; column < from.columns; column += kBlock) {
    for (std::int64_t row = 0; row < from.rows; row += kBlock, to += kBlockSize) {
      order_block_of_head(order, from, row, column, to);
    }
  }
}

}  // namespace

HeadRows head_rows(const AnyIn& all, int head, int size, std::int64_t first, std::int64_t count) {
  const std::int64_t stride = all.extent(1);
  const auto* const data = static_cast<const std::uint16_t*>(all.data());
  return {data + first * stride + std::int64_t{head} * size, count, size, stride};
}
Rows<std::uint16_t> head_rows(const AnyView& all, int head, int size, std::int64_t first,
                              std::int64_t count) {
  const std::int64_t stride = all.extent(1);
  auto* const data = static_cast<std::uint16_t*>(all.data());
  return {data + first * stride + std::int64_t{head} * size, count, size, stride};
}

std::int64_t size_of_floats(std::int64_t rows, std::int64_t columns) {
  return rows * padded_row(columns, kFloatsOfLine);
}
std::int64_t size_of_halves(std::int64_t rows, std::int64_t columns) {
  return rows * padded_row(columns, kHalvesOfLine) / 2;
}
std::int64_t size_of_blocks(std::int64_t rows, std::int64_t columns) {
  return elements_of_blocks(rows, columns) / 2;
}

Rows<float> take_floats(Workspace& workspace, std::int64_t rows, std::int64_t columns) {
  return {workspace.take(1, size_of_floats(rows, columns)).data, rows, columns,
          padded_row(columns, kFloatsOfLine)};
}
Rows<std::uint16_t> take_halves(Workspace& workspace, std::int64_t rows, std::int64_t columns) {
  float* const data = workspace.take(1, size_of_halves(rows, columns)).data;
  return {reinterpret_cast<std::uint16_t*>(data), rows, columns,
          padded_row(columns, kHalvesOfLine)};
}
std::uint16_t* take_blocks(Workspace& workspace, std::int64_t rows, std::int64_t columns) {
  return reinterpret_cast<std::uint16_t*>(workspace.take(1, size_of_blocks(rows, columns)).data);
}

LeftRows left_of_rows(const HeadRows& from, std::uint16_t* scratch) {
  const std::int64_t in_place = from.columns % kBlock == 0 ? from.rows / kBlock : 0;
  order_by_rows(nullptr, from, in_place * kBlock, scratch);
  return {LeftBlocks::row_major(from.data, from.stride),
          LeftBlocks::packed(scratch, blocks_of(from.columns)), in_place};
}

LeftRows left_of_columns(const Kernels& kernels, const HeadRows& from, std::uint16_t* to) {
  order_by_columns(kernels.left_of_columns, from, to);
  return {{}, LeftBlocks::packed(to, blocks_of(from.rows)), 0};
}

RightPanels right_of_rows(const Kernels& kernels, const HeadRows& from, Workspace& workspace) {
  std::uint16_t* const to = take_blocks(workspace, from.rows, from.columns);
  order_by_columns(kernels.right_of_rows, from, to);
  return {to, blocks_of(from.rows) * kBlockSize, to + elements_of_blocks(from.rows, from.columns)};
}

RightPanels right_of_columns(const Kernels& kernels, const HeadRows& from, Workspace& workspace) {
  std::uint16_t* const to = take_blocks(workspace, from.rows, from.columns);
  order_by_rows(kernels.right_of_columns, from, 0, to);
  return {to, blocks_of(from.columns) * kBlockSize,
          to + elements_of_blocks(from.rows, from.columns)};
}

void multiply(const Kernels& kernels, Store store, const LeftRows& left, std::int64_t steps,
              const RightPanels& right, const Rows<float>& c) {
  BlockProduct product;
  product.in_place = left.in_place;
  product.copied = left.copied;
  product.first_copied = left.first_copied;
  product.right = right;
  product.steps = steps;
  product.c = c.data;
  product.stride = c.stride;
  product.rows = c.rows;
  product.columns = blocks_of(c.columns) * kBlock;
  product.end_block = blocks_of(c.rows);
  product.end_panel = blocks_of(c.columns);
  kernels.multiply[static_cast<int>(store)](product);
}

SeenKeys::SeenKeys(const AttentionRows& rows, const ops::AttentionSequence& sequence,
                   const ops::AttentionBlock& block) {
  const int* const positions = rows.k_positions.data() + sequence.k_begin;
  int seen = 0;  // no row sees fewer than the one before it
  for (int i = 0; i < block.q_count; ++i) {
    seen += ops::visible_keys(rows.q_positions.data()[block.q_begin + i], positions + seen,
                              block.visible - seen);
    of_row[i] = seen;
  }
}

}  // namespace konclave::tiles
