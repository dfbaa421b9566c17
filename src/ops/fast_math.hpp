#pragma once

#include "tensor/kokkos.hpp"

#include <bit>
#include <cstdint>

namespace konclave {

/// exp as a polynomial, within 1.4 ulp: no library call, so that loops vectorise without
/// -ffast-math. Gives 0 below -87 and infinity above 88.37 (infinities included); NaN stays NaN.
/// All choices are made on integers: comparisons that select floats stop g++ from vectorising.
KOKKOS_INLINE_FUNCTION float fast_exp(float x) {
  constexpr float kRound = 12582912.0F;  // 1.5 * 2^23: adding it rounds to an integer
  const float scaled = x * 1.44269504F;
  const float shifted = scaled + kRound, whole = shifted - kRound;
  const float r = (x - whole * 0.693359375F) + whole * 2.12194440e-4F;
  float p = 1.9875691e-4F;
  p = p * r + 1.3981999e-3F;
  p = p * r + 8.3334519e-3F;
  p = p * r + 4.1665795e-2F;
  p = p * r + 1.6666665e-1F;
  p = p * r + 5.0000001e-1F;
  p = p * r * r + r + 1.0F;
  auto exponent =
      static_cast<std::int32_t>(std::bit_cast<std::uint32_t>(shifted) - std::uint32_t{0x4b400000});
  exponent = exponent < -126 ? -126 : exponent;
  exponent = exponent > 127 ? 127 : exponent;
  const float power = std::bit_cast<float>(static_cast<std::uint32_t>(exponent + 127) << 23);
  const std::uint32_t positive = x < -87.0F ? 0U : ~0U, finite = x > 88.37F ? 0U : ~0U;
  const std::uint32_t infinity = 0x7f800000U;
  const std::uint32_t bits = std::bit_cast<std::uint32_t>(p * power) & positive & finite;
  return std::bit_cast<float>(bits | (infinity & ~finite));
}

KOKKOS_INLINE_FUNCTION double fast_exp(double x) { return math::exp(x); }

}  // namespace konclave
