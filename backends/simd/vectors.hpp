#pragma once

#include "base/dtype.hpp"

#include <cstdint>
#include <cstring>

#ifdef __AVX__
#include <immintrin.h>
#endif

/// Vectors of 8 floats in the compiler's own terms (GCC's and clang's vector extensions): the
/// machine's registers where it has such, pairs of them elsewhere.
namespace konclave::simd {

using Floats = float __attribute__((vector_size(32)));
using Words = std::uint32_t __attribute__((vector_size(32)));
using Halves = std::uint16_t __attribute__((vector_size(16)));

inline constexpr int kFloats = 8;

inline Floats load(const float* from) {
  Floats values;
  std::memcpy(&values, from, sizeof values);
  return values;
}
inline Floats load(const Bf16* from) {
  Halves halves;
  std::memcpy(&halves, from, sizeof halves);
  const Words words = __builtin_convertvector(halves, Words) << 16;
  return reinterpret_cast<Floats>(words);
}

inline void store(Floats values, float* to) { std::memcpy(to, &values, sizeof values); }
/// Rounded as Bf16 rounds.
inline void store(Floats values, Bf16* to) {
  const auto words = reinterpret_cast<Words>(values);
  const Words rounded = (words + 0x7fffU + ((words >> 16) & 1U)) >> 16;
  const Words quiet = (words >> 16) | 0x40U;
  const auto is_nan = reinterpret_cast<Words>(values != values);
  const auto halves = __builtin_convertvector((rounded & ~is_nan) | (quiet & is_nan), Halves);
  std::memcpy(to, &halves, sizeof halves);
}

/// Past the caches where the machine can: for what is not read soon. `to` is aligned to 32 bytes.
inline void stream(Floats values, float* to) {
#ifdef __AVX__
  _mm256_stream_ps(to, values);
#else
  store(values, to);
#endif
}
inline void stream(Floats values, Bf16* to) { store(values, to); }

/// rows[i][j] becomes rows[j][i].
inline void transpose(Floats (&rows)[kFloats]) {
  Floats pairs[kFloats];
  for (int i = 0; i < kFloats; i += 2) {
    const Floats a = rows[i], b = rows[i + 1];
    pairs[i] = __builtin_shufflevector(a, b, 0, 8, 2, 10, 4, 12, 6, 14);
    pairs[i + 1] = __builtin_shufflevector(a, b, 1, 9, 3, 11, 5, 13, 7, 15);
  }
  Floats quads[kFloats];
  for (int i = 0; i < kFloats; i += 4) {
    for (int j = 0; j < 2; ++j) {
      const Floats a = pairs[i + j], b = pairs[i + 2 + j];
      quads[i + j] = __builtin_shufflevector(a, b, 0, 1, 8, 9, 4, 5, 12, 13);
      quads[i + 2 + j] = __builtin_shufflevector(a, b, 2, 3, 10, 11, 6, 7, 14, 15);
    }
  }
  for (int j = 0; j < 4; ++j) {
    const Floats a = quads[j], b = quads[j + 4];
    rows[j] = __builtin_shufflevector(a, b, 0, 1, 2, 3, 8, 9, 10, 11);
    rows[j + 4] = __builtin_shufflevector(a, b, 4, 5, 6, 7, 12, 13, 14, 15);
  }
}

}  // namespace konclave::simd
