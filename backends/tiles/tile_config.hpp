#pragma once

#include <cstdint>

namespace konclave::tiles {

/// A tile has at most 16 rows of 64 bytes: 16 sums in fp32, or 16 pairs of bf16.
inline constexpr int kTileRows = 16, kTileRowBytes = 64, kTiles = 8;

/// What ldtilecfg reads: the extents of the eight tiles.
struct alignas(64) TileConfig {
  std::uint8_t palette = 0, start_row = 0, reserved[14] = {};
  std::uint16_t row_bytes[16] = {};
  std::uint8_t rows[16] = {};
};
static_assert(sizeof(TileConfig) == 64);

/// All tiles as large as they can be. A constant, so that no compiler has stores to leave out.
inline constexpr TileConfig kLargestTiles{
    1, 0, {}, {64, 64, 64, 64, 64, 64, 64, 64}, {16, 16, 16, 16, 16, 16, 16, 16}};

}  // namespace konclave::tiles
