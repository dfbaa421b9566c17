#pragma once

#include <cstdint>

/// Vectors of 64 bytes in the compiler's own terms (GCC's and clang's vector extensions): one
/// register where files are compiled for AVX-512, several elsewhere. Included by files that are
/// compiled for different CPUs, so everything has internal linkage, and nothing of the standard
/// library is called: a linker that keeps one copy of an inline function must not find one that
/// the CPU at hand cannot run. Vectors go by reference, as their way by value depends on the CPU.
namespace konclave::tiles {

using Floats = float __attribute__((vector_size(64)));
using Words = std::uint32_t __attribute__((vector_size(64)));
using Halves = std::uint16_t __attribute__((vector_size(64)));
using HalfOfHalves = std::uint16_t __attribute__((vector_size(32)));

namespace {

template <typename Vector> void load(const void* from, Vector& values) {
  __builtin_memcpy(&values, from, sizeof(Vector));
}
template <typename Vector> void store(const Vector& values, void* to) {
  __builtin_memcpy(to, &values, sizeof(Vector));
}

/// 16 numbers of bf16 as fp32.
inline void widen(const std::uint16_t* from, Floats& values) {
  HalfOfHalves halves;
  load(from, halves);
  const Words words = __builtin_convertvector(halves, Words) << 16;
  __builtin_memcpy(&values, &words, sizeof values);
}

/// first[0], second[0], first[1], second[1], ...: columns 0-15 in `low`, 16-31 in `high`.
inline void interleave(const Halves& first, const Halves& second, Halves& low, Halves& high) {
  low = __builtin_shufflevector(first, second, 0, 32, 1, 33, 2, 34, 3, 35, 4, 36, 5, 37, 6, 38, 7,
                                39, 8, 40, 9, 41, 10, 42, 11, 43, 12, 44, 13, 45, 14, 46, 15, 47);
  high = __builtin_shufflevector(first, second, 16, 48, 17, 49, 18, 50, 19, 51, 20, 52, 21, 53, 22,
                                 54, 23, 55, 24, 56, 25, 57, 26, 58, 27, 59, 28, 60, 29, 61, 30, 62,
                                 31, 63);
}

/// rows[i][j] becomes rows[j][i]: pairs, fours, and so on change places.
inline void transpose(Words (&rows)[16]) {
  Words s[16];
#pragma GCC unroll 8
  for (int i = 0; i < 16; i += 2) {
    const Words a = rows[i], b = rows[i + 1];
    s[i] = __builtin_shufflevector(a, b, 0, 16, 1, 17, 4, 20, 5, 21, 8, 24, 9, 25, 12, 28, 13, 29);
    s[i + 1] =
        __builtin_shufflevector(a, b, 2, 18, 3, 19, 6, 22, 7, 23, 10, 26, 11, 27, 14, 30, 15, 31);
  }
#pragma GCC unroll 4
  for (int i = 0; i < 16; i += 4) {
#pragma GCC unroll 2
    for (int j = 0; j < 2; ++j) {
      const Words a = s[i + j], b = s[i + 2 + j];
      rows[i + 2 * j] =
          __builtin_shufflevector(a, b, 0, 1, 16, 17, 4, 5, 20, 21, 8, 9, 24, 25, 12, 13, 28, 29);
      rows[i + 2 * j + 1] =
          __builtin_shufflevector(a, b, 2, 3, 18, 19, 6, 7, 22, 23, 10, 11, 26, 27, 14, 15, 30, 31);
    }
  }
#pragma GCC unroll 2
  for (int h = 0; h < 16; h += 8) {
#pragma GCC unroll 4
    for (int q = 0; q < 4; ++q) {
      const Words a = rows[h + q], b = rows[h + 4 + q];
      s[h + q] =
          __builtin_shufflevector(a, b, 0, 1, 2, 3, 8, 9, 10, 11, 16, 17, 18, 19, 24, 25, 26, 27);
      s[h + 4 + q] =
          __builtin_shufflevector(a, b, 4, 5, 6, 7, 12, 13, 14, 15, 20, 21, 22, 23, 28, 29, 30, 31);
    }
  }
#pragma GCC unroll 8
  for (int q = 0; q < 8; ++q) {
    const Words a = s[q], b = s[q + 8];
    rows[q] =
        __builtin_shufflevector(a, b, 0, 1, 2, 3, 8, 9, 10, 11, 16, 17, 18, 19, 24, 25, 26, 27);
    rows[q + 8] =
        __builtin_shufflevector(a, b, 4, 5, 6, 7, 12, 13, 14, 15, 20, 21, 22, 23, 28, 29, 30, 31);
  }
}

}  // namespace
}  // namespace konclave::tiles
