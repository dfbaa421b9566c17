#pragma once

#include "tensor/view.hpp"

/// Elementwise operations on views of any rank and type. All run on `exec`; none allocates, and
/// only all_finite, which has an answer for the host, fences.
namespace konclave::ops {

/// y = a + b, rounded once. Same shapes and types, or b of the accumulation type; y may be a or b.
void add(const ExecSpace& exec, const AnyIn& a, const AnyIn& b, const AnyView& y);

/// y = x in y's type.
void cast(const ExecSpace& exec, const AnyIn& x, const AnyView& y);

/// y = 0.
void fill_zero(const ExecSpace& exec, const AnyView& y);

/// y[t,h] += b[h].   Shapes y (T,H), b (H) of the same type.
void add_bias(const ExecSpace& exec, const AnyIn& b, const AnyView& y);

/// sum[h] += x[0,h] + x[1,h] + ..., rows added in this order: a bias's gradient, and sums over
/// ranks that have the same bits in every run.   Shapes x (T,H), sum (H) in the accumulation type.
void accumulate_rows(const ExecSpace& exec, const AnyIn& x, const AnyView& sum);

/// Whether x has neither NaN nor infinity. Waits for `exec`.
bool all_finite(const ExecSpace& exec, const AnyIn& x);

}  // namespace konclave::ops
