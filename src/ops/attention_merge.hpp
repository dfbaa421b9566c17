#pragma once

#include "tensor/view.hpp"

namespace konclave::ops {

/// Joins attention of queries over some keys with that over other keys: in place,
///   lse' = log(exp(lse) + exp(part_lse))
///   o'   = exp(lse - lse') o + exp(part_lse - lse') part_o
/// for each head. A log-sum-exp of -infinity, with an o of 0, is that of a query that saw no key;
/// with two of them it stays so.
///
/// Shapes  part_o, o (T, heads*D)   part_lse, lse (T, heads); all but part_o in the accumulation
/// type. Runs on `exec`; neither allocates nor fences. T may be 0.
void merge_attention(const ExecSpace& exec, const AnyIn& part_o, const AnyIn& part_lse,
                     const AnyView& o, const AnyView& lse);

}  // namespace konclave::ops
