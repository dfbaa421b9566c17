#pragma once

#include "ops/exp_polynomial.hpp"
#include "tensor/kokkos.hpp"

#include <cstdint>

namespace konclave {

/// exp as a polynomial, within 1.4 ulp: no library call, so that loops vectorise without
/// -ffast-math. Gives 0 below -87 and infinity above 88.37 (infinities included); NaN stays NaN.
KOKKOS_INLINE_FUNCTION float fast_exp(float x) {
  float result;
  exp_polynomial<std::uint32_t, std::int32_t>(x, result);
  return result;
}

KOKKOS_INLINE_FUNCTION double fast_exp(double x) { return math::exp(x); }

/// Natural logarithm of a positive normal number, within 3e-7 relative or 3e-8 absolute, and as
/// free of calls. Of 0 it is some finite number, so that p log p is 0 there; of others anything.
KOKKOS_INLINE_FUNCTION float fast_log(float x) {
  constexpr std::uint32_t kTwoThirds = 0x3f2aaaabU;
  const std::uint32_t above = __builtin_bit_cast(std::uint32_t, x) - kTwoThirds;
  const auto exponent = static_cast<float>(static_cast<std::int32_t>(above) >> 23);
  const auto m = __builtin_bit_cast(float, (above & 0x7fffffU) + kTwoThirds);  // 2/3 .. 4/3
  // log(m) = 2 artanh(r) with |r| <= 1/5, by its power series.
  const float r = (m - 1) / (m + 1), square = r * r;
  float series = square * (2.0F / 11) + 2.0F / 9;
  series = series * square + 2.0F / 7;
  series = series * square + 2.0F / 5;
  series = series * square + 2.0F / 3;
  return exponent * 0.69314718F + (r * square * series + 2 * r);
}

KOKKOS_INLINE_FUNCTION double fast_log(double x) { return x > 0 ? math::log(x) : -1e3; }

}  // namespace konclave
