#pragma once

#include <cstdint>

namespace konclave::simd {

/// See tile.hpp; the number of rows and columns is part of the function.
using Tile = void (*)(std::int64_t k, const float* a, std::int64_t stride, const float* b, float* c,
                      bool add);

/// The most rows of a tile, and columns of a panel, of any kernel.
inline constexpr int kMostRows = 12, kMostColumns = 32;

/// The tiles for one kind of CPU. Panels, which hold the right factor of a product, are `columns`
/// wide, or half of that.
struct Kernels {
  int columns;          ///< of a panel
  int rows, half_rows;  ///< the most of a tile, for a panel and for one of half the width
  Tile whole[kMostRows + 1], half[kMostRows + 1];  ///< by rows; [0] is not used
  const char* name;
};

/// For any CPU; its vectors have 8 floats.
const Kernels& generic_kernels();
/// For CPUs with AVX-512, where this build has them.
const Kernels* avx512_kernels();
/// The best for the CPU at hand.
const Kernels& kernels();

/// Whether the CPU at hand multiplies bf16 as it is, which tiles of floats do not.
bool cpu_multiplies_bf16();

}  // namespace konclave::simd
