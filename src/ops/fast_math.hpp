#pragma once

#include "tensor/kokkos.hpp"

#include <bit>
#include <cstdint>

namespace konclave {

/// exp as a polynomial, about 2 ulp: no library call, so that loops vectorise without -ffast-math.
/// Gives 0 below -87 (-inf included); meant for x <= 88, beyond which the value is wrong; NaN stays
/// NaN. The exponent is clamped as an integer: clamping x as a float stops g++ from vectorising.
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
  std::int32_t exponent = static_cast<std::int32_t>(std::bit_cast<std::uint32_t>(shifted)) -
                          static_cast<std::int32_t>(0x4b400000);
  exponent = exponent < -126 ? -126 : exponent;
  exponent = exponent > 127 ? 127 : exponent;
  const float power = std::bit_cast<float>(static_cast<std::uint32_t>(exponent + 127) << 23);
  return x < -87.0F ? 0.0F : p * power;
}

KOKKOS_INLINE_FUNCTION double fast_exp(double x) { return math::exp(x); }

}  // namespace konclave
