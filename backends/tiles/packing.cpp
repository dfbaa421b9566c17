#include "tiles/packing.hpp"

#include <emmintrin.h>

#include <cstring>

namespace konclave::tiles {

namespace {

/// A block to where it is not read soon: past the caches, which would read its lines first.
void stream_block(const std::uint16_t* from, std::uint16_t* to) {
  const auto* const source = reinterpret_cast<const __m128i*>(from);
  auto* const target = reinterpret_cast<__m128i*>(to);
  constexpr std::size_t kVectors = kBlockSize * sizeof(std::uint16_t) / sizeof(__m128i);
  for (std::size_t i = 0; i < kVectors; ++i) _mm_stream_si128(target + i, source[i]);
}

}  // namespace

static_assert(WeightPacking::kRows % kBlock == 0 && PreparedWeight::kRows % kBlock == 0);

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
                 const AnyIn& rows, std::int64_t first, const AnyView& to) {
  const BitRows from(rows);
  auto* const packed = static_cast<std::uint16_t*>(to.data());
  const std::int64_t down = blocks_of(shape.out), across = blocks_of(shape.in),
                     first_block = first / kBlock;
  // Rows of W are columns of a panel of W^T, and steps of all panels of W. Blocks are read along
  // the rows in both cases, and written as a whole.
  const bool forward = shape.kind == GemmKind::forward;
  const BlockOrder order = forward ? kernels.right_of_columns : kernels.right_of_rows;
  Kokkos::parallel_for("konclave::tiles::pack_weight", Range(exec, 0, blocks_of(from.rows)),
                       [=](std::int64_t b) {
                         const std::int64_t i = first_block + b;
                         for (std::int64_t j = 0; j < across; ++j) {
                           const std::int64_t place = forward ? i * across + j : j * down + i;
                           alignas(64) std::uint16_t block[kBlockSize];
                           order_block(order, from, b * kBlock, j * kBlock, block);
                           stream_block(block, packed + place * kBlockSize);
                         }
                         _mm_sfence();  // other threads read it
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
