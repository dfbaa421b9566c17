#include "simd/kernels.hpp"
#include "simd/panels.hpp"
#include "simd/tile.hpp"
#include "simd/vectors.hpp"

#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <limits>
#include <vector>

namespace konclave::simd {
namespace {

/// Small whole numbers, whose sums are exact.
std::vector<float> numbers(std::int64_t size, int seed) {
  std::vector<float> values(static_cast<std::size_t>(size));
  for (std::int64_t i = 0; i < size; ++i) {
    values[static_cast<std::size_t>(i)] = static_cast<float>((i * 7 + seed * 5) % 11 - 5);
  }
  return values;
}

/// Tiles of vectors of 16 floats as this CPU runs them, with AVX-512 or without.
const Kernels& wide_kernels() {
  static constexpr Kernels kKernels{
      32,
      12,
      12,
      {nullptr, tile<16, 2, 1>, tile<16, 2, 2>, tile<16, 2, 3>, tile<16, 2, 4>, tile<16, 2, 5>,
       tile<16, 2, 6>, tile<16, 2, 7>, tile<16, 2, 8>, tile<16, 2, 9>, tile<16, 2, 10>,
       tile<16, 2, 11>, tile<16, 2, 12>},
      {nullptr, tile<16, 1, 1>, tile<16, 1, 2>, tile<16, 1, 3>, tile<16, 1, 4>, tile<16, 1, 5>,
       tile<16, 1, 6>, tile<16, 1, 7>, tile<16, 1, 8>, tile<16, 1, 9>, tile<16, 1, 10>,
       tile<16, 1, 11>, tile<16, 1, 12>},
      "vectors of 16 floats"};
  return kKernels;
}

std::vector<const Kernels*> all_kernels() {
  std::vector<const Kernels*> all{&generic_kernels(), &wide_kernels()};
  if (avx512_kernels() != nullptr) all.push_back(avx512_kernels());
  return all;
}

TEST(Simd, EveryTileIsASumOfProducts) {
  for (const Kernels* const kernels : all_kernels()) {
    for (const bool whole : {true, false}) {
      const int width = whole ? kernels->columns : kernels->columns / 2;
      const int most = whole ? kernels->rows : kernels->half_rows;
      for (int rows = 1; rows <= most; ++rows) {
        for (const int k : {0, 1, 2, 13}) {
          constexpr int kStride = 17;
          const std::vector<float> a = numbers(rows * kStride, 1);
          alignas(64) float b[13 * kMostColumns], c[kMostRows * kMostColumns];
          const std::vector<float> factors = numbers(k * width, 2);
          std::copy(factors.begin(), factors.end(), b);
          const Tile tile_of = whole ? kernels->whole[rows] : kernels->half[rows];
          std::fill(std::begin(c), std::end(c), 100.0F);
          tile_of(k, a.data(), kStride, b, c, /*add=*/false);
          tile_of(k, a.data(), kStride, b, c, /*add=*/true);
          for (int i = 0; i < kMostRows; ++i) {
            for (int j = 0; j < width; ++j) {
              float expected = 0;
              for (int p = 0; i < rows && p < k; ++p) {
                expected += 2 * a[static_cast<std::size_t>(i * kStride + p)] * b[p * width + j];
              }
              if (i >= rows) expected = 100;
              ASSERT_EQ(c[i * width + j], expected)
                  << kernels->name << ", " << rows << " rows, width " << width << ", k " << k;
            }
          }
        }
      }
    }
  }
}

TEST(Simd, ABlockMeetsTheColumnsOfPanels) {
  constexpr int kStride = 700;
  const std::vector<float> a = numbers(kBlockRows * kStride, 3);
  for (const Kernels* const kernels : all_kernels()) {
    for (const int k : {1, 255, 256, 384, 385, 700}) {
      for (const int columns : {1, 8, 9, 16, 33, 70}) {
        const Panels panels(*kernels, k, columns);
        const std::vector<float> b = numbers(std::int64_t{k} * columns, 4);
        std::vector<float> memory(static_cast<std::size_t>(panels.size()) + 16);
        auto* packed = reinterpret_cast<float*>(
            (reinterpret_cast<std::uintptr_t>(memory.data()) + 63) / 64 * 64);
        for (std::int64_t p = 0; p < panels.count(); ++p) {
          const int width = panels.width(p);
          copy<float>({b.data() + panels.first(p), columns}, k, panels.columns(p),
                      {packed + panels.offset(p), width}, width);
        }
        for (const int rows : {1, 7, kBlockRows}) {
          std::vector<float> c(static_cast<std::size_t>(rows * columns), 1.0F);
          multiply_panels<float>(*kernels, {a.data(), kStride}, rows, k, panels, packed, columns,
                                 {0.5F, true}, {c.data(), columns});
          for (int i = 0; i < rows; ++i) {
            for (int j = 0; j < columns; ++j) {
              float sum = 0;
              for (int p = 0; p < k; ++p) {
                sum += a[static_cast<std::size_t>(i * kStride + p)] *
                       b[static_cast<std::size_t>(p * columns + j)];
              }
              ASSERT_EQ(c[static_cast<std::size_t>(i * columns + j)], 1 + 0.5F * sum)
                  << kernels->name << ", " << rows << " x " << k << " x " << columns;
            }
          }
        }
      }
    }
  }
}

TEST(Simd, RoundsAsBf16Does) {
  const float infinity = std::numeric_limits<float>::infinity();
  const float values[kFloats] = {1.0F,     1.00390625F, 1.01171875F,   -3.1415927F,
                                 infinity, -infinity,   std::nanf(""), 3.4e38F};
  Bf16 rounded[kFloats];
  store(load(values), rounded);
  for (int i = 0; i < kFloats; ++i) EXPECT_EQ(rounded[i].bits, Bf16(values[i]).bits) << values[i];
  float widened[kFloats];
  store(load(rounded), widened);
  for (int i = 0; i < kFloats; ++i) {
    EXPECT_EQ(std::isnan(widened[i]), std::isnan(values[i]));
    EXPECT_EQ(std::bit_cast<std::uint32_t>(widened[i]) >> 16, rounded[i].bits);
  }
}

TEST(Simd, TransposesBlocksOfAnySize) {
  for (const int rows : {1, 7, 8, 19}) {
    for (const int columns : {1, 8, 13}) {
      const std::vector<float> from = numbers(rows * columns, 5);
      const int width = rows + 3;
      std::vector<float> to(static_cast<std::size_t>(columns * width), 9.0F);
      copy_transposed<float>({from.data(), columns}, rows, columns, {to.data(), width}, width);
      for (int j = 0; j < columns; ++j) {
        for (int i = 0; i < width; ++i) {
          const float expected = i < rows ? from[static_cast<std::size_t>(i * columns + j)] : 0;
          EXPECT_EQ(to[static_cast<std::size_t>(j * width + i)], expected);
        }
      }
    }
  }
}

}  // namespace
}  // namespace konclave::simd
