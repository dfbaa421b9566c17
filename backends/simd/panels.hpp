#pragma once

#include "simd/kernels.hpp"
#include "simd/pack.hpp"

#include <algorithm>
#include <cstdint>
#include <type_traits>

namespace konclave::simd {

/// How the columns of a right factor (k, columns) lie: in panels (k, width), one behind the other,
/// all as wide as a tile but the last, which is half as wide where that is enough.
class Panels {
 public:
  Panels(const Kernels& kernels, std::int64_t k, std::int64_t columns)
      : width_(kernels.columns), k_(k), columns_(columns) {}

  std::int64_t count() const { return (columns_ + width_ - 1) / width_; }
  std::int64_t first(std::int64_t p) const { return p * width_; }
  /// Columns of panel p that count.
  int columns(std::int64_t p) const {
    return static_cast<int>(std::min<std::int64_t>(width_, columns_ - p * width_));
  }
  int width(std::int64_t p) const { return columns(p) <= width_ / 2 ? width_ / 2 : width_; }
  /// Floats in front of panel p.
  std::int64_t offset(std::int64_t p) const { return p * width_ * k_; }
  /// Floats in all, for the most that `columns` columns can take.
  std::int64_t size() const { return count() * width_ * k_; }
  std::int64_t k() const { return k_; }
  std::int64_t total() const { return columns_; }

 private:
  int width_;
  std::int64_t k_, columns_;
};

/// The most rows of a left factor that are multiplied at a time: multiples of the rows of a tile
/// and of a vector.
inline constexpr int kBlockRows = 48, kFewBlockRows = 24;

/// Sums of a block and a panel.
struct alignas(64) Sums {
  float values[kBlockRows * kMostColumns];
};

/// A left factor's rows as tiles read them: in place, or widened in `scratch` (rows, k).
template <typename X>
Block<const float> wide_rows(Block<const X> from, int rows, std::int64_t k, float* scratch) {
  if constexpr (std::is_same_v<X, float>) {
    return from;
  } else {
    copy<X>(from, rows, static_cast<int>(k), {scratch, k}, static_cast<int>(k));
    return {scratch, k};
  }
}

/// sums[i,j] = sum over p of a[i,p] panel[p,j]: `rows` rows of a, at most kBlockRows, times one
/// panel (k, width). Sums are contiguous with rows of `width`.
void multiply_block(const Kernels& kernels, Block<const float> a, int rows, std::int64_t k,
                    const float* panel, int width, Sums& sums);

/// c = alpha a b, added to c when `ending` accumulates:  a (rows, k), at most kBlockRows rows; b
/// the first k rows and `columns` columns of what the panels hold; c (rows, columns).
template <typename R>
void multiply_panels(const Kernels& kernels, Block<const float> a, int rows, std::int64_t k,
                     const Panels& panels, const float* packed, std::int64_t columns,
                     const Finish& ending, Block<R> c) {
  Sums sums;
  for (std::int64_t p = 0; panels.first(p) < columns; ++p) {
    const std::int64_t first = panels.first(p);
    const Block<R> target{c.data + first, c.stride};
    if (ending.accumulate) {
      for (int i = 0; i < rows; ++i) __builtin_prefetch(target.row(i), 1, 3);
    }
    const int width = panels.width(p);
    multiply_block(kernels, a, rows, k, packed + panels.offset(p), width, sums);
    finish<R>({sums.values, width}, rows,
              static_cast<int>(std::min<std::int64_t>(panels.columns(p), columns - first)), ending,
              target);
  }
}

}  // namespace konclave::simd
