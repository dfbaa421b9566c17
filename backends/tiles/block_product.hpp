#pragma once

#include "tiles/kernels.hpp"
#include "tiles/tile_config.hpp"
#include "tiles/vectors.hpp"

#include <cstdint>
#include <type_traits>

/// The kernels, for tiles of any kind: `Tiles` has the functions of AmxTiles. See vectors.hpp for
/// what may be written here.
namespace konclave::tiles {
namespace {

/// Brings the panel behind the one in use into the second cache, some lines at each step.
class NextPanel {
 public:
  NextPanel(const BlockProduct& product, std::int64_t panel)
      : next_(product.right.data + (panel + 1) * product.right.stride),
        end_(next_ + product.steps * kBlockSize) {
    if (end_ > product.right.end) end_ = product.right.end;
    const std::int64_t blocks = product.end_block - product.begin_block;
    lines_ = (kBlockSize / kLine + blocks - 1) / blocks;
  }
  void fetch_some() {
    for (std::int64_t i = 0; i < lines_ && next_ < end_; ++i, next_ += kLine) {
      __builtin_prefetch(next_, 0, 2);
    }
  }

 private:
  static constexpr std::int64_t kLine = 32;  // elements
  const std::uint16_t *next_, *end_;
  std::int64_t lines_;
};

/// 32 x 32 sums, or the upper 16 rows of them: tiles 0 and 1, below them 2 and 3.
template <bool kBothHalves, typename Tiles>
void block_sums(Tiles& tiles, const BlockProduct& product, std::int64_t block,
                const std::uint16_t* panel, NextPanel& next_panel, float* sums) {
  const bool copied = block >= product.first_copied;
  const LeftBlocks& blocks = copied ? product.copied : product.in_place;
  const std::uint16_t* left =
      blocks.data + (block - (copied ? product.first_copied : 0)) * blocks.block_stride;
  const std::int64_t step = blocks.step_stride, stride = blocks.row_stride * 2;
  const std::int64_t half = blocks.row_stride * kTileRows;
  tiles.template zero<0>();
  tiles.template zero<1>();
  if constexpr (kBothHalves) {
    tiles.template zero<2>();
    tiles.template zero<3>();
  }
  NextPanel next = next_panel;  // so that the loop keeps it in registers
  for (std::int64_t s = product.steps; s > 0; --s, left += step, panel += kBlockSize) {
    tiles.template load<4>(left, stride);
    tiles.template load<6>(panel, kTileRowBytes);
    tiles.template load<7>(panel + kBlockSize / 2, kTileRowBytes);
    if constexpr (kBothHalves) tiles.template load<5>(left + half, stride);
    next.fetch_some();
    tiles.template multiply_add<0, 4, 6>();
    tiles.template multiply_add<1, 4, 7>();
    if constexpr (kBothHalves) {
      tiles.template multiply_add<2, 5, 6>();
      tiles.template multiply_add<3, 5, 7>();
    }
  }
  next_panel = next;
  constexpr std::int64_t kRowBytes = kBlock * sizeof(float);
  tiles.template store<0>(sums, kRowBytes);
  tiles.template store<1>(sums + kTileRows, kRowBytes);
  if constexpr (kBothHalves) {
    tiles.template store<2>(sums + kBlockSize / 2, kRowBytes);
    tiles.template store<3>(sums + kBlockSize / 2 + kTileRows, kRowBytes);
  }
}

template <Store kStore>
inline constexpr bool kRounds = kStore == Store::bf16 || kStore == Store::bf16_added;
template <Store kStore>
inline constexpr bool kAdds = kStore == Store::bf16_added || kStore == Store::fp32_added;

/// 32 sums to a row of c.
template <Store kStore, typename Tiles>
void put(Tiles& tiles, const float* sums, std::uint16_t* c) {
  Floats low, high;
  load(sums, low);
  load(sums + 16, high);
  if constexpr (kAdds<kStore>) {
    Floats old_low, old_high;
    widen(c, old_low);
    widen(c + 16, old_high);
    low += old_low;
    high += old_high;
  }
  Halves rounded;
  tiles.narrow(low, high, rounded);
  store(rounded, c);
}
template <Store kStore, typename Tiles> void put(Tiles& tiles, const float* sums, float* c) {
  Floats low, high;
  load(sums, low);
  load(sums + 16, high);
  if constexpr (kAdds<kStore>) {
    Floats old_low, old_high;
    load(c, old_low);
    load(c + 16, old_high);
    low += old_low;
    high += old_high;
  }
  if constexpr (kStore == Store::fp32_streamed) {
    tiles.stream(low, c);
    tiles.stream(high, c + 16);
  } else {
    store(low, c);
    store(high, c + 16);
  }
}

/// The same for the first `columns` of 32.
template <Store kStore, typename Tiles, typename Element>
void put_some(Tiles& tiles, const float* sums, Element* c, int columns) {
  alignas(64) Element row[kBlock] = {};
  for (int j = 0; j < columns; ++j) row[j] = c[j];
  put<kStore>(tiles, sums, row);
  for (int j = 0; j < columns; ++j) c[j] = row[j];
}

template <Store kStore, typename Tiles, typename Element>
void put_block(Tiles& tiles, const float* sums, int rows, int columns, Element* c,
               std::int64_t stride) {
  if (columns == kBlock) {
    for (int i = 0; i < rows; ++i) put<kStore>(tiles, sums + i * kBlock, c + i * stride);
  } else {
    constexpr Store kCached = kStore == Store::fp32_streamed ? Store::fp32 : kStore;
    for (int i = 0; i < rows; ++i) {
      put_some<kCached>(tiles, sums + i * kBlock, c + i * stride, columns);
    }
  }
}

template <typename Tiles, Store kStore> void multiply(const BlockProduct& product) {
  using Element = std::conditional_t<kRounds<kStore>, std::uint16_t, float>;
  alignas(64) float sums[kBlockSize];
  Tiles tiles;
  for (std::int64_t p = product.begin_panel; p < product.end_panel; ++p) {
    const std::uint16_t* const panel = product.right.data + p * product.right.stride;
    const std::int64_t left_columns = product.columns - p * kBlock;
    const int columns = left_columns < kBlock ? static_cast<int>(left_columns) : kBlock;
    NextPanel next(product, p);
    for (std::int64_t b = product.begin_block; b < product.end_block; ++b) {
      const std::int64_t left_rows = product.rows - b * kBlock;
      const int rows = left_rows < kBlock ? static_cast<int>(left_rows) : kBlock;
      if (rows > kTileRows) {
        block_sums<true>(tiles, product, b, panel, next, sums);
      } else {
        block_sums<false>(tiles, product, b, panel, next, sums);
      }
      Element* const c = static_cast<Element*>(product.c) + b * kBlock * product.stride;
      put_block<kStore>(tiles, sums, rows, columns, c + p * kBlock, product.stride);
    }
  }
  if constexpr (kStore == Store::fp32_streamed) tiles.finish_streams();
}

/// Rows 2p and 2p+1 become row p of two tiles.
inline void right_of_rows(const std::uint16_t* from, std::int64_t stride, std::uint16_t* to) {
#pragma GCC unroll 4
  for (int i = 0; i < kBlock; i += 2) {
    Halves first, second, low, high;
    load(from + i * stride, first);
    load(from + (i + 1) * stride, second);
    interleave(first, second, low, high);
    store(low, to + i * kTileRows);
    store(high, to + i * kTileRows + kBlockSize / 2);
  }
}

/// Row n becomes column n; its elements are pairs already.
inline void right_of_columns(const std::uint16_t* from, std::int64_t stride, std::uint16_t* to) {
  for (int half = 0; half < kBlock; half += kTileRows) {
    Words rows[16];
#pragma GCC unroll 16
    for (int i = 0; i < 16; ++i) load(from + (half + i) * stride, rows[i]);
    transpose(rows);
#pragma GCC unroll 16
    for (int i = 0; i < 16; ++i) store(rows[i], to + (half + i) * kBlock);
  }
}

/// to[j*32 + i] = from[i*stride + j]
inline void left_of_columns(const std::uint16_t* from, std::int64_t stride, std::uint16_t* to) {
  alignas(64) std::uint16_t pairs[kBlockSize];
  right_of_rows(from, stride, pairs);
  right_of_columns(pairs, kBlock, to);
}

template <typename Tiles> constexpr Kernels kernels_of() {
  return {{&multiply<Tiles, Store::bf16>, &multiply<Tiles, Store::bf16_added>,
           &multiply<Tiles, Store::fp32>, &multiply<Tiles, Store::fp32_added>,
           &multiply<Tiles, Store::fp32_streamed>},
          &right_of_rows,
          &right_of_columns,
          &left_of_columns};
}

}  // namespace
}  // namespace konclave::tiles
