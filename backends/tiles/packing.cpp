#include "tiles/packing.hpp"

#include <cstring>

namespace konclave::tiles {

void order_block(BlockOrder order, const BitRows& from, std::int64_t row, std::int64_t column,
                 std::uint16_t* to) {
  const std::uint16_t* const block = from.data + row * from.columns + column;
  const auto rows = static_cast<int>(std::min<std::int64_t>(kBlock, from.rows - row));
  const auto columns = static_cast<int>(std::min<std::int64_t>(kBlock, from.columns - column));
  if (order != nullptr && rows == kBlock && columns == kBlock) {
    order(block, from.columns, to);
    return;
  }
  alignas(64) std::uint16_t copy[kBlockSize];
  std::uint16_t* const padded = order == nullptr ? to : copy;
  for (int i = 0; i < kBlock; ++i) {
    const int count = i < rows ? columns : 0;
    std::memcpy(padded + i * kBlock, block + i * from.columns, sizeof(std::uint16_t) * count);
    std::memset(padded + i * kBlock + count, 0, sizeof(std::uint16_t) * (kBlock - count));
  }
  if (order != nullptr) order(copy, kBlock, to);
}

WeightForm weight_form(const GemmShape& shape) {
  if (shape.kind == GemmKind::weight_gradient) return {};
  return {shape.kind == GemmKind::forward ? "tiles.forward" : "tiles.data_gradient", DType::bf16,
          blocks_of(shape.out) * blocks_of(shape.in) * kBlockSize};
}

void pack_weight(const ExecSpace& exec, const Kernels& kernels, const GemmShape& shape,
                 const AnyIn& weight, const AnyView& to) {
  const BitRows rows(weight);
  auto* const packed = static_cast<std::uint16_t*>(to.data());
  const std::int64_t down = blocks_of(rows.rows), across = blocks_of(rows.columns);
  // Rows of W are columns of a panel of W^T, and steps of all panels of W. Blocks are read along
  // the rows in both cases, and written as a whole.
  const bool forward = shape.kind == GemmKind::forward;
  const BlockOrder order = forward ? kernels.right_of_columns : kernels.right_of_rows;
  Kokkos::parallel_for("konclave::tiles::pack_weight", Range(exec, 0, down), [=](std::int64_t i) {
    for (std::int64_t j = 0; j < across; ++j) {
      const std::int64_t place = forward ? i * across + j : j * down + i;
      order_block(order, rows, i * kBlock, j * kBlock, packed + place * kBlockSize);
    }
  });
}

RightPanels panels_of(const GemmShape& shape, const PreparedWeight& weight) {
  const auto* const packed = static_cast<const std::uint16_t*>(weight.packed.data());
  const std::int64_t size = weight.packed.size(), first = weight.first_row / kBlock;
  if (shape.kind == GemmKind::forward) {
    const std::int64_t stride = blocks_of(shape.in) * kBlockSize;
    return {packed + first * stride, stride, packed + size};
  }
  return {packed + first * kBlockSize, size / blocks_of(shape.in), packed + size};
}

}  // namespace konclave::tiles
