#pragma once

#include "tensor/view.hpp"

namespace konclave::ops {

/// Rotates pairs (i, i + D/2) of each head by the angle of the row's position:
///   x'[i] = x[i] cos - x[i+D/2] sin,   x'[i+D/2] = x[i+D/2] cos + x[i] sin
/// with cos, sin of row positions(t) of the tables. `inverse` turns back: the gradient.
///
/// Shapes  x (T, heads*D), in place   cosine, sine (P, D/2) in the accumulation type.
/// Runs on `exec`; neither allocates nor fences. Positions must be below P.
void rotate(const ExecSpace& exec, const View1<const int>& positions, const AnyIn& cosine,
            const AnyIn& sine, int heads, bool inverse, const AnyView& x);

}  // namespace konclave::ops
