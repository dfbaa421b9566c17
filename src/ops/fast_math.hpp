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

}  // namespace konclave
