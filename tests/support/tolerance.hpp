#pragma once

#include "base/dtype.hpp"

namespace konclave {

/// How far two ways to compute the same may differ, both relative to what is expected.
struct Tolerance {
  double norm;     ///< |a - b| / |b| in the 2-norm
  double element;  ///< largest |a - b| over the largest |b|
};

/// For results of `type` whose sums were taken in the accumulation type, in another order.
///   bf16  a sum between two numbers may be rounded to either: up to 2^-7 of it, even if alone
///   fp32  some hundred terms: a few times the 6e-8 of one rounding
///   fp64  likewise
constexpr Tolerance tolerance(DType type) {
  switch (type) {
    case DType::bf16:
      return {8e-3, 8e-3};
    case DType::fp32:
      return {2e-6, 1e-5};
    case DType::fp64:
      return {2e-14, 1e-13};
  }
  return {0, 0};
}

/// Central differences of a smooth function in double with a step of 1e-5.
inline constexpr Tolerance kDifferenceTolerance{1e-8, 1e-8};

}  // namespace konclave
