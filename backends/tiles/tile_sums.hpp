#pragma once

#include "tiles/product_loop.hpp"
#include "tiles/tile_config.hpp"

#include <cstdint>

namespace konclave::tiles {
namespace {

/// The engine on tiles of any kind: `Tiles` has the functions of AmxTiles.
template <typename Tiles> class TileSums : public Tiles {
 public:
  static int passes(int) { return 1; }
  /// All 32 rows of sums, or the upper 16.
  void sums(const LeftBlock& block, int rows, const std::uint16_t* panel, NextPanel& next_panel,
            float* to) {
    if (rows > kTileRows) {
      halves<true>(block, panel, next_panel, to);
    } else {
      halves<false>(block, panel, next_panel, to);
    }
  }

 private:
  /// Tiles 0 and 1, below them 2 and 3.
  template <bool kBoth>
  void halves(const LeftBlock& block, const std::uint16_t* panel, NextPanel& next_panel,
              float* to) {
    Tiles& tiles = *this;
    const std::uint16_t* left = block.data;
    const std::int64_t stride = block.row_stride * 2, half = block.row_stride * kTileRows;
    tiles.template zero<0>();
    tiles.template zero<1>();
    if constexpr (kBoth) {
      tiles.template zero<2>();
      tiles.template zero<3>();
    }
    NextPanel next = next_panel;  // so that the loop keeps it in registers
    for (std::int64_t s = block.steps; s > 0; --s) {
      tiles.template load<4>(left, stride);
      tiles.template load<6>(panel, kTileRowBytes);
      tiles.template load<7>(panel + kBlockSize / 2, kTileRowBytes);
      if constexpr (kBoth) tiles.template load<5>(left + half, stride);
      next.fetch_some();
      tiles.template multiply_add<0, 4, 6>();
      tiles.template multiply_add<1, 4, 7>();
      if constexpr (kBoth) {
        tiles.template multiply_add<2, 5, 6>();
        tiles.template multiply_add<3, 5, 7>();
      }
      left += block.step_stride;
      panel += kBlockSize;
    }
    next_panel = next;
    constexpr std::int64_t kRowBytes = kBlock * sizeof(float);
    tiles.template store<0>(to, kRowBytes);
    tiles.template store<1>(to + kTileRows, kRowBytes);
    if constexpr (kBoth) {
      tiles.template store<2>(to + kBlockSize / 2, kRowBytes);
      tiles.template store<3>(to + kBlockSize / 2 + kTileRows, kRowBytes);
    }
  }
};

template <typename Tiles> constexpr Kernels kernels_of() { return kernels_by<TileSums<Tiles>>(); }

}  // namespace
}  // namespace konclave::tiles
