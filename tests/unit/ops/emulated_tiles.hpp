#pragma once

#include "base/dtype.hpp"
#include "base/error.hpp"
#include "tiles/tile_config.hpp"
#include "tiles/vectors.hpp"

#include <array>
#include <bit>
#include <cmath>
#include <cstdint>
#include <cstring>

namespace konclave {

/// What the functions of tiles::AmxTiles do on a CPU that has such tiles, as its manual has it: the
/// limits of the configuration, the order of sums, and numbers that are too small to be normal.
/// Throws where the CPU would raise a signal.
class EmulatedTiles {
 public:
  EmulatedTiles() : EmulatedTiles(tiles::kLargestTiles) {}
  explicit EmulatedTiles(const tiles::TileConfig& config) : config_(config) {
    require(config.palette == 1 && config.start_row == 0, "no such palette");
    for (int t = 0; t < 16; ++t) {
      const bool used = config.rows[t] > 0 || config.row_bytes[t] > 0;
      require(t < tiles::kTiles || !used, "no such tile");
      require(config.rows[t] <= tiles::kTileRows && config.row_bytes[t] <= tiles::kTileRowBytes,
              "a tile is too large");
      require((config.rows[t] > 0) == (config.row_bytes[t] > 0), "a tile has one extent only");
    }
  }

  template <int kTile> void zero() { configured(kTile) = {}; }

  template <int kTile> void load(const void* from, std::int64_t stride) {
    Tile& tile = configured(kTile);
    tile = {};
    for (int r = 0; r < config_.rows[kTile]; ++r) {
      std::memcpy(tile[r].data(), static_cast<const char*>(from) + r * stride,
                  config_.row_bytes[kTile]);
    }
  }

  template <int kTile> void store(void* to, std::int64_t stride) {
    const Tile& tile = configured(kTile);
    for (int r = 0; r < config_.rows[kTile]; ++r) {
      std::memcpy(static_cast<char*>(to) + r * stride, tile[r].data(), config_.row_bytes[kTile]);
    }
  }

  /// Even and odd elements are summed apart, each with one rounding a step.
  template <int kSums, int kLeft, int kRight> void multiply_add() {
    static_assert(kSums != kLeft && kSums != kRight && kLeft != kRight);
    Tile& sums = configured(kSums);
    const Tile &left = configured(kLeft), &right = configured(kRight);
    const int pairs = config_.row_bytes[kLeft] / 4, columns = config_.row_bytes[kSums] / 4;
    require(config_.rows[kSums] == config_.rows[kLeft] &&
                config_.row_bytes[kSums] == config_.row_bytes[kRight] &&
                config_.rows[kRight] == pairs,
            "extents of tiles do not fit");
    for (int m = 0; m < config_.rows[kSums]; ++m) {
      for (int n = 0; n < columns; ++n) {
        float parts[2] = {};
        for (int p = 0; p < pairs; ++p) {
          for (int half = 0; half < 2; ++half) {
            parts[half] = flushed(std::fma(element(left, m, 2 * p + half),
                                           element(right, p, 2 * n + half), parts[half]));
          }
        }
        float sum;
        std::memcpy(&sum, sums[m].data() + 4 * n, sizeof sum);
        sum = flushed(flushed(sum) + flushed(parts[0] + parts[1]));
        std::memcpy(sums[m].data() + 4 * n, &sum, sizeof sum);
      }
    }
  }

  void narrow(const tiles::Floats& low, const tiles::Floats& high, tiles::Halves& result) {
    tiles::Halves rounded{};
    for (int i = 0; i < 16; ++i) {
      rounded[i] = Bf16::round(flushed(low[i]));
      rounded[16 + i] = Bf16::round(flushed(high[i]));
    }
    result = rounded;
  }
  void stream(const tiles::Floats& values, float* to) {
    require(reinterpret_cast<std::uintptr_t>(to) % 64 == 0, "a stream begins within a line");
    std::memcpy(to, &values, sizeof values);
  }
  void finish_streams() {}

 private:
  using Tile = std::array<std::array<char, tiles::kTileRowBytes>, tiles::kTileRows>;

  Tile& configured(int tile) {
    require(config_.rows[tile] > 0, "a tile is not configured");
    return tiles_[tile];
  }
  static float element(const Tile& tile, int row, int column) {
    Bf16 value;
    std::memcpy(&value, tile[row].data() + 2 * column, sizeof value);
    return flushed(value);
  }
  static float flushed(float value) {
    return std::fpclassify(value) == FP_SUBNORMAL ? std::copysign(0.0F, value) : value;
  }

  tiles::TileConfig config_;
  std::array<Tile, tiles::kTiles> tiles_{};
};

}  // namespace konclave
