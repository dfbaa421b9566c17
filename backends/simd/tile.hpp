#pragma once

#include <cstdint>

/// The innermost loop of all products. Included by files that are compiled for different CPUs, so
/// everything here has internal linkage, and nothing of the standard library is called: a linker
/// that keeps one copy of an inline function must not find one that the CPU at hand cannot run.
namespace konclave::simd {
namespace {

/// Vectors of floats; they may alias the floats that they are made of.
template <int kWidth> struct VectorOf;
template <> struct VectorOf<8> { using type = float __attribute__((vector_size(32), may_alias)); };
template <> struct VectorOf<16> { using type = float __attribute__((vector_size(64), may_alias)); };

/// c[i,j] = (add ? c[i,j] : 0) + sum over p of a[i,p] b[p,j].
///
/// Shapes  a (kRows, k) with row stride `stride`   b (k, kVectors*kWidth)   c (kRows,
/// kVectors*kWidth), both contiguous and aligned to 64 bytes. All of c is held in registers.
template <int kWidth, int kVectors, int kRows>
void tile(std::int64_t k, const float* a, std::int64_t stride, const float* b, float* c, bool add) {
  using Vector = typename VectorOf<kWidth>::type;
  constexpr int kColumns = kVectors * kWidth;
  Vector sums[kRows][kVectors];
  for (auto& row : sums) {
    for (Vector& sum : row) sum = Vector{};
  }
  const float* rows[kRows];
  for (int i = 0; i < kRows; ++i) rows[i] = a + i * stride;
#pragma GCC unroll 2
  for (std::int64_t p = 0; p < k; ++p) {
    const auto* const factors = reinterpret_cast<const Vector*>(b + p * kColumns);
#pragma GCC unroll 16
    for (int i = 0; i < kRows; ++i) {
      const float factor = rows[i][p];
#pragma GCC unroll 2
      for (int j = 0; j < kVectors; ++j) sums[i][j] += factor * factors[j];
    }
  }
  auto* out = reinterpret_cast<Vector*>(c);
  for (int i = 0; i < kRows; ++i) {
    for (int j = 0; j < kVectors; ++j, ++out) *out = add ? *out + sums[i][j] : sums[i][j];
  }
}

}  // namespace
}  // namespace konclave::simd
