#pragma once

#include "tensor/view.hpp"

namespace konclave::ops {

/// Adam with decoupled weight decay (Loshchilov and Hutter 2019), step t = 1, 2, ...:
///   g' = clip g,  m = b1 m + (1-b1) g',  v = b2 v + (1-b2) g'^2
///   w = w - lr (weight_decay w + (m / (1-b1^t)) / (sqrt(v / (1-b2^t)) + eps))
struct AdamW {
  double lr, beta1, beta2, eps, weight_decay, clip;
  std::int64_t step;
};

/// How moments are rounded that are kept in bf16: up or down by chance, so that the expected value
/// is the exact one. To the nearest, a second moment would never fall: with beta2 = 0.999 it
/// shrinks by less than half a unit of bf16. The chance of an element follows from `key` and its
/// number in the whole tensor: elements i = 0, 1, ... of the arguments have the numbers first + i /
/// run * stride + i mod run  with i counted from `skipped` on.
struct ChanceRounding {
  std::uint64_t key = 0;
  std::int64_t first = 0, run = 1, stride = 1, skipped = 0;
};

/// Shapes: all of one size. g and master have the accumulation type, m and v too, or both are bf16
/// (with fp32 master); value = master rounded to its own type, and is the same memory as master
/// where the types are equal. Runs on `exec`; neither allocates nor fences.
void adamw(const ExecSpace& exec, const AdamW& rule, const AnyIn& g, const AnyView& master,
           const AnyView& m, const AnyView& v, const AnyView& value,
           const ChanceRounding& rounding = {});

/// partial(i) = sum of x^2 over the i-th block of kSquaresBlock elements, in double. The caller
/// adds the blocks in order, so that the sum is the same for every number of threads.
inline constexpr std::int64_t kSquaresBlock = 16384;
constexpr std::int64_t squares_blocks(std::int64_t size) {
  return (size + kSquaresBlock - 1) / kSquaresBlock;
}
void sum_squares(const ExecSpace& exec, const AnyIn& x, const View1<double>& partial);

}  // namespace konclave::ops
