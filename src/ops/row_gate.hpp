#pragma once

#include "tensor/view.hpp"

/// A gate on rows: each is weighted by a sigmoid of another row's product with a vector. All run on
/// `exec`; none allocates or fences. T may be 0.
namespace konclave::ops {

/// g[t] = 1 / (1 + exp(-sum over h of x[t,h] w[h])),   y[t,h] += g[t] s[t,h]
/// Shapes  x, s, y (T,H) of one type   w (H), g (T) in its accumulation type.
void row_gate_forward(const ExecSpace& exec, const AnyIn& x, const AnyIn& w, const AnyIn& s,
                      const AnyView& g, const AnyView& y);

/// Of dy, what goes to s, and to the product under the sigmoid:
///   ds[t,h] = g[t] dy[t,h],   dz[t] = g[t] (1 - g[t]) sum over h of dy[t,h] s[t,h]
/// ds may be s.   Shapes  dy, s, ds (T,H)   g, dz (T).
void row_gate_backward(const ExecSpace& exec, const AnyIn& dy, const AnyIn& s, const AnyIn& g,
                       const AnyView& ds, const AnyView& dz);

/// From there on:  dx[t,h] += dz[t] w[h],   dw[h] += sum over t of dz[t] x[t,h], in the order of t.
/// Shapes  x, dx (T,H)   dz (T)   w, dw (H).
void row_product_backward(const ExecSpace& exec, const AnyIn& dz, const AnyIn& x, const AnyIn& w,
                          const AnyView& dw, const AnyView& dx);

}  // namespace konclave::ops
