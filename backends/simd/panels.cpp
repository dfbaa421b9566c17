#include "simd/panels.hpp"

namespace konclave::simd {

namespace {
/// Of the sum, so that this much of a panel stays in the first cache for all rows of a block.
constexpr std::int64_t kDepth = 256;
}  // namespace

void multiply_block(const Kernels& kernels, Block<const float> a, int rows, std::int64_t k,
                    const float* panel, int width, Sums& sums) {
  const bool whole = width == kernels.columns;
  const int most = whole ? kernels.rows : kernels.half_rows;
  const Tile* const tiles = whole ? kernels.whole : kernels.half;
  for (std::int64_t first = 0;; first += kDepth) {
    // The last piece may be longer by half, rather than leave a short one behind it.
    const std::int64_t left = k - first, depth = left < kDepth + kDepth / 2 ? left : kDepth;
    for (int row = 0; row < rows; row += most) {
      const int height = std::min(most, rows - row);
      tiles[height](depth, a.row(row) + first, a.stride, panel + first * width,
                    sums.values + std::int64_t{row} * width, first > 0);
    }
    if (depth == left) return;  // also behind an empty sum, which is zero
  }
}

}  // namespace konclave::simd
