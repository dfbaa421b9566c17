#pragma once

#include "tensor/view.hpp"

namespace konclave::ops {

/// y[t,f] = p[t] silu(g[t,f]) u[t,f],   silu(x) = x / (1 + exp(-x))
///
/// Shapes  g, u, y (T,F) of one type   p (T) in its accumulation type; an empty p stands for 1.
/// Runs on `exec`; neither allocates nor fences. T may be 0; y may be g or u.
void swiglu_forward(const ExecSpace& exec, const AnyIn& g, const AnyIn& u, const AnyIn& p,
                    const AnyView& y);

/// Gradients of swiglu_forward for the upstream gradient dy, and y once more (what the next
/// product's weight gradient needs and nobody kept):
///   dg = p dy u silu'(g),  du = p dy silu(g),  dp[t] = sum over f of dy silu(g) u
///
/// Everything overwritten; dp is left alone when p is empty. dg may be g, du may be u, y may be dy.
void swiglu_backward(const ExecSpace& exec, const AnyIn& g, const AnyIn& u, const AnyIn& p,
                     const AnyIn& dy, const AnyView& y, const AnyView& dg, const AnyView& du,
                     const AnyView& dp);

}  // namespace konclave::ops
